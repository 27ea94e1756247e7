"""Recordings of days and weeks: `python benches/long_recordings.py`.

An accelerometer at 100 Hz and an E4 (64 and 32 Hz) with a heart rate each second and an interval for each beat, for one
day, three days and a week. Each is ingested (of the accelerometer as a table of floats, of the E4 as its CSV files) and
segmented in a process of its own, which says how long it took and its largest memory. Linear cost is one whose time
per day stays the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.layout import Home
from accelkd.recordings.ingest import ingest
from accelkd.recordings.mapping import read_mapping
from accelkd.recordings.readers.table import table_reader
from accelkd.segments.segment import segment_batch

DAY_S = 86_400
START_S = 1_700_000_000
MAPPING = """
[participant]
path = 1
[time]
column = "time"
unit = "s"
epoch = "unix"
[accel]
columns = ["x", "y", "z"]
unit = "g"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 3, 7])
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a single measurement, in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        kind, days, folder = arguments.one.split(":", 2)
        print(json.dumps(measure(kind, int(days), Path(folder))))
        return
    print("| recording | days | recordings | segments | ingest (s) | segments (s) | s per day | memory (GB) |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in ("accelerometer", "e4"):
        for days in arguments.days:
            with tempfile.TemporaryDirectory() as folder:
                delivery(kind, days, Path(folder) / "delivery")
                command = [sys.executable, __file__, "--one", f"{kind}:{days}:{folder}"]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            per_day = (row["ingest_s"] + row["segment_s"]) / days
            print(
                f"| {kind} | {days} | {row['recordings']} | {row['segments']} | {row['ingest_s']:.1f} "
                f"| {row['segment_s']:.1f} | {per_day:.1f} | {row['memory_gb']:.2f} |",
                flush=True,
            )


def delivery(kind: str, days: int, folder: Path) -> None:
    """Files of one person who sits still, breathes, and has a pulse of 60 bpm."""
    rng = np.random.default_rng(0)
    seconds = days * DAY_S
    person = folder / "P01"
    person.mkdir(parents=True)
    rate_hz = 100 if kind == "accelerometer" else 32
    count = seconds * rate_hz
    accel = 0.002 * rng.standard_normal((3, count), np.float32)
    accel[2] += 1 + 0.006 * np.sin(2 * np.pi * 0.25 * np.arange(count) / rate_hz, dtype=np.float32)
    if kind == "accelerometer":
        columns = {"time": START_S + np.arange(count) / rate_hz, **dict(zip("xyz", accel, strict=True))}
        pq.write_table(pa.table(columns), person / "wrist.parquet")
        return
    counts = np.round(64 * accel).astype(np.int16)
    ppg = 50 * np.sin(2 * np.pi * np.arange(seconds * 64) / 64) ** 3 + rng.standard_normal(seconds * 64)
    header = f"{START_S}.00, {START_S}.00, {START_S}.00\n32.00, 32.00, 32.00\n"
    with (person / "ACC.csv").open("w") as file:
        file.write(header)
        np.savetxt(file, counts.T, fmt="%d", delimiter=",")
    with (person / "BVP.csv").open("w") as file:
        file.write(f"{START_S}.00\n64.00\n")
        np.savetxt(file, ppg, fmt="%.2f")
    with (person / "HR.csv").open("w") as file:
        file.write(f"{START_S + 10}.00\n1.00\n")
        np.savetxt(file, 60 + rng.standard_normal(seconds - 10), fmt="%.2f")
    beats = np.arange(1.0, seconds) + 0.02 * rng.standard_normal(seconds - 1)
    with (person / "IBI.csv").open("w") as file:
        file.write(f"{START_S}.00, IBI\n")
        np.savetxt(file, np.column_stack([beats[1:], np.diff(beats)]), fmt="%.6f", delimiter=",")


def measure(kind: str, days: int, folder: Path) -> dict[str, float]:
    """Times of ingesting and segmenting a delivery, and the largest memory of this process."""
    home = Home(folder / "home")
    device, reader = "e4", None
    if kind == "accelerometer":
        (folder / "mapping.toml").write_text(MAPPING, encoding="utf-8")
        device, reader = "table", table_reader(read_mapping(folder / "mapping.toml"))
    began = time.perf_counter()
    summary = ingest(device, folder / "delivery", home.landing, "long", reader=reader)
    ingested = time.perf_counter()
    counts = segment_batch(home, "long")
    ended = time.perf_counter()
    if counts.segments < days * 24 * 60 * 0.9:
        raise RuntimeError(f"{counts.segments} segments of {days} days: {counts.reasons}")
    return {
        "recordings": summary.read,
        "segments": counts.segments,
        "ingest_s": ingested - began,
        "segment_s": ended - ingested,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


if __name__ == "__main__":
    main()
