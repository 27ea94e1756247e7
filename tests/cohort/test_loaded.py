"""Which batches count, with and without a warehouse."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from accelkd.cohort.loaded import unused_batches, usable_batches, write_loaded
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.cohort.training_set import training_set
from accelkd.home import files, verified
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.operations.repair import repairing
from accelkd.recordings.arrivals import Supersession, refuse, supersede
from accelkd.segments.segment import verify_segments
from tests.support.damage import flip
from tests.support.homes import land

BATCHES = ["b1", "b2", "b3"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Three batches that are segmented."""
    home = Home(tmp_path)
    for number, batch_id in enumerate(BATCHES):
        land(home, batch_id, [f"p{number}", f"q{number}"], minutes=5)
    extend_split(home.split, segmented_participants(home, BATCHES))
    return home


def test_without_a_warehouse_all_count_but_the_refused_and_superseded(home: Home) -> None:
    assert usable_batches(home) == BATCHES
    refuse(home, "b2", ["sha256"])
    supersede(home, Supersession("b3", "b1"))
    land(home, "b3", ["p2", "q2"], minutes=5)  # left by a process of an earlier version
    assert usable_batches(home) == ["b1"]
    assert unused_batches(home) == ["b2", "b3"]
    assert training_set(home).batch_ids == ("b1",)


def test_with_a_warehouse_what_it_has_loaded_is_trained_on(home: Home) -> None:
    write_loaded(home, ["b1", "b3"])
    selected = training_set(home)
    assert selected.batch_ids == ("b1", "b3")
    assert selected.not_loaded == ("b2",)
    write_loaded(home, [])
    with pytest.raises(FileNotFoundError, match=r"b1, b2, b3: segmented, not loaded"):
        training_set(home)


def test_what_reads_a_batch_while_it_is_superseded_reads_the_others(home: Home) -> None:
    """Its files are gone between the list and the reading."""
    write_loaded(home, ["b1", "b2"])

    def read() -> list[str]:
        batches = usable_batches(home)
        if "b1" in batches:
            write_loaded(home, ["b2", "b3"])
            supersede(home, Supersession("b1", "b3"))
        for batch_id in batches:
            verify_segments(home, batch_id)
        return batches

    assert repairing(home, read) == ["b2", "b3"]


def test_a_second_training_reads_no_store_again_until_it_is_another(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(verified, "SETTLED_S", 0.0)
    sha256_file = files.sha256_file

    def counting(path: Path) -> str:
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(files, "sha256_file", counting)
    time.sleep(0.02)  # more than a step of the file system's clock
    first = training_set(home)
    assert len(read) == 2 * len(BATCHES)  # stores and quarantines
    again = training_set(home, ["ppg"])
    assert len(read) == 2 * len(BATCHES)
    assert again.data_version == first.data_version
    good = home.segments("b2").read_bytes()
    flip(home.segments("b2"))
    with pytest.raises(DamagedFileError, match=r"batch b2: .*`accelkd repair`"):
        training_set(home)
    read.clear()
    home.segments("b2").write_bytes(good)
    assert training_set(home).data_version == first.data_version
    assert read == ["b2.arrow"]
