"""Tables of synthetic signals, as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelkd.recordings.mapping import parse_mapping
from accelkd.recordings.readers import Recording
from accelkd.recordings.readers.table import table_reader

RATE_HZ = 50.0
START_S = 1_700_000_000.0  # 2023-11-14T22:13:20Z
Column = npt.NDArray[np.float64]


def signals(seconds: float = 90, seed: int = 0, rate_hz: float = RATE_HZ) -> dict[str, Column]:
    """`timestamp` in ms since 1970, a green channel whose pulse is a steep fall, and axes of 1 g."""
    rng = np.random.default_rng(seed)
    instants = np.arange(round(seconds * rate_hz)) / rate_hz
    beats = (instants * 1.2) % 1
    noise = rng.normal(0, 0.01, (3, len(instants)))
    return {
        "timestamp": np.round((START_S + instants) * 1000),
        "green": np.round(50_000 + 800 * np.where(beats < 0.15, 1 - beats / 0.15, (beats - 0.15) / 0.85)) + seed,
        "ax": noise[0],
        "ay": noise[1] + 0.6,
        "az": noise[2] + 0.8,
    }


def write_csv(
    path: Path,
    columns: Mapping[str, Any],
    *,
    separator: str = ",",
    end: str = "\n",
    decimal: str = ".",
    encoding: str = "utf-8",
) -> Path:
    """A text file of columns; NaN and None are blank cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*(list(values) for values in columns.values()), strict=True)
    lines = [separator.join(columns), *(separator.join(map(_cell, row)) for row in rows)]
    text = (end.join(lines) + end).replace(".", decimal) if decimal != "." else end.join(lines) + end
    path.write_bytes(text.encode(encoding))
    return path


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return str(value).removesuffix(".0")


def read_tables(mapping: str, *files: Path) -> list[Recording]:
    """All recordings that a mapping reads of some files."""
    reader = table_reader(parse_mapping(mapping))
    return [recording for session in reader.find(files).sessions for recording in reader.read(session)]
