"""What is removed from the landing zone: forgotten where it was never loaded, reported where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.operations.checks import MAX_LISTED, check_landing_zone, removed_from_landing_zone
from accelkd.recordings.arrivals import forget, refuse, refused
from accelkd.warehouse.load import load_batch
from tests.support.homes import land
from tests.support.odd_entries import GOOD, KINDS, no_longer_than


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with one batch that was loaded, one that was not and is refused, and one that just landed."""
    home = Home(tmp_path / "home")
    for name in ("loaded", "refused", GOOD):
        land(home, name, [f"p-{name}"])
    load_batch(home, "loaded")
    refuse(home, "refused", ["sha256"])
    return home


KNOWN = ("loaded", "refused", GOOD)


def test_a_loaded_batch_without_its_folder_is_a_problem_and_another_is_forgotten(home: Home) -> None:
    assert removed_from_landing_zone(home, KNOWN).missing == []
    for name in ("loaded", "refused"):
        shutil.rmtree(home.batch(name))
    removed = removed_from_landing_zone(home, KNOWN)
    assert removed.forgotten == ["refused"]
    verdict = check_landing_zone(home, KNOWN)
    assert not verdict.passed
    (row,) = verdict.table
    assert row["batch"] == "loaded"
    assert "the warehouse holds it" in str(row["reason"])
    forget(home, "refused")
    assert refused(home) == {}
    assert removed_from_landing_zone(home, KNOWN).forgotten == ["refused"]  # as long as its partition is known
    land(home, "refused", ["p-refused"])
    assert removed_from_landing_zone(home, KNOWN).forgotten == []


@pytest.mark.parametrize("loss", ["damaged", "lost", "lost-but-published"])
def test_nothing_is_forgotten_while_the_warehouse_cannot_be_read(home: Home, loss: str) -> None:
    shutil.rmtree(home.batch("refused"))
    if loss == "damaged":
        home.staging.write_bytes(b"no database" * 1_000)
    else:
        home.staging.unlink()
    if loss == "lost-but-published":
        home.published.touch()
    removed = removed_from_landing_zone(home, KNOWN)
    assert removed.forgotten == []
    assert [arrival.batch_id for arrival in removed.missing] == ["refused"]


def test_before_the_first_load_a_removed_delivery_is_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    land(home, "b1", ["p1"])
    refuse(home, "b1", ["sha256"])
    for path in (home.batch("b1"), home.root / "segments", home.root / "quarantine"):
        shutil.rmtree(path)
    assert removed_from_landing_zone(home, ["b1"]).forgotten == ["b1"]


def test_the_command_line_reports_the_landing_zone(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (home.root / "refused" / "refused.json").unlink()
    assert main(["--home", str(home.root), "check"]) == 0
    assert capsys.readouterr().out == "not_usable = 0, still_arriving = 0\n"
    for kind in KINDS.values():
        kind.make(home.landing)
    shutil.rmtree(home.batch("loaded"))
    with no_longer_than(20):
        assert main(["--home", str(home.root), "check"]) == 1
    *rows, summary = capsys.readouterr().out.splitlines()
    assert {row.split(": ")[0] for row in rows} == {"loaded", *(kind.shown for kind in KINDS.values())}
    assert summary.startswith(f"not_usable = {len(KINDS) + 1}")


def test_a_report_on_thousands_of_odd_entries_is_short(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for number in range(2_000):
        (home.landing / f"no name {number}").mkdir(parents=True)
    verdict = check_landing_zone(home, [])
    assert verdict.measured["not_usable"] == 2_000
    assert len(verdict.table) == MAX_LISTED
