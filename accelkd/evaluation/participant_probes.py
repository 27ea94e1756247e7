"""Probes of participant-level targets: age, BMI, sex and the 46 health targets of the survey (appendix A.2).

One participant is one sample, the mean of their embeddings. Yes or no is 1 or 0 to the same ridge regression, whose
predictions are the scores of the area under the ROC curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.evaluation.blas import one_blas_thread
from accelkd.evaluation.probes import (
    LabelledEmbeddings,
    fit_ridges,
    mean_absolute_error,
    pearson_r,
    refuse_shared_participants,
    root_mean_squared_error,
)
from accelkd.evaluation.significance import auc, bootstrap_aucs, interval
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
    rmse: float | None = None
    pearson_r: float | None = None
    constant_mae: float | None = None
    constant_rmse: float | None = None
    auc: float | None = None
    auc_low: float | None = None  # percentile interval over bootstraps
    auc_high: float | None = None
    not_decidable: str | None = None  # why nothing could be measured


@dataclass(frozen=True)
class ParticipantProbe:
    """A result with its data: the test participants that have a value; none where it is not decidable."""

    result: ParticipantProbeResult
    participants: npt.NDArray[np.str_]
    measured: npt.NDArray[np.float64]  # 1 yes, 0 no
    predicted: npt.NDArray[np.float64]


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
    matrix: npt.NDArray[np.float32], participants: Sequence[str] | npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
    """Participants, sorted, and the mean of the rows of each in `matrix` [segments, width]: `[participants, width]`."""
    names, first, code = np.unique(np.asarray(participants), return_index=True, return_inverse=True)
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code)
    sums = (
        np.add.reduceat(matrix[order], np.cumsum(counts) - counts, axis=0, dtype=np.float64) if len(first) else matrix
    )
    return names, sums / counts[:, None]


@one_blas_thread()
def probe_participants(train: LabelledEmbeddings, test: LabelledEmbeddings) -> dict[str, ParticipantProbe]:
    """Probes for every target, fitted on the participants of `train` and measured on those of `test`, a row each.

    Targets named in CONTINUOUS are numbers, all others yes (1) or no (0). A target with one class only on a side, or
    with fewer than two training participants or no test participant, has the reason instead of a result. Raises
    ValueError if a participant is on both sides.
    """
    refuse_shared_participants(train, test)
    return {target: _probe(target, train, test) for target in train.targets}


def _probe(target: str, train: LabelledEmbeddings, test: LabelledEmbeddings) -> ParticipantProbe:
    known, test_known = (np.isfinite(side.targets[target]) for side in (train, test))
    y, measured = (np.asarray(side.targets[target], np.float64) for side in (train, test))
    y, measured = y[known], measured[test_known]
    unit = CONTINUOUS.get(target)
    result = ParticipantProbeResult(target, unit, len(y), len(measured))
    if unit is None:
        train_yes, test_yes = int(y.sum()), int(measured.sum())
        result = replace(
            result,
            train_yes=train_yes,
            train_no=len(y) - train_yes,
            test_yes=test_yes,
            test_no=len(measured) - test_yes,
        )
    if reason := _not_decidable(unit is None, y, measured):
        empty = np.array([], np.float64)
        return ParticipantProbe(replace(result, not_decidable=reason), test.participants[:0], empty, empty)
    ridges = fit_ridges(train.matrix[known], y[:, None], train.participants[known])
    predicted = ridges.predict(test.matrix[test_known])[:, 0]
    result = replace(result, ridge_alpha=float(ridges.alphas[0]))
    if unit is None:
        low, high = interval(bootstrap_aucs(measured == 1, predicted[None])[0])
        result = replace(result, auc=auc(measured == 1, predicted), auc_low=low, auc_high=high)
    else:
        result = replace(
            result,
            mae=mean_absolute_error(measured, predicted),
            rmse=root_mean_squared_error(measured, predicted),
            pearson_r=pearson_r(measured, predicted),
            constant_mae=mean_absolute_error(measured, np.median(y)),
            constant_rmse=root_mean_squared_error(measured, y.mean()),
        )
    return ParticipantProbe(result, test.participants[test_known], measured, predicted)


def _not_decidable(yes_or_no: bool, y: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]) -> str | None:
    """Why the probe cannot be fitted or measured; None if it can."""
    for side, values, needed in (("training", y, 2), ("test", measured, 1)):
        if len(values) < needed:
            return f"{len(values)} {side} participants have a value"
        if yes_or_no and values.min() == values.max():
            return f"all {len(values)} {side} participants are {'yes' if values[0] else 'no'}"
    return None
