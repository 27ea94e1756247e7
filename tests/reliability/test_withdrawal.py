"""Withdrawal leaves nothing of a participant in any file, keeps everybody else, and survives being killed."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import accelkd.withdrawal
from accelkd.at_work import alone, at_work
from accelkd.cli import main
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split, participants_on
from accelkd.files import DamagedFileError
from accelkd.lake import Lake
from accelkd.recordings.batches import read_manifest
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.validate import validate_batch
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from accelkd.traces import traces
from accelkd.warehouse.load import load_batch, load_embeddings, load_model, load_split
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging, staging_lock
from accelkd.withdrawal import withdraw
from orchestration.definitions import build_defs
from tests.lakes import checkpoint

WHO = "sim5-000001"


def simulate(lake: Lake, batch_id: str, first: int, participants: int = 3) -> None:
    simulate_batch(
        lake.landing, batch_id, participants=participants, segments=2, seed=5, profile="easy", first_participant=first
    )


@pytest.fixture
def lake(made: Lake, tmp_path: Path) -> Lake:
    shutil.copytree(made.root, tmp_path / "home")
    return Lake(tmp_path / "home")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two batches, both with WHO, through segments, split, embeddings and publishing."""
    lake = Lake(tmp_path_factory.mktemp("made"))
    for batch_id, first in (("b1", 0), ("b2", 1)):
        simulate(lake, batch_id, first)
    recordings = lake.batch("b2") / "recordings" / "part-00000.parquet"
    rename_recordings(lake, "b2", recordings)
    for batch_id in ("b1", "b2"):
        segment_batch(lake, batch_id)
        load_batch(lake, batch_id)
    extend_split(lake.split, segmented_participants(lake, ["b1", "b2"]))
    load_split(lake)
    embed(lake, checkpoint(lake, "accel_student", seed=0), ["b1", "b2"])
    embed(lake, checkpoint(lake, "accel_student", seed=1), ["b1", "b2"])  # takes the place of the first one's table
    embed(lake, checkpoint(lake, "accel_student", seed=2), ["b1"])  # waits for the other batch
    publish(lake)
    lake.reports.mkdir()
    (lake.reports / "named.md").write_text(f"| {WHO} | 61 bpm |\n", encoding="utf-8")
    (lake.reports / "report.md").write_text("nobody is named\n", encoding="utf-8")
    return lake


def embed(lake: Lake, model_id: str, batch_ids: list[str]) -> None:
    """Noise as the embeddings of batches by a checkpoint."""
    load_model(lake, "accel_student", model_id, ["b1", "b2"])
    for batch_id in batch_ids:
        facts = SegmentStore([lake.segments(batch_id)]).metadata
        names = [facts.column(name).to_pylist() for name in ("segment_id", "participant_id")]
        matrix = np.random.default_rng(0).standard_normal((facts.num_rows, 16)).astype(np.float32)
        load_embeddings(lake, "accel_student", model_id, batch_id, *names, matrix)


def rename_recordings(lake: Lake, batch_id: str, path: Path) -> None:
    """The same people again are simulated with the same names of recordings: give the second batch its own."""
    from accelkd.files import sha256_file, write_json

    table = pq.read_table(path)
    names = pa.array([f"{name}-again" for name in table.column("recording_id").to_pylist()])
    pq.write_table(table.set_column(0, table.schema.field(0), names), path, row_group_size=16)
    manifest = lake.batch(batch_id) / "manifest.json"
    raw = json.loads(manifest.read_text(encoding="utf-8"))
    for file in raw["files"]:
        file["sha256"] = sha256_file(lake.batch(batch_id) / file["path"])
    write_json(manifest, raw)


def others(lake: Lake) -> tuple[list[tuple[object, ...]], list[str]]:
    """What must stay: everybody else's embeddings, and the side that they are on."""
    with duckdb.connect(str(lake.published), read_only=True) as connection:
        rows = connection.execute(
            "SELECT segment_id, participant_id, embedding FROM embeddings.accel_student "
            "JOIN segments USING (segment_id, participant_id) WHERE participant_id <> ? ORDER BY ALL",
            [WHO],
        ).fetchall()
    return rows, sorted(participants_on(lake.split, "train") - {WHO})


def names_of(lake: Lake) -> set[str]:
    with duckdb.connect(str(lake.published), read_only=True) as connection:
        rows = connection.execute(
            "SELECT segment_id, recording_id FROM segments WHERE participant_id = ?", [WHO]
        ).fetchall()
    return {WHO, *(name for row in rows for name in row)}


def test_nothing_is_left_and_everybody_else_stays(lake: Lake) -> None:
    kept, names = others(lake), names_of(lake)
    signal = SegmentStore([lake.segments("b1")])
    row = signal.metadata.column("participant_id").to_pylist().index(WHO)
    run = signal.signals("accel", np.array([row]))[0, 0, 100:160].tobytes()
    assert len(names) == 9  # one, and four recordings of a segment each
    before = traces(lake.root, names, [run])
    for place in ("landing/b1/recordings", "segments/b2.arrow", "cohort/split", "staging.duckdb", "accelkd.duckdb"):
        assert any(place in trace for trace in before), place

    done = withdraw(lake, WHO)

    assert done.left == []
    assert traces(lake.root, names, [run]) == []
    assert others(lake) == kept
    assert done.reports == ["reports/named.md"]
    assert (lake.reports / "report.md").exists()
    assert not (lake.root / "withdrawal.json").exists()
    for batch_id in ("b1", "b2"):
        assert validate_batch(lake.batch(batch_id)) == []
        assert read_manifest(lake.batch(batch_id)).rows("participants") == 2
    with duckdb.connect(str(lake.published), read_only=True) as connection:
        assert (
            connection.execute("SELECT recordings, participants, segments, quarantined FROM batches").fetchall()
            == [(4, 2, 4, 0)] * 2
        )
        uncommented = "SELECT count(*) FROM duckdb_tables() WHERE comment IS NULL AND NOT internal"
        assert connection.execute(uncommented).fetchall() == [(0,)]


