"""What checks measure of one batch's embeddings: their sizes, and in how many directions they point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelkd.evaluation.collapse import effective_rank
from accelkd.home.layout import Home
from accelkd.warehouse.inspect import batch_embeddings


@dataclass(frozen=True)
class EmbeddingHealth:
    """Embeddings of one batch by the promoted encoder; nothing but the count where there are none."""

    segments: int
    width: int | None = None
    effective_rank: float | None = None  # between 1 and the width; 0 where all are the same
    norm_smallest: float | None = None
    norm_median: float | None = None
    norm_largest: float | None = None


def embedding_health(home: Home, encoder: str, batch_id: str) -> EmbeddingHealth:
    """Measure the embeddings of one batch. Raises FileNotFoundError if no such encoder is promoted."""
    rows = batch_embeddings(home, encoder, [batch_id])
    if not rows.num_rows:
        return EmbeddingHealth(0)
    matrix = rows.column("embedding").combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
    return EmbeddingHealth(
        rows.num_rows,
        matrix.shape[1],
        effective_rank(matrix),
        *(float(value) for value in (norms.min(), np.median(norms), norms.max())),
    )
