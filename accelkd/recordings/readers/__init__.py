"""Readers of device formats, one module per format.

A reader has two functions: `find(files)` groups the files of a delivery into sessions, `read(session)` turns one
session into recordings or raises `Unreadable`. A session is one recording, unless its clock was reset or its streams
were interrupted for long (`accelkd.recordings.timeline`). Rules common to all devices (identifiers, rates, lengths,
units, times) are not checked here: `accelkd.recordings.ingest` applies the validator's rules to each recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

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
    """The files that belong together.

    Who the participant is, is decided by `accelkd.recordings.identity`: a reader says what the names of the files mean
    where the format defines it (`participant`), or that they contradict each other (`contradiction`), never what the
    folders around them may mean.
    """

    source: Path  # the file or folder that it is named after
    files: tuple[Path, ...]
    participant: str | None = None  # named by the files' names, by the rule of the format
    contradiction: str | None = None  # why the files' names do not agree on a participant
    sensor_id: str | None = None  # serial number, where names of files or folders hold it


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery, classified; a file that is in neither is not recognised."""

    sessions: tuple[Session, ...]
    companions: tuple[Path, ...] = ()  # known files that hold nothing for a recording


@dataclass(frozen=True)
class Demographics:
    """What is known of a participant, as in `accelkd.recordings.schema.PARTICIPANT`; None where it is not."""

    sex: Literal["female", "male"] | None = None
    age_years: float | None = None
    height_m: float | None = None
    bmi_kg_m2: float | None = None
    skin_tone: float | None = None  # Monk scale


@dataclass(frozen=True)
class Recording:
    """What a session holds; fields as the columns of `accelkd.recordings.schema.RECORDING`.

    A modality that the device does not have, or has lost, is None with its rate. Times count from the start: the first
    PPG frame, or the first accelerometer sample where there is no PPG.
    """

    ppg: Signals | None = None
    ppg_rate_hz: float | None = None
    ppg_polarity: Literal[1, -1] | None = None  # where it is not the device's
    accel: Signals | None = None  # g
    accel_rate_hz: float | None = None
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
    sensor_id: str | None = None  # serial number of the device
    participant: str | None = None  # named inside the files
    demographics: Demographics | None = None  # of the participant, as the files say
    notes: tuple[str, ...] = ()  # what was corrected or left out while reading

    @property
    def duration_s(self) -> float:
        """From the start to the end of the last sample of any stream."""
        ends_s = [0.0]
        if self.ppg is not None and self.ppg_rate_hz:
            ends_s.append(self.ppg.shape[1] / self.ppg_rate_hz)
        if self.accel is not None and self.accel_rate_hz:
            ends_s.append(self.accel_start_s + self.accel.shape[1] / self.accel_rate_hz)
        return max(ends_s)


class Reader(Protocol):
    """The interface of every reader module."""

    def find(self, files: Iterable[Path]) -> Delivery:
        """Group the files of a delivery into sessions."""

    def read(self, session: Session) -> Sequence[Recording]:
        """Read the recordings of one session, in order of time. Raises Unreadable or OSError."""
