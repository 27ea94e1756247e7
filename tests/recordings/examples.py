"""A small valid batch, written by the real writer, and ways to spoil it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import sha256_file
from accelkd.recordings.batches import MANIFEST, writing_batch
from accelkd.recordings.schema import RECORDING

SECONDS, RATE_HZ = 5, 64


def recording(number: int = 0, **changes: Any) -> dict[str, Any]:
    """One valid recording of the simulated 64 Hz device, with every column filled, and `changes` to it."""
    rng = np.random.default_rng(number)
    samples = SECONDS * RATE_HZ
    return {
        "recording_id": f"r{number}",
        "participant_id": "p1",
        "device_id": "sim-wrist-64",
        "started_at": None,
        "ppg": list(rng.uniform(1e5, 2e5, (4, samples)).astype(np.float32)),
        "ppg_rate_hz": float(RATE_HZ),
        "dark": list(rng.uniform(1e3, 2e3, (1, samples)).astype(np.float32)),
        "dark_rate_hz": float(RATE_HZ),
        "dark_offsets_s": [0.0],
        "accel": [np.full(samples, value, np.float32) for value in (0.0, 0.6, 0.8)],
        "accel_rate_hz": float(RATE_HZ),
        "accel_start_s": 0.0,
        "hr_bpm": 60.0,
        "sdnn_ms": 50.0,
        "rmssd_ms": 40.0,
        "reference_source": "simulation",
        "reference_beat_s": [0.5, 1.5, 2.5],
        "reference_hr_s": [1.0, 2.0],
        "reference_hr_bpm": [60.0, 61.0],
        "reference_ibi_end_s": [1.5, 2.5],
        "reference_ibi_s": [1.0, 1.0],
        "event_s": [3.0],
        **changes,
    }


def write_batch(landing: Path, recordings: list[dict[str, Any]], batch_id: str = "b1", **tables: pa.Table) -> Path:
    """A batch of the recordings and of participant p1, unless `participants` is given."""
    with writing_batch(landing, batch_id, source="simulation") as batch:
        batch.add("recordings", pa.Table.from_pylist(recordings, RECORDING))
        for name, table in ({"participants": pa.table({"participant_id": ["p1"]})} | tables).items():
            batch.add(name, table)
    return landing / batch_id


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def replace_table(folder: Path, path: str, table: pa.Table) -> None:
    """Put another table in the place of a file and have the manifest agree on hash and rows."""
    pq.write_table(table, folder / path)

    def update(manifest: dict[str, Any]) -> None:
        (entry,) = (file for file in manifest["files"] if file["path"] == path)
        entry |= {"sha256": sha256_file(folder / path), "rows": table.num_rows}

    edit_manifest(folder, update)
