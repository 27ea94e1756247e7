"""Effective rank of embeddings: it falls before probes show that an encoder collapses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelkd.evaluation.blas import one_blas_thread

MIN_RANK = 1.5  # of embeddings that still distinguish segments
MIN_SEGMENTS_FOR_RANK = 20  # fewer point in few directions anyway
_CHUNK_SIZE = 16_384  # rows converted to float64 at a time
_IDENTICAL = 1e-6  # spread relative to the values' size below which float32 embeddings count as identical


@one_blas_thread()
def effective_rank(x: npt.NDArray[np.floating]) -> float:
    """Effective rank of embeddings `[samples, width]` about their mean, from 1 to the width; 0 if all are identical.

    The exponential of the entropy of the normalised singular values (Roy and Vetterli 2007). About the mean, because
    an offset that all embeddings share does not distinguish them.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    gram = np.zeros((x.shape[1], x.shape[1]))
    largest = 0.0
    for start in range(0, len(x), _CHUNK_SIZE):
        part = x[start : start + _CHUNK_SIZE] - mean
        gram += part.T @ part
        largest = max(largest, float(np.abs(x[start : start + _CHUNK_SIZE]).max(initial=0)))
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    if values.max() <= _IDENTICAL * largest * np.sqrt(x.size):
        return 0.0
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
