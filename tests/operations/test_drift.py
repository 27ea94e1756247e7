"""Drift: healthy batches pass, other sensors and other people do not, and few people are forgiven much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.evaluation.drift import Drift, Sample, mean_shift, stability
from accelkd.home.layout import Home
from accelkd.operations.drift import COHORT_BATCHES, embedding_drift, segment_drift
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from tests.support.homes import land

Measure = Callable[[str, Sample, Sample], Drift]
RNG = np.random.default_rng(0)


def people(count: int, *, shift: float = 0.0, minutes: int = 8, width: int | None = None, name: str = "p") -> Sample:
    """Minutes of people who differ more from each other than their minutes do."""
    size = () if width is None else (width,)
    levels = RNG.standard_normal((count, 1, *size)) + shift
    values = (levels + 0.3 * RNG.standard_normal((count, minutes, *size))).reshape(count * minutes, *size)
    return Sample(values, np.repeat([f"{name}{i}" for i in range(count)], minutes))


@pytest.mark.parametrize("measure", [stability, mean_shift])
def test_people_of_one_kind_do_not_drift(measure: Measure) -> None:
    width = None if measure is stability else 4
    found = [measure("x", people(count, width=width), people(60, width=width)) for count in (3, 12, 40) for _ in "123"]
    assert not any(drift.drifted for drift in found)


@pytest.mark.parametrize("measure", [stability, mean_shift])
def test_a_shift_of_many_people_is_drift(measure: Measure) -> None:
    width = None if measure is stability else 4
    drift = measure("x", people(40, shift=1.5, width=width), people(60, width=width))
    assert drift.drifted
    assert drift.difference > 2 * drift.threshold


def test_the_same_shift_of_three_people_may_be_chance() -> None:
    drift = stability("x", people(3, shift=1.0), people(60))
    assert drift.difference > drift.bound
    assert not drift.drifted


def test_minutes_of_one_person_count_as_one_person() -> None:
    few = stability("x", people(4, minutes=200), people(60))
    many = stability("x", people(60), people(60))
    assert few.by_chance > 3 * many.by_chance


def test_the_same_values_do_not_differ_at_all() -> None:
    sample = people(10)
    assert stability("x", sample, sample).difference == 0
    assert mean_shift("x", people(5, width=2), Sample(np.zeros((4, 2)), np.array(list("abcd")))).difference > 0


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
    found = segment_drift(home, "b03")
    assert {drift.cohort_segments for drift in found} == {2 * COHORT_BATCHES}
