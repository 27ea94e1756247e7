"""A few segments beside the raw minutes that they come from, for a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.layout import Home
from accelkd.recordings.batches import open_batch_file, read_manifest
from accelkd.segments.schema import DURATION_S
from accelkd.segments.store import SegmentStore

_COLUMNS = ["ppg", "ppg_rate_hz", "accel", "accel_rate_hz", "accel_start_s"]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Example:
    """One segment before and after preprocessing. Signals are `[channels, samples]`, without channels where absent."""

    hr_bpm: float | None
    raw_ppg: Floats
    ppg_rate_hz: float | None
    raw_accel: Floats
    accel_rate_hz: float | None
    ppg: Floats
    accel: Floats


def example_segments(home: Home, batch_id: str, count: int = 3) -> list[Example]:
    """Up to `count` segments of a batch, of different participants, preferably with good labels."""
    store = SegmentStore([home.segments(batch_id)])
    facts = store.metadata.select(["recording_id", "participant_id", "offset_s", "hr_bpm", "label_good"]).to_pylist()
    chosen: dict[str, int] = {}
    for row in sorted(range(len(facts)), key=lambda row: not facts[row]["label_good"]):  # a stable sort
        chosen.setdefault(facts[row]["participant_id"], row)
    rows = sorted(chosen.values())[:count]
    recordings = _recordings(home, batch_id, {facts[row]["recording_id"] for row in rows})
    return [_example(store, row, facts[row], recordings[facts[row]["recording_id"]]) for row in rows]


def _recordings(home: Home, batch_id: str, wanted: set[str]) -> dict[str, pa.RecordBatch]:
    """The wanted recordings by their identifiers, one row each; reads only the row groups that hold them."""
    recordings = {}
    folder = home.batch(batch_id)
    for entry in read_manifest(folder).files:
        if entry.table != "recordings":
            continue
        with open_batch_file(folder, entry.path) as source, pq.ParquetFile(source) as file:
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["recording_id"]).column("recording_id").to_pylist()
                if wanted & set(ids):
                    rows = file.read_row_group(group, columns=_COLUMNS)
                    recordings.update({name: rows.slice(ids.index(name), 1) for name in wanted & set(ids)})
    return recordings


def _example(store: SegmentStore, row: int, facts: dict[str, Any], recording: pa.Table) -> Example:
    rows = np.array([row], np.intp)
    ppg_rate_hz, accel_rate_hz, accel_start_s = (
        recording.column(name)[0].as_py() for name in ("ppg_rate_hz", "accel_rate_hz", "accel_start_s")
    )
    return Example(
        hr_bpm=facts["hr_bpm"],
        raw_ppg=_minute(recording.column("ppg"), ppg_rate_hz, facts["offset_s"]),
        ppg_rate_hz=ppg_rate_hz,
        raw_accel=_minute(recording.column("accel"), accel_rate_hz, facts["offset_s"] - accel_start_s),
        accel_rate_hz=accel_rate_hz,
        ppg=store.signals("ppg", rows)[0].astype(np.float32),
        accel=store.signals("accel", rows)[0].astype(np.float32),
    )


def _minute(stream: pa.ChunkedArray, rate_hz: float | None, start_s: float) -> Floats:
    """60 s of a recording's stream (`stream` has one row) from `start_s` on, as `[channels, samples]`."""
    if rate_hz is None:
        return np.empty((0, 0), np.float32)
    start, samples = max(0, round(start_s * rate_hz)), round(DURATION_S * rate_hz)
    channels = stream[0].values
    return np.stack([np.asarray(channel.values[start : start + samples]) for channel in channels])
