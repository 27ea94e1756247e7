"""Whom predictions hold for: error, coverage of the intervals and ranking, by group of people.

Intervals are 95 % and over people, who are what is independent. A group of fewer than 10 people decides nothing, and
says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from accelkd.evaluation.evidence import CONFIDENCE, MIN_TEST, Status, auc_interval, error_interval
from accelkd.evaluation.significance import auc

Floats = npt.NDArray[np.floating]
EVERYBODY = "everybody"  # the attribute whose one group holds all
BMI_EDGES_KG_M2 = (18.5, 25.0, 30.0)  # WHO
BMI_BANDS = ("underweight", "18.5 to 25", "25 to 30", "30 and over")
SKIN_TONE_EDGES = (4.0, 7.0)
SKIN_TONES = ("Monk 1 to 3", "Monk 4 to 6", "Monk 7 to 10")


@dataclass(frozen=True)
class GroupResult:
    """How one target is predicted for one group of test participants."""

    attribute: str
    subgroup: str
    participants: int
    samples: int
    mae: float | None = None  # None of yes-or-no targets
    mae_low: float | None = None
    mae_high: float | None = None
    bias: float | None = None  # mean of prediction minus measurement
    coverage: float | None = None  # share of measurements inside the 90 % interval
    coverage_low: float | None = None
    coverage_high: float | None = None
    auc: float | None = None  # of yes-or-no targets
    auc_low: float | None = None
    auc_high: float | None = None
    status: Status = "decidable"
    not_decidable: str | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions of one target beside what was measured, a sample each."""

    measured: Floats  # 1 yes, 0 no
    value: Floats
    low: Floats  # NaN of yes-or-no targets
    high: Floats
    participants: npt.NDArray[np.str_]


def by_group(judged: Judged, groups: Mapping[str, npt.NDArray[np.str_]]) -> list[GroupResult]:
    """Results for everybody, then for each group of each attribute; `groups` names each sample's, "" where unknown."""
    results = [_result(EVERYBODY, EVERYBODY, judged)]
    for attribute, names in groups.items():
        for name in [*dict.fromkeys(sorted(set(names.tolist()) - {""}))]:
            results.append(_result(attribute, name, _take(judged, names == name)))
    return results


def band(values: Floats, edges: tuple[float, ...], names: tuple[str, ...]) -> npt.NDArray[np.str_]:
    """The name of the band that each value lies in, the lower edge included; "" where it is NaN."""
    known = np.isfinite(values)
    named = np.asarray(names)[np.digitize(np.where(known, values, 0.0), edges)]
    return np.where(known, named, "")


def coverage_interval(inside: npt.NDArray[np.bool_], participants: npt.NDArray[np.str_]) -> tuple[float, float] | None:
    """The 95 % interval of a share of samples, where people are what is independent; None for fewer than two.

    Wilson's interval (1927) of as many independent samples as have the variance of the share over people (Cochran 1977,
    chapter 6), with the quantile of Student's t: of 48 of 48 people it still is not certain that the next is inside.
    """
    person = np.unique(participants, return_inverse=True)[1]
    counts = np.bincount(person)
    people = len(counts)
    if people < 2:
        return None
    share = float(inside.mean())
    residuals = np.bincount(person, inside) - share * counts
    variance = people / (people - 1) * float(residuals @ residuals) / len(inside) ** 2
    alike = share * (1 - share) / variance if variance else people
    weight = float(t.ppf((1 + CONFIDENCE) / 2, people - 1)) ** 2 / alike
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def _take(judged: Judged, rows: npt.NDArray[np.bool_]) -> Judged:
    return Judged(
        judged.measured[rows], judged.value[rows], judged.low[rows], judged.high[rows], judged.participants[rows]
    )


def _result(attribute: str, group: str, judged: Judged) -> GroupResult:
    people = len(np.unique(judged.participants))
    counted = (attribute, group, people, len(judged.measured))
    if people < MIN_TEST:
        reason = f"too few people: {people} in test, {MIN_TEST} are needed"
        return GroupResult(*counted, status="not_decidable", not_decidable=reason)
    if np.isfinite(judged.low).all():
        errors = judged.value - judged.measured
        inside = (judged.low <= judged.measured) & (judged.measured <= judged.high)
        mae_low, mae_high = error_interval(np.abs(errors), judged.participants) or (None, None)
        low, high = coverage_interval(inside, judged.participants) or (None, None)
        return GroupResult(
            *counted,
            mae=float(np.abs(errors).mean()),
            mae_low=mae_low,
            mae_high=mae_high,
            bias=float(errors.mean()),
            coverage=float(inside.mean()),
            coverage_low=low,
            coverage_high=high,
        )
    yes = judged.measured == 1
    answers = (int(yes.sum()), int((~yes).sum()))
    if min(answers) < MIN_TEST:
        reason = f"too few people: {answers[0]} yes and {answers[1]} no in test, {MIN_TEST} are needed"
        return GroupResult(*counted, status="not_decidable", not_decidable=reason)
    area = auc(yes, judged.value)
    area_low, area_high = auc_interval(area, *answers)
    return GroupResult(*counted, auc=area, auc_low=area_low, auc_high=area_high)
