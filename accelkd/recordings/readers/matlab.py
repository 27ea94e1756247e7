"""Number matrices of MATLAB v5 files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat

from accelkd.recordings.readers import Unreadable


def read_matrices(path: Path, shapes: dict[str, tuple[int | None, int | None]]) -> list[npt.NDArray[np.float64]]:
    """The variables of a .mat file named by `shapes`, in float64; a size of None accepts any size above zero.

    Raises Unreadable for a damaged file and for a variable that is missing, of another shape or not real numbers.
    """
    try:
        content = loadmat(path, variable_names=list(shapes))
    except Exception as error:  # a damaged file makes loadmat raise nearly anything
        raise Unreadable("unreadable_file", f"{path.name}: {type(error).__name__} while reading MATLAB v5") from error
    matrices = []
    for name, shape in shapes.items():
        if name not in content:
            raise Unreadable("missing_variable", f"{path.name} has no variable {name!r}")
        matrix = content[name]
        expected = " x ".join("n" if size is None else str(size) for size in shape)
        if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "uif":
            raise Unreadable("wrong_variable", f"{path.name}: {name} holds no real numbers; expected {expected}")
        if matrix.ndim != 2 or not all(
            actual == size if size else actual > 0 for actual, size in zip(matrix.shape, shape, strict=True)
        ):
            actual = " x ".join(map(str, matrix.shape))
            raise Unreadable("wrong_variable", f"{path.name}: {name} is {actual}, expected {expected}")
        matrices.append(matrix.astype(np.float64))
    return matrices
