"""A home that was backed up while it was written to comes back whole, and without whoever has withdrawn since."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from accelkd.cli import main
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from accelkd.home.version import LAYOUT, UnusableHomeError
from accelkd.operations import backup as backup_module
from accelkd.operations.backup import CONTENT, backup, find_backup, restore, verify_backup
from accelkd.operations.remnants import find_remnants
from accelkd.operations.withdraw import withdraw
from accelkd.recordings.withdrawn import Withdrawn, enrol
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import NO_CONTENT, publish
from accelkd.warehouse.staging import contents, staging
from orchestration.catch_up import catch_up
from tests.support.homes import copy_home, load_and_split, simulate
from tests.support.pipeline import Pipeline, opened_instance

PARTICIPANT = "sim3-000001"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two batches, segmented, split, loaded and published; without Dagster."""
    home = Home(tmp_path_factory.mktemp("made") / "home")
    for number, batch_id in enumerate(("b1", "b2")):
        simulate(home, batch_id, 2 * number, participants=2, segments=2)
        segment_batch(home, batch_id)
    load_and_split(home, ["b1", "b2"])
    publish(home)
    return home


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return copy_home(made, tmp_path / "home")


def warehouse(home: Home) -> dict[str, tuple[int, int | None]]:
    with staging(home) as connection:
        return {table: rows for table, rows in contents(connection).items() if table not in NO_CONTENT}


def test_a_damaged_home_comes_back(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = warehouse(home)
    assert main(["--home", str(home.root), "backup", str(tmp_path / "safe")]) == 0
    published = home.published.read_bytes()
    home.segments("b1").write_bytes(b"damaged")
    home.staging.unlink()
    shutil.rmtree(home.batch("b2"))
    shutil.rmtree(home.root / "cohort")
    assert main(["--home", str(home.root), "restore", str(tmp_path / "safe")]) == 2
    assert "--replace" in capsys.readouterr().err
    assert main(["--home", str(home.root), "restore", str(tmp_path / "safe"), "--replace"]) == 0
    assert warehouse(home) == before
    assert len(home.published.read_bytes()) > len(published) / 2
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)  # verifies landed files, segments and quarantine
    assert sorted(path.name for path in home.root.iterdir() if not path.name.startswith(".")) == sorted(
        ["landing", "segments", "quarantine", "cohort", "warehouse", "layout.json"]
    )


def test_what_has_not_changed_takes_no_space_and_what_was_damaged_is_copied_again(home: Home, tmp_path: Path) -> None:
    first = backup(home, tmp_path / "safe")
    again = backup(home, tmp_path / "safe")
    assert again.copied_bytes == 0
    assert again.files == first.files
    copy = again.folder / CONTENT / "segments" / "b1.arrow"
    assert copy.stat().st_nlink == 2
    copy.write_bytes(b"damaged")  # in both, since they are the same file
    with pytest.raises(DamagedFileError, match=r"1 of \d+ files are missing or damaged: segments/b1\.arrow"):
        verify_backup(find_backup(tmp_path / "safe"))
    third = backup(home, tmp_path / "safe", keep=2)
    assert third.copied_bytes == home.segments("b1").stat().st_size
    verify_backup(find_backup(tmp_path / "safe"))
    assert [path.name for path in sorted((tmp_path / "safe").glob("backup-*"))] == ["backup-000002", "backup-000003"]
    with pytest.raises(DamagedFileError):
        restore(home, again.folder, replace=True)
    load_batch(home, "b1")  # nothing was changed


