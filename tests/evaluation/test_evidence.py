"""Intervals of few people: how often they hold the truth, and when a result decides nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest, norm

from accelkd.evaluation.evidence import (
    auc_interval,
    error_interval,
    undecided_area,
    undecided_error,
    undecided_retrieval,
)
from accelkd.evaluation.significance import auc, bootstrap_aucs, interval

RUNS = 300


def scores(rng: np.random.Generator, area: float, spread: float, yes: int, no: int) -> npt.NDArray[np.float64]:
    """Normal scores of `yes` people, then of `no` people; the former's are `spread` times as wide."""
    distance = np.hypot(1, spread) * norm.ppf(area)
    return np.concatenate([spread * rng.standard_normal(yes) + distance, rng.standard_normal(no)])


@pytest.mark.parametrize("yes", [1, 3, 5, 10, 30])
@pytest.mark.parametrize("spread", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("area", [0.5, 0.7, 0.95])
def test_the_interval_of_an_area_holds_the_truth(yes: int, spread: float, area: float) -> None:
    labels = np.arange(yes + 100) < yes
    rng = np.random.default_rng([yes, round(9 * spread), round(100 * area)])
    covered = 0
    for _ in range(RUNS):
        low, high = auc_interval(auc(labels, scores(rng, area, spread, yes, 100)), yes, 100)
        covered += low <= area <= high
    assert covered > 0.89 * RUNS  # at the worst 0.92 of 1,500 runs (benches/intervals.py)


def test_the_bootstrap_of_one_person_does_not() -> None:
    labels = np.arange(101) < 1
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(100):
        areas = bootstrap_aucs(labels, scores(rng, 0.85, 1.0, 1, 100)[None], seed=run)
        low, high = interval(areas[0])
        covered += low <= 0.85 <= high
    assert covered < 40


@pytest.mark.parametrize(("hits", "people"), [(0, 1), (1, 1), (7, 10), (30, 30), (50, 100)])
def test_an_interval_is_wilsons_of_the_smaller_class(hits: int, people: int) -> None:
    expected = binomtest(hits, people).proportion_ci(method="wilson")
    for counts in ((people, 10 * people), (10 * people, people)):
        assert auc_interval(hits / people, *counts) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_area_without_both_classes_has_no_interval() -> None:
    with pytest.raises(ValueError, match="0 yes, 5 no"):
        auc_interval(0.5, 0, 5)


@pytest.mark.parametrize("people", [3, 5, 10, 30])
def test_the_interval_of_an_error_holds_the_truth_over_people(people: int) -> None:
    """People differ in how large their errors are and in how many segments they have."""
    truth = np.exp(0.5**2 / 2) * np.sqrt(2 / np.pi)
    rng = np.random.default_rng(people)
    covered, of_segments = 0, 0
    for _ in range(RUNS):
        participants = np.repeat(np.arange(people).astype(str), rng.integers(3, 40, people))
        scale = rng.lognormal(0, 0.5, people)[participants.astype(int)]
        errors = np.abs(scale * rng.standard_normal(len(participants)))
        bounds = error_interval(errors, participants)
        assert bounds is not None
        covered += bounds[0] <= truth <= bounds[1]
        low, high = error_interval(errors, np.arange(len(errors)).astype(str)) or (0, 0)
        of_segments += low <= truth <= high
    assert covered > 0.87 * RUNS
    assert of_segments < covered - 0.1 * RUNS  # as if each segment were another person


def test_one_person_has_no_interval_of_an_error() -> None:
    assert error_interval(np.ones(9), np.repeat("p1", 9)) is None
    assert error_interval(np.zeros(4), np.array(["a", "b", "a", "b"])) == (0, 0)


@pytest.mark.parametrize(
    ("train", "test", "bounds", "reason"),
    [
        ((10, 10), (10, 10), (0.4, 0.9), None),
        ((10, 10), (10, 10), (0.39, 0.9), "interval too wide: 0.39 to 0.90"),
        ((0, 50), (10, 10), None, "constant: all 50 in training are no"),
        ((10, 10), (0, 0), None, "too few people: 0 with a value in test"),
        ((50, 9), (10, 10), (0.5, 0.6), "too few people: 9 no in training, 10 are needed"),
        ((50, 50), (9, 90), (0.9, 1.0), "too few people: 9 yes in test, 10 are needed"),
    ],
)
def test_when_an_area_decides_nothing(
    train: tuple[int, int], test: tuple[int, int], bounds: tuple[float, float] | None, reason: str | None
) -> None:
    assert undecided_area(train, test, bounds) == reason


@pytest.mark.parametrize(
    ("train", "test", "bounds", "constant", "reason"),
    [
        (10, 10, (2.0, 5.0), 4.5, "interval too wide: 2.00 to 5.00 holds all and half of the constant's error"),
        (10, 10, (2.0, 4.0), 4.5, None),  # better than a constant
        (10, 10, (4.0, 5.0), 4.5, None),  # and no more than a little
        (9, 10, (2.0, 2.5), 4.5, "too few people: 9 with a value in training, 10 are needed"),
        (10, 9, (2.0, 2.5), 4.5, "too few people: 9 with a value in test, 10 are needed"),
        (10, 10, (0.0, 0.0), 0.0, "constant: all in test have the value that a constant predicts"),
    ],
)
def test_when_an_error_decides_nothing(
    train: int, test: int, bounds: tuple[float, float], constant: float, reason: str | None
) -> None:
    assert undecided_error(train, test, bounds, constant) == reason


def test_a_retrieval_among_few_people_decides_nothing() -> None:
    assert undecided_retrieval(1) == "too few people: 1 in test, 10 are needed"
    assert undecided_retrieval(9) == "too few people: 9 in test, 10 are needed"
    assert undecided_retrieval(10) is None
