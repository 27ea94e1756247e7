"""Effective rank of embeddings: it falls before probes show that an encoder collapses."""

from __future__ import annotations

import numpy as np

from accelkd.evaluation.blas import one_blas_thread
from accelkd.evaluation.matrix import Matrix, chunks, mean_and_scale

MIN_RANK = 1.5  # of embeddings that still distinguish segments
MIN_SEGMENTS_FOR_RANK = 20  # fewer point in few directions anyway
_IDENTICAL = 1e-6  # spread relative to the values' size below which float32 embeddings count as identical


@one_blas_thread()
def effective_rank(x: Matrix) -> float:
    """Effective rank of embeddings `[samples, width]` about their mean, from 1 to the width; 0 if all are identical.

    The exponential of the entropy of the normalised singular values (Roy and Vetterli 2007). About the mean, because
    an offset that all embeddings share does not distinguish them.
    """
    mean, _ = mean_and_scale(x)
    gram = np.zeros((x.shape[1], x.shape[1]))
    largest = 0.0
    for _, part in chunks(x):
        centered = part - mean
        gram += centered.T @ centered
        largest = max(largest, float(np.abs(part).max(initial=0)))
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    if values.max() <= _IDENTICAL * largest * np.sqrt(len(x) * x.shape[1]):
        return 0.0
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
