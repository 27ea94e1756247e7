"""Empatica E4: a folder of CSV files per session.

Facts of the format are Empatica's (info.txt in each session); the quirks are those of the Stress-Predict recordings,
Iqbal et al., Sensors 22(21):8135, 2022.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accelkd.recordings.identity import looks_like_session
from accelkd.recordings.readers import Delivery, Recording, Session, Times, Unreadable
from accelkd.recordings.readers.text import read_table
from accelkd.recordings.timeline import Piece, assemble

COUNTS_PER_G = 64
CLOCK_SLIP_S = 12 * 3600  # tags of a session may be half a day off
MAX_RATE_HZ = 256.0
_SESSION_FILES = ("bvp.csv", "acc.csv", "hr.csv", "ibi.csv")
_COMPANIONS = ("info.txt", "eda.csv", "temp.csv", "time_logs.xlsx", "questionnaires_scores.xlsx")
_TAGS = re.compile(r"tags(?:_(?P<participant>.+))?\.csv", re.IGNORECASE)
_SERIAL = re.compile(r"(?:.*\D)?\d{10}_(?P<serial>[0-9A-F]{6})(?!\w).*", re.IGNORECASE)  # <unix time>_<serial>
_LABEL_ROWS = 3  # that a spreadsheet may have put before the numbers


def find(files: Iterable[Path]) -> Delivery:
    sessions: list[Session] = []
    companions: list[Path] = []
    for folder, group in groupby(sorted(files, key=lambda path: (path.parent, path)), key=lambda path: path.parent):
        members = list(group)
        companions += [path for path in members if path.name.lower() in _COMPANIONS]
        tags = [path for path in members if _TAGS.fullmatch(path.name)]
        signals = [path for path in members if path.name.lower() in _SESSION_FILES]
        if signals:
            participant, contradiction = _participant(folder, tags)
            serial = _SERIAL.fullmatch(folder.name)
            sensor_id = serial["serial"].upper() if serial else None
            sessions.append(Session(folder, (*signals, *tags), participant, contradiction, sensor_id))
        else:
            companions += tags
    return Delivery(tuple(sessions), tuple(companions))


def _participant(folder: Path, tags: Sequence[Path]) -> tuple[str | None, str | None]:
    """The id in the tag file's name, if there is one; and why it cannot be right, if it contradicts others."""
    matches = [_TAGS.fullmatch(path.name) for path in tags]
    names = sorted({match["participant"] for match in matches if match and match["participant"]})
    names = [name for name in names if not looks_like_session(name)]
    if len(names) > 1:
        return None, f"its tag files name {' and '.join(names)}"
    if names and re.fullmatch(r"S\d+", folder.name) and names[0] != folder.name:
        return None, f"the folder is {folder.name}, its tag file is that of {names[0]}"
    return (names[0] if names else None), None


def read(session: Session) -> list[Recording]:
    files = {path.name.lower(): path for path in session.files}
    notes: list[str] = []
    pieces: dict[str, Piece] = {}
    problems: list[Unreadable] = []
    for name, columns in (("bvp.csv", 1), ("acc.csv", 3)):
        if name in files:
            try:
                pieces[name] = _stream(files[name], columns, notes)
            except Unreadable as error:
                problems.append(error)
    if not pieces:
        raise problems[0] if problems else Unreadable("missing_file", "neither BVP.csv nor ACC.csv")
    notes += [f"left out: {problem}" for problem in problems]
    ppg = [pieces["bvp.csv"]] if "bvp.csv" in pieces else []
    accel = [pieces["acc.csv"]] if "acc.csv" in pieces else []
    start_s, end_s = (ppg or accel)[0].start_s, max(piece.end_s for piece in pieces.values())

    hr_s = hr_bpm = ibi_end_s = ibi_s = None
    if "hr.csv" in files:
        hr_s, hr_bpm = _inside(*_heart_rate(files["hr.csv"], notes), start_s, end_s, "HR.csv", notes)
    if "ibi.csv" in files:
        ibi_end_s, ibi_s = _inside(*_intervals(files["ibi.csv"], start_s, notes), start_s, end_s, "IBI.csv", notes)
    facts = Recording(
        reference_source=None if hr_bpm is None and ibi_s is None else "device",
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        reference_ibi_end_s=ibi_end_s,
        reference_ibi_s=ibi_s,
        event_s=_events([path for path in session.files if _TAGS.fullmatch(path.name)], start_s, end_s, notes),
        notes=tuple(notes),
    )
    scaled = [Piece(piece.start_s, piece.rate_hz, piece.samples / COUNTS_PER_G) for piece in accel]
    return assemble(ppg, scaled, facts, utc=True)