def aside(lake: Lake, whose: str) -> dict[str, int]:
    """Rows of the participant, or of everybody else, in every table of embeddings."""
    with staging(lake) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'embeddings'")
        return {
            table: connection.execute(
                f"SELECT count(*) FROM embeddings.{table} WHERE participant_id {whose} ?", [WHO]
            ).fetchall()[0][0]
            for (table,) in tables.fetchall()
        }


def test_tables_that_wait_and_that_were_replaced_are_cleared_too(lake: Lake) -> None:
    names = {"accel_student", "accel_student__next", "accel_student__previous"}
    theirs, kept = aside(lake, "="), aside(lake, "<>")
    assert theirs.keys() == names
    assert all(theirs.values())
    withdraw(lake, WHO)
    assert aside(lake, "=") == dict.fromkeys(names, 0)
    assert aside(lake, "<>") == kept


def load_again(lake: Lake) -> bool:
    """A run of Dagster for the first batch; whether it ended well."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("arrival_batch", ["b1"])
        job = build_defs(lake).resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey("segment_tables")]
        return job.execute_in_process(instance=instance, asset_selection=keys, partition_key="b1").success


def is_worked_on(lake: Lake) -> bool:
    try:
        with alone(lake):
            return False
    except BlockingIOError:
        return True


def test_it_is_refused_while_a_run_is_in_progress(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    names = names_of(lake)
    command = ["--home", str(lake.root), "withdraw", WHO]
    with ThreadPoolExecutor(1) as pool:
        with staging_lock(lake):  # so that the run waits in its middle
            run = pool.submit(load_again, lake)
            deadline = time.monotonic() + 120
            while not is_worked_on(lake):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert main(command) == 2
        assert "runs are in progress" in capsys.readouterr().err
        assert run.result()
    assert names_of(lake) == names
    assert not (lake.root / "withdrawal.json").exists()
    assert main(command) == 0


def started_s(lake: Lake) -> float:
    with at_work(lake):
        return time.monotonic()


def test_work_that_starts_during_a_withdrawal_waits_for_its_end(lake: Lake) -> None:
    with ThreadPoolExecutor(1) as pool:
        with alone(lake):
            started = pool.submit(started_s, lake)
            time.sleep(0.5)
            ended_s = time.monotonic()
        assert started.result() > ended_s


def test_a_second_delivery_is_refused_until_they_are_taken_out(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    withdraw(lake, WHO)
    with pytest.raises(ValueError, match="has withdrawn"):
        simulate(lake, "b3", 1)
    assert not lake.batch("b3").exists()
    elsewhere = Lake(tmp_path / "elsewhere")
    simulate(elsewhere, "b3", 1)
    elsewhere.batch("b3").rename(lake.batch("b3"))
    assert [violation.rule for violation in validate_batch(lake.batch("b3"))] == ["withdrawn"]
    assert main(["--home", str(lake.root), "withdraw", WHO]) == 0
    assert "2 recordings" in capsys.readouterr().out
    assert validate_batch(lake.batch("b3")) == []
    assert read_manifest(lake.batch("b3")).rows("participants") == 2


STEPS = ["enrol", "segment_batch", "compact", "traces"]


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_withdrawal_is_finished(lake: Lake, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, names = others(lake), names_of(lake)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(accelkd.withdrawal, step, stop)
        with pytest.raises(KeyboardInterrupt):
            withdraw(lake, WHO)
    assert (lake.root / "withdrawal.json").stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="interrupted"):
        withdraw(lake, "sim5-000002")
    assert withdraw(lake).left == []
    assert traces(lake.root, names, []) == []
    assert others(lake) == kept


def test_an_interrupted_rewrite_of_a_batch_is_finished_and_a_damaged_one_refused(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = accelkd.withdrawal.write_json

    def stop_before_the_manifest(path: Path, value: object) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        real(path, value)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(accelkd.withdrawal, "write_json", stop_before_the_manifest)
        with pytest.raises(KeyboardInterrupt):
            withdraw(lake, WHO)
    assert "sha256" in {violation.rule for violation in validate_batch(lake.batch("b1"))}
    survey = lake.batch("b2") / "survey.parquet"
    good = survey.read_bytes()
    survey.write_bytes(good[:-1])
    with pytest.raises(DamagedFileError, match=r"b2: survey\.parquet"):
        withdraw(lake)
    survey.write_bytes(good)
    assert withdraw(lake, WHO).left == []
    assert validate_batch(lake.batch("b1")) == []


def test_a_withdrawal_without_a_name_needs_an_interrupted_one(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(lake.root), "withdraw"]) == 2
    assert main(["--home", str(lake.root), "withdraw", "../x"]) == 2
    assert "is not an identifier" in capsys.readouterr().err
