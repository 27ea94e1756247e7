"""Empatica E4: a folder of CSV files per session.

Facts of the format are Empatica's (info.txt in each session); the quirks are those of the Stress-Predict recordings,
Iqbal et al., Sensors 22(21):8135, 2022.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.text import read_columns

COUNTS_PER_G = 64
MAX_LENGTH_DIFFERENCE_S = 5.0  # genuine sessions: up to 1.8 s
CLOCK_SLIP_S = 12 * 3600  # tags of a session may be half a day off
_SESSION_FILES = ("BVP.csv", "ACC.csv", "HR.csv", "IBI.csv")
_COMPANIONS = ("info.txt", "EDA.csv", "TEMP.csv", "Time_logs.xlsx", "Questionnaires_scores.xlsx")


def find(files: Iterable[Path]) -> Delivery:
    sessions: list[Session] = []
    companions: list[Path] = []
    for folder, group in groupby(sorted(files, key=lambda path: (path.parent, path)), key=lambda path: path.parent):
        members = list(group)
        companions += [path for path in members if path.name in _COMPANIONS]
        if any(path.name in _SESSION_FILES for path in members):
            used = [path for path in members if path.name in _SESSION_FILES or path.match("tags*.csv")]
            participant, contradiction = _participant(folder, used)
            sessions.append(Session(folder, tuple(used), participant, contradiction))
    return Delivery(tuple(sessions), tuple(companions))


def _participant(folder: Path, files: list[Path]) -> tuple[str | None, str | None]:
    """The id in the tag file's name, if there is one; and why it cannot be right, if it contradicts others."""
    names = sorted({path.stem.removeprefix("tags_") for path in files if path.name.startswith("tags_")})
    if len(names) > 1:
        return None, f"its tag files name {' and '.join(names)}"
    if names and re.fullmatch(r"S\d+", folder.name) and names[0] != folder.name:
        return None, f"the folder is {folder.name}, its tag file is that of {names[0]}"
    return (names[0] if names else None), None


def read(session: Session) -> list[Recording]:
    files = {path.name: path for path in session.files}
    for name in ("BVP.csv", "ACC.csv"):
        if name not in files:
            raise Unreadable("missing_file", name)
    start_s, ppg_rate_hz, ppg = _stream(files["BVP.csv"], 1)
    accel_start_s, accel_rate_hz, accel = _stream(files["ACC.csv"], 3)
    ppg_s, accel_s = ppg.shape[1] / ppg_rate_hz, accel.shape[1] / accel_rate_hz
    if abs(ppg_s - accel_s) > MAX_LENGTH_DIFFERENCE_S:
        raise Unreadable("unequal_lengths", f"BVP.csv lasts {ppg_s:.2f} s, ACC.csv {accel_s:.2f} s")

    notes = []
    hr_s = hr_bpm = ibi_end_s = ibi_s = event_s = None
    if "HR.csv" in files:
        hr_start_s, hr_rate_hz, hr = _stream(files["HR.csv"], 1)  # starts 10 s after the others
        hr_bpm = hr[0]
        hr_s = hr_start_s - start_s + np.arange(len(hr_bpm)) / hr_rate_hz
    if "IBI.csv" in files:
        ibi_end_s, ibi_s = _intervals(files["IBI.csv"], start_s)
    tags = [path for path in session.files if path.name.startswith("tags")]
    if tags and tags[0].stat().st_size:
        (pressed,) = read_columns(tags[0], ",", ("f8",))
        event_s, note = _events(pressed - start_s, ppg_s)
        notes += note
    recording = Recording(
        ppg=ppg,
        ppg_rate_hz=ppg_rate_hz,
        accel=accel / COUNTS_PER_G,
        accel_rate_hz=accel_rate_hz,
        accel_start_s=accel_start_s - start_s,
        started_at_s=start_s,
        reference_source=None if hr_bpm is None and ibi_s is None else "device",
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        reference_ibi_end_s=ibi_end_s,
        reference_ibi_s=ibi_s,
        event_s=event_s,
        notes=tuple(notes),
    )
    return [recording]


def _stream(path: Path, columns: int) -> tuple[float, float, Signals]:
    """Start (s since 1970, UTC), rate in Hz and samples `[columns, samples]` of a file with two header rows."""
    rows = np.stack(read_columns(path, ",", ("f8",) * columns))
    if rows.shape[1] < 3:
        raise Unreadable("empty_file", f"{path.name} has no samples")
    start_s, rate_hz = rows[:, 0], rows[:, 1]
    if not (np.ptp(start_s) == 0 and np.ptp(rate_hz) == 0 and 1e9 < start_s[0] < 4e9 and 0 < rate_hz[0] <= 256):
        raise Unreadable("bad_header", f"{path.name}: the first two rows are not a start in unix seconds and a rate")
    return float(start_s[0]), float(rate_hz[0]), rows[:, 2:]


def _intervals(path: Path, start_s: float) -> tuple[Times, Times]:
    """Ends of the inter-beat intervals (s after the start) and their durations; both may be empty."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    header = re.fullmatch(r"(\d+(?:\.\d+)?), *IBI", lines[0].strip()) if lines else None
    if not header or float(header[1]) != start_s:
        raise Unreadable("bad_header", f"{path.name}: the first row is not the start of BVP.csv and 'IBI'")
    if len(lines) == 1:
        return np.empty(0), np.empty(0)
    end_s, ibi_s = read_columns(path, ",", ("f8", "f8"), skip=1)
    return end_s, ibi_s


def _events(event_s: Times, duration_s: float) -> tuple[Times, list[str]]:
    """Button presses in order of time, with half-day clock slips corrected; presses out of session are left out."""
    notes = []
    in_session = (event_s >= 0) & (event_s <= duration_s)
    for slip_s in (CLOCK_SLIP_S, -CLOCK_SLIP_S):
        moved = event_s + slip_s
        slipped = ~in_session & (moved >= 0) & (moved <= duration_s)
        if slipped.any():
            event_s, in_session = np.where(slipped, moved, event_s), in_session | slipped
            notes.append(f"{slipped.sum()} tags moved by {slip_s / 3600:+.0f} h: a slip of the clock")
    if not in_session.all():
        notes.append(f"{(~in_session).sum()} tags outside of the session left out")
    return np.sort(event_s[in_session]), notes
