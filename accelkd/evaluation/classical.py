"""The classical estimator beside an encoder: the heart rate from acceleration without a model, on the same segments.

Nothing is fitted, so an encoder of acceleration has to beat it as it has to beat a constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelkd.evaluation.evidence import MIN_TRAIN, error_interval, undecided_error
from accelkd.evaluation.probes import mean_absolute_error, pearson_r, root_mean_squared_error

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ClassicalResult:
    """Errors of the classical heart rate on the test segments of a probe."""

    segments: int  # with a label and an estimate
    labelled_segments: int
    mae: float  # bpm, as what follows
    mae_low: float | None  # 95 % interval over people; None for fewer than two
    mae_high: float | None
    rmse: float
    pearson_r: float | None  # None where one of the two does not vary


def classical_result(
    labels_bpm: Floats, estimates_bpm: Floats, participants: npt.NDArray[np.generic]
) -> ClassicalResult | None:
    """Compare estimates [segments] with labels [segments]; NaN where there is none. None if no segment has both."""
    labelled = np.isfinite(labels_bpm)
    both = labelled & np.isfinite(estimates_bpm)
    if not both.any():
        return None
    measured, estimated = (np.asarray(values[both], np.float64) for values in (labels_bpm, estimates_bpm))
    low, high = error_interval(np.abs(measured - estimated), participants[both]) or (None, None)
    return ClassicalResult(
        segments=len(measured),
        labelled_segments=int(labelled.sum()),
        mae=mean_absolute_error(measured, estimated),
        mae_low=low,
        mae_high=high,
        rmse=root_mean_squared_error(measured, estimated),
        pearson_r=pearson_r(measured, estimated),
    )


def undecided_classical(test_participants: int, low: float | None, high: float | None, constant: float) -> str | None:
    """Why its error decides nothing beside that of a constant; None if it does. Nobody is needed in training."""
    bounds = None if low is None or high is None else (low, high)
    return undecided_error(MIN_TRAIN, test_participants, bounds, constant)
