"""A small segment store to train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from accelkd.segments.schema import SAMPLES, segment_schema
from accelkd.segments.store import SegmentStore, write_segments

PPG_CHANNELS = 2
SEGMENTS_OF = {"anna": 6, "ben": 4, "cleo": 9, "dan": 3}  # dan has too few for pre-training


def labelled_batch() -> pa.RecordBatch:
    """Eight participants with eight segments each; the heart rate is known, of one participant no SDNN."""
    participants = [f"p{number}" for number in range(8) for _ in range(8)]
    rates = np.random.default_rng(1).uniform(0.8, 1.6, len(participants))
    sdnn = [None if name == "p3" else 40.0 for name in participants]
    return _batch(participants, rates, {"hr_bpm": pa.array(60 * rates), "sdnn_ms": pa.array(sdnn, pa.float64())})


def _batch(
    participants: list[str], rates_hz: np.ndarray | None = None, labels: Mapping[str, pa.Array] | None = None
) -> pa.RecordBatch:
    """Pulse trains of the given or random rates; the accelerometer sees the same beats through noise."""
    rng = np.random.default_rng(0)
    schema = segment_schema(PPG_CHANNELS)
    rows = len(participants)
    rate = rng.uniform(0.8, 1.6, (rows, 1)) if rates_hz is None else rates_hz[:, None]
    phase = np.arange(SAMPLES) / 64 * rate + rng.random((rows, 1))
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
        elif labels and field.name in labels:
            columns.append(labels[field.name])
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
    participants = [name for name, count in SEGMENTS_OF.items() for _ in range(count)]
    write_segments(path, PPG_CHANNELS, [_batch(participants)])
    return path


@pytest.fixture(scope="session")
def store(store_path: Path) -> SegmentStore:
    return SegmentStore([store_path])


@pytest.fixture(scope="session")
def rows(store: SegmentStore) -> np.ndarray:
    return np.arange(len(store))