def _stream(path: Path, columns: int, notes: list[str]) -> Piece:
    """The samples `[columns, samples]` of a file with two header rows: start (s since 1970, UTC) and rate in Hz."""
    table = read_table(path, header=False, width=columns)
    notes += [f"{path.name}: {note}" for note in table.notes]
    rows = np.stack([table.numbers(column) for column in range(columns)])
    for _ in range(_LABEL_ROWS):
        if rows.shape[1] and np.isnan(rows[:, 0]).all():
            rows = rows[:, 1:]
    if rows.shape[1] < 3:
        raise Unreadable("empty_file", f"{path.name} has no samples")
    start_s, rate_hz = _in_seconds(_only(rows[:, 0])), _only(rows[:, 1])
    if not (1e9 < start_s < 4e9 and 0 < rate_hz <= MAX_RATE_HZ):
        raise Unreadable("bad_header", f"{path.name}: the first two rows are not a start in unix seconds and a rate")
    samples = rows[:, 2:]
    missing = np.isnan(samples)
    if missing.all(axis=1).any():
        raise Unreadable("bad_row", f"{path.name} has no {columns} columns of numbers")
    if missing.any():
        notes.append(f"{path.name}: {missing.any(axis=0).sum()} rows without a number are missing samples")
    return Piece(start_s, rate_hz, samples)


def _only(values: npt.NDArray[np.float64]) -> float:
    """The number that all columns of a header row repeat, or the first alone has; NaN where they differ."""
    known = values[np.isfinite(values)]
    return float(known[0]) if len(known) and np.ptp(known) == 0 else np.nan


def _in_seconds(instant: float) -> float:
    """Seconds since 1970 from seconds, milliseconds or microseconds."""
    for per_second in (1e3, 1e6):
        if 1e9 * per_second < instant < 4e9 * per_second:
            return instant / per_second
    return instant


def _heart_rate(path: Path, notes: list[str]) -> tuple[Times | None, Times | None]:
    """Instants (s since 1970) and heart rates; the file starts 10 s after the others."""
    try:
        piece = _stream(path, 1, notes)
    except Unreadable as error:
        notes.append(f"left out: {error}")
        return None, None
    hr_s = piece.start_s + np.arange(piece.samples.shape[1]) / piece.rate_hz
    known = piece.samples[0] > 0
    if not known.all():
        notes.append(f"{path.name}: {(~known).sum()} heart rates that are zero or missing left out")
    return (hr_s[known], piece.samples[0, known]) if known.any() else (None, None)


def _intervals(path: Path, start_s: float, notes: list[str]) -> tuple[Times | None, Times | None]:
    """Ends of the inter-beat intervals (s since 1970) and their durations.

    The first row has the start that they count from, of this file alone, and `IBI`.
    """
    try:
        table = read_table(path, header=False, width=2)
    except Unreadable as error:
        notes.append(f"left out: {error}")
        return None, None
    end_s, ibi_s = table.numbers(0), table.numbers(1)
    own_s = _in_seconds(float(end_s[0])) if table.rows else np.nan
    if 1e9 < own_s < 4e9:
        if own_s != start_s:
            notes.append(f"{path.name} counts from another instant, {own_s - start_s:+.3f} s")
        start_s, end_s, ibi_s = own_s, end_s[1:], ibi_s[1:]
    if not len(end_s):
        notes.append(f"{path.name} has no intervals")
        return None, None
    order = np.argsort(end_s, kind="stable")
    end_s, ibi_s = end_s[order], ibi_s[order]
    good = np.isfinite(end_s) & (ibi_s > 0)
    good &= np.diff(end_s, prepend=-np.inf) > 0
    if not good.all():
        notes.append(f"{path.name}: {(~good).sum()} rows that are no intervals or come again left out")
    return (start_s + end_s[good], ibi_s[good]) if good.any() else (None, None)


def _inside(
    instants_s: Times | None, values: Times | None, start_s: float, end_s: float, name: str, notes: list[str]
) -> tuple[Times | None, Times | None]:
    """What lies in the session; None where nothing does, as of another session's file."""
    if instants_s is None or values is None:
        return None, None
    inside = (instants_s >= start_s) & (instants_s <= end_s)
    if not inside.all():
        notes.append(f"{name}: {(~inside).sum()} values outside of the session left out")
    return (instants_s[inside], values[inside]) if inside.any() else (None, None)


def _events(tags: Sequence[Path], start_s: float, end_s: float, notes: list[str]) -> Times | None:
    """Button presses (s since 1970) in order of time, with half-day clock slips corrected; others are left out."""
    pressed = []
    for path in tags:
        try:
            pressed.append(read_table(path, header=False, width=1).numbers(0))
        except Unreadable as error:
            if error.reason != "empty_file":  # no press is the rule
                notes.append(f"left out: {error}")
    if not pressed:
        return None
    event_s = np.unique(np.concatenate(pressed))
    event_s = np.array([_in_seconds(instant) for instant in event_s[np.isfinite(event_s)]])
    in_session = (event_s >= start_s) & (event_s <= end_s)
    for slip_s in (CLOCK_SLIP_S, -CLOCK_SLIP_S):
        moved = event_s + slip_s
        slipped = ~in_session & (moved >= start_s) & (moved <= end_s)
        if slipped.any():
            event_s, in_session = np.where(slipped, moved, event_s), in_session | slipped
            notes.append(f"{slipped.sum()} tags moved by {slip_s / 3600:+.0f} h: a slip of the clock")
    if not in_session.all():
        notes.append(f"{(~in_session).sum()} tags outside of the session left out")
    return np.sort(event_s[in_session])
