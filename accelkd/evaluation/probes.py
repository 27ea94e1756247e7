"""Ridge probes: how well a linear model predicts a target from frozen embeddings (section 4.2, appendix A.2).

One segment is one sample. A probe is fitted on training participants and measured on test participants; its penalty is
chosen by cross-validation within the training participants, whose folds keep each participant together. Fits are in
closed form from Gram matrices, which all targets and penalties share and which are summed chunk by chunk: embeddings
may be larger than memory (accelkd.evaluation.matrix). Participants are named, or numbered in the order of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from accelkd.evaluation.blas import one_blas_thread
from accelkd.evaluation.evidence import Status, error_interval, undecided_error
from accelkd.evaluation.matrix import Floats, Matrix, Rows, chunks, mean_and_scale
from accelkd.recordings.labels import LABELS

People: TypeAlias = npt.NDArray[Any]  # [samples], text or integers

LABEL_FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # figure 2: from 0.1 % to 100 %
MIN_LABELS = 10  # kept by a fraction
FOLDS = 5
PENALTIES = np.logspace(-6, 2, 33)  # per sample, on standardised embeddings: alpha / number of samples


@dataclass(frozen=True)
class LabelledEmbeddings:
    """One side of a probe: samples with their participants and targets."""

    matrix: Floats  # [samples, width]; a StoredMatrix in its place is read chunk by chunk
    participants: People
    targets: Mapping[str, Floats]  # [samples] each; NaN where a sample has no label


@dataclass(frozen=True)
class Ridges:
    """Fitted probes, one for each target."""

    weights: npt.NDArray[np.float64]  # [width, targets], for embeddings as they are
    intercepts: npt.NDArray[np.float64]  # [targets]
    alphas: npt.NDArray[np.float64]  # [targets], scikit-learn's, on standardised embeddings

    def predict(self, x: Matrix) -> npt.NDArray[np.float64]:
        """Predictions `[samples, targets]` for embeddings `[samples, width]`."""
        predicted = np.empty((len(x), len(self.intercepts)))
        for which, part in chunks(x):
            predicted[which] = part @ self.weights + self.intercepts
        return predicted


@dataclass(frozen=True)
class ProbeResult:
    """Errors of one probe on the test participants, and of a constant prediction."""

    target: str
    unit: str
    train_participants: int
    train_segments: int
    test_participants: int
    test_segments: int
    ridge_alpha: float
    mae: float
    mae_low: float | None  # 95 % interval over people; None for fewer than two
    mae_high: float | None
    rmse: float
    pearson_r: float | None  # None where predictions or targets do not vary
    constant_mae: float  # of the training targets' median, the constant with the smallest absolute error
    constant_rmse: float  # of the training targets' mean, the constant with the smallest squared error
    status: Status
    not_decidable: str | None  # why so few people decide nothing


@dataclass(frozen=True)
class Probe:
    """A result with its data: the test segments that have the label."""

    result: ProbeResult
    measured: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]


def labelled_subsets(
    participants: Sequence[str] | People, fractions: Iterable[float], *, seed: int = 0
) -> dict[float, npt.NDArray[np.intp]]:
    """Rows that each fraction keeps of the labelled segments, sorted; `participants` has the participant of each row.

    Drawn over segments, nested (1 % keeps all that 0.1 % keeps) and the same for the same rows and seed. Each keeps at
    least MIN_LABELS rows, if there are as many, of at least two participants. Raises ValueError for a fraction
    outside (0, 1] or fewer than two participants.
    """
    participants = np.asarray(participants)
    order = np.random.default_rng(seed).permutation(len(participants))
    others = np.flatnonzero(participants[order] != participants[order[:1]])
    if not len(others):
        raise ValueError("a probe needs at least two training participants")
    order[[1, others[0]]] = order[[others[0], 1]]
    subsets = {}
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"label fraction {fraction} is not in (0, 1]")
        subsets[fraction] = np.sort(order[: max(MIN_LABELS, round(fraction * len(order)))])
    return subsets


def not_probed(train: LabelledEmbeddings, test: LabelledEmbeddings) -> dict[str, str]:
    """The targets that `probe_segments` cannot probe, with the reason: too few people with the label on one side."""
    reasons: dict[str, str] = {}
    for target in train.targets:
        for side, data, needed in (("training", train, 2), ("test", test, 1)):
            people = len(np.unique(data.participants[np.isfinite(data.targets[target])]))
            if people < needed:
                reasons.setdefault(target, f"too few people: {people} with the label in {side}, {needed} are needed")
    return reasons


@one_blas_thread()
def probe_segments(
    train: LabelledEmbeddings,
    test: LabelledEmbeddings,
    *,
    fractions: Sequence[float] = (1.0,),
    seed: int = 0,
) -> dict[tuple[str, float], Probe]:
    """Probes for every target and label fraction, by (target, fraction): fitted on `train`, measured on all of `test`.

    Raises ValueError if a participant is on both sides or a target has no label on one.
    """
    refuse_shared_participants(train, test)
    for target in train.targets:
        labels = [int(np.isfinite(side.targets[target]).sum()) for side in (train, test)]
        if not all(labels):
            raise ValueError(f"probe of {target}: {labels[0]} training and {labels[1]} test segments have the label")
    probes = {}
    for names in _group_by_labels(train.targets):
        rows = np.flatnonzero(np.isfinite(train.targets[names[0]]))
        y = np.column_stack([train.targets[name][rows] for name in names])
        participants = train.participants[rows]
        for fraction, kept in labelled_subsets(participants, fractions, seed=seed).items():
            ridges = fit_ridges(train.matrix, y[kept], participants[kept], rows[kept])
            predicted = ridges.predict(test.matrix)
            for column, name in enumerate(names):
                labelled = np.isfinite(test.targets[name])
                measured = np.asarray(test.targets[name][labelled], np.float64)
                train_labels, estimated = y[kept, column], predicted[labelled, column]
                people, test_people = (
                    len(np.unique(side)) for side in (participants[kept], test.participants[labelled])
                )
                constant_mae = mean_absolute_error(measured, np.median(train_labels))
                bounds = error_interval(np.abs(measured - estimated), test.participants[labelled])
                reason = undecided_error(people, test_people, bounds, constant_mae)
                low, high = bounds or (None, None)
                result = ProbeResult(
                    target=name,
                    unit=LABELS[name].unit,
                    train_participants=people,
                    train_segments=len(kept),
                    test_participants=test_people,
                    test_segments=len(measured),
                    ridge_alpha=float(ridges.alphas[column]),
                    mae=mean_absolute_error(measured, estimated),
                    mae_low=low,
                    mae_high=high,
                    rmse=root_mean_squared_error(measured, estimated),
                    pearson_r=pearson_r(measured, estimated),
                    constant_mae=constant_mae,
                    constant_rmse=root_mean_squared_error(measured, train_labels.mean()),
                    status="not_decidable" if reason else "decidable",
                    not_decidable=reason,
                )
                probes[name, fraction] = Probe(result, measured, estimated)
    return {(name, fraction): probes[name, fraction] for name in train.targets for fraction in fractions}


def refuse_shared_participants(train: LabelledEmbeddings, test: LabelledEmbeddings) -> None:
    """Raise ValueError that names a participant if any is on both sides."""
    shared = np.intersect1d(train.participants, test.participants)
    if len(shared):
        raise ValueError(f"participant {shared[0]} is in training and in test ({len(shared)} such participants)")


def fit_ridges(x: Matrix, y: Floats, participants: Sequence[str] | People, rows: Rows | None = None) -> Ridges:
    """Ridge regressions of `y` [samples, targets] on `x` [samples, width], with intercepts that are not penalised.

    With `rows`, the samples are these rows of `x`. All penalties are tried in closed form from the folds' Gram
    matrices: the embeddings are read twice, in float64 chunks, for their mean and scale and for the matrices. The
    penalty of each target has the smallest squared error over the held-out folds. Raises ValueError for fewer than two
    participants.
    """
    folds = grouped_folds(participants)
    if folds.max(initial=0) < 1:
        raise ValueError("a probe needs at least two training participants")
    width = x.shape[1]
    mean, scale = mean_and_scale(x, rows)
    moments = _fold_moments(x, rows, y, folds, mean, scale)
    total = moments.sum(axis=0)

    squared_error = np.zeros((len(PENALTIES), y.shape[1]))
    for fold in moments:
        center, weights = _solve(total - fold, width, PENALTIES)
        # Of the residuals (y - ȳ) - (x - x̄) w of the held-out fold, from its moments alone
        central = _central_moments(fold, center)
        squared_error += np.diag(central[width:, width:])
        squared_error -= 2 * np.einsum("pit,it->pt", weights, central[:width, width:])
        squared_error += ((central[:width, :width] @ weights) * weights).sum(axis=1)
    selected = squared_error.argmin(axis=0)
    center, weights = _solve(total, width, PENALTIES[np.unique(selected)])
    best = weights[np.unique(selected, return_inverse=True)[1], :, np.arange(len(selected))].T
    unscaled = best / scale[:, None]
    return Ridges(
        weights=unscaled,
        intercepts=center[width:] - center[:width] @ best - mean @ unscaled,
        alphas=PENALTIES[selected] * len(y),
    )


def grouped_folds(participants: Sequence[str] | People) -> Rows:
    """The fold of each sample, of up to FOLDS about equal ones; a participant's samples share one."""
    groups = np.unique(np.asarray(participants), return_inverse=True)[1]
    folds = np.zeros(len(groups), np.intp)
    number = min(FOLDS, int(groups.max(initial=0)) + 1)
    if number > 1:
        for fold, (_, rows) in enumerate(GroupKFold(number).split(groups, groups=groups)):
            folds[rows] = fold
    return folds


