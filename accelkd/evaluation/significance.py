"""Areas under the ROC curve with their bootstraps, and tests of whether one encoder's is larger (table 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

BOOTSTRAPS = 200  # table 12
INTERVAL_PERCENT = (2.5, 97.5)
STARS = ((5e-4, "***"), (5e-3, "**"), (5e-2, "*"))

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Comparison:
    """Two encoders' areas under the curve on the same participants."""

    auc: float
    other_auc: float
    difference: float  # auc - other_auc
    difference_low: float  # percentile interval of the paired differences
    difference_high: float
    p_value: float  # of the rank-sum test; anti-conservative: bootstraps are not independent samples
    stars: str


def auc(labels: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Area under the ROC curve of `scores` [samples]; equal scores count half. Raises ValueError for one class only."""
    return float(weighted_aucs(labels, np.atleast_2d(scores), np.ones((1, len(labels)), np.int64))[0, 0])


def bootstrap_aucs(
    labels: npt.NDArray[np.bool_], scores: Floats, *, bootstraps: int = BOOTSTRAPS, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Areas `[encoders, bootstraps]` of `scores` [encoders, participants] over participants drawn with replacement.

    All encoders are measured on the same draws. A draw without both classes, which has no area, is repeated. Raises
    ValueError for one class only.
    """
    _require_both_classes(labels)
    rng = np.random.default_rng(seed)
    counts = np.zeros((bootstraps, len(labels)), np.int64)
    missing = np.arange(bootstraps)
    while len(missing):
        counts[missing] = _draw(rng, len(missing), len(labels))
        positives = counts[missing] @ labels
        missing = missing[(positives == 0) | (positives == len(labels))]
    return weighted_aucs(labels, scores, counts)


def interval(values: Floats) -> tuple[float, float]:
    """The percentile interval of 95 % of bootstrapped values."""
    low, high = np.percentile(values, INTERVAL_PERCENT)
    return float(low), float(high)


def rank_sum_p_value(larger: Floats, smaller: Floats) -> float:
    """P-value of the one-sided Wilcoxon rank-sum test that values of `larger` exceed those of `smaller`.

    The normal approximation with its correction for ties.
    """
    return float(mannwhitneyu(larger, smaller, alternative="greater", method="asymptotic").pvalue)


def stars(p_value: float) -> str:
    """The paper's mark of a p-value: `***` below 5e-4, `**` below 5e-3, `*` below 5e-2, else `n.s.`."""
    return next((mark for limit, mark in STARS if p_value < limit), "n.s.")


def compare_aucs(
    labels: npt.NDArray[np.bool_],
    scores: Floats,
    other_scores: Floats,
    *,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> Comparison:
    """Is the area of `scores` larger than that of `other_scores`, both [participants] of the same participants?

    The paper's test on bootstrapped areas, and the interval of their paired differences. Raises ValueError for one
    class only.
    """
    both = np.stack([scores, other_scores])
    first, second = weighted_aucs(labels, both, np.ones((1, len(labels)), np.int64))[:, 0]
    areas, other_areas = bootstrap_aucs(labels, both, bootstraps=bootstraps, seed=seed)
    low, high = interval(areas - other_areas)
    p_value = rank_sum_p_value(areas, other_areas)
    return Comparison(float(first), float(second), float(first - second), low, high, p_value, stars(p_value))


def _require_both_classes(labels: npt.NDArray[np.bool_]) -> None:
    if labels.all() or not labels.any():
        raise ValueError(f"the area under the curve needs both classes, but all {len(labels)} labels are the same")


def _draw(rng: np.random.Generator, draws: int, size: int) -> npt.NDArray[np.int64]:
    """Count of each of `size` samples in draws of `size` with replacement: `[draws, size]`."""
    drawn = rng.integers(size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size)


def weighted_aucs(
    labels: npt.NDArray[np.bool_], scores: Floats, counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Areas `[encoders, draws]` of `scores` [encoders, samples] where sample i counts `counts[draw, i]` times.

    Raises ValueError for one class only.
    """
    _require_both_classes(labels)
    out = np.empty((len(scores), len(counts)))
    for area, score in zip(out, scores, strict=True):
        order = np.argsort(score, kind="stable")
        first_of_equals = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
        weights, label = counts[:, order], labels[order]
        positives, negatives = (np.add.reduceat(weights * side, first_of_equals, axis=1) for side in (label, ~label))
        below = negatives.cumsum(axis=1) - negatives
        area[:] = (positives * (below + negatives / 2)).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
    return out
