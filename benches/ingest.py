"""Milliseconds per recording from landing to segment on one core: `python benches/ingest.py`.

A simulated batch of 256 recordings of 60 s (4 PPG channels, a dark slot, 3 axes) at 64 Hz and one at 256 Hz go through
`segment_batch`: hashes, Parquet, rules, windows, signal processing, labels, store and quarantine. One process on one
core, files in the page cache; CPU time, because other processes disturb wall-clock time less visibly, the best of the
repeats. Below the whole, each stage alone; what they leave over is Python between them. `--baseline REVISION` times
another revision of the repository too, in turns with this one, each with a Rust extension of its own, and checks that
both make the same segments and the same quarantine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PARTICIPANTS, SEGMENTS = 32, 8
STAGES = (
    "whole",
    "hashing the files",
    "decoding Parquet",
    "checking the rules",
    "windows and motion",
    "preprocessing",
    "labels",
    "recoil",
    "writing the store",
    "the rest",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", metavar="REVISION", help="of this repository: a commit, a branch, a tag")
    parser.add_argument("--rates", type=int, nargs="+", default=[64, 256], metavar="HZ")
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement in a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each tree, in turns")
    parser.add_argument("--measure", type=int, metavar="HZ", help=argparse.SUPPRESS)  # what a process of a tree does
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.repeats)))
        return
    with trees(arguments.baseline) as imports:
        print("| ms per recording |", " | ".join(f"{hz} Hz, {name}" for hz in arguments.rates for name in imports), "|")
        print("|---|" + "---|" * len(arguments.rates) * len(imports))
        columns = [best for hz in arguments.rates for best in compare(imports, hz, arguments.repeats, arguments.rounds)]
    for stage in STAGES:
        print(f"| {stage} |", " | ".join(f"{column[stage]:.3f}" for column in columns), "|")
    print("| kB per recording |", " | ".join(f"{column['kB']:.0f}" for column in columns), "|")
    if arguments.baseline:
        for number, hz in enumerate(arguments.rates):
            before, now = (column["whole"] for column in columns[2 * number : 2 * number + 2])
            print(f"{hz} Hz: {before / now:.2f} times as fast as {arguments.baseline}, with the same segments")


@contextmanager
def trees(baseline: str | None) -> Iterator[dict[str, list[str]]]:
    """By name: folders that Python imports the packages of a tree from, first the baseline if there is one."""
    now = {"now": [str(REPOSITORY)]}
    if baseline is None:
        yield now
        return
    with tempfile.TemporaryDirectory() as folder:
        tree, extension = f"{folder}/tree", f"{folder}/extension"
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", tree, baseline], check=True)
        try:
            uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*uv, "--python", sys.executable, "--target", extension, f"{tree}/rust_dsp"], check=True)
            yield {baseline: [extension, tree], **now}
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


def compare(imports: dict[str, list[str]], rate_hz: int, repeats: int, rounds: int) -> list[dict[str, float]]:
    """The best times of each tree. Raises ValueError if trees differ in what they make."""
    best: dict[str, dict[str, float]] = {name: {} for name in imports}
    made = set()
    for _ in range(rounds):
        for name, folders in imports.items():
            command = [sys.executable, __file__, "--measure", str(rate_hz), "--repeats", str(repeats)]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            times: dict[str, Any] = json.loads(done.stdout)
            made.add(times.pop("made"))
            best[name] = {stage: min(best[name].get(stage, ms), ms) for stage, ms in times.items()}
    if len(made) > 1:
        raise ValueError(f"the trees make different segments at {rate_hz} Hz")
    for times in best.values():
        stages = [times[stage] for stage in STAGES[1:-1]]
        times["the rest"] = times["whole"] - sum(stages)
    return list(best.values())


def measure(rate_hz: int, repeats: int) -> dict[str, Any]:
    """CPU time of the whole and of its stages in ms per recording, and a hash of what is made."""
    if hasattr(os, "sched_setaffinity"):  # then Rust sees one core, and starts no thread
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    import rust_dsp
    from accelkd.home.layout import Home
    from accelkd.recordings import validate
    from accelkd.recordings.batches import read_manifest
    from accelkd.recordings.devices import DEVICES
    from accelkd.recordings.simulator.simulate import simulate_batch
    from accelkd.segments.segment import segment_batch
    from accelkd.segments.store import write_segments
    from accelkd.segments.windows import device_plan

    pa.set_cpu_count(1)
    recordings = PARTICIPANTS * SEGMENTS

    def timed(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repeats):
            started = time.process_time()
            work()
            seconds.append(time.process_time() - started)
        return 1e3 * min(seconds) / recordings

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        batch = home.batch("b1")
        simulate_batch(home.landing, "b1", participants=PARTICIPANTS, segments=SEGMENTS, seed=1, rate_hz=rate_hz)
        files = [batch / entry.path for entry in read_manifest(batch).files]
        parts = [str(path.relative_to(batch)) for path in files if path.parent.name == "recordings"]

        def decode() -> None:
            for part in parts:
                for _ in validate._read_rows(batch, part):
                    pass

        def check() -> None:
            for _ in validate.iter_recordings(batch):
                pass

        times = {"whole": timed(lambda: segment_batch(home, "b1"))}
        times["hashing the files"] = timed(lambda: [hashlib.sha256(path.read_bytes()).digest() for path in files])
        times["decoding Parquet"] = timed(decode)
        decoded_and_hashed = times["hashing the files"] + times["decoding Parquet"]
        times["checking the rules"] = timed(check) - decoded_and_hashed
        rows = [row for valid, _ in validate.iter_recordings(batch) for row in valid.to_pylist()]
        arrays = {name: [np.array(row[name], np.float32) for row in rows] for name in ("ppg", "dark", "accel")}
        whole = [number for number, ppg in enumerate(arrays["ppg"]) if ppg.shape[1] == 60 * rate_hz]
        ppg, dark, accel = ([values[number] for number in whole] for values in arrays.values())
        hz = float(rate_hz)
        plan = device_plan(DEVICES[f"sim-wrist-{rate_hz}"], hz, hz, hz, (0.0,))
        times["windows and motion"] = timed(
            lambda: [plan.windows(a, c, dark=b) for a, b, c in zip(ppg, dark, accel, strict=True)]
        )
        times["preprocessing"] = timed(lambda: plan.preprocess(ppg, dark, accel))
        done = plan.preprocess(ppg, dark, accel)
        channels = done.ppg[done.ppg_status == 0]
        times["labels"] = timed(lambda: rust_dsp.label(channels, polarity=1))
        times["recoil"] = timed(lambda: rust_dsp.recoil_rates(done.accel, scale=done.accel_ac_level))
        store = pa.ipc.open_file(pa.memory_map(str(home.segments("b1"))))
        batches = [store.get_batch(number) for number in range(store.num_record_batches)]
        times["writing the store"] = timed(lambda: write_segments(Path(folder) / "copy.arrow", batches))
        quarantined = pq.read_table(home.quarantine("b1")).to_pylist()
        made = hashlib.sha256(home.segments("b1").read_bytes() + repr(quarantined).encode()).hexdigest()
        size_kb = sum(path.stat().st_size for path in files) / recordings / 1000
    return {**times, "kB": size_kb, "made": made}


if __name__ == "__main__":
    main()
