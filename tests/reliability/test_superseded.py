"""What must not be trained on is not, whenever it comes: a superseded batch, a refused one, one that failed a check."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from accelkd.cohort.loaded import unused_batches, usable_batches
from accelkd.cohort.split import read_split
from accelkd.home.files import move_with_checksum
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import SupersededError, Supersession, refused_unchanged, supersede, superseded
from accelkd.registry.history import promoted_models
from accelkd.registry.trained_on import read_trained_on
from accelkd.segments import segment
from accelkd.segments.store import SegmentStore, write_segments
from orchestration.catch_up import CatchUpOutcome, catch_up
from orchestration.definitions import build_defs
from orchestration.jobs import request_missing
from tests.support import REPOSITORY
from tests.support.homes import land, new_home, simulate
from tests.support.paused import LOADING
from tests.support.pipeline import materialize_batch, opened_instance
from tests.support.processes import environment, wait_until

ORIGINAL, CORRECTION, GOOD, SELF, BAD = "sim-a", "sim-a-corrected", "sim-b", "sim-itself", "sim-nan"


@dataclass(frozen=True)
class Raced:
    """A home after a catch-up, before which a correction was loaded while its original was being segmented."""

    home: Home
    paused_run: tuple[int, str]  # of the original: its status, and what it failed with
    outcome: CatchUpOutcome


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raced]:
    home = new_home(tmp_path_factory.mktemp("raced") / "home")
    simulate(home, ORIGINAL, 0)
    simulate(home, CORRECTION, 0, participants=10, replaces=ORIGINAL)
    simulate(home, GOOD, 12)
    simulate(home, SELF, 24, participants=2, replaces=SELF)
    simulate(home, BAD, 26, participants=2)
    with pytest.MonkeyPatch.context() as patched, opened_instance(home) as instance:
        run = loaded_while_paused(home, tmp_path_factory.mktemp("gate"))
        patched.setattr("accelkd.segments.segment.segment_columns", with_nan_in_a_batch)
        yield Raced(home, run, catch_up(home, instance))


def loaded_while_paused(home: Home, gate: Path) -> tuple[int, str]:
    """Load the correction while a run of the original is in the middle of its `segments` step; how that run ended."""
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.paused", ORIGINAL, str(gate)],
            cwd=REPOSITORY,
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process,
        opened_instance(home) as instance,
    ):
        wait_until(lambda: (gate / "reached").exists() or process.poll() is not None)
        assert materialize_batch(home, instance, CORRECTION, LOADING).success
        (gate / "go").touch()
        log, _ = process.communicate()
    return process.returncode, log


def with_nan_in_a_batch(batch_id: str, *arguments: Any) -> Mapping[str, Any]:
    """What segmentation does, but for a signal of one batch that is not finite."""
    columns = dict(segment_columns(batch_id, *arguments))
    if batch_id == BAD:
        accel = columns["accel"]
        nan = pa.array(np.full(len(accel.values), np.nan, np.float16))
        columns["accel"] = pa.ListArray.from_arrays(accel.offsets, nan)
    return columns


segment_columns = segment.segment_columns


def derived_from(home: Home, batch_id: str) -> list[str]:
    """Files of a batch among segments and quarantine, also half-written ones."""
    paths = [path for folder in ("segments", "quarantine") for path in (home.root / folder).iterdir()]
    return [path.name for path in paths if path.name.lstrip(".").startswith(f"{batch_id}.")]


def people(home: Home, batch_id: str) -> set[str]:
    return set(SegmentStore([home.segments(batch_id)]).metadata.column("participant_id").to_pylist())


def test_a_batch_that_is_superseded_while_it_is_segmented_leaves_nothing(raced: Raced) -> None:
    status, log = raced.paused_run
    assert status == 1
    assert f"segments dagster._core.definitions.events.Failure: batch {ORIGINAL} is superseded: {CORRECTION}" in log
    assert derived_from(raced.home, ORIGINAL) == []


def test_everything_else_is_split_trained_embedded_and_published(raced: Raced) -> None:
    home = raced.home
    assert set(raced.outcome.failed) == {("segments", BAD), ("raw_recordings", SELF)}
    assert {batch_id for _, batch_id in raced.outcome.skipped} == {BAD, SELF}
    assert usable_batches(home) == [CORRECTION, GOOD]
    assert unused_batches(home) == [BAD]
    for encoder, model_id in promoted_models(home).items():
        trained_on, batch_ids = read_trained_on(home, encoder, model_id)
        assert batch_ids == (CORRECTION, GOOD)
        assert set(trained_on.column("batch_id").to_pylist()) == {CORRECTION, GOOD}
    assert set(read_split(home.split).column("participant_id").to_pylist()) == people(home, CORRECTION) | people(
        home, GOOD
    )
    with duckdb.connect(str(home.published), read_only=True) as connection:
        for table in ("batches", "segments", "demographics", "embeddings.ppg_teacher", "embeddings.accel_student"):
            assert connection.execute(f"SELECT DISTINCT batch_id FROM {table} ORDER BY 1").fetchall() == [
                (CORRECTION,),
                (GOOD,),
            ]


def test_what_is_superseded_or_refused_is_not_missing_the_next_night(raced: Raced) -> None:
    assert refused_unchanged(raced.home) == {SELF}
    with opened_instance(raced.home) as instance:
        assert ORIGINAL not in instance.get_dynamic_partitions("arrival_batch")
        requested = request_missing(raced.home, instance, build_defs(raced.home).resolve_asset_graph())
        assert requested is not None
        backfill = instance.get_backfill(requested[0])
        assert backfill is not None
        assert backfill.asset_backfill_data is not None
        subsets = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values()
        assert {key for subset in subsets for key in subset.get_partition_keys()} == {BAD}  # whose check failed


def test_a_correction_waits_while_segments_are_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it removes what was put there: between the last look and the rename nothing can happen."""
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    loading = threading.Thread(target=supersede, args=(home, Supersession("b1", "b2")))
    waited = []

    def move(path: Path, target: Path) -> None:
        if not loading.is_alive():
            loading.start()
        loading.join(0.3)
        waited.append(loading.is_alive() and "b1" not in superseded(home))
        move_with_checksum(path, target)

    monkeypatch.setattr("accelkd.segments.segment.move_with_checksum", move)
    assert segment.segment_batch(home, "b1").quarantined == 1
    loading.join()
    assert waited == [True, True]
    assert superseded(home).keys() == {"b1"}
    assert derived_from(home, "b1") == []
    with pytest.raises(SupersededError):
        segment.segment_batch(home, "b1")


def test_segments_that_are_ready_after_the_correction_are_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"])

    def write(*arguments: Any) -> int:
        supersede(home, Supersession("b1", "b2"))
        return write_segments(*arguments)

    monkeypatch.setattr("accelkd.segments.segment.write_segments", write)
    with pytest.raises(SupersededError, match="batch b1 was replaced by b2"):
        segment.segment_batch(home, "b1")
    assert derived_from(home, "b1") == []
