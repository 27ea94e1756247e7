"""Accelerometers of phones: Sensor Logger, phyphox and other logging apps, and the MSCardio data set.

MSCardio (chest, Taebi & Rahman, Data in Brief 2025) is `Subject_<N>/Recording_<N>/uncalibrated_scg.csv`, written by
Sensor Logger. What has no gravity in it any more is no acceleration: it is completed by `Gravity.csv` or rejected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from accelkd.recordings.demographics import clean_age_years, clean_height_m, clean_sex, clean_weight_kg
from accelkd.recordings.readers import Delivery, Demographics, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.signals import STANDARD_GRAVITY_M_S2, g_per_unit
from accelkd.recordings.readers.text import COMPRESSED, Table, peek_names, plain, read_table, unit
from accelkd.recordings.timeline import assemble, place

# Files of one folder that hold the same movement; the first counts
SOURCES = (
    "uncalibrated_scg",
    "accelerometeruncalibrated",
    "uncalibratedaccelerometer",
    "totalacceleration",
    "accelerometer",
    "accelerometerraw",
    "rawaccelerometer",
    "acceleration",
    "rawdata",
    "linearaccelerometer",
    "linearacceleration",
    "scg",
)
_GRAVITY = "gravity"
_SUBJECT = re.compile(r"Subject_\d+", re.IGNORECASE)  # by the rule of MSCardio
_RECORDING = re.compile(r"Recording_\d+", re.IGNORECASE)
_SUMMARY = re.compile(r"all_subject_\w+\.csv", re.IGNORECASE)
_METADATA = ("general_metadata.json", "recording_metadata.json")
_AXES = tuple(
    (
        axis,
        rf"(?:linear |raw |total |user |gravity )*(?:acc|accel|accelerometer|acceleration) ?{axis}",
        rf"(?:accelerometer|motion user)? ?acceleration ?{axis}",
        rf"g ?f(?:orce)? ?{axis}",
        rf"a ?{axis}",
    )
    for axis in "xyz"
)
_TIMES = (
    "time",
    "timestamp",
    "unix(?: time)?(?:stamp)?",
    "seconds elapsed",
    "elapsed.*",
    "time.*",
    ".*time(?:stamp)?.*",
)
_TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_EPOCH_S = (1e9, 4e9)  # seconds since 1970 that a recording may have
_NEAR = 1.25  # gravity is measured this well
MAX_GRAVITY_GAP_S = 1.0


def find(files: Iterable[Path]) -> Delivery:
    sessions: list[Session] = []
    companions: list[Path] = []
    present = sorted(files)
    people = {path.parent: path for path in present if path.name.lower() == _METADATA[0]}
    for folder, group in groupby(sorted(present, key=lambda path: (path.parent, path)), key=lambda path: path.parent):
        members = [path for path in group if path.name.lower() != _METADATA[0]]
        known = [path for path in members if _stem(path) in SOURCES]
        if known:
            known.sort(key=lambda path: SOURCES.index(_stem(path)))
            beside = [path for path in members if _stem(path) == _GRAVITY or path.name.lower() == _METADATA[1]]
            times = [path for path in present if path.parent == folder / "meta" and path.name.lower() == "time.csv"]
            about = [people[parent] for parent in (folder, folder.parent) if parent in people]
            subject = folder.parent.name if _SUBJECT.fullmatch(folder.parent.name) else None
            participant = subject if subject and _RECORDING.fullmatch(folder.name) else None
            sessions.append(Session(folder, (*known, *beside, *times, *about), participant))
            companions += [path for path in members if path not in {*known, *beside} and _is_table(path)]
            companions += [path for path in present if path.parent == folder / "meta" and path not in times]
        else:
            sessions += [Session(path, (path,)) for path in members if _is_table(path) and _has_axes(path)]
    used = {path for session in sessions for path in session.files}
    companions += [path for path in present if path.name.lower() in _METADATA or _SUMMARY.fullmatch(path.name)]
    return Delivery(tuple(sessions), tuple(path for path in companions if path not in used))


def has_known_name(path: Path) -> bool:
    """Whether a file is named as a logging app names the acceleration; others are known by their columns alone."""
    return _stem(path) in SOURCES


def _stem(path: Path) -> str:
    """A file's name without suffixes, case and separators; empty if it is no table."""
    if not _is_table(path):
        return ""
    name = path.name.lower().removesuffix(path.suffix.lower() if path.suffix.lower() in COMPRESSED else "")
    stem = Path(name).stem
    return stem if stem in SOURCES else re.sub(r"[\s_-]", "", stem)


