"""Polar Verity Sense, logged by the phone app Polar Sensor Logger: a folder of text files per session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.text import read_columns

_HEADERS = {
    "PPG": "Phone timestamp;sensor timestamp [ns];channel 0;channel 1;channel 2;ambient",
    "ACC": "Phone timestamp;sensor timestamp [ns];X [mg];Y [mg];Z [mg]",
    "HR": "Phone timestamp;HR [bpm]",
    "PPI": "Phone timestamp;PP-interval [ms];error estimate [ms];blocker;contact;contact;hr [bpm]",
    "MARKER": "Phone timestamp;Marker start/stop",
}
_FILES = {("MARKER.txt" if name == "MARKER" else f"Polar_Sense_{name}.txt"): name for name in _HEADERS}
_COMPANIONS = ("Polar_Sense_GYRO.txt", "Polar_Sense_MAGN.txt")
MAX_STEP = 1.5  # in sampling periods; a longer one means that a packet was lost
MAX_PP_ERROR_MS = 30


def find(files: Iterable[Path]) -> Delivery:
    sessions: list[Session] = []
    companions: list[Path] = []
    for folder, group in groupby(sorted(files, key=lambda path: (path.parent, path)), key=lambda path: path.parent):
        members = list(group)
        companions += [path for path in members if path.name in _COMPANIONS]
        used = [path for path in members if path.name in _FILES]
        if any(path.name != "MARKER.txt" for path in used):
            sessions.append(Session(folder, tuple(used)))
    return Delivery(tuple(sessions), tuple(companions))


def read(session: Session) -> list[Recording]:
    files = {_FILES[path.name]: path for path in session.files}
    for name in ("PPG", "ACC"):
        if name not in files:
            raise Unreadable("missing_file", f"Polar_Sense_{name}.txt")
    for name, path in files.items():
        with path.open(encoding="utf-8", errors="replace") as file:
            if file.readline().rstrip("\r\n") != _HEADERS[name]:
                raise Unreadable("bad_header", f"{path.name}: the first line is not {_HEADERS[name]!r}")
    # Streams are aligned by sensor time alone: phone time lags behind it, differently in each stream
    ppg_start_ns, ppg_rate_hz, ppg = _stream(files["PPG"], 4)
    accel_start_ns, accel_rate_hz, accel = _stream(files["ACC"], 3)
    phone_start = next(_phone_times(files["PPG"]))
    duration_s = ppg.shape[1] / ppg_rate_hz

    def after_start(name: str) -> Times:
        """Times of a stream that has phone time only, seconds after the first PPG frame reached the phone."""
        return np.array([(time - phone_start).total_seconds() for time in _phone_times(files[name])])

    notes = []
    hr_s = hr_bpm = ibi_end_s = ibi_s = event_s = None
    if "HR" in files:
        (hr_bpm,) = read_columns(files["HR"], ";", ("f8",), first_column=1, skip=1)
        hr_s = after_start("HR")
        known = (hr_bpm > 0) & (hr_s >= 0)  # zero: the device has no heart rate yet
        notes.append(f"{(~known).sum()} heart rates that are zero or before the first PPG frame left out")
        hr_s, hr_bpm = hr_s[known], hr_bpm[known]
    if "PPI" in files:
        ibi_end_s, ibi_s, note = _intervals(files["PPI"], after_start("PPI"))
        notes.append(note)
    if "MARKER" in files:
        event_s = after_start("MARKER")
        event_s = event_s[(event_s >= 0) & (event_s <= duration_s)]
    recording = Recording(
        ppg=ppg[:3],
        ppg_rate_hz=ppg_rate_hz,
        dark=ppg[3:],
        dark_offsets_s=(0.0,),
        accel=accel / 1000,  # mg
        accel_rate_hz=accel_rate_hz,
        accel_start_s=(accel_start_ns - ppg_start_ns) / 1e9,
        reference_source=None if hr_bpm is None and ibi_s is None else "device",
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        reference_ibi_end_s=ibi_end_s,
        reference_ibi_s=ibi_s,
        event_s=event_s,
        notes=tuple(notes),
    )
    return [recording]


def _stream(path: Path, channels: int) -> tuple[int, float, Signals]:
    """Sensor time of the first frame in ns, measured rate in Hz, and samples `[channels, samples]`."""
    time_ns, *columns = read_columns(path, ";", ("i8", *("f8",) * channels), first_column=1, skip=1)
    if len(time_ns) < 2:
        raise Unreadable("empty_file", f"{path.name} has less than two samples")
    step_ns = np.diff(time_ns)
    if (step_ns <= 0).any():
        raise Unreadable(
            "time_order", f"{path.name}: sensor time goes back after row {int(np.argmax(step_ns <= 0)) + 1}"
        )
    long = step_ns > MAX_STEP * np.median(step_ns)
    if long.any():
        row = int(np.argmax(long))
        raise Unreadable("time_gap", f"{path.name}: {step_ns[row] / 1e9:.3f} s without samples after row {row + 1}")
    # The nominal rates (55 and 52 Hz) are off by half a percent
    rate_hz = len(step_ns) / (int(time_ns[-1] - time_ns[0]) / 1e9)
    return int(time_ns[0]), rate_hz, np.stack(columns)


def _phone_times(path: Path) -> Iterator[datetime]:
    """First column: local time of the phone, without a zone."""
    with path.open(encoding="utf-8", errors="replace") as file:
        next(file)
        for line in file:
            if line.strip():
                try:
                    yield datetime.fromisoformat(line.split(";", 1)[0]).replace(tzinfo=None)
                except ValueError:
                    raise Unreadable("bad_row", f"{path.name}: a row does not start with a time") from None


def _intervals(path: Path, begin_s: Times) -> tuple[Times, Times, str]:
    """Ends and durations of the trustworthy pulse intervals, and how many were left out.

    A row's time is the beginning of its interval: within a packet each row begins where the one before ends.
    """
    ibi_ms, error_ms, blocked = read_columns(path, ";", ("f8",) * 3, first_column=1, skip=1)
    end_s = begin_s + ibi_ms / 1000
    good = (blocked == 0) & (error_ms <= MAX_PP_ERROR_MS)
    left_out = f"{(~good).sum()} pulse intervals blocked or with an error above {MAX_PP_ERROR_MS} ms left out"
    end_s, ibi_ms = end_s[good], ibi_ms[good]
    # A packet that reached the phone late or early overlaps its neighbour
    forward = np.diff(np.maximum.accumulate(end_s), prepend=-np.inf) > 0
    return end_s[forward], ibi_ms[forward] / 1000, f"{left_out}, {(~forward).sum()} that go back in time"
