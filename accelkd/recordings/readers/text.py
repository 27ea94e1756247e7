"""Number columns of text files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accelkd.recordings.readers import Unreadable


def read_columns(path: Path, delimiter: str, kinds: Sequence[str], *, first_column: int = 0, skip: int = 0) -> Any:
    """Columns of a delimited text file, from `first_column` on, one array for each type code in `kinds`.

    Skips `skip` lines. Line ends may be LF or CRLF. Raises Unreadable with the line number, never with the
    content of the line.
    """
    columns = range(first_column, first_column + len(kinds))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        try:
            rows = np.loadtxt(
                path,
                dtype=[(str(number), kind) for number, kind in enumerate(kinds)],
                delimiter=delimiter,
                usecols=columns if first_column else None,
                skiprows=skip,
                comments=None,
                encoding="utf-8",
                ndmin=1,
            )
        except UnicodeDecodeError:
            raise Unreadable("unreadable_file", f"{path.name} is not text") from None
        except ValueError as error:
            match = re.search(r"at row (\d+)", str(error))
            row = f"row {int(match[1])}" if match else "a row"
            raise Unreadable("bad_row", f"{path.name}: {row} does not hold {len(kinds)} numbers") from None
    if not rows.size:
        raise Unreadable("empty_file", f"{path.name} has no rows of numbers")
    return [rows[str(number)] for number in range(len(kinds))]
