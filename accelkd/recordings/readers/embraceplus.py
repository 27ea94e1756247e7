"""Empatica EmbracePlus: an Avro file for each 15 to 30 minutes, `<site>-<study>-<participant>_<seconds>.avro`.

Facts of the format are those of the schema inside each file. Needs `fastavro`, of the optional dependencies `formats`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.blocks import files_with
from accelkd.recordings.timeline import Piece, assemble

_NAME = re.compile(r"(.+?-.+?-.+?)(?:-[A-Z0-9]+)?_\d{9,}")
_START_S = (1e9, 4e9)  # of a clock that was set


def find(files: Iterable[Path]) -> Delivery:
    sessions = files_with(sorted(files), lambda path: path.suffix.lower() == ".avro")
    named = []
    for session in sessions:
        match = _NAME.fullmatch(session.source.stem)
        named.append(Session(session.source, session.files, match[1] if match else None))
    return Delivery(tuple(named))


def read(session: Session) -> list[Recording]:
    name = session.source.name
    if not session.source.stat().st_size:
        raise Unreadable("empty_file", f"{name} is empty")
    records = _records(session.source)
    recordings: list[Recording] = []
    problem = Unreadable("empty_file", f"{name} holds no acceleration and no PPG")
    for record in records:
        try:
            recordings += _recordings(record, name)
        except Unreadable as error:
            problem = error
    if not recordings:
        raise problem
    return recordings


def _records(path: Path) -> list[Mapping[str, Any]]:
    """The records of an Avro file, one in genuine files."""
    try:
        import fastavro
    except ImportError:
        raise ImportError("reading EmbracePlus files needs fastavro: pip install 'accelkd[formats]'") from None
    records: list[Mapping[str, Any]] = []
    try:
        with path.open("rb") as file:
            for record in fastavro.reader(file):
                if isinstance(record, dict):
                    records.append(record)
    except OSError:
        raise
    except Exception as error:  # a damaged file makes the library raise nearly anything
        if not records:
            raise Unreadable("unreadable_file", f"{path.name} is no sound Avro file: {type(error).__name__}") from error
    return records


def _recordings(record: Mapping[str, Any], name: str) -> list[Recording]:
    notes: list[str] = []
    raw = _part(record, "rawData")
    accel, ppg = _acceleration(_part(raw, "accelerometer"), notes), _ppg(_part(raw, "bvp"), notes)
    if accel is None and ppg is None:
        raise Unreadable("empty_file", f"{name} holds no acceleration and no PPG")
    beats_s = _instants(_part(raw, "systolicPeaks").get("peaksTimeNanos"), 1e9)
    tags_s = _instants(_part(raw, "tags").get("tagsTimeMicros"), 1e6)
    enrolled = _part(record, "enrollment")
    facts = Recording(
        reference_source=None if beats_s is None else "device",  # the peaks are those of the same PPG
        reference_beat_s=beats_s,
        event_s=tags_s,
        sensor_id=_name(record.get("deviceSn")),
        participant=_name(enrolled.get("participantID")),
        notes=tuple(notes),
    )
    return assemble([ppg] if ppg else [], [accel] if accel else [], facts, utc=True)


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A record inside of another one; empty where it is missing."""
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _clock(stream: Mapping[str, Any], samples: int, name: str, notes: list[str]) -> tuple[float, float] | None:
    """Start in seconds since 1970 and rate of a stream; None without either."""
    if samples < 2:
        return None
    start_s, rate_hz = _number(stream.get("timestampStart")) / 1e6, _number(stream.get("samplingFrequency"))
    if not (_START_S[0] < start_s < _START_S[1] and 0 < rate_hz < np.inf):
        notes.append(f"{name} without a start and a rate left out")
        return None
    return start_s, rate_hz


def _acceleration(stream: Mapping[str, Any], notes: list[str]) -> Piece | None:
    axes = [_values(stream.get(axis)) for axis in "xyz"]
    samples = min(map(len, axes))
    clock = _clock(stream, samples, "acceleration", notes)
    if clock is None:
        return None
    if max(map(len, axes)) > samples:
        notes.append(f"the axes differ in length: cut to {samples} samples")
    counts = np.stack([values[:samples] for values in axes])
    parameters = _part(stream, "imuParams")
    physical, digital = (
        (_number(parameters.get(f"{kind}Min")), _number(parameters.get(f"{kind}Max")))
        for kind in ("physical", "digital")
    )
    # The factor in the file is rounded: 0.000488 for 32 g / 65536
    factor = _number(parameters.get("conversionFactor"))
    if digital[1] > digital[0] and physical[1] > physical[0]:
        factor = (physical[1] - physical[0]) / (digital[1] - digital[0])
    if not 0 < factor < np.inf:
        notes.append("acceleration without a scale left out")
        return None
    accel: Signals = (counts * factor).astype(np.float32)
    if digital[1] > digital[0]:
        accel[(counts <= digital[0]) | (counts >= digital[1] - 1)] = np.nan  # the maximum itself is never reached
    return Piece(clock[0], clock[1], accel)


def _ppg(stream: Mapping[str, Any], notes: list[str]) -> Piece | None:
    values = _values(stream.get("values"))
    clock = _clock(stream, len(values), "PPG", notes)
    return None if clock is None else Piece(clock[0], clock[1], values.astype(np.float32)[None])


def _name(value: object) -> str | None:
    return str(value) or None if isinstance(value, str | int) else None


def _number(value: object) -> float:
    """A number; NaN for what is none."""
    return float(value) if isinstance(value, int | float) else np.nan


def _values(values: object) -> Times:
    return np.array([_number(value) for value in values] if isinstance(values, list) else [], np.float64)


def _instants(values: object, per_second: float) -> Times | None:
    """Instants in seconds since 1970, in order; None where there is none."""
    instants_s = _values(values) / per_second
    instants_s = np.unique(instants_s[np.isfinite(instants_s)])
    return instants_s if len(instants_s) else None