def held_out_predictions(
    x: Matrix, y: Floats, folds: npt.NDArray[np.intp], alpha: float, rows: Rows | None = None
) -> npt.NDArray[np.float64]:
    """What ridges of penalty `alpha` of `y` [samples] on `x` [samples, width] predict for the fold each is without.

    `folds` has the fold of each sample, from 0. The penalty is that of `Ridges.alphas`, of all samples. With `rows`,
    the samples are these rows of `x`.
    """
    width = x.shape[1]
    mean, scale = mean_and_scale(x, rows)
    moments = _fold_moments(x, rows, y[:, None], folds, mean, scale)
    total = moments.sum(axis=0)
    weights, offsets = np.zeros((len(moments), width)), np.zeros(len(moments))
    for fold in np.unique(folds):
        rest = total - moments[fold]
        center = rest[:-1, -1] / rest[-1, -1]
        central = _central_moments(rest, center)
        central[np.arange(width), np.arange(width)] += alpha / len(y) * rest[-1, -1]
        weights[fold] = np.linalg.solve(central[:width, :width], central[:width, width])
        offsets[fold] = center[width] - center[:width] @ weights[fold]
    predicted = np.empty(len(y))
    for which, part in chunks(x, rows):
        of_all_folds = (part - mean) / scale @ weights.T + offsets
        predicted[which] = of_all_folds[np.arange(len(part)), folds[which]]
    return predicted


