"""Drift of one quantity between two groups of participants: arrays in, numbers out.

A quantity has drifted if it differs by more than a threshold and by more than chance: whole participants are shuffled
between batch and cohort, and the largest difference of all shuffles is that of chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


MAX_INDEX = 0.25  # population stability index: the customary bound of a major shift (Siddiqi 2006, Yurdakul 2018)
MAX_SHIFT = 0.25  # distance of the mean embeddings, in standard deviations of the cohort's embeddings
SHUFFLES = 999  # so that chance alone passes a threshold once in a thousand
_BINS = 10


@dataclass(frozen=True)
class Drift:
    """Difference of one quantity between a batch and the training cohort."""

    quantity: str
    difference: float  # population stability index of a distribution, shift of a mean embedding
    by_chance: float  # the largest of SHUFFLES shuffles of the participants
    bound: float  # MAX_INDEX or MAX_SHIFT
    segments: int  # of the batch
    cohort_segments: int

    @property
    def threshold(self) -> float:
        return max(self.bound, self.by_chance)

    @property
    def drifted(self) -> bool:
        return self.difference > self.threshold


@dataclass(frozen=True)
class Sample:
    """Values of segments, `[segments]` or `[segments, width]`, with the participant of each."""

    values: Floats
    participants: npt.NDArray[np.str_]


def stability(quantity: str, batch: Sample, cohort: Sample) -> Drift:
    """Population stability index between batch and cohort, over the deciles of both pooled."""
    pooled = np.concatenate([batch.values, cohort.values])
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.eye(len(edges) + 1)[np.searchsorted(edges, pooled, side="right")]

    def index(batch_counts: Floats, cohort_counts: Floats) -> Floats:
        # Half a segment more in every bin that has any keeps the logarithm finite
        sides = (batch_counts, cohort_counts)
        shares = [(counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True) for counts in sides]
        return np.asarray(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum(axis=-1))

    return _against_chance(quantity, batch, cohort, bins[:, bins.any(axis=0)], index, MAX_INDEX)


def mean_shift(quantity: str, batch: Sample, cohort: Sample) -> Drift:
    """Distance of the means of batch and cohort over the root of the cohort's total variance."""
    spread = float(np.sqrt(cohort.values.var(axis=0).sum())) or 1.0
    pooled = np.concatenate([batch.values, cohort.values])

    def distance(batch_sums: Floats, cohort_sums: Floats) -> Floats:
        means = [sums[..., :-1] / np.maximum(sums[..., -1:], 1) for sums in (batch_sums, cohort_sums)]
        return np.asarray(np.linalg.norm(means[0] - means[1], axis=-1) / spread)

    with_count = np.column_stack([pooled, np.ones(len(pooled))])
    return _against_chance(quantity, batch, cohort, with_count, distance, MAX_SHIFT)


def _against_chance(
    quantity: str,
    batch: Sample,
    cohort: Sample,
    rows: Floats,
    difference: Callable[[Floats, Floats], Floats],
    bound: float,
) -> Drift:
    """Apply `difference` to the sums of `rows` [segments, columns] of both sides, as they are and shuffled.

    Segments of one participant are alike, so whole participants change sides; one on both sides counts as two.
    """
    batch_ids, batch_index = np.unique(batch.participants, return_inverse=True)
    cohort_ids, cohort_index = np.unique(cohort.participants, return_inverse=True)
    sums = np.zeros((len(batch_ids) + len(cohort_ids), rows.shape[1]))
    np.add.at(sums, np.concatenate([batch_index, cohort_index + len(batch_ids)]), rows)
    sides = _sides(len(batch_ids), len(sums)).astype(np.float64)
    differences = difference(sides @ sums, (1 - sides) @ sums)
    return Drift(
        quantity,
        difference=float(differences[0]),
        by_chance=float(differences[1:].max()),
        bound=bound,
        segments=len(batch.values),
        cohort_segments=len(cohort.values),
    )


@lru_cache(maxsize=2)
def _sides(in_batch: int, participants: int) -> npt.NDArray[np.bool_]:
    """Who is on the batch's side, `[1 + SHUFFLES, participants]`: first as it is, then shuffled.

    Quantities that the same participants have share it: of many participants, drawing takes longer than all else.
    """
    as_it_is = np.arange(participants) < in_batch
    shuffled = np.random.default_rng(0).permuted(np.tile(as_it_is, (SHUFFLES, 1)), axis=1)
    return np.concatenate([as_it_is[None], shuffled])
