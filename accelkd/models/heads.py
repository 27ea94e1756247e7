"""Projection heads: from the embedding to the smaller space of the contrastive losses."""

from __future__ import annotations

from torch import nn

HIDDEN = 1024  # section 3.2
PROJECTED = 128


class ProjectionHead(nn.Sequential):
    """`[batch, width]` to `[batch, 128]` through one hidden layer of 1024.

    The batch normalisation is ours, the paper names none: embeddings share a large common component, which hides the
    few directions that differ between segments until it is removed (docs/training.md).
    """

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.GELU(), nn.Linear(HIDDEN, PROJECTED))
