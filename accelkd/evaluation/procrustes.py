"""Procrustes alignment: the translation, rotation and scaling that best map one encoder's embeddings onto another's.

The baseline of tables 1 and 8: does a uni-modal encoder differ from the teacher by more than a similarity transform?
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

    mean: npt.NDArray[np.float64]  # [width], of the source
    rotation: npt.NDArray[np.float64]  # [width, width], orthogonal; a reflection if that fits better
    scale: float
    target_mean: npt.NDArray[np.float64]  # [width]

    def apply(self, x: Floats) -> npt.NDArray[np.float32]:
        """Aligned embeddings `[samples, width]`, as wide as the wider of the two spaces."""
        rotation = self.scale * self.rotation[: x.shape[1]]  # further rows would multiply padded zeros
        offset = self.target_mean - self.mean @ (self.scale * self.rotation)
        return np.asarray(x @ rotation.astype(np.float32) + offset.astype(np.float32), np.float32)


@one_blas_thread()
def fit_alignment(source: Floats, target: Floats) -> Alignment:
    """The alignment of `source` to `target`, whose rows are the same segments, with the least squared distance.

    The narrower of the two is padded with zeros. Raises ValueError for unequal numbers of rows or fewer than two.
    """
    if len(source) != len(target) or len(source) < 2:
        raise ValueError(
            f"an alignment needs two pairs or more, not {len(source)} source and {len(target)} target rows"
        )
    width = max(source.shape[1], target.shape[1])
    mean, target_mean = (padded(x.mean(axis=0, dtype=np.float64)[None], width)[0] for x in (source, target))
    # Sums over centred pairs from sums over pairs: neither matrix is copied to float64
    product = _cross(source, target) - len(source) * np.outer(mean[: source.shape[1]], target_mean[: target.shape[1]])
    squared = float(np.einsum("ij,ij->", source, source, dtype=np.float64)) - len(source) * float(mean @ mean)
    square = np.zeros((width, width))
    square[: source.shape[1], : target.shape[1]] = product
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