def mean_absolute_error(measured: Floats, predicted: Floats | np.floating) -> float:
    """Mean absolute error of predictions [samples], or of one constant."""
    return float(np.abs(measured - predicted).mean())


def root_mean_squared_error(measured: Floats, predicted: Floats | np.floating) -> float:
    """Root mean squared error of predictions [samples], or of one constant."""
    return float(np.sqrt(np.square(measured - predicted).mean()))


def pearson_r(measured: Floats, predicted: Floats) -> float | None:
    """Pearson's correlation; None if one of the two does not vary."""
    varies = len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return float(np.corrcoef(measured, predicted)[0, 1]) if varies else None


def _group_by_labels(targets: Mapping[str, Floats]) -> list[list[str]]:
    """Groups of targets that have labels on the same samples, and so share their Gram matrices."""
    groups: dict[bytes, list[str]] = {}
    for name, values in targets.items():
        groups.setdefault(np.isfinite(values).tobytes(), []).append(name)
    return list(groups.values())


def _fold_moments(
    x: Matrix, rows: Rows | None, y: Floats, folds: npt.NDArray[np.intp], mean: Floats, scale: Floats
) -> npt.NDArray[np.float64]:
    """Sums of products of the columns [standardised x, y, 1] of each fold.

    `[folds, width + targets + 1, width + targets + 1]`, whatever the number of samples.
    """
    size = x.shape[1] + y.shape[1] + 1
    moments = np.zeros((int(folds.max(initial=0)) + 1, size, size))
    for which, part in chunks(x, rows):
        columns = np.column_stack([(part - mean) / scale, y[which], np.ones(len(which))])
        for fold in np.unique(folds[which]):
            own = columns[folds[which] == fold]
            moments[fold] += own.T @ own
    return moments


def _central_moments(moments: Floats, center: Floats) -> npt.NDArray[np.float64]:
    """Moments of [x, y] about a centre: `[width + targets, width + targets]`."""
    sums, count = moments[:-1, -1], moments[-1, -1]
    cross = np.outer(sums, center)
    return np.asarray(moments[:-1, :-1] - cross - cross.T + count * np.outer(center, center))


def _solve(moments: Floats, width: int, penalties: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Means of [x, y], and the weights `[penalties, width, targets]` of the ridges through them."""
    count = moments[-1, -1]
    center = moments[:-1, -1] / count
    central = _central_moments(moments, center)
    values, vectors = np.linalg.eigh(central[:width, :width])
    inverse = 1 / (np.maximum(values, 0) + penalties[:, None] * count)
    return center, vectors @ (inverse[:, :, None] * (vectors.T @ central[:width, width:]))
