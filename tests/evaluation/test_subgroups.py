"""Errors, coverage and ranking by group: what each group's people show, and silence where they are too few."""

from __future__ import annotations

import numpy as np
import pytest

from accelkd.evaluation.subgroups import EVERYBODY, Judged, band, by_group, coverage_interval

PEOPLE, MINUTES = 60, 4
NAMES = np.repeat([f"p{number:02d}" for number in range(PEOPLE)], MINUTES)
SEX = np.where(np.arange(PEOPLE) % 2, "female", "male").repeat(MINUTES)
FEW = np.where(np.arange(PEOPLE) < 9, "few", "").repeat(MINUTES)


def judged(*, yes_or_no: bool = False) -> Judged:
    """A heart rate that is read twice as badly of one sex; or an answer that is likely where its probability is."""
    rng = np.random.default_rng(0)
    if yes_or_no:
        yes = (np.arange(PEOPLE) % 3 == 0).astype(float)
        nothing = np.full(PEOPLE, np.nan)
        return Judged(yes, yes + rng.normal(0, 0.4, PEOPLE), nothing, nothing, np.unique(NAMES))
    measured = rng.normal(70, 8, len(NAMES))
    value = measured + rng.normal(0, np.where(SEX == "male", 4.0, 2.0))
    return Judged(measured, value, value - 4.0, value + 4.0, NAMES)


def test_each_group_has_its_own_error_and_coverage() -> None:
    everybody, female, male = by_group(judged(), {"sex": SEX})
    assert (everybody.attribute, everybody.participants, everybody.samples) == (EVERYBODY, 60, 240)
    assert (female.subgroup, male.subgroup) == ("female", "male")
    for result, errors in ((female, 2.0), (male, 4.0)):
        assert result.participants == 30
        assert result.mae == pytest.approx(errors * np.sqrt(2 / np.pi), rel=0.2)
        assert (result.mae_low or 0.0) < (result.mae or 0.0) < (result.mae_high or 0.0)
        assert result.status == "decidable"
    assert female.coverage == pytest.approx(0.954, abs=0.04)
    assert male.coverage == pytest.approx(0.683, abs=0.1)


def test_a_group_of_few_people_says_nothing() -> None:
    few = by_group(judged(), {"age": FEW})[1]
    assert (few.mae, few.coverage, few.status) == (None, None, "not_decidable")
    assert few.not_decidable == "too few people: 9 in test, 10 are needed"


def test_answers_are_ranked_where_ten_say_yes_and_ten_no() -> None:
    answers = judged(yes_or_no=True)
    everybody, few = by_group(answers, {"sex": np.where(np.arange(PEOPLE) < 15, "female", "")})
    assert everybody.auc is not None
    assert everybody.auc > 0.85
    assert everybody.mae is None
    assert few.auc is None
    assert few.not_decidable == "too few people: 5 yes and 10 no in test, 10 are needed"


def test_the_interval_of_a_share_is_over_people() -> None:
    people = np.repeat([f"p{number}" for number in range(20)], 50)
    inside = np.repeat(np.arange(20) < 10, 50)  # half of the people, wholly
    low, high = coverage_interval(inside, people) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.28, 0.72), abs=0.01)
    assert coverage_interval(inside[:50], people[:50]) is None
    low, high = coverage_interval(np.ones(48, np.bool_), np.array([f"p{number}" for number in range(48)])) or (1.0, 1.0)
    assert (low, high) == pytest.approx((0.92, 1.0), abs=0.01)  # of 48 of 48 nothing is certain


def test_bands_include_their_lower_edge() -> None:
    names = ("thin", "middle", "heavy")
    assert band(np.array([18.4, 18.5, 24.9, 25.0, np.nan]), (18.5, 25.0), names).tolist() == [
        *("thin", "middle", "middle", "heavy", "")
    ]
