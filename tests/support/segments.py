"""Rows of a segment store without recordings behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.segments.schema import ACCEL_AXES, SAMPLES, SEGMENT
from accelkd.segments.store import SegmentStore, write_segments

PPG_CHANNELS = 2


def segment_rows(
    participants: Sequence[str], columns: Mapping[str, Any], ppg_channels: int = PPG_CHANNELS
) -> pa.RecordBatch:
    """One row of SEGMENT for each participant: the given columns, else null, or zeros where null may not be.

    Columns are sequences of a value per row; signals are arrays `[rows, channels × 3840]` or `[rows, channels, 3840]`.
    """
    schema = SEGMENT.arrow()
    rows = len(participants)
    given = {
        "participant_id": participants,
        "segment_id": [f"segment-{row:02d}" for row in range(rows)],
        "recording_id": [f"recording-{row:02d}" for row in range(rows)],
        "batch_id": ["batch"] * rows,
        "device_id": ["device"] * rows,
        **columns,
    }
    return pa.RecordBatch.from_arrays(
        [_column(field, given.get(field.name), rows, ppg_channels) for field in schema], schema=schema
    )


def _column(field: pa.Field, values: Any, rows: int, ppg_channels: int) -> pa.Array:
    if values is None and field.nullable:
        return pa.nulls(rows, field.type)
    if pa.types.is_list(field.type):
        channels = ppg_channels if field.name.startswith("ppg") else ACCEL_AXES
        width = channels * (SAMPLES if field.name in ("ppg", "accel") else 1)
        flat = np.zeros(rows * width) if values is None else np.asarray(values).reshape(rows * width)
        edges = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
        return pa.ListArray.from_arrays(edges, pa.array(flat.astype(field.type.value_type.to_pandas_dtype())))
    return pa.array(np.zeros(rows) if values is None else values).cast(field.type)


def pulse_trains(
    participants: Sequence[str],
    rates_hz: npt.NDArray[np.float64] | None = None,
    labels: Mapping[str, Sequence[float | None]] | None = None,
) -> pa.RecordBatch:
    """Pulse trains of the given or random rates; the accelerometer sees the same beats through noise."""
    rng = np.random.default_rng(0)
    rows = len(participants)
    rate = rng.uniform(0.8, 1.6, (rows, 1)) if rates_hz is None else rates_hz[:, None]
    phase = np.arange(SAMPLES) / 64 * rate + rng.random((rows, 1))
    pulse = np.exp(-(((phase % 1) - 0.3) ** 2) / 0.02)
    pulse = (pulse - pulse.mean(1, keepdims=True)) / pulse.std(1, keepdims=True)
    ppg = pulse[:, None] * np.array([[[1.0], [-0.8]]]) + 0.1 * rng.standard_normal((rows, PPG_CHANNELS, SAMPLES))
    accel = pulse[:, None] * rng.standard_normal((rows, ACCEL_AXES, 1))
    accel = accel + rng.standard_normal((rows, ACCEL_AXES, SAMPLES))
    return segment_rows(participants, {"ppg": ppg, "accel": accel, **(labels or {})})


def segment_store(path: Path, rows: pa.RecordBatch) -> SegmentStore:
    """A store of these rows alone."""
    write_segments(path, [rows])
    return SegmentStore([path])
