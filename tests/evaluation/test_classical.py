"""The classical heart rate beside an encoder: errors on the segments that have both, and what few people decide."""

from __future__ import annotations

import numpy as np
import pytest

from accelkd.evaluation.classical import classical_result, undecided_classical


def test_errors_are_those_of_the_segments_with_both() -> None:
    labels = np.array([60.0, 70.0, np.nan, 80.0, 90.0])
    estimates = np.array([62.0, 70.0, 75.0, np.nan, 86.0])
    result = classical_result(labels, estimates, np.array(["p", "p", "p", "q", "q"]))
    assert result is not None
    assert (result.segments, result.labelled_segments) == (3, 4)
    assert result.mae == pytest.approx(2.0)
    assert result.rmse == pytest.approx(np.sqrt(20 / 3))
    assert result.mae_low is not None
    assert result.mae_high is not None
    assert result.mae_low < 2.0 < result.mae_high
    assert result.pearson_r == pytest.approx(np.corrcoef([60, 70, 90], [62, 70, 86])[0, 1])


def test_nothing_to_compare() -> None:
    labels = np.array([60.0, np.nan])
    assert classical_result(labels, labels[::-1], np.array(["p", "q"])) is None


def test_few_people_decide_nothing_and_nobody_is_needed_in_training() -> None:
    assert undecided_classical(3, 1.0, 3.0, 8.0) == "too few people: 3 with a value in test, 10 are needed"
    assert undecided_classical(12, 1.0, 3.0, 8.0) is None
    assert undecided_classical(12, None, None, 0.0) == "constant: all in test have the value that a constant predicts"
    assert (
        undecided_classical(12, 3.0, 9.0, 8.0)
        == "interval too wide: 3.00 to 9.00 holds all and half of the constant's error"
    )
