"""Embeddings larger than memory: rows of a matrix in a file, which are read chunk by chunk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.floating]
Rows: TypeAlias = npt.NDArray[np.intp]

CHUNK_SIZE = 16_384  # rows that are converted to float64 at a time


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A view of `rows` of a float32 matrix in a file; `view[index]` reads those rows, as of an array."""

    values: npt.NDArray[np.float32]  # [stored rows, width], memory-mapped
    rows: Rows  # [samples], where each lies among the stored ones

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples, width."""
        return len(self.rows), self.values.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Rows | npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        return np.asarray(self.values[self.rows[index]])

    def take(self, index: Rows) -> StoredMatrix:
        """A view of some of the samples; nothing is read."""
        return StoredMatrix(self.values, self.rows[index])


Matrix: TypeAlias = Floats | StoredMatrix  # [samples, width]


def store(
    parts: Iterable[tuple[Rows, npt.NDArray[np.float32]]], shape: tuple[int, int], folder: Path | None = None
) -> StoredMatrix:
    """Write parts of a matrix, each with the numbers of its rows, to a file, which is gone with the last view of it.

    The file has no name; it lies in `folder`, by default where temporary files do.
    """
    values: npt.NDArray[np.float32] = np.empty((0, shape[1]), np.float32)
    if shape[0]:  # nothing cannot be mapped
        with tempfile.TemporaryFile(dir=folder) as file:
            values = np.memmap(file, np.float32, "w+", shape=shape)
    for rows, part in parts:
        values[rows] = part
    return StoredMatrix(values, np.arange(shape[0]))


def chunks(matrix: Matrix, rows: Rows | None = None, size: int = CHUNK_SIZE) -> Iterator[tuple[Rows, Floats]]:
    """Samples of a matrix, by default all, in chunks of `size`: their positions among `rows`, and their values.

    In their order, wherever they lie in a file: sums over them are the same to the last digit.
    """
    number = len(matrix) if rows is None else len(rows)
    for start in range(0, number, size):
        which = np.arange(start, min(start + size, number))
        yield which, matrix[which if rows is None else rows[which]]


def mean_and_scale(matrix: Matrix, rows: Rows | None = None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation `[width]` of each column; 1 instead of a deviation of 0."""
    size = len(matrix) if rows is None else len(rows)
    total, squares = np.zeros((2, matrix.shape[1]))
    about = np.zeros(matrix.shape[1])
    for number, (_, part) in enumerate(chunks(matrix, rows)):
        if not number:
            about = part[0].astype(np.float64)  # equal values then deviate by exactly 0
        deviation = part - about
        total += deviation.sum(axis=0)
        squares += np.einsum("ij,ij->j", deviation, deviation)
    shift = total / max(size, 1)
    scale = np.sqrt(np.maximum(squares / max(size, 1) - shift**2, 0))
    scale[scale == 0] = 1.0
    return about + shift, scale
