"""Readers of device formats, one module per device.

A reader has two functions: `find(files)` groups the files of a delivery into sessions, `read(session)` turns one
session into a recording or raises `Unreadable`. Rules common to all devices (identifiers, rates, lengths, units, times)
are not checked here: `accelkd.recordings.ingest` applies the validator's rules to each recording.
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

    source: Path  # the file or folder that it is named after
    participant: str | None  # the participant's name in the delivery; None where it is unknown
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery, classified; a file that is in neither is not recognised."""

    sessions: tuple[Session, ...]
    companions: tuple[Path, ...] = ()  # known files that hold nothing for a recording


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
    notes: tuple[str, ...] = ()  # what was corrected or left out while reading


class Reader(Protocol):
    """The interface of every reader module."""

    def find(self, files: Iterable[Path]) -> Delivery:
        """Group the files of a delivery into sessions."""

    def read(self, session: Session) -> Recording:
        """Read the recording of one session. Raises Unreadable or OSError."""
