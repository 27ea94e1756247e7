"""Withdrawal leaves nothing of a participant in any file, keeps everybody else, and survives being killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
from accelkd.home.files import DamagedFileError, replace_below
from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock, shared_lock
from accelkd.operations.remnants import find_remnants
from accelkd.operations.withdraw import Withdrawal, finish_withdrawals, unfinished_withdrawals, withdraw
from accelkd.recordings.batches import read_manifest
from accelkd.recordings.validate import validate_batch
from accelkd.segments.segment import segment_batch, verify_segments
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging, staging_lock
from orchestration.definitions import build_defs
from tests.support.damage import flip
from tests.support.homes import (
    copy_home,
    land,
    load_and_split,
    loaded_checkpoint,
    plant_embeddings,
    simulate,
)
from tests.support.recordings import edit_manifest, replace_table

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
    before = find_remnants(home.root, names, [run]).lines
    for place in ("landing/b1/recordings", "segments/b2.arrow", "cohort/split", "staging.duckdb", "accelkd.duckdb"):
        assert any(place in remnant for remnant in before), place

    done = withdraw(home, PARTICIPANT)

    assert (done.remaining, done.not_searched) == ([], {})
    assert find_remnants(home.root, names, [run]).lines == []
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
    assert unfinished_withdrawals(home) == [PARTICIPANT]
    (done,) = finish_withdrawals(home)
    assert done.finished
    assert find_remnants(home.root, names, []).lines == []
    assert others(home) == kept


def stop_before_the_manifest(root: Path, name: str, content: bytes) -> None:
    if name.endswith("manifest.json"):
        raise KeyboardInterrupt
    replace_below(root, name, content)


def interrupt(home: Home, participant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a withdrawal when it has rewritten the files of the first batch, and not its manifest."""
    with monkeypatch.context() as interrupted:
        interrupted.setattr(accelkd.operations.withdraw, "replace_below", stop_before_the_manifest)
        with pytest.raises(KeyboardInterrupt):
            withdraw(home, participant)
    assert "sha256" in {violation.rule for violation in validate_batch(home.batch("b1"))}


