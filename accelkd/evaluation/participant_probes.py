"""Probes of participant-level targets: age, BMI, sex and the 46 health targets of the survey (appendix A.2).

One participant is one sample, the mean of their embeddings. Yes or no is 1 or 0 to the same ridge regression, whose
predictions are the scores of the area under the ROC curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.evaluation.blas import one_blas_thread
from accelkd.evaluation.evidence import Status, auc_interval, error_interval, undecided_area, undecided_error
from accelkd.evaluation.matrix import Floats, Matrix, chunks
from accelkd.evaluation.probes import (
    LabelledEmbeddings,
    People,
    fit_ridges,
    mean_absolute_error,
    pearson_r,
    refuse_shared_participants,
    root_mean_squared_error,
)
from accelkd.evaluation.significance import auc
from accelkd.recordings.survey import TARGETS as HEALTH_TARGETS

CONTINUOUS = {"age": "years", "bmi": "kg/m²"}
TARGET_LABELS = {"age": "Age", "bmi": "BMI", "sex": "Sex"}
TARGET_LABELS |= {name: target.label for name, target in HEALTH_TARGETS.items()}


@dataclass(frozen=True)
class ParticipantProbeResult:
    """One probe on the test participants: for age and BMI errors, also a constant's; else the area under the curve."""

    target: str
    unit: str | None  # None for a yes-or-no target
    train_participants: int  # with a value of the target
    test_participants: int
    train_yes: int | None = None  # None for age and BMI; yes for sex is male
    train_no: int | None = None
    test_yes: int | None = None
    test_no: int | None = None
    ridge_alpha: float | None = None
    mae: float | None = None
    mae_low: float | None = None  # 95 % interval; None for fewer than two test participants
    mae_high: float | None = None
    rmse: float | None = None
    pearson_r: float | None = None
    constant_mae: float | None = None
    constant_rmse: float | None = None
    auc: float | None = None  # None where it decides nothing: among many targets the best would be one of few people
    auc_low: float | None = None  # 95 % interval; None only where nothing could be measured
    auc_high: float | None = None
    status: Status = "decidable"
    not_decidable: str | None = None  # why it decides nothing


@dataclass(frozen=True)
class ParticipantProbe:
    """A result with its data: the test participants that have a value; none where nothing could be fitted."""

    result: ParticipantProbeResult
    participants: npt.NDArray[np.str_]
    measured: npt.NDArray[np.float64]  # 1 yes, 0 no
    predicted: npt.NDArray[np.float64]

    @property
    def area(self) -> float | None:
        """The area under the ROC curve, of however few people; None of a number, or with one class only."""
        known = self.result.unit is None and len(np.unique(self.measured)) == 2
        return auc(self.measured == 1, self.predicted) if known else None


def participant_targets(
    demographics: pa.Table, health: pa.Table, participants: Sequence[str] | npt.NDArray[np.str_]
) -> dict[str, npt.NDArray[np.float64]]:
    """Age, BMI, sex (1 male) and the health targets of `participants`, in their order; NaN where unknown.

    `demographics` has participant_id, sex, age_years and bmi_kg_m2, `health` the columns of
    accelkd.recordings.survey.SURVEY_TARGET; of several rows for the same value, the last that is not null counts.
    """
    row_of = {name: row for row, name in enumerate(np.asarray(participants).tolist())}

    def column(ids: pa.ChunkedArray, values: pa.ChunkedArray) -> npt.NDArray[np.float64]:
        out = np.full(len(row_of), np.nan)
        for name, value in zip(ids.to_pylist(), values.to_pylist(), strict=True):
            if value is not None and name in row_of:
                out[row_of[name]] = value
        return out

    ids = demographics.column("participant_id")
    targets = {
        "age": column(ids, demographics.column("age_years")),
        "bmi": column(ids, demographics.column("bmi_kg_m2")),
        "sex": column(ids, pc.equal(demographics.column("sex"), "male")),
    }
    for target in HEALTH_TARGETS:
        rows = health.filter(pc.equal(health.column("target"), target))
        targets[target] = column(rows.column("participant_id"), rows.column("value"))
    return targets


