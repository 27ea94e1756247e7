"""Recordings simulated per second and core, files included: `python benches/simulator.py`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from accelkd.recordings.simulator import simulate_batch

PARTICIPANTS, SEGMENTS, REPEATS = 16, 16, 5


def main() -> None:
    for rate_hz in (64, 256):
        seconds = []
        for _ in range(REPEATS + 1):
            with tempfile.TemporaryDirectory() as landing:
                start = time.process_time()
                simulate_batch(
                    Path(landing), "bench", participants=PARTICIPANTS, segments=SEGMENTS, seed=1, rate_hz=rate_hz
                )
                seconds.append(time.process_time() - start)
        recordings = PARTICIPANTS * SEGMENTS
        print(f"{rate_hz:3d} Hz: {recordings / min(seconds[1:]):.0f} recordings of 60 s per second of one core")


if __name__ == "__main__":
    main()
