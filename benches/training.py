"""Milliseconds of a training step of the demo preset, with and without threads that spin while they wait.

    python benches/training.py

Each setting runs in a process of its own, because torch reads it once; two of the four beside a process that keeps one
core busy. Times are wall-clock medians over the steps of the curve.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

TEACHER_STEPS, STUDENT_STEPS = 30, 20


def measure() -> None:
    """Print the milliseconds of a teacher's and a student's step under this process's settings."""
    import numpy as np
    import pyarrow.parquet as pq

    from accelkd.home.layout import Home
    from accelkd.recordings.simulator import simulate_batch
    from accelkd.segments.segment import segment_batch
    from accelkd.segments.store import SegmentStore
    from accelkd.training.presets import preset
    from accelkd.training.runs import train_encoder

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        simulate_batch(home.landing, "bench", participants=64, segments=4, seed=1, profile="easy")
        segment_batch(home, "bench")
        store = SegmentStore([home.segments("bench")])
        rows, chosen = np.arange(len(store)), preset("scratch")
        checkpoint = None
        for config, steps in ((chosen.teacher, TEACHER_STEPS), (chosen.student, STUDENT_STEPS)):
            checkpoint = train_encoder(
                store,
                rows,
                replace(config, optimisation=replace(config.optimisation, steps=steps, log_every=5)),
                home.root / config.modality,
                name=config.modality,
                data_version="bench",
                split_version="bench",
                teacher=checkpoint,
            )
            rates = pq.read_table(checkpoint / "training.parquet").column("segments_per_s").to_numpy()
            print(f"{1e3 * config.optimisation.batch_size / np.median(rates):.0f}", end=" | ")


def main() -> None:
    print("| waiting threads | beside it | teacher (ms a step) | student (ms a step) |\n| --- | --- | --- | --- |")
    for busy in (False, True):
        for policy in ("PASSIVE", "ACTIVE"):
            load = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
            print(f"| {policy.lower()} | {'one busy core' if busy else 'nothing'} | ", end="", flush=True)
            subprocess.run(
                [sys.executable, __file__, "measure"], env={**os.environ, "OMP_WAIT_POLICY": policy}, check=True
            )
            print()
            if load:
                load.kill()


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
