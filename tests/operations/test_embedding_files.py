"""Embeddings as files: made without a warehouse, once for the same inputs, and loaded as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch, embed_into_file
from accelkd.operations.promote import fill_tables, roll_back
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.withdraw import withdraw
from accelkd.registry.history import decide
from accelkd.segments.store import write_segments
from accelkd.warehouse.embedding_files import describe_embeddings
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.staging import staging
from tests.support.homes import checkpoint, land, land_two_batches, loaded_checkpoint

TEACHER, STUDENT = "ppg_teacher", "accel_student"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land_two_batches(home)
    return home


def promoted(home: Home, *, seed: int = 0) -> dict[str, str]:
    teacher = loaded_checkpoint(home, TEACHER, ["b1", "b2"], seed=seed)
    student = loaded_checkpoint(home, STUDENT, ["b1", "b2"], seed=seed, teacher=teacher)
    decide(home, "promoted", {TEACHER: teacher, STUDENT: student}, "test")
    return {TEACHER: teacher, STUDENT: student}


def identity(path: Path) -> tuple[int, int]:
    """Of a file that has not been replaced."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_a_file_needs_no_warehouse(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    model_id = checkpoint(home, TEACHER)
    decide(home, "promoted", {TEACHER: model_id}, "test")
    made = embed_into_file(home, TEACHER, "b1", device="cpu")
    assert (made.rows, made.model_id, made.projected_by) == (3, model_id, None)
    assert not home.staging.exists()
    with pytest.raises(LookupError, match="'b1' is not in the warehouse"):
        embed_batch(home, TEACHER, "b1", device="cpu")


def test_the_table_holds_what_the_file_holds(home: Home) -> None:
    models = promoted(home)
    fill_tables(home)
    for encoder, model_id in models.items():
        file = pq.read_table(home.embeddings(encoder, model_id, "b1")).replace_schema_metadata()
        with staging(home) as connection:
            query = f"FROM embeddings.{encoder} WHERE batch_id = 'b1' ORDER BY segment_id"
            loaded = connection.sql(query).to_arrow_table()
        assert loaded.to_pylist() == file.sort_by("segment_id").select(loaded.column_names).to_pylist()
        assert loaded.num_rows == 24
        assert set(loaded.column("projected_by").to_pylist()) == {models[STUDENT]}


def test_equal_inputs_are_embedded_once_and_changed_ones_again(home: Home) -> None:
    models = promoted(home)
    first = embed_into_file(home, STUDENT, "b1", device="cpu")
    path = home.embeddings(STUDENT, models[STUDENT], "b1")
    before = identity(path)
    assert embed_into_file(home, STUDENT, "b1", device="cpu") == first
    assert embed_batch(home, STUDENT, "b1", device="cpu").content_version == first.content_version
    assert identity(path) == before

    with pa.ipc.open_file(str(home.segments("b1"))) as store:
        half = store.get_batch(0).slice(12)
    write_segments(home.segments("b1"), [half])
    again = embed_into_file(home, STUDENT, "b1", device="cpu")
    assert again.inputs["segments"] != first.inputs["segments"]
    assert (first.rows, again.rows) == (24, 12)
    assert describe_embeddings(home, STUDENT, models[STUDENT], "b1") == again


def test_a_damaged_file_is_not_loaded_but_made_again(home: Home) -> None:
    models = promoted(home)
    first = embed_into_file(home, STUDENT, "b1", device="cpu")
    path = home.embeddings(STUDENT, models[STUDENT], "b1")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="is damaged"):
        describe_embeddings(home, STUDENT, models[STUDENT], "b1")
    assert embed_batch(home, STUDENT, "b1", device="cpu").content_version == first.content_version
    assert describe_embeddings(home, STUDENT, models[STUDENT], "b1") == first


def test_what_an_encoder_cannot_take_leaves_a_file_that_says_why(home: Home) -> None:
    land(home, "b3", ["r1"], ppg_channels=0)
    load_batch(home, "b3")
    models = promoted(home)
    reason = "its segments have 0 ppg channels, the encoder takes 2"
    assert embed_into_file(home, TEACHER, "b3", device="cpu").reason == reason
    assert pq.read_table(home.embeddings(TEACHER, models[TEACHER], "b3")).num_rows == 0
    assert embed_batch(home, TEACHER, "b3", device="cpu").status == reason


def test_files_of_models_that_nobody_goes_back_to_are_removed(home: Home) -> None:
    pairs = []
    for seed in range(3):
        pairs.append(promoted(home, seed=seed))
        fill_tables(home)
    kept = {folder.name for folder in (home.root / "embeddings" / STUDENT).iterdir()}
    assert kept == {pair[STUDENT] for pair in pairs[1:]}
    before = identity(home.embeddings(STUDENT, pairs[1][STUDENT], "b1"))
    roll_back(home, "test")
    assert identity(home.embeddings(STUDENT, pairs[1][STUDENT], "b1")) == before


def test_a_rebuilt_warehouse_takes_the_embeddings_from_their_files(home: Home) -> None:
    models = promoted(home)
    fill_tables(home)
    before = identity(home.embeddings(TEACHER, models[TEACHER], "b1"))
    home.staging.unlink()
    rebuild_warehouse(home)
    assert identity(home.embeddings(TEACHER, models[TEACHER], "b1")) == before
    with staging(home) as connection:
        assert connection.execute("SELECT count(*) FROM embeddings.ppg_teacher").fetchall() == [(36,)]


def test_withdrawal_leaves_no_embedding_of_the_participant(home: Home) -> None:
    models = promoted(home)
    fill_tables(home)
    assert withdraw(home, "p1").finished
    assert not home.embeddings(STUDENT, models[STUDENT], "b1").exists()
    assert home.embeddings(STUDENT, models[STUDENT], "b2").exists()
    assert embed_into_file(home, STUDENT, "b1", device="cpu").reason == "the batch has no segments"  # of noise


def test_loading_a_file_that_is_there_imports_no_torch(home: Home) -> None:
    promoted(home)
    embed_into_file(home, STUDENT, "b1", device="cpu")
    code = (
        "import sys; from accelkd.home.layout import Home; from accelkd.operations.embed import embed_batch; "
        "from pathlib import Path; "
        f"print(embed_batch(Home(Path({str(home.root)!r})), {STUDENT!r}, 'b1').rows, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["24", "False"]
