"""Procrustes alignment: the best that translating, rotating and scaling can do to make one encoder's space another's.

The baseline of tables 1 and 8: does a uni-modal encoder hold what the teacher holds, only turned?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelkd.evaluation.blas import one_blas_thread

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Alignment:
    """A fitted similarity transform, applied by `apply`."""

    mean: npt.NDArray[np.float64]  # [width], of what is moved
    rotation: npt.NDArray[np.float64]  # [width, width], orthogonal; a reflection where that fits better
    scale: float
    target_mean: npt.NDArray[np.float64]  # [width]

    def apply(self, x: Floats) -> npt.NDArray[np.float32]:
        """Aligned embeddings `[samples, width]`, as wide as the wider of the two spaces."""
        rotation = self.scale * self.rotation[: x.shape[1]]  # rows beyond would meet padded zeros
        offset = self.target_mean - self.mean @ (self.scale * self.rotation)
        return np.asarray(x @ rotation.astype(np.float32) + offset.astype(np.float32), np.float32)


@one_blas_thread()
def fit_alignment(moved: Floats, target: Floats) -> Alignment:
    """The alignment of `moved` to `target`, row by row of the same segment, with the least squared distance.

    The narrower of the two is padded with zeros. Raises ValueError for unequal numbers of rows or fewer than two.
    """
    if len(moved) != len(target) or len(moved) < 2:
        raise ValueError(f"an alignment needs pairs, two at least: {len(moved)} rows to move onto {len(target)}")
    width = max(moved.shape[1], target.shape[1])
    mean, target_mean = (padded(x.mean(axis=0, dtype=np.float64)[None], width)[0] for x in (moved, target))
    # Sums over centred pairs from sums over pairs: neither matrix is copied to float64
    product = _cross(moved, target) - len(moved) * np.outer(mean[: moved.shape[1]], target_mean[: target.shape[1]])
    squared = float(np.einsum("ij,ij->", moved, moved, dtype=np.float64)) - len(moved) * float(mean @ mean)
    square = np.zeros((width, width))
    square[: moved.shape[1], : target.shape[1]] = product
    left, values, right = np.linalg.svd(square)
    return Alignment(mean, left @ right, float(values.sum() / squared) if squared > 0 else 1.0, target_mean)


def padded(x: Floats, width: int) -> Floats:
    """`[samples, width]`: zeros in the columns that `x` lacks."""
    return np.pad(x, ((0, 0), (0, width - x.shape[1])))


def _cross(a: Floats, b: Floats, chunk: int = 16_384) -> npt.NDArray[np.float64]:
    total = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), chunk):
        rows = slice(start, start + chunk)
        total += a[rows].astype(np.float64).T @ b[rows].astype(np.float64)
    return total