def _is_table(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return bool(suffixes) and (
        suffixes[-1] in (".csv", ".txt", ".tsv") or (suffixes[-1] in COMPRESSED and suffixes[-2:-1] == [".csv"])
    )


def _has_axes(path: Path) -> bool:
    """Whether the header row of a file names a time and three axes of an acceleration."""
    names = tuple(peek_names(path))
    table = Table(path.name, names, (), (), False)
    axes = [table.index(*patterns[1:]) for patterns in _AXES]
    return all(axis is not None for axis in axes) and table.index(*_TIMES) is not None


def read(session: Session) -> list[Recording]:
    notes: list[str] = []
    sources = [path for path in session.files if path.name.lower() not in _METADATA and path.parent.name != "meta"]
    gravity = next((path for path in sources if _stem(path) == _GRAVITY), None)
    sources = [path for path in sources if path != gravity]
    errors: list[Unreadable] = []
    for path in sources:
        try:
            time_s, accel, utc = _accelerometer(path, gravity, notes)
            pieces, placed = place(time_s, accel, name=path.name)
        except Unreadable as error:
            errors.append(error)
            continue
        break
    else:
        raise errors[0] if errors else Unreadable("missing_file", f"no accelerometer in {session.source.name}")
    notes += [f"left out: {error}" for error in errors] + placed
    meta = next((path for path in session.files if path.parent.name == "meta"), None)
    if meta is not None and not utc:
        offset_s = _phyphox_start_s(meta)
        if offset_s is not None:
            utc = True
            pieces = [replace(piece, start_s=piece.start_s + offset_s) for piece in pieces]
    about = next((path for path in session.files if path.name.lower() == _METADATA[0]), None)
    demographics = None if about is None else _demographics(about, notes)
    return assemble([], pieces, Recording(demographics=demographics, notes=tuple(notes)), utc=utc)


def _accelerometer(path: Path, gravity: Path | None, notes: list[str]) -> tuple[Times, Signals, bool]:
    """Times (s), acceleration `[3, samples]` in g with gravity, and whether times count from 1970."""
    time_s, accel, names, utc = _axes(path, notes)
    scale, shown = _scale(accel, names)
    if scale is None and gravity is not None:
        added_s, pull, _, _ = _axes(gravity, notes)
        order = np.argsort(added_s, kind="stable")
        nearest = np.abs(added_s[order][_nearest(added_s[order], time_s)] - time_s)
        whole = np.stack([np.interp(time_s, added_s[order], axis[order]) for axis in pull]) + accel
        whole[:, nearest > MAX_GRAVITY_GAP_S] = np.nan
        scale, shown = _scale(whole, names)
        if scale is not None:
            accel = whole
            notes.append(f"{path.name}: gravity of {gravity.name} added")
    if scale is None:
        raise Unreadable(
            "accel_unit", f"{path.name}: the median norm is {shown}; gravity is missing or the unit unknown"
        )
    notes.append(f"{path.name}: {shown}")
    return time_s, accel * scale, utc


def _nearest(ordered_s: Times, time_s: Times) -> Any:
    after = np.clip(np.searchsorted(ordered_s, time_s), 1, max(len(ordered_s) - 1, 1))
    after = np.minimum(after, len(ordered_s) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(ordered_s[after] - time_s) < np.abs(ordered_s[before] - time_s), after, before)


def _axes(path: Path, notes: list[str]) -> tuple[Times, Signals, list[str], bool]:
    """Times (s), samples `[3, samples]` as stored, names of their columns, whether times count from 1970."""
    table = read_table(path)
    notes += [f"{path.name}: {note}" for note in table.notes]
    columns = [table.index(*patterns) for patterns in _AXES]
    if any(column is None for column in columns):
        raise Unreadable("bad_header", f"{path.name} has no columns for x, y and z")
    time_s, utc = _times(table, path.name)
    accel: Signals = np.stack([table.numbers(column) for column in columns if column is not None])
    incomplete = np.isnan(accel).any(axis=0)
    if incomplete.all():
        raise Unreadable("empty_file", f"{path.name} has no samples")
    if incomplete.any():
        notes.append(f"{path.name}: {incomplete.sum()} incomplete rows are missing samples")
    return time_s, accel, [table.names[column] for column in columns if column is not None], utc


def _times(table: Table, name: str) -> tuple[Times, bool]:
    """Times in seconds, and whether they count from 1970, by the size of the numbers.

    Raises Unreadable if no column holds times.
    """
    plain_names = [plain(column_name) for column_name in table.names]
    columns = [n for pattern in _TIMES for n, column in enumerate(plain_names) if re.fullmatch(pattern, column)]
    for column in dict.fromkeys(columns):
        values = table.numbers(column)
        known = values[np.isfinite(values)]
        if len(known) < 2 or np.ptp(known) == 0:
            continue
        for per_second in (1.0, 1e3, 1e6, 1e9):
            if _EPOCH_S[0] * per_second < np.median(known) < _EPOCH_S[1] * per_second:
                in_seconds: Times = values / per_second
                return in_seconds, True
        shown = unit(table.names[column]).lower()
        shown = "ms" if table.names[column].lower().rstrip().endswith(" ms") else shown
        relative: Times = values * (_TIME_UNITS.get(shown) or _seconds_per_unit(known))
        return relative, False
    raise Unreadable("bad_header", f"{name} has no column of times")


def _seconds_per_unit(times: Times) -> float:
    """The unit of times that have none: that in which a phone's sensor has 5 to 5000 samples a second."""
    steps = np.diff(times)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return next((scale for scale in _TIME_UNITS.values() if 5 <= 1 / (step * scale) < 5000), 1.0)


def _scale(accel: Signals, names: Sequence[str]) -> tuple[float | None, str]:
    """g per unit by the median norm, and how that is said: gravity is there, in m/s², g or mg, or it is none."""
    norm = np.sqrt((accel**2).sum(axis=0))
    norm = norm[np.isfinite(norm)]
    if not len(norm):
        return None, "unknown"
    median = float(np.median(norm))
    named = g_per_unit(unit(names[0]))
    for scale, name in ((1 / STANDARD_GRAVITY_M_S2, "m/s^2"), (1.0, "g"), (1e-3, "mg")):
        if 1 / _NEAR < median * scale < _NEAR:
            said = "" if named is None or named == scale else ", which its header does not say"
            return scale, f"in {name} by its median norm {median:.4g}{said}"
    if named is not None and 0.5 < median * named < 2:
        return named, f"in {unit(names[0])} by its header, median norm {median:.4g}"
    return None, f"{median:.4g}"


def _phyphox_start_s(path: Path) -> float | None:
    """Seconds since 1970 at the start of the experiment, of phyphox' table of events; None if it has none."""
    try:
        table = read_table(path)
    except (Unreadable, OSError):
        return None
    event, experiment, system = (table.index(name) for name in ("event", "experiment time", "system time"))
    if event is None or experiment is None or system is None or "START" not in table.texts(event)[:1]:
        return None
    start_s = float(table.numbers(system)[0] - table.numbers(experiment)[0])
    return start_s if _EPOCH_S[0] < start_s < _EPOCH_S[1] else None


def _demographics(path: Path, notes: list[str]) -> Demographics | None:
    """Age, sex, height and BMI that a person typed in, where they can be right in one way only."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
        info = content.get("general_info", content)
        fields = {plain(str(name)): value for name, value in info.items()}
    except (ValueError, AttributeError, RecursionError, OSError):
        notes.append(f"{path.name} left out: no metadata of a person")
        return None
    cleaned: dict[str, Any] = {}

    def clean(name: str, result: tuple[Any, str | None]) -> None:
        cleaned[name] = result[0]
        if result[1] is not None:
            notes.append(f"{path.name}: {result[1]}")

    clean("sex", clean_sex(fields.get("sex", fields.get("gender"))))
    clean("age_years", clean_age_years(fields.get("age")))
    clean("height_m", clean_height_m(fields.get("height"), adult=True))
    clean("weight_kg", clean_weight_kg(fields.get("weight"), height_m=cleaned["height_m"], adult=True))
    weight_kg, height_m = cleaned.pop("weight_kg"), cleaned["height_m"]
    bmi = None if weight_kg is None or height_m is None else round(weight_kg / height_m**2, 2)
    return Demographics(**cleaned, bmi_kg_m2=bmi)
