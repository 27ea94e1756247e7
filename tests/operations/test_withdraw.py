"""Withdrawal leaves nothing of a participant in any file, keeps everybody else, and survives being killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import accelkd.operations.withdraw
from accelkd.cli import main
from accelkd.cohort.split import participants_on
from accelkd.home.files import DamagedFileError, write_json
from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock, shared_lock
from accelkd.operations.remnants import find_remnants
from accelkd.operations.withdraw import withdraw
from accelkd.recordings.batches import read_manifest
from accelkd.recordings.validate import validate_batch
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging, staging_lock
from orchestration.definitions import build_defs
from tests.support.homes import (
    copy_home,
    load_and_split,
    loaded_checkpoint,
    plant_embeddings,
    simulate,
)
from tests.support.recordings import replace_table

PARTICIPANT = "sim5-000001"  # who withdraws
BATCHES = ["b1", "b2"]
PART = "recordings/part-00000.parquet"


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return copy_home(made, tmp_path / "home")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two batches, both with PARTICIPANT, through segments, split, embeddings and publishing."""
    home = Home(tmp_path_factory.mktemp("made"))
    deliver(home, "b1", 0)
    deliver(home, "b2", 1)
    # The same people again are simulated with the same names of recordings: the second batch gets its own
    recordings = pq.read_table(home.batch("b2") / PART)
    names = pa.array([f"{name}-again" for name in recordings.column("recording_id").to_pylist()])
    replace_table(home.batch("b2"), PART, recordings.set_column(0, recordings.schema.field(0), names))
    for batch_id in BATCHES:
        segment_batch(home, batch_id)
    load_and_split(home, BATCHES)
    first, second, third = (loaded_checkpoint(home, "accel_student", BATCHES, seed=seed) for seed in range(3))
    plant_embeddings(home, "accel_student", first, BATCHES)
    plant_embeddings(home, "accel_student", second, BATCHES)  # takes the place of the first one's table
    plant_embeddings(home, "accel_student", third, ["b1"])  # waits for the other batch
    publish(home)
    home.reports.mkdir()
    (home.reports / "named.md").write_text(f"| {PARTICIPANT} | 61 bpm |\n", encoding="utf-8")
    (home.reports / "report.md").write_text("nobody is named\n", encoding="utf-8")
    return home


def deliver(home: Home, batch_id: str, first: int) -> None:
    """Three participants with two minutes each."""
    simulate(home, batch_id, first, participants=3, segments=2, seed=5)


def others(home: Home) -> tuple[list[tuple[object, ...]], list[str]]:
    """What must stay: everybody else's embeddings, and the side that they are on."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        rows = connection.execute(
            "SELECT segment_id, participant_id, embedding FROM embeddings.accel_student "
            "JOIN segments USING (segment_id, participant_id) WHERE participant_id <> ? ORDER BY ALL",
            [PARTICIPANT],
        ).fetchall()
    return rows, sorted(participants_on(home.split, "train") - {PARTICIPANT})


def names_of(home: Home) -> set[str]:
    with duckdb.connect(str(home.published), read_only=True) as connection:
        rows = connection.execute(
            "SELECT segment_id, recording_id FROM segments WHERE participant_id = ?", [PARTICIPANT]
        ).fetchall()
    return {PARTICIPANT, *(name for row in rows for name in row)}


def test_nothing_remains_and_everybody_else_stays(home: Home) -> None:
    kept, names = others(home), names_of(home)
    signal = SegmentStore([home.segments("b1")])
    row = signal.metadata.column("participant_id").to_pylist().index(PARTICIPANT)
    run = signal.signals("accel", np.array([row]))[0, 0, 100:160].tobytes()
    assert len(names) == 9  # a participant, and four recordings of a segment each
    before = find_remnants(home.root, names, [run])
    for place in ("landing/b1/recordings", "segments/b2.arrow", "cohort/split", "staging.duckdb", "accelkd.duckdb"):
        assert any(place in remnant for remnant in before), place

    done = withdraw(home, PARTICIPANT)

    assert done.remaining == []
    assert find_remnants(home.root, names, [run]) == []
    assert others(home) == kept
    assert done.reports == ["reports/named.md"]
    assert (home.reports / "report.md").exists()
    assert not (home.root / "withdrawal.json").exists()
    for batch_id in ("b1", "b2"):
        assert validate_batch(home.batch(batch_id)) == []
        assert read_manifest(home.batch(batch_id)).rows("participants") == 2
    with duckdb.connect(str(home.published), read_only=True) as connection:
        assert (
            connection.execute("SELECT recordings, participants, segments, quarantined FROM batches").fetchall()
            == [(4, 2, 4, 0)] * 2
        )
        uncommented = "SELECT count(*) FROM duckdb_tables() WHERE comment IS NULL AND NOT internal"
        assert connection.execute(uncommented).fetchall() == [(0,)]


def embedded(home: Home, comparison: str) -> dict[str, int]:
    """Rows of the participant (`=`), or of everybody else (`<>`), in every table of embeddings."""
    with staging(home) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'embeddings'")
        return {
            table: connection.execute(
                f"SELECT count(*) FROM embeddings.{table} WHERE participant_id {comparison} ?", [PARTICIPANT]
            ).fetchall()[0][0]
            for (table,) in tables.fetchall()
        }


def test_tables_that_wait_and_that_were_replaced_are_cleared_too(home: Home) -> None:
    names = {"accel_student", "accel_student__next", "accel_student__previous"}
    theirs, kept = embedded(home, "="), embedded(home, "<>")
    assert theirs.keys() == names
    assert all(theirs.values())
    withdraw(home, PARTICIPANT)
    assert embedded(home, "=") == dict.fromkeys(names, 0)
    assert embedded(home, "<>") == kept


def load_again(home: Home) -> bool:
    """A run of Dagster for the first batch; whether it ended well."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("arrival_batch", ["b1"])
        job = build_defs(home).resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey("segment_tables")]
        return job.execute_in_process(instance=instance, asset_selection=keys, partition_key="b1").success


