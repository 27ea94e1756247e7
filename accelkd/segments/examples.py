"""A few segments beside the raw minutes that they were cut from, for a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from accelkd.lake import Lake
from accelkd.segments.schema import DURATION_S
from accelkd.segments.store import SegmentStore

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Example:
    """One segment before and after preprocessing. Signals are `[channels, samples]`."""

    hr_bpm: float | None
    raw_ppg: Floats
    ppg_rate_hz: float
    raw_accel: Floats
    accel_rate_hz: float
    ppg: Floats
    accel: Floats


def example_segments(lake: Lake, batch_id: str, count: int = 4) -> list[Example]:
    """Up to `count` segments of a batch, of different participants and with good labels where there are any."""
    store = SegmentStore([lake.segments(batch_id)])
    facts = store.metadata.select(["recording_id", "participant_id", "offset_s", "hr_bpm", "label_good"]).to_pylist()
    chosen: dict[str, int] = {}
    for row in sorted(range(len(facts)), key=lambda row: not facts[row]["label_good"]):  # stable: first come first
        chosen.setdefault(facts[row]["participant_id"], row)
    rows = sorted(chosen.values())[:count]
    raw = pq.read_table(
        lake.batch(batch_id) / "recordings",
        columns=["recording_id", "ppg", "ppg_rate_hz", "accel", "accel_rate_hz", "accel_start_s"],
        filters=[("recording_id", "in", [facts[row]["recording_id"] for row in rows] or [""])],
    )
    recordings = {recording["recording_id"]: recording for recording in raw.to_pylist()}
    return [_example(store, row, facts[row], recordings[facts[row]["recording_id"]]) for row in rows]


def _example(store: SegmentStore, row: int, facts: dict[str, Any], recording: dict[str, Any]) -> Example:
    where = np.array([row], np.intp)
    return Example(
        hr_bpm=facts["hr_bpm"],
        raw_ppg=_minute(recording["ppg"], recording["ppg_rate_hz"], facts["offset_s"]),
        ppg_rate_hz=recording["ppg_rate_hz"],
        raw_accel=_minute(
            recording["accel"], recording["accel_rate_hz"], facts["offset_s"] - recording["accel_start_s"]
        ),
        accel_rate_hz=recording["accel_rate_hz"],
        ppg=store.signals("ppg", where)[0].astype(np.float32),
        accel=store.signals("accel", where)[0].astype(np.float32),
    )


def _minute(channels: list[list[float]], rate_hz: float, start_s: float) -> Floats:
    start = max(0, round(start_s * rate_hz))
    return np.asarray(channels, np.float32)[:, start : start + round(DURATION_S * rate_hz)]
