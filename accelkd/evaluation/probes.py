"""Ridge probes: how much of a target a straight line reads out of frozen embeddings (section 4.2, appendix A.2).

One segment is one sample. A probe is fitted on training participants and measured on test participants; its penalty is
chosen by cross-validation inside the training participants, whose folds keep each participant together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

Floats = npt.NDArray[np.floating]

TARGETS = {"hr_bpm": "bpm", "sdnn_ms": "ms", "rmssd_ms": "ms"}
FOLDS = 5
PENALTIES = np.logspace(-6, 2, 33)  # per sample, on standardised embeddings: alpha / number of samples
_CHUNK = 16_384  # rows that are in float64 at a time


@dataclass(frozen=True)
class Ridge:
    """A fitted probe."""

    weights: npt.NDArray[np.float64]  # [width], for embeddings as they are
    intercept: float
    alpha: float  # scikit-learn's, on standardised embeddings

    def predict(self, x: Floats) -> npt.NDArray[np.float64]:
        """Predictions `[samples]` for embeddings `[samples, width]`."""
        return np.asarray(x @ self.weights + self.intercept, np.float64)


@dataclass(frozen=True)
class ProbeResult:
    """Errors of one probe on the test participants, beside those of a constant."""

    target: str
    unit: str
    train_participants: int
    train_segments: int
    test_participants: int
    test_segments: int
    ridge_alpha: float
    mae: float
    rmse: float
    pearson_r: float | None  # None where predictions or targets do not vary
    constant_mae: float  # of the training targets' median, the constant with the smallest absolute error
    constant_rmse: float  # of the training targets' mean, the constant with the smallest squared error


def fit_ridge(x: Floats, y: Floats, participants: Sequence[str]) -> Ridge:
    """Ridge regression of `y` [samples] on `x` [samples, width], with an intercept that is not penalised.

    All penalties are tried in closed form from the folds' Gram matrices: the signals are read once, in float64 chunks.
    The chosen one has the smallest squared error over the held-out folds. Raises ValueError for fewer than two
    participants.
    """
    groups = np.unique(np.asarray(participants), return_inverse=True)[1]
    folds = min(FOLDS, int(groups.max(initial=0)) + 1)
    if folds < 2:
        raise ValueError("a probe needs at least two training participants")
    mean = x.mean(axis=0, dtype=np.float64)
    scale = x.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1.0
    held_out = [rows for _, rows in GroupKFold(folds).split(x, groups=groups)]
    moments = np.stack([_moments(x[rows], y[rows], mean, scale) for rows in held_out])
    total = moments.sum(axis=0)

    squared_error = np.zeros(len(PENALTIES))
    for fold in moments:
        center, weights = _solve(total - fold, PENALTIES)
        # Of the residuals (y - ȳ) - (x - x̄) w of the fold that was left out, from its moments alone
        around = _around(fold, center)
        squared_error += (
            around[-1, -1]
            - 2 * weights @ around[:-1, -1]
            + np.einsum("pi,ij,pj->p", weights, around[:-1, :-1], weights)
        )
    penalty = PENALTIES[np.argmin(squared_error)]
    center, best = _solve(total, np.array([penalty]))
    weights = best[0] / scale
    intercept = float(center[-1] - center[:-1] @ best[0] - mean @ weights)
    return Ridge(weights, intercept, float(penalty * len(x)))


def probe(
    target: str,
    train: tuple[Floats, Floats, Sequence[str]],
    test: tuple[Floats, Floats, Sequence[str]],
) -> tuple[ProbeResult, npt.NDArray[np.float64]]:
    """Fit on `train`, measure on `test`, each (embeddings [samples, width], targets [samples], participants).

    Returns the result and the predictions for `test`. Raises ValueError if a side is empty or a participant is on both.
    """
    (x, y, people), (test_x, test_y, test_people) = train, test
    if not len(y) or not len(test_y):
        raise ValueError(f"probe of {target}: {len(y)} training and {len(test_y)} test segments have the label")
    if set(people) & set(test_people):
        raise ValueError(f"probe of {target}: a participant is in training and in test")
    ridge = fit_ridge(x, y, people)
    predicted = ridge.predict(test_x)
    varies = np.ptp(predicted) > 0 and np.ptp(test_y) > 0
    result = ProbeResult(
        target=target,
        unit=TARGETS[target],
        train_participants=len(set(people)),
        train_segments=len(y),
        test_participants=len(set(test_people)),
        test_segments=len(test_y),
        ridge_alpha=ridge.alpha,
        mae=float(np.abs(predicted - test_y).mean()),
        rmse=float(np.sqrt(np.square(predicted - test_y).mean())),
        pearson_r=float(np.corrcoef(predicted, test_y)[0, 1]) if varies else None,
        constant_mae=float(np.abs(np.median(y) - test_y).mean()),
        constant_rmse=float(np.sqrt(np.square(y.mean() - test_y).mean())),
    )
    return result, predicted


def _moments(x: Floats, y: Floats, mean: Floats, scale: Floats) -> npt.NDArray[np.float64]:
    """Sums of products of the columns [standardised x, y, 1]: `[width + 2, width + 2]`."""
    moments = np.zeros((x.shape[1] + 2, x.shape[1] + 2))
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = np.column_stack([(x[rows] - mean) / scale, y[rows], np.ones(len(x[rows]))])
        moments += part.T @ part
    return moments


def _around(moments: Floats, center: Floats) -> npt.NDArray[np.float64]:
    """Moments of [x, y] about a centre: `[width + 1, width + 1]`."""
    sums, count = moments[:-1, -1], moments[-1, -1]
    cross = np.outer(sums, center)
    return np.asarray(moments[:-1, :-1] - cross - cross.T + count * np.outer(center, center))


def _solve(moments: Floats, penalties: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Means of [x, y], and the weights `[penalties, width]` of the ridge through them."""
    count = moments[-1, -1]
    center = moments[:-1, -1] / count
    around = _around(moments, center)
    values, vectors = np.linalg.eigh(around[:-1, :-1])
    shrunk = (vectors.T @ around[:-1, -1]) / (np.maximum(values, 0) + penalties[:, None] * count)
    return center, shrunk @ vectors.T
