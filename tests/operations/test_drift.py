"""Drift of a home's batches: healthy ones pass, those of other sensors and other people do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.home.layout import Home
from accelkd.operations.drift import COHORT_BATCHES, embedding_drift, segment_drift
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from tests.support.homes import land


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three batches of a cohort, and one of other people with a noisier device."""
    home = Home(tmp_path_factory.mktemp("drift"))
    for number, profile in enumerate(("easy", "easy", "easy", "hard")):
        simulate_batch(
            home.landing,
            batch := f"{profile}-{number}",
            participants=16,
            segments=4,
            seed=5,
            profile=profile,
            first_participant=16 * number,
        )
        segment_batch(home, batch)
    return home


def test_a_healthy_batch_passes_and_a_noisier_device_does_not(simulated: Home) -> None:
    healthy = {drift.quantity: drift for drift in segment_drift(simulated, "easy-1")}
    noisy = {drift.quantity: drift for drift in segment_drift(simulated, "hard-3")}
    assert not [name for name, drift in healthy.items() if drift.drifted]
    assert {"motion_p95_g", "accel_ac_level"} <= {name for name, drift in noisy.items() if drift.drifted}
    assert healthy.keys() == noisy.keys()
    assert noisy["hr_bpm"].cohort_segments > 150  # of three batches


def test_test_participants_are_not_in_the_cohort(simulated: Home) -> None:
    before = segment_drift(simulated, "easy-1")[0].cohort_segments
    extend_split(simulated.split, segmented_participants(simulated, ["easy-0", "easy-2", "hard-3"]), seed=0)
    after = segment_drift(simulated, "easy-1")[0].cohort_segments
    simulated.split.unlink()
    assert 0.7 * before < after < 0.9 * before


def test_the_only_batch_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "alone", ["a", "b"])
    assert segment_drift(home, "alone") == []
    assert embedding_drift(home, "ppg_teacher", "alone") is None


def test_cohort_is_bounded_however_many_batches_there_are(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(COHORT_BATCHES + 4):
        land(home, f"b{number:02d}", [f"p{number}"], minutes=2)
    drifts = segment_drift(home, "b03")
    assert {drift.cohort_segments for drift in drifts} == {2 * COHORT_BATCHES}
