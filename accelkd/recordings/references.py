"""References that travel with a recording: what cannot be right is dropped by itself and never costs the signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.recordings.labels import LABELS

REFERENCE_SOURCES = ("ecg", "device", "simulation")
INSTANTS_AND_VALUES = (  # instants, and the values at these instants
    ("reference_beat_s", None),
    ("reference_hr_s", "reference_hr_bpm"),
    ("reference_ibi_end_s", "reference_ibi_s"),
)
_COLUMNS = (*LABELS, *(name for pair in INSTANTS_AND_VALUES for name in pair if name))
Problem = tuple[str, str]  # rule, detail
Floats = npt.NDArray[np.float64]


def clean_references(row: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Problem]]:
    """One recording without the reference values that break a rule, and (rule, detail) of what was dropped.

    Single values go where they are null, not finite, not positive or not later than the one before. A series goes as a
    whole where instants and values differ in number, and everything where no source is named.
    """
    problems: list[Problem] = []
    changed: dict[str, Any] = {}

    def drop(rule: str, detail: str, *names: str) -> None:
        problems.append((rule, detail))
        changed.update(dict.fromkeys(names))

    for name in LABELS:
        value = row[name][0].as_py()
        if value is not None and not 0 <= value < np.inf:
            drop("reference_value", f"{name}: {value}", name)
    for instants, values in INSTANTS_AND_VALUES:
        _clean_series(row, instants, values, drop, changed)
    events = _floats(row, "event_s")
    if events is not None and not (finite := np.isfinite(events)).all():
        problems.append(("event_value", f"event_s: {(~finite).sum()} null or not finite"))
        changed["event_s"] = events[finite].tolist()
    source = row["reference_source"][0].as_py()
    left = [name for name in _COLUMNS if row[name].is_valid()[0].as_py() and changed.get(name, ()) is not None]
    if source is None and left:
        detail = f"null, with reference labels; expected one of {', '.join(REFERENCE_SOURCES)}"
        drop("reference_source", detail, *left)
    elif source is not None and source not in REFERENCE_SOURCES:
        detail = f"{source!r} is none of {', '.join(REFERENCE_SOURCES)}"
        drop("reference_source", detail, "reference_source", *left)
    for name, value in changed.items():
        index = row.schema.get_field_index(name)
        row = row.set_column(index, row.schema.field(index), pa.array([value], row.schema.field(index).type))
    return row, problems


def _clean_series(
    row: pa.RecordBatch,
    instants: str,
    values: str | None,
    drop: Callable[..., None],
    changed: dict[str, Any],
) -> None:
    names = (instants, values) if values else (instants,)
    times, data = _floats(row, instants), None if values is None else _floats(row, values)
    if values is not None and (0 if times is None else len(times) + 1) != (0 if data is None else len(data) + 1):
        counts = ["no" if series is None else str(len(series)) for series in (times, data)]
        drop("reference_lengths", f"{instants} has {counts[0]}, {values} {counts[1]} values", *names)
        return
    if times is None:
        return
    sound = np.isfinite(times)
    rules = [("reference_value", f"{instants}: {(~sound).sum()} null or not finite")] if not sound.all() else []
    if data is not None:
        positive = np.isfinite(data) & (data > 0)
        if not positive.all():
            rules.append(("reference_value", f"{values}: {(~positive).sum()} null, not finite or not positive"))
        sound &= positive
    kept = np.flatnonzero(sound)
    later = np.diff(np.maximum.accumulate(times[kept]), prepend=-np.inf) > 0
    if not later.all():
        rules.append(("reference_order", f"{instants}: {(~later).sum()} not later than the one before"))
    if rules:
        kept = kept[later]
        changed[instants] = times[kept].tolist()
        if values is not None and data is not None:
            changed[values] = data[kept].tolist()
        for rule, detail in rules:
            drop(rule, detail)


def _floats(row: pa.RecordBatch, name: str) -> Floats | None:
    """A series of the recording, NaN for null; None where there is none."""
    values = row[name][0].values
    return None if values is None else values.to_numpy(zero_copy_only=False).astype(np.float64)