KILLED = """
import os, signal, sys
from pathlib import Path
from accelkd.home.layout import Home
from accelkd.operations import backup
backup.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # everything is copied, the manifest is not written
backup.backup(Home(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_backup_is_none_and_leaves_nothing_for_long(home: Home, tmp_path: Path) -> None:
    safe = tmp_path / "safe"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(home.root), str(safe)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert list(safe.glob(".backup-*.scratch"))
    with pytest.raises(ValueError, match="holds no backup"):
        find_backup(safe)
    assert backup(home, safe).number == 1
    assert not list(safe.glob(".backup-*.scratch"))


def test_locks_scratch_and_the_published_copy_are_left_out(home: Home, tmp_path: Path) -> None:
    (home.root / "segments" / ".b3.arrow.x.scratch").mkdir()
    (home.root / "segments" / ".b3.arrow.x.scratch" / "b3.arrow").write_bytes(b"half")
    enrol(home.landing, "somebody")
    names = set(backup(home, tmp_path / "safe").files)
    assert {"landing/.withdrawn.json", "landing/.withdrawn.key", "warehouse/staging.duckdb"} <= names
    assert not [name for name in names if "scratch" in name or "lock" in name or "accelkd.duckdb" in name]
    folder = find_backup(tmp_path / "safe").folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / CONTENT / "landing" / ".withdrawn.key").stat().st_mode & 0o777 == 0o600


def test_a_writer_and_a_backup_wait_for_each_other(home: Home, tmp_path: Path) -> None:
    """Batches are loaded over and over while backups are made: each is a state between two transactions."""
    stop = threading.Event()
    loads = 0

    def load() -> None:
        nonlocal loads
        while not stop.is_set():
            with shared_lock(home), staging(home) as connection:
                connection.execute("DELETE FROM split")
                connection.execute("DELETE FROM superseded_batches")
                connection.execute("INSERT INTO split VALUES ('x', 'train', 'female', '30', 'd', 'b1')")
                connection.execute("INSERT INTO superseded_batches VALUES (?, 'b1')", [str(loads)])
            loads += 1

    writer = threading.Thread(target=load)
    writer.start()
    try:
        backups = [backup(home, tmp_path / "safe") for _ in range(4)]
    finally:
        stop.set()
        writer.join()
    assert loads > 4
    for number, made in enumerate(backups):
        verify_backup(made)
        other = Home(tmp_path / f"other-{number}")
        restore(other, made.folder)
        with staging(other) as connection:
            ((rows,),) = connection.execute("SELECT count(*) FROM split").fetchall()
            assert rows in (1, 4)  # before the first load, or after one
            assert connection.execute("SELECT count(*) FROM segments").fetchall() == [(8,)]


def test_sqlite_databases_are_copied_as_they_are_between_transactions(home: Home, tmp_path: Path) -> None:
    (home.root / "dagster").mkdir()
    connection = sqlite3.connect(home.root / "dagster" / "runs.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.execute("INSERT INTO runs VALUES (1)")
    connection.commit()
    connection.execute("INSERT INTO runs VALUES (2)")  # not committed: the database is open meanwhile
    made = backup(home, tmp_path / "safe")
    connection.close()
    assert not [name for name in made.files if name.endswith(("-wal", "-shm"))]
    with sqlite3.connect(made.folder / CONTENT / "dagster" / "runs.db") as copy:
        assert copy.execute("SELECT id FROM runs").fetchall() == [(1,)]


def test_who_has_withdrawn_since_does_not_come_back(home: Home, tmp_path: Path) -> None:
    made = backup(home, tmp_path / "safe")
    assert find_remnants(made.folder / CONTENT, {PARTICIPANT}, []).lines
    assert not withdraw(home, PARTICIPANT).remaining
    restored = restore(home, tmp_path / "safe", replace=True)
    assert [withdrawal.participant_id for withdrawal in restored.withdrawals] == [PARTICIPANT]
    assert not restored.withdrawals[0].remaining
    assert find_remnants(home.root, {PARTICIPANT}, []).lines == []
    assert PARTICIPANT in Withdrawn(home.landing)
    assert restored.withdrawals[0].segment_ids
    load_batch(home, "b1")


def test_who_withdrew_before_the_home_was_lost_stays_withdrawn(home: Home, tmp_path: Path) -> None:
    withdraw(home, PARTICIPANT)
    backup(home, tmp_path / "safe")
    shutil.rmtree(home.root)
    restored = restore(home, tmp_path / "safe")
    assert not restored.withdrawals
    assert PARTICIPANT in Withdrawn(home.landing)


def test_registers_with_different_keys_are_not_guessed_about(home: Home, tmp_path: Path) -> None:
    enrol(home.landing, "somebody")
    backup(home, tmp_path / "safe")
    for name in (".withdrawn.json", ".withdrawn.key"):
        (home.landing / name).unlink()
    enrol(home.landing, "somebody-else")
    with pytest.raises(ValueError, match="have different keys"):
        restore(home, tmp_path / "safe", replace=True)


def test_what_has_landed_since_stays(home: Home, tmp_path: Path) -> None:
    backup(home, tmp_path / "safe")
    simulate(home, "b3", 4, participants=2, segments=2)
    segment_batch(home, "b3")
    load_batch(home, "b3")
    assert restore(home, tmp_path / "safe", replace=True).kept_batches == ["b3"]
    assert not home.segments("b3").exists()  # derived: the next catch-up makes it
    segment_batch(home, "b3")
    assert load_batch(home, "b3").segments == 4


def test_an_interrupted_restore_is_finished_and_forgets_no_withdrawal(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(home, tmp_path / "safe")
    withdraw(home, PARTICIPANT)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("write_register", "withdraw", "publish"):
        with monkeypatch.context() as patched:
            patched.setattr(backup_module, step, die)
            with pytest.raises(KeyboardInterrupt):
                restore(home, tmp_path / "safe", replace=True)
        assert (home.root / "restore.json").stat().st_mode & 0o777 == 0o600
        with pytest.raises(UnusableHomeError, match="is being restored"), shared_lock(home):
            pass
    for name in (".withdrawn.json", ".withdrawn.key"):
        (home.landing / name).unlink()  # the journal keeps them
    restore(home, tmp_path / "safe")
    assert PARTICIPANT in Withdrawn(home.landing)
    assert find_remnants(home.root, {PARTICIPANT}, []).lines == []
    assert not (home.root / "restore.json").exists()


@pytest.mark.parametrize("when", ["before the backup", "after the backup"])
def test_a_withdrawal_that_was_interrupted_is_finished_by_a_restore(home: Home, tmp_path: Path, when: str) -> None:
    if when == "after the backup":
        backup(home, tmp_path / "safe")
    (home.root / "withdrawal.json").write_text(json.dumps({"participant_id": PARTICIPANT}), encoding="utf-8")
    if when == "before the backup":
        backup(home, tmp_path / "safe")
        (home.root / "withdrawal.json").unlink()
    restored = restore(home, tmp_path / "safe", replace=True)
    assert [withdrawal.participant_id for withdrawal in restored.withdrawals] == [PARTICIPANT]
    assert find_remnants(home.root, {PARTICIPANT}, []).lines == []


def test_bad_places_are_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no home"):
        backup(Home(tmp_path / "none"), tmp_path / "safe")
    with pytest.raises(ValueError, match="lies inside the home"):
        backup(home, home.root / "backups")
    with pytest.raises(ValueError, match="holds no backup"):
        restore(home, tmp_path / "nowhere", replace=True)
    made = backup(home, tmp_path / "safe")
    manifest = made.folder / "backup.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**values, "layout": LAYOUT + 1}), encoding="utf-8")
    with pytest.raises(UnusableHomeError, match=f"has layout {LAYOUT + 1}"):
        restore(home, tmp_path / "safe", replace=True)


def test_a_catch_up_after_a_restore_reaches_the_same_tables(pipeline: Pipeline, tmp_path: Path) -> None:
    """A batch is under way when the backup is made; the home is lost; the restored one ends as the undisturbed one."""
    home = copy_home(pipeline.home, tmp_path / "home")
    simulate(home, "sim-c", 24, participants=4)
    segment_batch(home, "sim-c")
    backup(home, tmp_path / "safe")
    with opened_instance(home) as instance:
        assert not catch_up(home, instance, encoders="keep").failed
    expected = warehouse(home)
    shutil.rmtree(home.root)
    restore(home, tmp_path / "safe")
    with opened_instance(home) as instance:
        assert not catch_up(home, instance, encoders="keep").failed
    assert warehouse(home) == expected
