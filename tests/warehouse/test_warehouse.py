"""The warehouse on a real DuckDB file: idempotent loading, one model per table, publishing under open readers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from accelkd.cohort.split import extend_split
from accelkd.home.columns import Column, Table
from accelkd.home.files import DamagedFileError, write_checksum
from accelkd.home.layout import Home
from accelkd.home.version import UnusableHomeError
from accelkd.registry.history import decide, promoted_version
from accelkd.registry.trained_on import forget_trained_on, write_trained_on
from accelkd.segments.schema import metadata_schema
from accelkd.segments.store import SegmentStore
from accelkd.warehouse import staging as staging_module
from accelkd.warehouse.embedding_files import embedding_rows
from accelkd.warehouse.embeddings import embedding_table, load_embeddings, not_embedded
from accelkd.warehouse.load import load_batch, load_model, load_split
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.publish import publish
from accelkd.warehouse.schema import QUARANTINED, SEGMENTS, SUPERSEDED_BATCHES, TABLES, VIEWS
from accelkd.warehouse.staging import staging
from tests.support.homes import checkpoint, land, loaded_checkpoint, plant_embeddings, segment_keys


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land(home, "b1", ["p1", "p2", "p3"])
    land(home, "b2", ["p3", "p4"])
    return home


def query(home: Home, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(home.published), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def embed(home: Home, model_id: str, batch_id: str, *, encoder: str = "ppg_teacher") -> str:
    """Load noise as the embeddings of a batch; returns where they are now."""
    (place,) = plant_embeddings(home, encoder, model_id, [batch_id])
    return place


def with_model(
    home: Home, batch_ids: Sequence[str] = ("b1", "b2"), *, seed: int = 0, encoder: str = "ppg_teacher"
) -> str:
    return loaded_checkpoint(home, encoder, batch_ids, seed=seed)


def test_a_batch_loads_once_however_often_it_is_loaded(home: Home) -> None:
    loaded = load_batch(home, "b1")
    assert (loaded.participants, loaded.segments, loaded.quarantined) == (3, 9, 1)
    first = publish(home)
    assert load_batch(home, "b1") == loaded
    again = publish(home)
    assert again.rows == first.rows
    assert again.content_version == first.content_version
    load_batch(home, "b2")
    both = publish(home)
    assert both.rows["segments"] == 15
    assert both.content_version != first.content_version
    assert query(home, "SELECT batch_id, segments, quarantined FROM batches ORDER BY 1") == [("b1", 9, 1), ("b2", 6, 1)]
    assert query(home, "FROM quarantine WHERE batch_id = 'b1'") == [("b1", "window", "motion", 1, 1)]


def test_loading_order_does_not_show(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    land(other, "b1", ["p1", "p2", "p3"])
    land(other, "b2", ["p3", "p4"])
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    for batch_id in ("b2", "b1"):
        load_batch(other, batch_id)
    assert publish(home).content_version == publish(other).content_version


def test_segments_hold_the_store_s_metadata(home: Home) -> None:
    load_batch(home, "b1")
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        loaded = connection.sql("FROM segments ORDER BY recording_id, offset_s").to_arrow_table()
    expected = SegmentStore([home.segments("b1")]).metadata.sort_by(
        [("recording_id", "ascending"), ("offset_s", "ascending")]
    )
    assert loaded.column_names == SEGMENTS.names == [*metadata_schema().names, "ppg_status", "accel_status"]
    assert loaded.select(expected.column_names).to_pylist() == expected.to_pylist()


def test_a_participant_of_two_batches_is_one_row_with_the_split(home: Home) -> None:
    load_batch(home, "b1")
    load_batch(home, "b2")
    with staging(home) as connection:
        connection.execute("UPDATE demographics SET age_years = NULL, sex = 'male' WHERE batch_id = 'b2'")
        connection.execute("UPDATE demographics SET age_years = 61, sex = 'female' WHERE batch_id = 'b1'")
    people = pa.table(
        {
            "participant_id": ["p1", "p2", "p3"],
            "sex": ["female"] * 3,
            "age_years": [61.0] * 3,
            "device_id": ["sim-wrist-64"] * 3,
            "batch_id": ["b1"] * 3,
        }
    )
    summary = extend_split(home.split, people)
    assert load_split(home) == load_split(home) == 3
    publish(home)
    assert query(home, "SELECT sex, age_years, first_batch_id FROM participants WHERE participant_id = 'p3'") == [
        ("male", 61.0, "b1")
    ]
    assert query(home, "SELECT split, count(*) FROM participants GROUP BY ALL ORDER BY 1 NULLS LAST") == [
        ("test", 1),
        ("train", 2),
        (None, 1),
    ]
    assert query(home, "SELECT version_now FROM lineage_of('split:ledger') WHERE depth = 0") == [
        (summary.split_version,)
    ]


def test_the_same_recording_in_two_batches_is_refused_by_name(home: Home) -> None:
    load_batch(home, "b1")
    land(home, "b3", ["p1"], prefix="b1")
    with pytest.raises(ValueError, match="b3: 1 of its recordings are also in batch b1"):
        load_batch(home, "b3")
    assert publish(home).rows["segments"] == 9


def test_a_failed_load_leaves_what_was_there(home: Home) -> None:
    load_batch(home, "b1")
    before = publish(home).content_version
    (home.batch("b1") / "participants.parquet").write_bytes(b"damaged")
    with pytest.raises(DamagedFileError, match=r"b1: participants\.parquet: sha256"):
        load_batch(home, "b1")
    assert publish(home).content_version == before


def test_a_new_model_is_swapped_in_when_it_covers_every_segment(home: Home) -> None:
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    old, new = with_model(home, seed=0), with_model(home, seed=1)
    assert embed(home, old, "b1") == "active"
    assert embedding_table(home, "ppg_teacher").missing == 6
    assert embed(home, old, "b2") == embed(home, old, "b2") == "active"
    state = embedding_table(home, "ppg_teacher")
    assert (state.rows, state.models, state.missing, state.orphans, state.duplicates) == (15, 1, 0, 0, 0)

    assert embed(home, new, "b2") == "staged"
    published = publish(home)
    assert "embeddings.ppg_teacher__next" not in published.rows
    assert query(home, "SELECT DISTINCT model_id FROM embeddings.ppg_teacher") == [(old,)]
    assert embed(home, new, "b1") == "swapped in"
    publish(home)
    assert query(home, "SELECT model_id, count(*) FROM embeddings.ppg_teacher GROUP BY ALL") == [(new, 15)]
    assert embed(home, new, "b1") == "active"

    assert embed(home, old, "b1") == "staged"  # back to the old one, the same way
    assert embed(home, old, "b2") == "swapped in"


def test_the_table_of_embeddings_is_looked_up_for_one_batch(home: Home) -> None:
    """Models and rows are those of the table; segments are looked up for the batch alone."""
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    model = with_model(home)
    embed(home, model, "b1")
    assert [embedding_table(home, "ppg_teacher", batch).missing for batch in ("b1", "b2")] == [0, 6]
    embed(home, model, "b2")
    with staging(home) as connection:
        connection.execute("DELETE FROM segments WHERE batch_id = 'b2' AND participant_id = 'p4'")
        connection.execute("UPDATE embeddings.ppg_teacher SET model_id = 'other' WHERE batch_id = 'b2'")
    first, second = (embedding_table(home, "ppg_teacher", batch) for batch in ("b1", "b2"))
    assert (first.rows, first.models, first.orphans) == (15, 2, 0)
    assert (second.rows, second.models, second.orphans) == (15, 2, 3)
    assert embedding_table(home, "ppg_teacher").orphans == 3
    with staging(home) as connection:
        connection.execute("UPDATE embeddings.ppg_teacher SET batch_id = 'gone' WHERE batch_id = 'b2'")
    assert embedding_table(home, "ppg_teacher", "b1").orphans == 6  # no check of a batch would look at them


def test_a_third_model_takes_over_the_staged_table(home: Home) -> None:
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    models = [with_model(home, seed=seed) for seed in range(3)]
    for batch_id in ("b1", "b2"):
        embed(home, models[0], batch_id)
    assert embed(home, models[1], "b1") == "staged"
    assert embed(home, models[2], "b2") == "staged"
    assert embed(home, models[2], "b1") == "swapped in"
    assert embedding_table(home, "ppg_teacher").models == 1


def test_segments_of_another_number_of_ppg_channels_do_not_hold_up_the_swap(home: Home) -> None:
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    old, new = with_model(home, seed=0), with_model(home, seed=1)
    with staging(home) as connection:
        connection.execute("UPDATE segments SET ppg_status = [0] WHERE batch_id = 'b2'")
    assert embed(home, old, "b1") == "active"
    assert embedding_table(home, "ppg_teacher").missing == 0
    assert embed(home, new, "b1") == "swapped in"


@pytest.mark.parametrize("name", ["a b", "x; DROP TABLE segments", "Teacher", "ppg_teacher__next", "", "é"])
def test_hostile_encoder_names_are_refused(home: Home, name: str) -> None:
    load_batch(home, "b1")
    with pytest.raises(ValueError, match="lower-case SQL name"):
        load_embeddings(home, name, embedding_rows(name, "m", "b1", ["s"], ["p"], np.ones((1, 2), np.float32)))


def test_embeddings_that_are_not_finite_or_not_known_are_refused(home: Home) -> None:
    load_batch(home, "b1")
    with pytest.raises(ValueError, match="NaN"):
        embedding_rows("ppg_teacher", "m", "b1", ["s"], ["p"], np.full((1, 2), np.nan, np.float32))
    rows = embedding_rows("ppg_teacher", "m", "b1", ["s"], ["p"], np.ones((1, 2), np.float32))
    with pytest.raises(LookupError, match="model 'ppg_teacher/m'"):
        load_embeddings(home, "ppg_teacher", rows)
    with pytest.raises(LookupError, match="holds nothing"):
        embedding_table(home, "ppg_teacher")


def test_every_table_and_column_is_commented(home: Home) -> None:
    load_batch(home, "b1")
    embed(home, with_model(home, ["b1"]), "b1")
    publish(home)
    for kind in ("tables", "views", "columns"):
        name = "column_name" if kind == "columns" else f"{kind[:-1]}_name"
        silent = query(home, f"SELECT {name} FROM duckdb_{kind}() WHERE NOT internal AND comment IS NULL")
        assert silent == []
    assert query(home, "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND comment IS NULL") == []


def test_macros_answer_the_common_questions(home: Home) -> None:
    load_batch(home, "b1")
    model_id = with_model(home, ["b1"])
    ids, _ = segment_keys(home, "b1")
    matrix = np.random.default_rng(3).standard_normal((9, 16)).astype(np.float32)
    plant_embeddings(home, "ppg_teacher", model_id, ["b1"], matrix)
    publish(home)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    order = [i for i in np.argsort(-(unit @ unit[4])) if i != 4][:3]
    rows = query(home, f"FROM similar_segments('ppg_teacher', '{ids[4]}', 3)")
    assert [row[0] for row in rows] == [ids[i] for i in order]
    assert [row[2] for row in rows] == pytest.approx([float(unit[i] @ unit[4]) for i in order], abs=1e-5)
    means = query(home, "FROM participant_embedding('ppg_teacher')")
    assert [(row[0], row[1]) for row in means] == [("p1", 3), ("p2", 3), ("p3", 3)]
    assert means[1][2] == pytest.approx(matrix[3:6].mean(axis=0).tolist(), abs=1e-6)


def test_lineage_leads_from_embeddings_to_raw_files(home: Home) -> None:
    load_batch(home, "b1")
    model_id = with_model(home, ["b1"])
    embed(home, model_id, "b1")
    with staging(home) as connection:
        artifact = f"embeddings:ppg_teacher/{model_id}/b1"
        rows = connection.execute("SELECT kind, path, version_used FROM lineage_of(?)", [artifact]).fetchall()
    by_path = {path: version for _, path, version in rows}
    assert {"embeddings", "model", "segments", "batch", "split", "file"} == {row[0] for row in rows}
    assert "landing/b1/recordings/part-00000.parquet" in by_path
    assert f"checkpoints/ppg_teacher/{model_id}/model.safetensors" in by_path
    assert by_path["segments/b1.arrow"] == known(home, "segments", "b1").version


def test_a_stale_artifact_shows_the_version_it_was_made_from(home: Home) -> None:
    old = Artifact("segments", "x", "v1")
    with staging(home) as connection:
        record(connection, old, [])
        record(connection, Artifact("report", "r", "1"), [old])
        record(connection, Artifact("segments", "x", "v2"), [])
        rows = connection.execute("SELECT version_used, version_now FROM lineage_of('report:r') WHERE depth = 1")
        assert rows.fetchall() == [("v1", "v2")]


def known(home: Home, kind: str, name: str) -> Artifact:
    with staging(home) as connection:
        return known_artifact(connection, kind, name)


READER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
for line in sys.stdin:
    if line.strip() == "reopen":
        connection.close()
        connection = duckdb.connect(sys.argv[1], read_only=True)
    (count,) = connection.execute("SELECT count(*) FROM segments JOIN participants USING (participant_id)").fetchone()
    print(count, flush=True)
"""