def test_an_interrupted_rewrite_of_a_batch_is_finished(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(home, PARTICIPANT, monkeypatch)
    assert withdraw(home, PARTICIPANT).finished
    assert validate_batch(home.batch("b1")) == []


def test_an_interrupted_withdrawal_does_not_hinder_that_of_another(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(home, PARTICIPANT, monkeypatch)
    assert withdraw(home, "sim5-000002").finished
    assert unfinished_withdrawals(home) == [PARTICIPANT]
    (done,) = finish_withdrawals(home)
    assert done.finished
    assert validate_batch(home.batch("b1")) == []
    assert read_manifest(home.batch("b1")).rows("participants") == 1


def test_the_journal_of_an_earlier_version_is_read_and_a_damaged_one_named(home: Home) -> None:
    journal = home.root / "withdrawal.json"
    journal.write_text(json.dumps({"participant_id": PARTICIPANT, "batches": {"b1": []}}), encoding="utf-8")
    (done,) = finish_withdrawals(home)
    assert done.finished
    assert set(done.batches) == {"b1", "b2"}
    for content in ("{", "[1]", '[{"participant_id": "p", "unknown": 1}]'):
        journal.write_text(content, encoding="utf-8")
        with pytest.raises(DamagedFileError, match=r"withdrawal\.json cannot be read"):
            withdraw(home, PARTICIPANT)


def test_a_withdrawal_without_a_name_needs_an_interrupted_one(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(home.root), "withdraw"]) == 2
    assert main(["--home", str(home.root), "withdraw", "../x"]) == 2
    assert "is not an identifier" in capsys.readouterr().err


def outside_file(home: Home, name: str) -> Path:
    """A Parquet file beside the home that names the participant: nobody may write it."""
    path = home.root.parent / "outside" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(home.batch("b1") / "participants.parquet", path)
    return path


def listing(home: Home, batch_id: str, path: str) -> None:
    """Have a manifest list a path in the place of its first file's."""
    edit_manifest(home.batch(batch_id), lambda manifest: manifest["files"][0].update(path=path))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def linked(path: Path, target: Path) -> None:
    shutil.move(path, target)
    path.symlink_to(target)


def test_it_goes_on_past_what_it_cannot_read_and_says_what_that_is(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, names = others(home), names_of(home)
    outside = home.root.parent / "outside"
    landing = home.landing
    absolute = outside_file(home, "absolute.parquet")
    for number in range(3, 9):
        land(home, f"b{number}", [f"person{number}"])
    # What others delivered: damaged, or made to lead out of the home
    cut(landing / "b3" / PART)
    (landing / "b4/manifest.json").write_text("[1]", encoding="utf-8")
    listing(home, "b5", str(absolute))
    linked(landing / "b6/recordings", outside / "recordings")
    outside_file(home, "recordings/part-00001.parquet")
    linked(landing / "b7/participants.parquet", outside_file(home, "participants.parquet"))
    outside_file(home, "copied").replace(outside / "participants.parquet")
    linked(landing / "b8", outside / "b8")
    (landing / "an odd name").mkdir()
    (landing / "an odd name/people.pq").write_bytes(absolute.read_bytes())
    (landing / "half").mkdir()
    (landing / "half/recordings.parquet").write_bytes((home.batch("b1") / PART).read_bytes()[:5000])
    (landing / "half/export.zip").write_bytes(b"PK\x03\x04 and so on")
    os.mkfifo(landing / "half/pipe")
    # What was made of it
    cut(home.segments("b1"))  # of the participant: made again
    cut(home.segments("b3"))
    (home.reports / "table.parquet").write_bytes(b"PAR1 is not all")
    victims = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}

    assert main(["--home", str(home.root), "withdraw", PARTICIPANT]) == 1

    printed = capsys.readouterr().out
    (done,) = (Withdrawal(**entry) for entry in json.loads((home.root / "withdrawal.json").read_text()))
    assert set(done.not_searched) == {
        f"landing/b3/{PART}",
        "landing/b4/manifest.json",
        "landing/b5/manifest.json",
        "landing/b6/recordings",
        f"landing/b6/{PART}",
        "landing/b7/participants.parquet",
        "landing/b8",
        "landing/half/recordings.parquet",
        "landing/half/export.zip",
        "segments/b3.arrow",
        "reports/table.parquet",
    }
    assert all(f"NOT SEARCHED: {path}: " in printed for path in done.not_searched)
    assert done.remaining == ["landing/an odd name/people.pq: column participant_id"]
    assert f"STILL THERE: {done.remaining[0]}" in printed
    assert {path: path.read_bytes() for path in victims} == victims
    assert others(home) == kept
    assert [validate_batch(home.batch(batch_id)) for batch_id in BATCHES] == [[], []]
    assert withdraw(home, "sim5-000003").remaining == []  # another one's is not hindered
    assert set(unfinished_withdrawals(home)) == {PARTICIPANT, "sim5-000003"}

    for batch_id in ("b3", "b4", "b5", "b6", "b7", "an odd name", "half"):
        shutil.rmtree(landing / batch_id)
    for path in (landing / "b8", home.segments("b3"), home.reports / "table.parquet"):
        path.unlink()
    assert main(["--home", str(home.root), "withdraw"]) == 0
    assert not (home.root / "withdrawal.json").exists()
    remnants = find_remnants(home.root, names, [])
    assert (remnants.places, remnants.not_searched) == ({}, {})
    assert {path: path.read_bytes() for path in victims} == victims


def test_a_damaged_batch_of_theirs_is_left_as_it_is_until_it_is_mended(home: Home) -> None:
    kept, names = others(home), names_of(home)
    survey = home.batch("b2") / "survey.parquet"
    good = survey.read_bytes()
    changed = pq.read_table(survey)
    pq.write_table(changed, survey, compression="none")  # the same rows, as other bytes
    written = survey.read_bytes()

    done = withdraw(home, PARTICIPANT)

    assert done.not_searched == {
        "landing/b2/survey.parquet": (
            "batch b2: survey.parquet: it is not the file that the manifest lists, so it may be damaged"
        )
    }
    assert {line.split(":")[0] for line in done.remaining} == {"landing/b2/survey.parquet"}
    assert survey.read_bytes() == written  # a new hash would vouch for it
    assert others(home) == kept  # everything else is done, also in that batch
    assert PARTICIPANT not in SegmentStore([home.segments("b2")]).metadata.column("participant_id").to_pylist()
    verify_segments(home, "b2")
    survey.write_bytes(good)
    assert withdraw(home, PARTICIPANT).finished
    assert validate_batch(home.batch("b2")) == []
    assert find_remnants(home.root, names, []).lines == []


def test_a_batch_that_is_gone_leaves_no_segments_of_theirs(home: Home) -> None:
    names = names_of(home)
    shutil.rmtree(home.batch("b1"))
    done = withdraw(home, PARTICIPANT)
    assert done.finished
    assert set(done.batches) == set(BATCHES)
    assert find_remnants(home.root, names, []).lines == []
    assert SegmentStore([home.segments("b1")]).metadata.num_rows == 4
    assert load_batch(home, "b2").segments == 4


def test_the_home_s_own_damaged_files_are_reported_and_finished_when_mended(home: Home) -> None:
    names = names_of(home)
    damaged = [
        home.staging,
        home.split,
        home.split.with_name("split.copy.parquet"),
        home.landing / ".withdrawn.json",
        *sorted((home.root / "cohort/trained_on").glob("*/*.parquet"))[:1],
    ]
    good = {path: path.read_bytes() for path in damaged if path.exists()}
    for path in damaged:
        path.write_bytes(b"damaged")

    done = withdraw(home, PARTICIPANT)

    assert set(done.not_searched) == {home.relative(path) for path in damaged}
    assert done.remaining == []
    with duckdb.connect(str(home.published), read_only=True) as connection:
        people = connection.execute("SELECT DISTINCT participant_id FROM segments").fetchall()
    assert sorted(people) == [("sim5-000000",), ("sim5-000002",), ("sim5-000003",)]
    with pytest.raises(DamagedFileError, match="register of withdrawn participants cannot be read"):
        validate_batch(home.batch("b1"))  # rather than to use whoever withdrew
    (home.landing / ".withdrawn.json").unlink()
    for path, content in good.items():
        path.write_bytes(content)
    (done,) = finish_withdrawals(home)
    assert done.finished
    assert find_remnants(home.root, names, []).lines == []
    assert withdraw(home, PARTICIPANT).finished  # once more is nothing more


def test_damaged_segments_of_others_are_made_again_so_that_they_can_be_searched(home: Home) -> None:
    flip(home.segments("b2"))
    assert withdraw(home, "sim5-000000").finished  # who is in the first batch alone
    verify_segments(home, "b2")


def test_tables_that_it_does_not_know_lose_their_rows_too(home: Home) -> None:
    names = names_of(home)
    with duckdb.connect(str(home.published)) as connection:
        connection.execute('CREATE SCHEMA "odd; schema"')
        connection.execute('CREATE TABLE "odd; schema"."a ""table""" AS SELECT participant_id, 1 AS x FROM segments')
        connection.execute('CREATE TABLE scored AS SELECT segment_id, 1.0 AS "odd ""name" FROM segments')
        connection.execute("CREATE TABLE listened AS SELECT recording_id FROM segments")
        connection.execute(
            "CREATE TABLE noted AS SELECT 'of ' || participant_id || ', again' AS \"no\"\"te\" FROM segments"
        )

    done = withdraw(home, PARTICIPANT)

    named = [place for place in done.remaining if "byte" not in place]
    assert named == ['warehouse/accelkd.duckdb: main.noted.no"te, 4 rows']  # what only mentions them is reported
    with duckdb.connect(str(home.published)) as connection:
        for table in ('"odd; schema"."a ""table"""', "scored", "listened"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(8,)]
        connection.execute("DROP TABLE noted")
    assert withdraw(home, PARTICIPANT).finished
    assert find_remnants(home.root, names, []).lines == []


def test_an_analyst_s_open_connection_is_no_hindrance(home: Home) -> None:
    reading = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", reading, str(home.published)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert withdraw(home, PARTICIPANT).finished
    finally:
        process.communicate(b"\n")


def test_a_folder_that_cannot_be_read_is_reported(home: Home) -> None:
    locked = home.landing / "locked"
    locked.mkdir()
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user reads everything")
    try:
        assert withdraw(home, PARTICIPANT).not_searched.keys() == {"landing/locked", "landing/locked/manifest.json"}
    finally:
        locked.chmod(0o700)
    assert withdraw(home, PARTICIPANT).finished


def test_the_search_looks_at_names_nested_columns_and_links_and_opens_no_delivered_database(tmp_path: Path) -> None:
    name = "person-000001"
    (tmp_path / "landing").mkdir()
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    nested = pa.table(
        {
            "lists": pa.array([[["x", name]]]),
            "structs": pa.array([{"a": 1, "b": name}]),
            "coded": pa.array([name]).dictionary_encode(),
            "free": pa.array([f"about {name}."]),
            "other": pa.array([f"{name}-2"]),
        }
    )
    pq.write_table(nested, tmp_path / "nested.parquet")
    (tmp_path / f"{name}.txt").write_text("x")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "inside").symlink_to(tmp_path / "nested.parquet")
    (tmp_path / "a" / "b" / "outside").symlink_to(elsewhere)
    (tmp_path / "a" / "b" / "nowhere").symlink_to(elsewhere / "nothing")
    (tmp_path / "disk").symlink_to(elsewhere)  # a home's own folder on another disk
    (elsewhere / "note.md").write_text(f"({name})")
    with duckdb.connect(str(tmp_path / "landing/x.duckdb")) as connection:
        connection.execute("CREATE TABLE t (a VARCHAR)")

    remnants = find_remnants(tmp_path, {name}, [])

    places = {
        path: sorted(place for place in places if path != "nested.parquet" or not place.startswith("byte"))
        for path, places in remnants.places.items()
    }
    assert places == {
        "disk/note.md": ["byte 1"],
        "nested.parquet": sorted(f"column {column}" for column in ("lists", "structs", "coded", "free")),
        f"{name}.txt": ["its name"],
    }
    assert remnants.not_searched.keys() == {"a/b/outside", "landing/x.duckdb"}


