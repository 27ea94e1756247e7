"""What a measurement on few people says: intervals that hold in small samples, and when a result decides nothing.

A bootstrap over people collapses where a class has one person: that person is in every draw, and the interval becomes
as narrow as if nothing were unknown. The intervals here widen instead; `benches/intervals.py` measures how often each
covers the truth.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

Status = Literal["decidable", "not_decidable"]

CONFIDENCE = 0.95
# People of each class, or people with a value where the target is a number:
MIN_TRAIN = 10  # ten events for each coefficient (Peduzzi et al. 1996); the penalised probe counts as a single one
MIN_TEST = (
    10  # of nine, the interval of an area of 0.7 is wider than MAX_AREA_WIDTH, and an error's spans a factor of 3
)
MAX_AREA_WIDTH = 0.5  # from a coin (0.5) to a perfect ranking (1)
HALVED = 0.5  # of the constant's error

_Z = float(norm.ppf((1 + CONFIDENCE) / 2))


class NothingToMeasureError(LookupError):
    """There is nothing to measure, and nothing is wrong: the text is the reason, which reports and checks say."""


def auc_interval(auc: float, yes: int, no: int) -> tuple[float, float]:
    """The 95 % interval of an area under the ROC curve, measured on so many independent people of either class.

    Wilson's score interval (1927) of a proportion among the people of the smaller class: whatever the scores'
    distributions, the variance of an area A is at most A (1 - A) / min(yes, no) (Birnbaum and Klose 1957). Wider than
    needed where both classes are large and alike. Raises ValueError without both classes.
    """
    people = min(yes, no)
    if people < 1:
        raise ValueError(f"an area needs both classes: {yes} yes, {no} no")
    weight = _Z**2 / people
    middle = (auc + weight / 2) / (1 + weight)
    half = math.sqrt(auc * (1 - auc) * weight + weight**2 / 4) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def error_interval(
    absolute_errors: npt.NDArray[np.floating], participants: npt.NDArray[np.generic]
) -> tuple[float, float] | None:
    """The 95 % interval of a mean absolute error over samples [samples], where people are what is independent.

    Student's t on the logarithm, with the variance of a ratio over people (Cochran 1977, chapter 6): an error is
    positive and skewed. None for fewer than two people.
    """
    person = np.unique(participants, return_inverse=True)[1]
    counts = np.bincount(person)
    people = len(counts)
    if people < 2:
        return None
    mean = float(absolute_errors.mean())
    if mean == 0:
        return 0.0, 0.0
    residuals = np.bincount(person, absolute_errors) - mean * counts
    deviation = math.sqrt(people / (people - 1) * float(residuals @ residuals)) / len(absolute_errors)
    factor = math.exp(min(float(t.ppf((1 + CONFIDENCE) / 2, people - 1)) * deviation / mean, 700.0))
    return mean / factor, mean * factor


def undecided_area(train: tuple[int, int], test: tuple[int, int], bounds: tuple[float, float] | None) -> str | None:
    """Why an area decides nothing; None if it does.

    `train` and `test` are the numbers of people with yes and with no, `bounds` is the area's interval, None where no
    area could be measured.
    """
    for side, counts, needed in (("training", train, MIN_TRAIN), ("test", test, MIN_TEST)):
        if not sum(counts):
            return f"too few people: 0 with a value in {side}"
        if not all(counts):
            return f"constant: all {sum(counts)} in {side} are {'yes' if counts[0] else 'no'}"
        for answer, number in zip(("yes", "no"), counts, strict=True):
            if number < needed:
                return f"too few people: {number} {answer} in {side}, {needed} are needed"
    return None if bounds is None or bounds[1] - bounds[0] <= MAX_AREA_WIDTH else f"interval too wide: {_text(bounds)}"


def undecided_error(
    train_participants: int, test_participants: int, bounds: tuple[float, float] | None, constant_error: float | None
) -> str | None:
    """Why a mean absolute error decides nothing beside that of a constant; None if it does.

    `bounds` is the error's interval, None where it has none.
    """
    for side, number, needed in (("training", train_participants, MIN_TRAIN), ("test", test_participants, MIN_TEST)):
        if number < needed:
            return f"too few people: {number} with a value in {side}, {needed} are needed"
    if constant_error == 0:
        return "constant: all in test have the value that a constant predicts"
    if bounds and constant_error and bounds[0] <= HALVED * constant_error and bounds[1] >= constant_error:
        return f"interval too wide: {_text(bounds)} holds all and half of the constant's error"
    return None


def undecided_retrieval(test_participants: int) -> str | None:
    """Why a mean rank decides nothing beside that of chance; None if it does.

    Pools are drawn from the same people: with one person they are all alike, and their spread is 0.
    """
    if test_participants < MIN_TEST:
        return f"too few people: {test_participants} in test, {MIN_TEST} are needed"
    return None


def _text(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}"
