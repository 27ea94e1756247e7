"""The landing zone is written by others: each folder is looked at by itself, and an odd one stops no other."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accelkd.home.files import DamagedFileError, sweep
from accelkd.home.layout import Home
from accelkd.operations.checks import landing_zone
from accelkd.recordings import arrivals, listing
from accelkd.recordings.arrivals import (
    STALLED_S,
    Supersession,
    arrived_batches,
    forget,
    landed_folders,
    pending_arrivals,
    refuse,
    refused,
    refused_unchanged,
    removed_deliveries,
    supersede,
    superseded,
)
from accelkd.recordings.batches import MANIFEST
from accelkd.recordings.listing import fingerprint, list_folder, printable
from accelkd.recordings.validate import validate_arrival
from tests.support.odd_entries import GOOD, KINDS, copied, no_longer_than
from tests.support.recordings import recording, write_batch


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in which one good batch has landed."""
    home = Home(tmp_path / "home")
    write_batch(home.landing, [recording()], GOOD)
    return home


def problems(home: Home, known: tuple[str, ...] = ()) -> dict[str, str | None]:
    with no_longer_than(20):
        return {arrival.batch_id: arrival.problem for arrival in pending_arrivals(home, known)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_entry_is_a_problem_of_its_own(home: Home, kind: str) -> None:
    KINDS[kind].make(home.landing)
    reported = problems(home)
    assert set(reported) == {GOOD, KINDS[kind].shown}
    assert reported[GOOD] is None
    assert KINDS[kind].problem in (reported[KINDS[kind].shown] or "")
    with no_longer_than(20):
        assert GOOD in arrived_batches(home)
        assert sweep(home.root) == []
    "".join(f"{name}{problem}" for name, problem in reported.items()).encode()  # any log takes it


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.is_batch])
def test_the_validator_refuses_an_odd_batch_and_reports_why(home: Home, kind: str) -> None:
    KINDS[kind].make(home.landing)
    name = KINDS[kind].shown
    assert name in landed_folders(home.landing)
    with no_longer_than(20):
        violations = validate_arrival(home, name)
    assert violations
    assert all(violation.fatal for violation in violations)
    assert refused_unchanged(home) == {name}
    assert problems(home)[GOOD] is None
    assert problems(home)[name]


def test_all_kinds_together_take_seconds(home: Home) -> None:
    for kind in KINDS.values():
        kind.make(home.landing)
    started = time.monotonic()
    reported = problems(home)
    assert time.monotonic() - started < 10
    assert {name for name, problem in reported.items() if problem} == {kind.shown for kind in KINDS.values()}
    assert len(landing_zone(pending_arrivals(home, [])).table) == len(KINDS)


def test_files_that_come_and_go_during_the_look_stop_nothing(home: Home) -> None:
    folder = copied(home.landing, "busy")
    (folder / "recordings/deep").mkdir()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for name in ("a", "recordings/b", "recordings/deep/c"):
                (folder / name).touch()
            shutil.rmtree(folder / "recordings/deep")
            for name in ("a", "recordings/b"):
                (folder / name).unlink()
            (folder / "recordings/deep").mkdir()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert problems(home) == {GOOD: None, "busy": None}
            fingerprint(folder)
    finally:
        stop.set()
        writer.join()