def test_a_refused_batch_with_columns_and_names_of_its_own_is_rewritten_too(home: Home) -> None:
    """Whoever sent it: its hashes are right, so it is what was sent."""
    names = names_of(home)
    folder = home.batch("b2")
    recordings = pq.read_table(folder / PART)
    unnamed = pa.array(["", None, *recordings.column("recording_id").to_pylist()[2:]])
    odd = recordings.drop_columns(["accel"]).set_column(0, "recording_id", unnamed).append_column("more", unnamed)
    replace_table(folder, PART, odd)
    folder.rename(home.landing / "b 2")
    done = withdraw(home, PARTICIPANT)
    assert done.finished
    assert set(done.batches) == {"b1", "b2", "b 2"}  # what was made of it has the name that it had
    assert find_remnants(home.root, names, []).lines == []
    rewritten = pq.read_table(home.landing / "b 2" / PART)
    assert rewritten.column_names == odd.column_names
    assert set(rewritten.column("participant_id").to_pylist()) == {"sim5-000002", "sim5-000003"}
    assert read_manifest(home.landing / "b 2").rows("recordings") == rewritten.num_rows


def test_a_name_that_nobody_has_is_an_error_that_names_similar_ones(home: Home) -> None:
    with pytest.raises(LookupError, match=f"nobody is called 'sim5-00000' in .*; similar names: .*{PARTICIPANT}"):
        withdraw(home, "sim5-00000")
    assert unfinished_withdrawals(home) == []
    assert main(["--home", str(home.root), "withdraw", "sim5-00000"]) == 2


def test_a_withdrawal_may_be_asked_for_again(home: Home) -> None:
    withdraw(home, PARTICIPANT)
    assert withdraw(home, PARTICIPANT).finished