def mean_embeddings(
    matrix: Matrix, participants: Sequence[str] | People
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Participants, sorted, and the mean of the rows of each in `matrix` [segments, width]: `[participants, width]`.

    A participant's rows are summed one by one in their order, whatever lies between them.
    """
    names, code = np.unique(np.asarray(participants), return_inverse=True)
    sums = np.zeros((len(names), matrix.shape[1]))
    for which, part in chunks(matrix):
        order = np.argsort(code[which], kind="stable")
        present, first = np.unique(code[which][order], return_index=True)
        rows = np.insert(part[order].astype(np.float64), first, sums[present], axis=0)  # what was summed goes first
        sums[present] = np.add.reduceat(rows, first + np.arange(len(first)), axis=0)
    return names, sums / np.bincount(code, minlength=len(names))[:, None]


@one_blas_thread()
def probe_participants(train: LabelledEmbeddings, test: LabelledEmbeddings) -> dict[str, ParticipantProbe]:
    """Probes for every target, fitted on the participants of `train` and measured on those of `test`, a row each.

    Targets named in CONTINUOUS are numbers, all others yes (1) or no (0). What so few people cannot decide has the
    reason (accelkd.evaluation.evidence), and an area then has its interval alone. Raises ValueError if a participant
    is on both sides.
    """
    refuse_shared_participants(train, test)
    return {target: _probe(target, train, test) for target in train.targets}


def _probe(target: str, train: LabelledEmbeddings, test: LabelledEmbeddings) -> ParticipantProbe:
    known, test_known = (np.isfinite(side.targets[target]) for side in (train, test))
    y = np.asarray(train.targets[target], np.float64)[known]
    answers = np.asarray(test.targets[target], np.float64)[test_known]
    result = ParticipantProbeResult(target, CONTINUOUS.get(target), len(y), len(answers))
    yes_or_no = result.unit is None
    if len(y) > 1 and len(answers) and not (yes_or_no and y.min() == y.max()):
        ridges = fit_ridges(train.matrix[known], y[:, None], train.participants[known])
        predicted = ridges.predict(test.matrix[test_known])[:, 0]
        result = replace(result, ridge_alpha=float(ridges.alphas[0]))
        probe = ParticipantProbe(result, test.participants[test_known], answers, predicted)
    else:
        nothing = np.array([], np.float64)
        probe = ParticipantProbe(result, test.participants[:0], nothing, nothing)
    finish = _finished_area if yes_or_no else _finished_error
    return replace(probe, result=finish(probe, y, answers))


def _finished_area(probe: ParticipantProbe, y: Floats, answers: Floats) -> ParticipantProbeResult:
    train, test = ((int(values.sum()), int(len(values) - values.sum())) for values in (y, answers))
    area = probe.area
    bounds = None if area is None else auc_interval(area, *test)
    reason = undecided_area(train, test, bounds)
    low, high = bounds or (None, None)
    return replace(
        probe.result,
        train_yes=train[0],
        train_no=train[1],
        test_yes=test[0],
        test_no=test[1],
        auc=None if reason else area,
        auc_low=low,
        auc_high=high,
        status="not_decidable" if reason else "decidable",
        not_decidable=reason,
    )


def _finished_error(probe: ParticipantProbe, y: Floats, answers: Floats) -> ParticipantProbeResult:
    result, measured, predicted = probe.result, probe.measured, probe.predicted
    bounds = None
    if len(predicted):
        bounds = error_interval(np.abs(measured - predicted), probe.participants)
        low, high = bounds or (None, None)
        result = replace(
            result,
            mae=mean_absolute_error(measured, predicted),
            mae_low=low,
            mae_high=high,
            rmse=root_mean_squared_error(measured, predicted),
            pearson_r=pearson_r(measured, predicted),
            constant_mae=mean_absolute_error(measured, np.median(y)),
            constant_rmse=root_mean_squared_error(measured, y.mean()),
        )
    reason = undecided_error(len(y), len(answers), bounds, result.constant_mae)
    return replace(result, status="not_decidable" if reason else "decidable", not_decidable=reason)