def test_an_open_reader_keeps_its_snapshot_and_the_next_sees_the_new(home: Home) -> None:
    load_batch(home, "b1")
    publish(home)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(home.published)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:

        def ask(line: str) -> int:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write(line + "\n")
            reader.stdin.flush()
            return int(reader.stdout.readline())

        assert ask("count") == 9
        load_batch(home, "b2")
        publish(home)
        assert ask("count") == 9
        assert ask("reopen") == 15
        assert reader.stdin is not None
        reader.stdin.close()
        assert reader.wait(timeout=30) == 0


def test_writers_wait_for_each_other(home: Home) -> None:
    order = []

    def load() -> None:
        load_batch(home, "b2")
        order.append("loaded")

    with staging(home) as connection:
        second = threading.Thread(target=load)
        second.start()
        second.join(timeout=0.3)
        assert second.is_alive()
        connection.execute("SELECT 1")
        order.append("first done")
    second.join(timeout=30)
    assert order == ["first done", "loaded"]


KILLED = """
import os, signal, sys
from pathlib import Path
from accelkd.home.layout import Home
from accelkd.warehouse import staging as staging_module
from accelkd.warehouse.staging import staging
with staging(Home(Path(sys.argv[1]))) as connection:
    connection.execute("DELETE FROM segments")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_what_was_there_and_frees_the_lock(home: Home) -> None:
    load_batch(home, "b1")
    before = publish(home).content_version
    assert subprocess.run([sys.executable, "-c", KILLED, str(home.root)], check=False).returncode == -signal.SIGKILL
    assert publish(home).content_version == before


def test_a_published_file_has_no_holes_and_lost_nothing_by_that(home: Home) -> None:
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    with staging(home) as connection:
        connection.execute("CREATE TABLE large AS SELECT i, hash(i) AS h FROM range(1000000) t(i)")
        connection.execute("CREATE TABLE last AS FROM range(300000)")
    before = publish(home)
    with staging(home) as connection:
        connection.execute("DROP TABLE large")
    kept = publish(home)
    assert home.published.stat().st_size < home.staging.stat().st_size / 2
    assert dict(kept.rows) == {name: rows for name, rows in before.rows.items() if name != "large"}
    with duckdb.connect(str(home.published), read_only=True) as connection:
        published = connection.execute(CATALOG).fetchall()
    with staging(home) as connection:
        assert connection.execute(CATALOG).fetchall() == published
        assert connection.execute("SELECT count(*) FROM duckdb_constraints()").fetchall()[0][0] > 10


def test_a_batch_that_an_encoder_has_not_embedded_is_held_back_whole(home: Home) -> None:
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    teacher, student = with_model(home), with_model(home, encoder="accel_student")
    for batch_id in ("b1", "b2"):
        embed(home, teacher, batch_id)
    embed(home, student, "b1", encoder="accel_student")
    held_back = publish(home)
    assert held_back.held_back == {"b2": "not embedded by accel_student yet"}
    for table in ("batches", "demographics", "segments", "embeddings.ppg_teacher", "embeddings.accel_student"):
        assert query(home, f"SELECT DISTINCT batch_id FROM {table}") == [("b1",)]
    embed(home, student, "b2", encoder="accel_student")
    whole = publish(home)
    assert whole.held_back == {}
    assert whole.rows["segments"] == 15


CATALOG = """
SELECT schema_name, table_name, comment FROM duckdb_tables()
UNION ALL SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal
UNION ALL SELECT view_name, sql, comment FROM duckdb_views() WHERE NOT internal
UNION ALL SELECT function_name, macro_definition, comment FROM duckdb_functions() WHERE NOT internal
UNION ALL SELECT table_name, constraint_text, NULL FROM duckdb_constraints()
ORDER BY ALL
"""


def test_survey_answers_become_targets_and_what_no_question_allows_is_counted(home: Home) -> None:
    answers = [
        ("p1", "diabetes", "Yes"), ("p2", "diabetes", "No"), ("p3", "diabetes", "I don't know"),
        ("p1", "asthma", "Perhaps"), ("p1", "phase_of_the_moon", "Full"),
    ]  # fmt: skip
    land(home, "b4", ["p1", "p2", "p3"], survey=answers)
    loaded = load_batch(home, "b4")
    assert load_batch(home, "b4") == loaded
    assert loaded.quarantined == 1  # answers are no windows
    publish(home)
    assert query(
        home, "SELECT participant_id, value FROM participant_targets WHERE target = 'diabetes' ORDER BY 1"
    ) == [
        ("p1", True),
        ("p2", False),
        ("p3", None),
    ]
    assert query(home, "SELECT count(*), count(value) FROM survey_targets") == [(3 * 46, 2)]
    assert query(home, "SELECT number, participants FROM quarantine WHERE unit = 'answer'") == [(2, 1)]


def test_who_is_inside_a_checkpoint_stays_true_after_a_withdrawal(home: Home) -> None:
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    teacher = checkpoint(home, "ppg_teacher", trained_on=[("p1", "b1", 4), ("p3", "b1", 4), ("p3", "b2", 5)])
    student = checkpoint(home, "accel_student", teacher=teacher, trained_on=[("p4", "b2", 6)])
    models = [("ppg_teacher", teacher), ("accel_student", student)]
    for encoder, model_id in models:
        load_model(home, encoder, model_id, ["b1", "b2"])
    load_batch(home, "b2")  # whatever happens to batches and split later
    assert inside(home, student) == [("p1", 4), ("p3", 9), ("p4", 6)]
    assert inside(home, teacher) == [("p1", 4), ("p3", 9)]

    assert forget_trained_on(home, "ppg_teacher", teacher, "p3")
    assert not forget_trained_on(home, "ppg_teacher", teacher, "p3")
    for encoder, model_id in models:
        load_model(home, encoder, model_id, ["b1", "b2"])
    assert inside(home, student) == [("p1", 4), ("p4", 6), (None, 9)]
    assert not any(b"p3" in path.read_bytes() for path in home.trained_on("x", "y").parent.parent.rglob("*.parquet"))


def inside(home: Home, model_id: str) -> list[tuple[object, ...]]:
    with staging(home) as connection:
        return connection.execute(
            "SELECT participant_id, sum(segments)::BIGINT FROM participants_in(?) GROUP BY ALL ORDER BY ALL NULLS LAST",
            [model_id],
        ).fetchall()


def test_another_training_set_than_the_checkpoint_s_is_refused(home: Home) -> None:
    model_id = checkpoint(home, "ppg_teacher", trained_on=[("p1", "b1", 4)])
    others = pa.table({"participant_id": ["p1", "p2"], "batch_id": ["b1", "b1"], "segments": [4, 4]})
    with pytest.raises(ValueError, match="trained on 4 segments of 1 participants, not on 8 of 2"):
        write_trained_on(home, "ppg_teacher", model_id, others, ["b1"])
    home.trained_on("ppg_teacher", model_id).unlink()
    with pytest.raises(FileNotFoundError, match=r"who ppg_teacher .* learned from"):
        load_model(home, "ppg_teacher", model_id, ["b1"])


def test_the_run_is_recorded_and_does_not_change_the_content(home: Home) -> None:
    load_batch(home, "b1")
    before = publish(home).content_version
    load_batch(replace(home, run_id="run-7"), "b1")
    assert publish(home).content_version == before
    assert query(home, "SELECT DISTINCT run_id FROM provenance.runs") == [("run-7",)]
    assert query(home, "SELECT run_id FROM lineage_of('tables:b1') WHERE depth = 0") == [("run-7",)]


def without_code_version(table: Table) -> Table:
    return replace(table, columns=tuple(column for column in table.columns if column.name != "code_version"))


def with_other_words(table: Table) -> Table:
    return replace(table, columns=tuple(replace(column, meaning="?") for column in table.columns))


def with_nulls(table: Table) -> Table:
    return replace(
        table, columns=tuple(replace(column, nullable=column.name not in table.key) for column in table.columns)
    )


def of_another_name(table: Table) -> Table:
    return replace(table, name="retired_batches" if table is SUPERSEDED_BATCHES else table.name)


OLDER: dict[str, tuple[Callable[[Table], Table], Callable[[str], str]]] = {  # tables and views of an older version
    "without a column": (without_code_version, lambda views: re.sub(r".*\bcode_version\b.*\n", "", views)),
    "with other comments": (with_other_words, str),
    "with a view that is gone": (lambda table: table, lambda views: views + "CREATE VIEW gone AS FROM split;"),
    "with nulls": (with_nulls, str),
    "with a table of another name": (of_another_name, str),
}


@pytest.mark.parametrize(("older_table", "older_views"), OLDER.values(), ids=OLDER.keys())
def test_a_file_of_another_schema_is_brought_up_to_date(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    older_table: Callable[[Table], Table],
    older_views: Callable[[str], str],
) -> None:
    load_batch(home, "b2")
    fresh = catalog(home)
    home.staging.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(staging_module, "TABLES", tuple(older_table(table) for table in TABLES))
        patched.setattr(staging_module, "VIEWS", older_views(VIEWS))
        patched.setattr(staging_module, "MIGRATIONS", ())
        patched.setattr(staging_module, "_SCHEMA_SHA256", "older")
        with staging(home) as connection:
            connection.execute("INSERT INTO split VALUES ('p1', 'train', 'female', '30 to 39', 'sim-wrist-64', 'b1')")
            connection.execute(
                "INSERT INTO provenance.artifacts (artifact_id, kind, version) VALUES ('batch:b1', 'batch', 'v')"
            )
        assert catalog(home) != fresh
    with staging(home) as connection:
        assert connection.execute("SELECT participant_id FROM split").fetchall() == [("p1",)]
        assert connection.execute("SELECT version, code_version FROM provenance.artifacts").fetchall() == [("v", None)]
    assert catalog(home) == fresh
    load_batch(home, "b1")
    assert publish(home).rows["segments"] == 9


def test_a_file_of_another_schema_that_does_not_fit_is_refused_and_left_as_it_is(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        noted = QUARANTINED.with_column(Column("note", pa.string(), meaning="What somebody wrote"))
        tables = [noted if table is QUARANTINED else table for table in TABLES]
        patched.setattr(staging_module, "TABLES", tuple(tables))
        patched.setattr(staging_module, "_SCHEMA_SHA256", "older")
        with staging(home) as connection:
            connection.execute("INSERT INTO quarantine VALUES ('b1', 'window', 'motion', 1, 1, 'seen')")
    for _ in range(2):
        with pytest.raises(
            UnusableHomeError, match=r"table quarantine, was made by another version.*no longer has note.*rebu"
        ):
            load_batch(home, "b1")
    with duckdb.connect(str(home.staging)) as connection:
        assert connection.execute("SELECT note FROM quarantine").fetchall() == [("seen",)]


def catalog(home: Home) -> list[list[tuple[object, ...]]]:
    """What a staging file holds apart from rows and file."""
    with staging(home) as connection:
        return [
            connection.execute(f"SELECT {columns} FROM {source} WHERE NOT internal ORDER BY ALL").fetchall()
            for source, columns in (
                ("duckdb_tables()", "schema_name, table_name, sql, comment"),
                ("duckdb_views()", "schema_name, view_name, sql, comment"),
                ("duckdb_columns()", "schema_name, table_name, column_name, data_type, comment"),
                ("duckdb_functions()", "function_name, macro_definition, comment"),
            )
        ]


def test_embeddings_by_lost_weights_do_not_stay_beside_those_by_new_ones(home: Home) -> None:
    """A checkpoint that was trained again has its name, and on other threads may have other weights."""
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    model_id = with_model(home)
    embed(home, model_id, "b1")
    embed(home, model_id, "b2")
    load_model(home, "ppg_teacher", model_id, ["b1", "b2"])
    assert embedding_table(home, "ppg_teacher").missing == 0
    decide(home, "promoted", {"ppg_teacher": model_id}, "the first")
    before = promoted_version(home)
    weights = home.weights("ppg_teacher", model_id)
    save_file({name: tensor + 0.01 for name, tensor in load_file(weights).items()}, weights)
    write_checksum(weights)
    assert promoted_version(home) != before
    load_model(home, "ppg_teacher", model_id, ["b1", "b2"])
    assert {batch_id for _, batch_id in not_embedded(home, {"ppg_teacher": model_id})} == {"b1", "b2"}
    with pytest.raises(LookupError, match="holds nothing"):
        embedding_table(home, "ppg_teacher")
