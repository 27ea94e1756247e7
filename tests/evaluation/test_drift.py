"""Measures of drift: people of one kind pass, others do not, and few people are forgiven much."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from accelkd.evaluation import drift as drift_module
from accelkd.evaluation.drift import Drift, Sample, mean_shift, stability

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
    drifts = [measure("x", people(count, width=width), people(60, width=width)) for count in (3, 12, 40) for _ in "123"]
    assert not any(drift.drifted for drift in drifts)


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


def test_quantities_of_the_same_people_share_their_shuffles() -> None:
    samples = [(people(12), people(60)) for _ in "123"]
    alone = []
    for batch, cohort in samples:
        drift_module._sides.cache_clear()
        alone.append(stability("x", batch, cohort))
    drift_module._sides.cache_clear()
    assert [stability("x", batch, cohort) for batch, cohort in samples] == alone
    assert drift_module._sides.cache_info().misses == 1
