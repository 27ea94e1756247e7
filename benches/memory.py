"""Memory of eight batches that arrive at once, each in a run of its own: `make demo && python benches/memory.py`.

Lands them in a copy of the demo's home, starts `dagster dev` with room for eight runs, and adds up, several times a
second, what the processes of the runs hold, until all are embedded. The first run to write has to wait until all are
segmented, so that all runs are there together however slowly they start. Anonymous memory is what nobody else shares;
proportional memory counts mapped files too, those that several share in parts.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from accelkd.home.layout import Home
from accelkd.recordings.simulator import simulate_batch
from accelkd.warehouse.staging import staging_lock

REPOSITORY = Path(__file__).parents[1]
LIMIT_S = 3600
PAUSE_S = 0.2


@dataclass(frozen=True)
class Held:
    """What processes hold at one moment."""

    processes: int
    anonymous_mb: float
    proportional_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--participants", type=int, default=96, help="of a batch, with eight minutes each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(shutil.copytree(Home.from_environment().root, Path(scratch) / "home")))
        settings = home.root / "dagster" / "dagster.yaml"
        text = settings.read_text(encoding="utf-8")
        settings.write_text(
            re.sub(r"max_concurrent_runs: \d+", f"max_concurrent_runs: {arguments.batches}", text), encoding="utf-8"
        )
        names = [f"memory-{number}" for number in range(arguments.batches)]
        elsewhere = Home(Path(scratch) / "elsewhere")
        for number, name in enumerate(names):
            simulate_batch(
                elsewhere.landing,
                name,
                participants=arguments.participants,
                segments=8,
                seed=11,
                profile="easy",
                first_participant=1000 + number * arguments.participants,
                processes=2,
            )
        with dagster_dev(home):
            for name in names:  # all at once
                elsewhere.batch(name).rename(home.batch(name))
            with staging_lock(home):
                samples = watch(home, names, "segments")
            samples += watch(home, names, "accel_student_embeddings")
    print("| | processes | anonymous (MB) | proportional (MB) |", "|---|---|---|---|", sep="\n")
    for what, key in (("most anonymous", "anonymous_mb"), ("most proportional", "proportional_mb")):
        most = max(samples, key=lambda held: getattr(held, key))
        print(f"| {what} | {most.processes} | {most.anonymous_mb:.0f} | {most.proportional_mb:.0f} |")
    print(f"\nThe most of {len(samples)} samples. Processes are runs, and those that they embed in.")


@contextmanager
def dagster_dev(home: Home) -> Iterator[None]:
    """Daemon, code server and webserver of a home, until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "--workspace", "workspace.yaml", "--port", str(port)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELKD_HOME": str(home.root), "DAGSTER_HOME": str(home.root / "dagster")},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def watch(home: Home, names: list[str], asset: str) -> list[Held]:
    """Samples until every batch has the asset."""
    samples: list[Held] = []
    deadline = time.monotonic() + LIMIT_S
    with dg.DagsterInstance.from_config(str(home.root / "dagster")) as instance:
        while not set(names) <= instance.get_materialized_partitions(dg.AssetKey(asset)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the batches did not get {asset} in time")
            asked = time.monotonic()
            while time.monotonic() - asked < 5:  # asking costs time of the cores that the runs need
                samples.append(held_by_runs(home))
                time.sleep(PAUSE_S)
    return samples


def held_by_runs(home: Home) -> Held:
    """What the processes that work on the home's runs hold now, with the processes that they started."""
    variable = f"DAGSTER_HOME={home.root / 'dagster'}".encode()
    processes, anonymous_kb, proportional_kb = 0, 0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"spawn_main" not in (folder / "cmdline").read_bytes():
                continue
            if variable not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            sizes_kb = dict(re.findall(r"^(\w+): +(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE))
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        processes += 1
        anonymous_kb += int(sizes_kb["Anonymous"])
        proportional_kb += int(sizes_kb["Pss"])
    return Held(processes, anonymous_kb / 1e3, proportional_kb / 1e3)


if __name__ == "__main__":
    main()
