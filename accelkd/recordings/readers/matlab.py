"""Variables of MATLAB files: up to version 7, and of version 7.3, which is HDF5.

Files are parsed in another process. Damaged ones make SciPy's parser, in C, read where it must not, which kills the
process that it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelkd.home.isolated import run_in_kept_process
from accelkd.recordings.readers import Unreadable

Matrices = dict[str, npt.NDArray[np.float64]]
_HDF5 = b"\x89HDF\r\n\x1a\n"
_TEXT = "char"  # the class of strings in version 7.3


def read_variables(path: Path) -> dict[str, Any]:
    """All variables of a file; structures are dictionaries, arrays of structures and cells are lists.

    Raises Unreadable for a damaged file, and for one of version 7.3 without h5py; OSError.
    """
    with path.open("rb") as file:
        head = file.read(520)
    if head[512:] != _HDF5 and head[:8] != _HDF5:
        content = _parsed(path, partial(_version_5, simplify_cells=True), "v5")
    elif find_spec("h5py") is None:
        detail = f"{path.name} is MATLAB v7.3, which needs h5py: pip install 'accelkd[formats]'"
        raise Unreadable("missing_library", detail)
    else:
        content = _parsed(path, _version_7_3, "v7.3")
    return {name: value for name, value in content.items() if not name.startswith(("__", "#"))}


def read_matrices(path: Path, names: Sequence[str]) -> tuple[Matrices, dict[str, str]]:
    """Those of the named variables that are matrices of real numbers, in float64, and why the others are not.

    Raises Unreadable for a damaged file.
    """
    content = _parsed(path, partial(_version_5, variable_names=list(names)), "v5")
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


def _parsed(path: Path, parse: Callable[[Path], dict[str, Any]], version: str) -> dict[str, Any]:
    """What `parse` makes of a file. Raises Unreadable."""
    try:
        content, error = run_in_kept_process(_attempt, parse, path)
    except ChildProcessError:
        raise Unreadable(
            "unreadable_file", f"{path.name}: so damaged that the reader of MATLAB {version} died"
        ) from None
    if error is not None:
        raise Unreadable("unreadable_file", f"{path.name}: {error} while reading MATLAB {version}")
    return content


def _attempt(parse: Callable[[Path], dict[str, Any]], path: Path) -> tuple[dict[str, Any], str | None]:
    """What `parse` makes of a file, or the name of the exception: damaged files make it raise nearly anything."""
    try:
        return parse(path), None
    except Exception as error:
        return {}, type(error).__name__


def _version_5(path: Path, **options: Any) -> dict[str, Any]:
    from scipy.io import loadmat

    content: dict[str, Any] = loadmat(path, **options)
    return content


def _version_7_3(path: Path) -> dict[str, Any]:
    """Structures are groups, arrays of structures and cells are references, axes are reversed."""
    import h5py

    def value(file: Any, node: Any, depth: int) -> Any:
        if depth > 10:
            return None
        if isinstance(node, h5py.Group):
            members = {name: value(file, node[name], depth + 1) for name in node}
            lengths = {len(member) if isinstance(member, list) else 0 for member in members.values()}
            if len(lengths) == 1 and (length := lengths.pop()):  # an array of structures
                return [{name: member[number] for name, member in members.items()} for number in range(length)]
            return members
        if node.attrs.get("MATLAB_empty", 0):
            return np.empty(0)
        content = node[()]
        if getattr(content, "dtype", None) == h5py.ref_dtype:
            return [value(file, file[reference], depth + 1) for reference in content.ravel()]
        if node.attrs.get("MATLAB_class", b"") in (_TEXT, _TEXT.encode()):
            return "".join(map(chr, np.asarray(content).T.ravel(order="F").astype(int)))
        return np.squeeze(np.asarray(content).T)

    with h5py.File(path, "r") as file:
        return {name: value(file, file[name], 0) for name in file}
