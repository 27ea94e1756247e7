"""Number matrices of MATLAB files up to version 7 (version 7.3 is HDF5, which no format at hand uses)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from accelkd.recordings.readers import Unreadable

Matrices = dict[str, npt.NDArray[np.float64]]


def read_matrices(path: Path, names: Sequence[str]) -> tuple[Matrices, dict[str, str]]:
    """Those of the named variables that are matrices of real numbers, in float64, and why the others are not.

    Raises Unreadable for a damaged file.
    """
    try:
        content = loadmat(path, variable_names=list(names))
    except Exception as error:  # a damaged file makes loadmat raise nearly anything
        raise Unreadable("unreadable_file", f"{path.name}: {type(error).__name__} while reading MATLAB v5") from error
    matrices: Matrices = {}
    problems = {}
    for name in names:
        matrix = content.get(name)
        if matrix is None:
            problems[name] = f"{path.name} has no variable {name!r}"
        elif not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "uif":
            problems[name] = f"{path.name}: {name} holds no real numbers"
        elif matrix.ndim != 2 or not matrix.size:
            problems[name] = f"{path.name}: {name} is no matrix of numbers"
        else:
            matrices[name] = matrix.astype(np.float64)
    return matrices, problems


def rows_of(matrix: npt.NDArray[np.float64], counts: Sequence[int], name: str) -> npt.NDArray[np.float64]:
    """A matrix `[channels, samples]` whose number of channels is one of `counts`; also if stored the other way round.

    Raises Unreadable.
    """
    if len(matrix) > 100 and matrix.shape[1] in counts:
        return matrix.T
    if len(matrix) not in counts or matrix.shape[1] < 2:
        shape, expected = " x ".join(map(str, matrix.shape)), " or ".join(map(str, counts))
        raise Unreadable("wrong_variable", f"{name} is {shape}, expected {expected} x n")
    return matrix
