"""Verily Study Watch, exported as TSDF: `*_meta.json` beside binary files of times, values and quality.

The format is TSDF (Kulbacki et al., arXiv:2211.11294): the JSON file names the binary files with their types, channels,
units and scales. What a file does not say itself, it inherits from the level above.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.timeline import Piece, assemble, place

STANDARD_GRAVITY_M_S2 = 9.80665
_META = "_meta.json"
_STREAM = re.compile(r"(?<![a-z])(imu|ppg|acc|accel|accelerometer|gyro|gyroscope)(?![a-z])", re.IGNORECASE)
_KINDS = {"int": "i", "uint": "u", "float": "f"}
_ORDERS = {"little": "<", "big": ">", "not applicable": "|"}
_TIME_UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_TO_G = {
    "m/s/s": 1 / STANDARD_GRAVITY_M_S2,
    "m/s^2": 1 / STANDARD_GRAVITY_M_S2,
    "m/s2": 1 / STANDARD_GRAVITY_M_S2,
    "m/s**2": 1 / STANDARD_GRAVITY_M_S2,
    "m/s²": 1 / STANDARD_GRAVITY_M_S2,
    "g": 1.0,
    "mg": 1e-3,
}
_ACCEL = re.compile(r"acc(?:el|eleration|elerometer)?[_ ]?([xyz])", re.IGNORECASE)
_PPG = re.compile(r"green|ppg(?:[_ ]?green)?", re.IGNORECASE)
_MAX_JSON_BYTES = 1 << 20
_MAX_DELTA_S = 86_400.0


def find(files: Iterable[Path]) -> Delivery:
    present = set(files)
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    companions: list[Path] = []
    for path in sorted(path for path in present if path.name.lower().endswith(_META)):
        described = _described(path)
        members = [path, *(file for file in _binaries(path, described) if file in present)]
        if described is None and not _STREAM.search(path.name):
            continue  # a JSON file of something else
        if described is not None and not any(
            _is_signal(str(name)) for entry in described for name in entry["channels"]
        ):
            companions += members
            continue
        # Streams of one recording differ in their own name alone: that of the file, and maybe of its folder
        in_own_folder = _STREAM.fullmatch(path.parent.name) is not None
        folder = path.parent.parent if in_own_folder else path.parent
        groups[folder, _STREAM.sub("*", path.name)] += members
    sessions = (Session(folder, tuple(members)) for (folder, _), members in groups.items())
    return Delivery(tuple(sessions), tuple(companions))


def read(session: Session) -> list[Recording]:
    present = {path.parent / path.name.lower(): path for path in session.files}
    pieces: dict[str, list[Piece]] = {"ppg": [], "acceleration": []}
    notes: list[str] = []
    problems: list[Unreadable] = []
    facts: dict[str, Any] = {}
    for meta in (path for path in session.files if path.name.lower().endswith(_META)):
        try:
            entries = _described(meta)
            if entries is None:
                raise Unreadable("bad_header", f"{meta.name} is no TSDF description")
            facts = facts or entries[0]
            for entry in entries:
                for name in ("acceleration", "ppg"):
                    samples = _signal(entry, name, meta, present, notes)
                    if samples is not None:
                        time_s = _time(entries, meta, present, samples.shape[1], notes)
                        placed, corrected = place(time_s, samples[:, : len(time_s)], name=name)
                        pieces[name] += placed
                        notes += corrected
        except Unreadable as error:  # the other stream may be sound
            problems.append(error)
    if not any(pieces.values()):
        raise problems[0] if problems else Unreadable("empty_file", f"{session.source.name} has no signal")
    notes += [f"{problem} left out" for problem in problems]
    subject = str(facts.get("subject_id") or "") or None
    recording = Recording(participant=subject, notes=tuple(notes))
    return assemble(pieces["ppg"], pieces["acceleration"], recording, utc=True)


def _described(meta: Path) -> list[dict[str, Any]] | None:
    """The binary files that a TSDF description names, each with all that it inherits; None where it is none."""
    try:
        if meta.stat().st_size > _MAX_JSON_BYTES:
            return None
        content = json.loads(meta.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    entries: list[dict[str, Any]] = []

    def walk(level: Mapping[str, Any], inherited: Mapping[str, Any]) -> None:
        here = {**inherited, **{key: value for key, value in level.items() if key != "sensors"}}
        inner = level.get("sensors")
        for part in inner if isinstance(inner, list) else ():
            if isinstance(part, dict):
                walk(part, here)
        if isinstance(here.get("file_name"), str) and isinstance(here.get("channels"), list):
            entries.append(here)

    if isinstance(content, dict):
        walk(content, {})
    return entries or None


def _binaries(meta: Path, described: list[dict[str, Any]] | None) -> list[Path]:
    """The binary files of a description, all in its folder."""
    names = (
        [PurePosixPath(entry["file_name"]).name for entry in described]
        if described
        else [f"{meta.name[: -len(_META)]}_{part}.bin" for part in ("time", "values", "quality")]
    )
    return [meta.parent / name for name in names]


def _is_signal(channel: str) -> bool:
    return bool(_ACCEL.fullmatch(channel) or _PPG.fullmatch(channel))


def _rows(entry: Mapping[str, Any], meta: Path, present: Mapping[Path, Path], notes: list[str]) -> npt.NDArray[Any]:
    """The numbers of a binary file `[channels, rows]`, as stored; a cut last row is left out."""
    path = present.get(meta.parent / PurePosixPath(entry["file_name"]).name.lower())
    if path is None:
        raise Unreadable("missing_file", f"{meta.name} names {PurePosixPath(entry['file_name']).name}")
    kind, bits = _KINDS.get(str(entry.get("data_type"))), entry.get("bits")
    order = _ORDERS.get(str(entry.get("endianness")))
    if kind is None or order is None or bits not in (8, 16, 32, 64) or (kind == "f" and bits == 8):
        raise Unreadable("bad_header", f"{meta.name}: data_type, bits or endianness of {path.name} is unknown")
    channels = len(entry["channels"])
    numbers = np.fromfile(path, np.dtype(f"{order}{kind}{bits // 8}"))
    rows = len(numbers) // channels if channels else 0
    if rows * channels * bits // 8 < path.stat().st_size:
        notes.append(f"{path.name}: the last row, which is cut, left out")
    if isinstance(entry.get("rows"), int) and rows != entry["rows"]:
        notes.append(f"{path.name} has {rows} rows of {entry['rows']}")
    stored: npt.NDArray[Any] = numbers[: rows * channels].reshape(rows, channels).T
    return stored


def _signal(
    entry: Mapping[str, Any], name: str, meta: Path, present: Mapping[Path, Path], notes: list[str]
) -> Signals | None:
    """The acceleration in g or the green PPG of a binary file; None where it holds neither."""
    channels = [str(channel) for channel in entry["channels"]]
    if name == "acceleration":
        by_axis = {match[1].lower(): row for row, text in enumerate(channels) if (match := _ACCEL.fullmatch(text))}
        rows = [by_axis[axis] for axis in "xyz"] if by_axis.keys() == {*"xyz"} else []
    else:
        rows = [row for row, text in enumerate(channels) if _PPG.fullmatch(text)][:1]
    if not rows:
        return None
    stored = _rows(entry, meta, present, notes)[rows]
    with np.errstate(invalid="ignore"):  # a damaged number may be no number
        numbers = stored.astype(np.float64)
    samples: Signals = numbers * _of_channels(entry.get("scale_factors", [1]), rows)
    if stored.dtype.kind in "iu" and name == "acceleration":
        rails = np.iinfo(stored.dtype)
        samples[(stored == rails.min) | (stored == rails.max)] = np.nan
    if name == "acceleration":
        units = entry.get("units", [])
        unit = str(units[rows[0]]).strip().lower() if isinstance(units, list) and rows[0] < len(units) else ""
        if unit not in _TO_G:
            raise Unreadable("accel_unit", f"{meta.name}: the unit of the acceleration is {unit[:16]!r}")
        samples *= _TO_G[unit]
    return samples


def _of_channels(factors: object, rows: list[int]) -> Signals:
    """The factor of each row; a single one is that of all."""
    try:
        values = np.array(factors, np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise Unreadable("bad_header", "scale_factors are not numbers") from None
    if len(values) == 1:
        return np.full((len(rows), 1), values[0])
    if len(values) <= max(rows):
        raise Unreadable("bad_header", f"{len(values)} scale_factors for more channels")
    scale: Signals = values[rows][:, None]
    return scale


def _time(
    entries: list[dict[str, Any]], meta: Path, present: Mapping[Path, Path], samples: int, notes: list[str]
) -> Times:
    """Seconds since 1970 of the samples, as many as there are of both."""
    start_s = _instant(entries[0].get("start_iso8601"))
    if start_s is None:
        raise Unreadable("bad_header", f"{meta.name} does not say when it starts")
    times = [entry for entry in entries if [str(name).lower() for name in entry["channels"]] == ["time"]]
    try:
        if not times:
            raise Unreadable("missing_file", f"{meta.name} names no times")
        with np.errstate(invalid="ignore"):  # a damaged number may be no number
            stored = _rows(times[0], meta, present, notes)[0].astype(np.float64)
        if not len(stored):
            raise Unreadable("missing_file", f"{meta.name} has no times")
    except Unreadable as error:
        end_s = _instant(entries[0].get("end_iso8601"))
        if error.reason != "missing_file" or end_s is None or end_s <= start_s:
            raise
        notes.append(f"{error}: samples spread evenly from start to end")
        return np.linspace(start_s, end_s, samples)
    if len(stored) != samples:
        notes.append(f"{meta.name}: {len(stored)} times of {samples} samples")
    units = times[0].get("units")
    unit = str(units[0]).lower() if isinstance(units, list) and units else ""
    match = re.search(r"(?:^|_)(ns|us|ms|s)(?:_|$)", unit)
    if match is None:
        raise Unreadable("bad_header", f"{meta.name}: the unit of the times is {unit[:32]!r}")
    time_s: Times = (
        stored[:samples] * _TIME_UNITS_S[match[1]] * float(_of_channels(times[0].get("scale_factors", [1]), [0])[0, 0])
    )
    if re.search("delta|difference", unit):
        wrong = ~((time_s >= 0) & (time_s < _MAX_DELTA_S))
        if wrong.all():
            raise Unreadable("time_order", f"{meta.name}: no time between two samples is plausible")
        if wrong.any():
            notes.append(f"{wrong.sum()} damaged times between samples replaced by the median")
            time_s[wrong] = np.median(time_s[~wrong])
        time_s = np.cumsum(time_s)
    return time_s if re.search("absolute|unix|epoch", unit) else start_s + time_s


def _instant(text: object) -> float | None:
    """Seconds since 1970 of a date of ISO 8601; without a zone it is UTC, as TSDF says."""
    try:
        instant = datetime.fromisoformat(str(text).strip())
    except ValueError:
        return None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
