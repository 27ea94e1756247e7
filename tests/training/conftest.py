"""A small segment store to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from accelkd.segments.schema import SAMPLES, segment_schema
from accelkd.segments.store import SegmentStore, write_segments

PPG_CHANNELS = 2
SEGMENTS_OF = {"anna": 6, "ben": 4, "cleo": 9, "dan": 3}  # dan has too few for pre-training


def _batch() -> pa.RecordBatch:
    """Pulse trains of random rate; the accelerometer sees the same beats through noise."""
    rng = np.random.default_rng(0)
    schema = segment_schema(PPG_CHANNELS)
    participants = [name for name, count in SEGMENTS_OF.items() for _ in range(count)]
    rows = len(participants)
    phase = np.arange(SAMPLES) / 64 * rng.uniform(0.8, 1.6, (rows, 1)) + rng.random((rows, 1))
    pulse = np.exp(-(((phase % 1) - 0.3) ** 2) / 0.02)
    pulse = (pulse - pulse.mean(1, keepdims=True)) / pulse.std(1, keepdims=True)
    signals = {
        "ppg": pulse[:, None] * np.array([[[1.0], [-0.8]]]) + 0.1 * rng.standard_normal((rows, 2, SAMPLES)),
        "accel": pulse[:, None] * rng.standard_normal((rows, 3, 1)) + rng.standard_normal((rows, 3, SAMPLES)),
    }
    names = {
        "segment_id": [f"segment-{i:02d}" for i in range(rows)],
        "recording_id": [f"recording-{i:02d}" for i in range(rows)],
        "participant_id": participants,
        "batch_id": ["batch"] * rows,
        "device_id": ["device"] * rows,
    }
    columns = []
    for field in schema:
        if field.name in names:
            columns.append(pa.array(names[field.name]))
        elif pa.types.is_fixed_size_list(field.type):
            width = field.type.list_size
            values = signals.get(field.name, np.zeros((rows, width))).reshape(-1)
            flat = pa.array(values.astype(field.type.value_type.to_pandas_dtype()))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
        elif field.nullable:
            columns.append(pa.nulls(rows, field.type))
        else:
            columns.append(pa.array(np.zeros(rows)).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("segments") / "batch.arrow"
    write_segments(path, PPG_CHANNELS, [_batch()])
    return path


@pytest.fixture(scope="session")
def store(store_path: Path) -> SegmentStore:
    return SegmentStore([store_path])


@pytest.fixture(scope="session")
def rows(store: SegmentStore) -> np.ndarray:
    return np.arange(len(store))