def test_a_folder_that_is_removed_during_the_look_is_no_arrival(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(home.landing, "gone")
    look = list_folder

    def remove_first(path: Path, *, max_s: float) -> listing.Listing:
        if path == folder:
            shutil.rmtree(folder)
        return look(path, max_s=max_s)

    monkeypatch.setattr(arrivals, "list_folder", remove_first)
    assert problems(home) == {GOOD: None}


@pytest.fixture
def foreign() -> Iterator[Home]:
    """A home that somebody else than root may enter."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    yield Home(root)
    shutil.rmtree(root)


@pytest.mark.parametrize("locked", ["", "recordings"])
def test_a_folder_without_permission_is_reported(foreign: Home, locked: str) -> None:
    home = foreign
    write_batch(home.landing, [recording()], GOOD)
    folder = copied(home.landing, "locked")
    (folder / locked).chmod(0)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)  # root may read everything
    try:
        reported = problems(home)
        assert arrived_batches(home) == [GOOD, *(["locked"] if locked else [])]
    finally:
        if as_root:
            os.seteuid(0)
        (folder / locked).chmod(0o755)
    assert reported == {GOOD: None, "locked": f"{'recordings/: ' if locked else ''}not_readable: Permission denied"}
    assert problems(home) == {GOOD: None, "locked": None}


def test_a_folder_with_too_many_files_is_reported(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(home.landing, "many")
    for number in range(50):
        (folder / f"{number}").touch()
    monkeypatch.setattr(listing, "MAX_FILES", 20)
    assert problems(home) == {GOOD: None, "many": "too_many_files: more than 20"}
    assert [violation.rule for violation in validate_arrival(home, "many")] == ["too_many_files"]
    assert refused_unchanged(home) == {"many"}


def test_what_takes_too_long_is_reported_and_the_rest_looked_at_later(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MAX_S", 0.0)
    assert problems(home) == {GOOD: "too_slow: cannot be listed in time"}
    monkeypatch.setattr(arrivals, "SCAN_S", 0.0)
    (arrival,) = pending_arrivals(home, [])
    assert (arrival.problem, arrival.arrived) == (None, False)  # another tick looks again


def test_names_are_shown_printable_and_no_two_alike() -> None:
    names = ["b\udcff", "b\\xff", "b\nff", "b\u202eff", "bÿ"]
    assert [printable(name) for name in names] == [r"b\xff", r"b\\xff", r"b\nff", r"b\u202eff", "bÿ"]
    assert printable("a" * 10_000, 10) == "aaaaaaaaaa… (10,000 characters)"


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make something else in the place of a file."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


DAMAGES: dict[str, Callable[[Path], object]] = {
    "not-json": lambda path: path.write_bytes(b"\xff{"),
    "empty": lambda path: path.write_bytes(b""),
    "a-list": lambda path: path.write_text("[]"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "no-reasons": lambda path: path.write_text('{"batch_id": "good", "fingerprint": "x"}'),
    "reasons-empty": lambda path: path.write_text('{"batch_id": "good", "fingerprint": "x", "reasons": []}'),
    "reasons-no-list": lambda path: path.write_text('{"batch_id": "good", "fingerprint": "x", "reasons": 7}'),
    "fingerprint-no-text": lambda path: path.write_text('{"fingerprint": 7, "reasons": ["x"]}'),
    "fifo": instead(os.mkfifo),
    "folder": instead(Path.mkdir),
    "dangling-link": instead(lambda path: path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_refusal_stops_nothing_and_is_written_again(home: Home, how: str) -> None:
    copied(home.landing, "other")
    refuse(home, GOOD, ["sha256"])
    refuse(home, "other", ["schema"])
    path = home.root / "refused" / f"{GOOD}.json"
    DAMAGES[how](path)
    (home.root / "refused" / "no name.json").touch()  # never ours
    with no_longer_than(20):
        assert refused_unchanged(home) == {"other"}  # the next catch-up validates the batch again
    reported = problems(home, (GOOD, "other"))
    assert reported["other"] == "schema"
    assert "refused/good.json, which says why, is damaged" in (reported[GOOD] or "")
    if how != "folder":
        validate_arrival(home, GOOD)
        assert set(refused(home)) == {"other"}


def test_a_refusal_of_an_earlier_version_is_read(home: Home) -> None:
    refuse(home, GOOD, ["sha256"])
    path = home.root / "refused" / f"{GOOD}.json"
    entry = json.loads(path.read_text())
    del entry["waits_for"]
    path.write_text(json.dumps(entry))
    assert refused_unchanged(home) == {GOOD}
    assert problems(home) == {GOOD: "sha256"}


def test_damaged_supersessions_come_from_the_copy_and_are_never_forgotten(home: Home) -> None:
    supersede(home, Supersession(GOOD, "b2"))
    supersede(home, Supersession("b0", "b1"))
    (home.root / "superseded.json").write_bytes(b"\xff")
    assert superseded(home) == {"b0": Supersession("b0", "b1"), GOOD: Supersession(GOOD, "b2")}
    assert problems(home) == {}
    (home.root / "superseded.copy.json").write_text("[[]]")
    with pytest.raises(DamagedFileError, match=r"superseded\.json and superseded\.copy\.json cannot be read"):
        superseded(home)


def test_a_correction_of_what_never_was_is_refused_until_that_lands(home: Home) -> None:
    copied(home.landing, "b2", replaces="b1")
    assert "replaces" in {violation.rule for violation in validate_arrival(home, "b2")}
    assert refused(home)["b2"].reasons == ("manifest.json: replaces: it replaces batch 'b1', which has never landed",)
    assert refused_unchanged(home) == {"b2"}
    assert "never landed" in (problems(home)["b2"] or "")
    copied(home.landing, "b1")
    assert refused_unchanged(home) == set()
    assert problems(home)["b2"] is None
    assert validate_arrival(home, "b2") == []
    assert refused(home) == {}


@pytest.mark.parametrize("trace", ["segments", "quarantine", "superseded"])
def test_a_correction_of_a_batch_that_was_processed_is_accepted(home: Home, trace: str) -> None:
    copied(home.landing, "b2", replaces="b1")
    if trace == "superseded":
        supersede(home, Supersession("b1", "b1a"))
    else:
        path = getattr(home, trace)("b1")
        path.parent.mkdir()
        path.touch()
    assert validate_arrival(home, "b2") == []
    assert problems(home)["b2"] is None


def test_a_removed_delivery_is_forgotten_unless_it_was_loaded(home: Home) -> None:
    for name in ("loaded", "refused", "segmented"):
        copied(home.landing, name)
        refuse(home, name, ["sha256"])
    for path in (home.segments("segmented"), home.quarantine("segmented")):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    known = [GOOD, "loaded", "segmented", "refused"]
    assert removed_deliveries(home, known, ["loaded"]).forgotten == []
    for name in ("loaded", "refused", "segmented"):
        shutil.rmtree(home.batch(name))
    removed = removed_deliveries(home, known, ["loaded"])
    assert removed.forgotten == ["refused", "segmented"]
    (missing,) = removed.missing
    assert (missing.batch_id, missing.arrived) == ("loaded", False)
    assert "its folder is gone from the landing zone, and the warehouse holds it" in (missing.problem or "")
    assert not landing_zone(removed.missing).passed
    for name in removed.forgotten:
        forget(home, name)
    assert set(refused(home)) == {"loaded"}
    assert not home.segments("segmented").exists()
    assert not home.quarantine("segmented").exists()


def test_a_refused_delivery_without_a_partition_is_forgotten_too(home: Home) -> None:
    copied(home.landing, "b1")
    refuse(home, "b1", ["sha256"])
    shutil.rmtree(home.batch("b1"))
    assert removed_deliveries(home, [], []).forgotten == ["b1"]


def test_nothing_is_forgotten_that_is_there_or_may_be_loaded(home: Home) -> None:
    with pytest.raises(ValueError, match="is in the landing zone"):
        forget(home, GOOD)
    unknown = removed_deliveries(home, ["b1"], None)
    assert unknown.forgotten == []
    assert [arrival.batch_id for arrival in unknown.missing] == ["b1"]
    supersede(home, Supersession("b1", "b2"))
    assert removed_deliveries(home, ["b1"], []) == arrivals.RemovedDeliveries([], [])
    home.batch(GOOD).rename(home.root / "kept")
    (home.landing / GOOD).symlink_to(home.root / "kept")
    assert removed_deliveries(home, [GOOD], []).forgotten == []
    home.landing.rename(home.root / "not mounted")
    assert removed_deliveries(home, [GOOD], []).forgotten == []


def test_a_stalled_batch_is_reported(home: Home) -> None:
    (home.batch(GOOD) / MANIFEST).unlink()
    assert problems(home) == {GOOD: None}
    for path in (home.batch(GOOD), *home.batch(GOOD).rglob("*")):
        os.utime(path, (time.time() - 2 * STALLED_S,) * 2)
    assert "no manifest.json, and no file has changed for 2.0 h" in (problems(home)[GOOD] or "")
