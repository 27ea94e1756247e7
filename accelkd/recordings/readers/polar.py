"""Polar Verity Sense, OH1 and chest straps, logged by the phone app Polar Sensor Logger: a text file per stream.

The app names files `Polar_Sense_<serial>_<date>_<time>_PPG.txt`; they are often renamed to `Polar_Sense_PPG.txt`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.ecg import reference_beats
from accelkd.recordings.readers.text import Table, plain, read_table, unit
from accelkd.recordings.timeline import Piece, assemble, place

MAX_PP_ERROR_MS = 30
SESSION_GAP = timedelta(minutes=10)  # streams of a session are switched on one after the other
_STREAMS = ("PPG", "ACC", "ECG", "HR", "PPI", "RR", "MARKER")
_SIGNALS = ("PPG", "ACC", "ECG")
_NAME = re.compile(
    r"(?:(?P<device>Polar(?:[_ -](?!PPG|ACC|ECG|HR|PPI|RR|MARKER)[A-Za-z0-9]+?)*?)[_ -])?"
    r"(?:(?P<serial>[0-9A-F]{8,12})[_ -])?"
    r"(?:(?P<date>\d{8})[_-](?P<time>\d{6})[_ -])?"
    r"(?P<stream>[A-Z]+)(?:[_ -](?P<date2>\d{8})[_-](?P<time2>\d{6}))?\.(?:txt|csv)",
    re.IGNORECASE,
)
_COLUMNS = {  # pattern of a column's plain name, by how it is usually written
    "PPG": {
        **{f"channel {number}": rf"(?:channel|ppg|led) ?{number}" for number in range(3)},
        "ambient": "ambient.*",
    },
    "ACC": {axis.upper(): axis for axis in "xyz"},
    "ECG": {"ecg": "ecg.*"},
}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_G = {"mg": 1e-3, "g": 1.0, "": 1e-3}
_Values = Callable[[Table, Times, str, list[str]], tuple[Times, Times]]  # instants and values of a table


@dataclass(frozen=True)
class _File:
    path: Path
    device: str
    serial: str | None
    stamp: datetime | None
    stream: str


def find(files: Iterable[Path]) -> Delivery:
    groups: dict[tuple[Path, str, str | None], list[_File]] = defaultdict(list)
    markers: dict[Path, list[_File]] = defaultdict(list)
    companions: list[Path] = []
    for path in sorted(files):
        file = _named(path)
        if file is None:
            continue
        if file.stream == "MARKER":
            markers[path.parent].append(file)
        elif file.stream in _STREAMS:
            groups[path.parent, file.device, file.serial].append(file)
        else:
            companions.append(path)  # gyroscope, magnetometer, temperature
    sessions = []
    used = set()
    per_folder: dict[Path, list[list[_File]]] = defaultdict(list)
    for (folder, _, _), members in groups.items():
        per_folder[folder] += _sessions(members)
    for folder, grouped in per_folder.items():
        for members in grouped:
            marked = [marker.path for marker in markers[folder] if _near(marker, members)]
            used.update(marked)
            # A folder with one session is named after it, sessions that share one after their first file
            source = folder if len(grouped) == 1 else members[0].path
            paths = (*(file.path for file in members), *marked)
            sessions.append(Session(source, paths, sensor_id=members[0].serial))
    companions += [marker.path for file in markers.values() for marker in file if marker.path not in used]
    return Delivery(tuple(sessions), tuple(companions))


def _named(path: Path) -> _File | None:
    match = _NAME.fullmatch(path.name)
    if not match or not (match["device"] or match["stream"].upper() == "MARKER"):
        return None
    stamp = None
    if date := match["date"] or match["date2"]:
        try:
            stamp = datetime.strptime(date + (match["time"] or match["time2"]), "%Y%m%d%H%M%S")
        except ValueError:
            return None
    serial = match["serial"].upper() if match["serial"] else None
    return _File(path, plain(match["device"] or ""), serial, stamp, match["stream"].upper())


def _sessions(members: Sequence[_File]) -> list[list[_File]]:
    """Files of one sensor by session: a stream that comes again, or much later, begins another one."""
    sessions: list[list[_File]] = []
    for file in sorted(members, key=lambda file: (file.stamp or datetime.min, file.path)):
        last = sessions[-1] if sessions else []
        previous = last[-1].stamp if last else None
        apart = file.stamp is not None and previous is not None and file.stamp - previous > SESSION_GAP
        if not last or apart or file.stream in {other.stream for other in last}:
            sessions.append([])
        sessions[-1].append(file)
    return sessions


def _near(marker: _File, members: Sequence[_File]) -> bool:
    stamps = [file.stamp for file in members if file.stamp is not None]
    return marker.stamp is None or not stamps or abs(min(stamps) - marker.stamp) <= SESSION_GAP


def read(session: Session) -> list[Recording]:
    files = {file.stream: path for path in session.files if (file := _named(path))}
    notes: list[str] = []
    streams: dict[str, _Stream] = {}
    problems: list[Unreadable] = []
    for name in _SIGNALS:
        if name in files:
            try:
                streams[name] = _stream(files[name], name, notes)
            except Unreadable as error:
                problems.append(error)
    if "PPG" not in streams and "ACC" not in streams:
        raise problems[0] if problems else Unreadable("missing_file", "neither a PPG nor an ACC file")
    notes += [f"left out: {problem}" for problem in problems]
    # Streams are aligned by sensor time alone: phone time lags behind it, differently in each stream
    clock = _PhoneClock(streams.get("PPG") or streams["ACC"])

    beat_s = hr_s = hr_bpm = ibi_end_s = ibi_s = event_s = None
    if "ECG" in streams:
        beat_s = reference_beats(streams["ECG"].pieces, notes)
    if beat_s is None:
        hr_s, hr_bpm = _optional(files, "HR", _heart_rate, clock, notes)
        ibi_end_s, ibi_s = _optional(files, "PPI", _intervals, clock, notes)
        if ibi_s is None:
            ibi_end_s, ibi_s = _optional(files, "RR", _intervals, clock, notes)
    if "MARKER" in files:
        event_s, _ = _optional(files, "MARKER", _marks, clock, notes)
    device = hr_bpm is not None or ibi_s is not None
    facts = Recording(
        dark_offsets_s=(0.0,),
        reference_source="ecg" if beat_s is not None else "device" if device else None,
        reference_beat_s=beat_s,
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        reference_ibi_end_s=ibi_end_s,
        reference_ibi_s=ibi_s,
        event_s=event_s,
        sensor_id=session.sensor_id,
        notes=tuple(notes),
    )
    ppg, accel = (streams[name].pieces if name in streams else [] for name in ("PPG", "ACC"))
    return assemble(ppg, accel, facts, dark_channels=1, utc=False)  # local time, without a zone


@dataclass(frozen=True)
class _Stream:
    """Samples placed by sensor time (s since 2000 of the sensor's clock), and what is known of the phone's clock."""

    pieces: list[Piece]
    time_s: Times  # of each row
    table: Table


def _stream(path: Path, name: str, notes: list[str]) -> _Stream:
    """One file of samples with sensor time. Raises Unreadable."""
    table = read_table(path)
    notes += [f"{path.name}: {note}" for note in table.notes]
    time_column = table.index("sensor timestamp", "sensor time(?:stamp)?")
    if time_column is None:
        raise Unreadable("bad_header", f"{path.name} has no column 'sensor timestamp'")
    columns = {shown: table.index(pattern) for shown, pattern in _COLUMNS[name].items()}
    if lacking := [shown for shown, column in columns.items() if column is None]:
        raise Unreadable("bad_header", f"{path.name} has no column {lacking[0]!r}")
    time_s = table.numbers(time_column) * _SECONDS.get(unit(table.names[time_column]).lower(), 1e-9)
    samples: Signals = np.stack([table.numbers(column) for column in columns.values() if column is not None])
    if name == "ACC":
        shown = unit(table.names[columns["X"] or 0])
        if shown.lower() not in _G:
            raise Unreadable("accel_unit", f"{path.name}: acceleration in {shown!r}, expected 'mg' or 'g'")
        samples = samples * _G[shown.lower()]
    pieces, placed = place(time_s, samples, name=path.name)
    notes += placed
    return _Stream(pieces, time_s, table)


class _PhoneClock:
    """Maps the phone's time to the sensor's, by the first sample of each piece of a stream that has both."""

    def __init__(self, stream: _Stream) -> None:
        column = stream.table.index("phone timestamp", "phone time", "timestamp", "time")
        self._known: list[tuple[float, float]] = []  # phone and sensor time
        for piece in stream.pieces:
            (rows,) = np.nonzero(stream.time_s == piece.start_s)
            phone_s = _seconds(stream.table.text(column, int(rows[0]))) if column is not None and len(rows) else np.nan
            if np.isfinite(phone_s):
                self._known.append((phone_s, piece.start_s))
        self._known.sort()

    def sensor_s(self, phone_s: Times) -> Times:
        """Sensor times; NaN where a time is none or before the first sample."""
        sensor_s: Times = np.full(len(phone_s), np.nan)
        for phone_start_s, sensor_start_s in self._known:
            later = phone_s >= phone_start_s
            sensor_s[later] = phone_s[later] - phone_start_s + sensor_start_s
        return sensor_s


def _seconds(stamp: str) -> float:
    """Local time of the phone, without a zone, as seconds; NaN if it is none."""
    try:
        return (datetime.fromisoformat(stamp).replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
    except ValueError:
        return np.nan


def _optional(
    files: dict[str, Path], name: str, read_values: _Values, clock: _PhoneClock, notes: list[str]
) -> tuple[Times | None, Times | None]:
    """Instants and values of a stream that never costs the signals."""
    if name not in files:
        return None, None
    path = files[name]
    try:
        table = read_table(path)
        column = table.index("phone timestamp", "phone time", "timestamp", "time")
        if column is None:
            raise Unreadable("bad_header", f"{path.name} has no column 'Phone timestamp'")
        notes += [f"{path.name}: {note}" for note in table.notes]
        phone_s = np.array([_seconds(stamp) for stamp in table.texts(column)], np.float64)
        phone_s, values = read_values(table, phone_s, path.name, notes)
    except Unreadable as error:
        notes.append(f"left out: {error}")
        return None, None
    instants_s = clock.sensor_s(phone_s)
    known = np.isfinite(instants_s)
    if not known.all():
        notes.append(f"{path.name}: {(~known).sum()} rows before the first sample left out")
    order = np.argsort(instants_s[known], kind="stable")
    return (instants_s[known][order], values[known][order]) if known.any() else (None, None)


def _heart_rate(table: Table, phone_s: Times, name: str, notes: list[str]) -> tuple[Times, Times]:
    column = table.index("hr", "heart ?rate")
    if column is None:
        raise Unreadable("bad_header", f"{name} has no column 'HR'")
    hr_bpm = table.numbers(column)
    known = (hr_bpm > 0) & np.isfinite(phone_s)  # zero: the device has no heart rate yet
    if not known.all():
        notes.append(f"{name}: {(~known).sum()} heart rates that are zero or have no time left out")
    return _in_order(phone_s[known], hr_bpm[known])


def _intervals(table: Table, phone_s: Times, name: str, notes: list[str]) -> tuple[Times, Times]:
    """Ends and durations of the trustworthy pulse intervals.

    A row's time is the beginning of its interval: within a packet each row begins where the one before ends. The time
    of an RR interval is when it was received.
    """
    column = table.index("pp interval", "ppi", "rr interval", "rr", "interval")
    if column is None:
        raise Unreadable("bad_header", f"{name} has no column 'PP-interval'")
    ibi_ms = table.numbers(column)
    received = plain(table.names[column]).startswith("rr")
    end_s = phone_s if received else phone_s + ibi_ms / 1000
    good: npt.NDArray[np.bool_] = np.isfinite(end_s) & (ibi_ms > 0)
    for pattern, limit in (("blocker(?: bit)?", 0), ("(?:pp )?error(?: estimate)?", MAX_PP_ERROR_MS)):
        quality = table.index(pattern)
        if quality is not None:
            good &= table.numbers(quality) <= limit
    ordered_s, ibi_s = _in_order(end_s[good], ibi_ms[good] / 1000)
    if len(ordered_s) < len(good):
        notes.append(
            f"{(~good).sum()} pulse intervals blocked or with an error above {MAX_PP_ERROR_MS} ms left out, "
            f"{good.sum() - len(ordered_s)} that go back in time"
        )
    return ordered_s, ibi_s


def _marks(table: Table, phone_s: Times, name: str, notes: list[str]) -> tuple[Times, Times]:
    del table, name, notes
    return phone_s, phone_s


def _in_order(instants_s: Times, values: Times) -> tuple[Times, Times]:
    """Without what is not later than the value before: a packet that reached the phone late overlaps its neighbour."""
    forward = np.diff(np.maximum.accumulate(instants_s), prepend=-np.inf) > 0
    return instants_s[forward], values[forward]
