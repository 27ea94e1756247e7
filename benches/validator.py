"""What the validator costs on small deliveries that explode when they are read: `python benches/validator.py`.

Each case is a batch of a few kB, made in one process and validated in another. Reported are the size of its files,
CPU seconds (a shared machine disturbs wall-clock time), the peak of the process's memory beyond that of its imports,
and what would be stored as messages.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import sha256_file
from accelkd.recordings.batches import MANIFEST, writing_batch
from accelkd.recordings.schema import PARTICIPANT, RECORDING
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.validate import validate_batch

PART = "recordings/part-00000.parquet"
SMALL: dict[str, Any] = {
    "recording_id": "r0",
    "participant_id": "p1",
    "device_id": "sim-wrist-64",
    "ppg": [[1.0]] * 4,
    "ppg_rate_hz": 64.0,
    "accel": [[1.0]] * 3,
    "accel_rate_hz": 64.0,
    "accel_start_s": 0.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="case", help=", ".join(CASES))
    arguments = parser.parse_args()
    print("| batch | files (kB) | CPU (s) | peak (MB) | violations kept | messages (kB) | rules |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.cases:
        # A process counts the memory of its parent, so this one stays small
        spawn = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory() as folder, spawn.Pool(1, maxtasksperchild=1) as pool:
            pool.apply(CASES[name], (Path(folder),))
            print(pool.apply(measure, (name, Path(folder) / "b1")), flush=True)


def measure(name: str, folder: Path) -> str:
    """One row of the table."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    violations = validate_batch(folder)
    cpu_s = time.process_time() - started
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    size_kb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1000
    messages_kb = sum(len(str(violation)) for violation in violations) / 1000
    rules = ", ".join(sorted({violation.rule for violation in violations})) or "none"
    return f"| {name} | {size_kb:.0f} | {cpu_s:.2f} | {peak_mb:.0f} | {len(violations)} | {messages_kb:.1f} | {rules} |"


def participants(landing: Path, number: int = 200_000) -> None:
    """So many rows of one participant whose name is no identifier and whose sex is none of the two."""
    table = pa.table({"participant_id": ["p 1"] * number, "sex": ["?"] * number})
    _replace(_landed(landing), "participants.parquet", table, PARTICIPANT.arrow())


def participants_allowed(landing: Path) -> None:
    """As many as a batch may have."""
    participants(landing, 20_000)


def recordings(landing: Path, number: int = 200_000) -> None:
    """So many recordings of one name without a known participant."""
    row = pa.Table.from_pylist([{**SMALL, "participant_id": "nobody"}], RECORDING.arrow())
    _replace(_landed(landing), PART, row.take(pa.array([0] * number)), RECORDING.arrow())


def recordings_allowed(landing: Path) -> None:
    """As many as a batch may have."""
    recordings(landing, 100_000)


def channels(landing: Path) -> None:
    """One recording with two million channels of one sample."""
    row = pa.Table.from_pylist([{**SMALL, "ppg": [[1.0]] * 2_000_000}], RECORDING.arrow())
    _replace(_landed(landing), PART, row, RECORDING.arrow())


def samples(landing: Path, number: int = 200_000_000) -> None:
    """One recording with so many equal samples."""
    columns = {name: pa.array([value], RECORDING.arrow().field(name).type) for name, value in SMALL.items()}
    both = pa.repeat(1.0, number).cast(pa.float32())
    stream = pa.ListArray.from_arrays(pa.array([0, number // 2, number], pa.int32()), both)
    columns["ppg"] = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), stream)
    _replace(_landed(landing), PART, pa.table(columns), RECORDING.arrow())


def samples_allowed(landing: Path) -> None:
    """As many as a row group may have."""
    samples(landing, 130_000_000)


def names(landing: Path) -> None:
    """600 recordings with one name of 2 MB."""
    row = pa.Table.from_pylist([{**SMALL, "recording_id": "r" * 2_000_000}], RECORDING.arrow())
    _replace(_landed(landing), PART, row.take(pa.array([0] * 600)), RECORDING.arrow())


def files(landing: Path) -> None:
    """A manifest that lists 90,000 files which are not there."""
    folder = _landed(landing)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    entry = manifest["files"][0]
    manifest["files"] += [entry | {"path": f"recordings/part-{number:05d}.parquet"} for number in range(1, 90_000)]
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def valid(landing: Path) -> None:
    """A simulated batch: 40 participants with 24 minutes each."""
    simulate_batch(landing, "b1", participants=40, segments=24, seed=1, profile="easy")


def _landed(landing: Path) -> Path:
    """A small valid batch."""
    with writing_batch(landing, "b1", source="simulation") as batch:
        batch.add("recordings", pa.Table.from_pylist([SMALL], RECORDING.arrow()))
        batch.add("participants", pa.table({"participant_id": ["p1"]}))
    return landing / "b1"


def _replace(folder: Path, path: str, table: pa.Table, schema: pa.Schema) -> None:
    """Put a table in the place of a file, as small as it gets, and have the manifest agree."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    pq.write_table(table.select(schema.names).cast(schema), folder / path, compression="zstd", compression_level=19)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (entry,) = (entry for entry in manifest["files"] if entry["path"] == path)
    entry |= {"rows": table.num_rows, "sha256": sha256_file(folder / path)}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


CASES: dict[str, Callable[[Path], None]] = {
    case.__name__: case
    for case in (
        valid,
        participants,
        participants_allowed,
        recordings,
        recordings_allowed,
        channels,
        samples,
        samples_allowed,
        names,
        files,
    )
}

if __name__ == "__main__":
    main()
