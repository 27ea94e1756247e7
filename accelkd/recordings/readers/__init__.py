"""Readers of device formats, one module a device.

A reader has two functions: `find(files)` groups the files of a delivery into sessions, `read(session)` makes a
recording of one session or raises `Unreadable`. What holds for all devices (identifiers, rates, lengths, units, times)
is not checked here: `accelkd.recordings.ingest` applies the validator's rules to each recording.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Signals = npt.NDArray[np.floating[Any]]  # [channels, samples]
Times = npt.NDArray[np.float64]


class Unreadable(Exception):
    """A session that cannot become a recording, with a short machine-readable reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Session:
    """The files that one recording is made of."""

    source: Path  # the file or folder that names it
    participant: str | None  # the delivery's own name of the person; None where it cannot be told
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Found:
    """The files of a delivery, sorted out; what is in neither is not recognised."""

    sessions: tuple[Session, ...]
    aside: tuple[Path, ...] = ()  # known companions that hold nothing for a recording


@dataclass(frozen=True)
class Recording:
    """What a session holds; fields as the columns of `accelkd.recordings.schema.RECORDING`."""

    ppg: Signals
    ppg_rate_hz: float
    accel: Signals  # g
    accel_rate_hz: float
    accel_start_s: float = 0.0
    started_at_s: float | None = None  # seconds since 1970, UTC
    dark: Signals | None = None  # at the rate of `ppg`
    dark_offsets_s: tuple[float, ...] | None = None
    reference_source: str | None = None
    reference_beat_s: Times | None = None
    reference_hr_s: Times | None = None
    reference_hr_bpm: Times | None = None
    reference_ibi_end_s: Times | None = None
    reference_ibi_s: Times | None = None
    event_s: Times | None = None
    notes: tuple[str, ...] = ()  # what was put right or left out while reading


class Reader(Protocol):
    """What a module of this package offers."""

    def find(self, files: Iterable[Path]) -> Found: ...

    def read(self, session: Session) -> Recording: ...