def is_in_use(home: Home) -> bool:
    try:
        with exclusive_lock(home):
            return False
    except BlockingIOError:
        return True


def test_it_is_refused_while_a_run_is_in_progress(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    names = names_of(home)
    command = ["--home", str(home.root), "withdraw", PARTICIPANT]
    with ThreadPoolExecutor(1) as pool:
        with staging_lock(home):  # so that the run waits in its middle
            run = pool.submit(load_again, home)
            deadline = time.monotonic() + 120
            while not is_in_use(home):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert main(command) == 2
        assert "runs are in progress" in capsys.readouterr().err
        assert run.result()
    assert names_of(home) == names
    assert not (home.root / "withdrawal.json").exists()
    assert main(command) == 0


def started_s(home: Home) -> float:
    with shared_lock(home):
        return time.monotonic()


def test_work_that_starts_during_a_withdrawal_waits_for_its_end(home: Home) -> None:
    with ThreadPoolExecutor(1) as pool:
        with exclusive_lock(home):
            started = pool.submit(started_s, home)
            time.sleep(0.5)
            ended_s = time.monotonic()
        assert started.result() > ended_s


def test_a_second_delivery_is_refused_until_they_are_taken_out(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    withdraw(home, PARTICIPANT)
    with pytest.raises(ValueError, match="has withdrawn"):
        deliver(home, "b3", 1)
    assert not home.batch("b3").exists()
    elsewhere = Home(tmp_path / "elsewhere")
    deliver(elsewhere, "b3", 1)
    elsewhere.batch("b3").rename(home.batch("b3"))
    assert [violation.rule for violation in validate_batch(home.batch("b3"))] == ["withdrawn"]
    assert main(["--home", str(home.root), "withdraw", PARTICIPANT]) == 0
    assert "2 recordings" in capsys.readouterr().out
    assert validate_batch(home.batch("b3")) == []
    assert read_manifest(home.batch("b3")).rows("participants") == 2


STEPS = ["enrol", "segment_batch", "compact", "find_remnants"]


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_withdrawal_is_finished(home: Home, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, names = others(home), names_of(home)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(accelkd.operations.withdraw, step, stop)
        with pytest.raises(KeyboardInterrupt):
            withdraw(home, PARTICIPANT)
    assert (home.root / "withdrawal.json").stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="interrupted"):
        withdraw(home, "sim5-000002")
    assert withdraw(home).remaining == []
    assert find_remnants(home.root, names, []) == []
    assert others(home) == kept


def test_an_interrupted_rewrite_of_a_batch_is_finished_and_a_damaged_one_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:

    def stop_before_the_manifest(path: Path, value: object) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        write_json(path, value)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(accelkd.operations.withdraw, "write_json", stop_before_the_manifest)
        with pytest.raises(KeyboardInterrupt):
            withdraw(home, PARTICIPANT)
    assert "sha256" in {violation.rule for violation in validate_batch(home.batch("b1"))}
    survey = home.batch("b2") / "survey.parquet"
    good = survey.read_bytes()
    survey.write_bytes(good[:-1])
    with pytest.raises(DamagedFileError, match=r"b2: survey\.parquet"):
        withdraw(home)
    survey.write_bytes(good)
    assert withdraw(home, PARTICIPANT).remaining == []
    assert validate_batch(home.batch("b1")) == []


def test_a_withdrawal_without_a_name_needs_an_interrupted_one(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(home.root), "withdraw"]) == 2
    assert main(["--home", str(home.root), "withdraw", "../x"]) == 2
    assert "is not an identifier" in capsys.readouterr().err
