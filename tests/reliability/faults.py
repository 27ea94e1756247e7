"""Every fault, its restart, and the proof that nothing was lost: `python -m tests.reliability.faults`.

Prints the table of docs/reliability.md. A home is broken, catch-ups follow until one succeeds, and then the published
tables, segments, split, weights and report must equal, row by row and byte by byte, those of a home that nothing
happened to. `--only` chooses among the faults; a full disk needs the right to mount a tmpfs.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accelkd.home.layout import Home
from tests.support.comparison import contents, differences
from tests.support.homes import new_home, simulate
from tests.support.processes import run_catch_up, settle, start_catch_up

KILLS_OF_A_HOME = 6
DISK_STEP_BYTES = 4_000_000
AS_UNDISTURBED = "as in the undisturbed home"


@dataclass(frozen=True)
class Trial:
    """What a fault is tried on."""

    scratch: Path
    points: int
    seed: int
    expected: dict[str, str]  # contents of the undisturbed home
    changes: int  # that its catch-up made


def kills(trial: Trial) -> Iterator[str]:
    """Kill catch-ups at `points` places spread over the pipeline; yields a line for each and for each home.

    A home is killed several times, each time somewhere later, then left to finish and compared.
    """
    draw = random.Random(trial.seed)
    done = 0
    for number in itertools.count():
        if done >= trial.points:
            return
        home = with_delivery(trial.scratch / f"killed-{number}")
        places = sorted(draw.randrange(1, trial.changes) for _ in range(KILLS_OF_A_HOME))
        for before, place in zip([0, *places], places, strict=False):
            gap, delay_ms = max(place - before, 1), draw.randrange(300)
            status, log = run_catch_up(home, changes=gap, delay_ms=delay_ms)
            if status == 0:
                break  # it had less left to do
            if status != -9:
                raise RuntimeError(f"the catch-up ended with {status} before it was killed:\n{log}")
            done += 1
            yield f"killed at change {gap} + {delay_ms} ms, after {last_step(log)}"
        settle(home)
        yield verdict(trial.expected, home)


def full_disks(trial: Trial) -> Iterator[str]:
    """Run on a disk that is too small, then make it larger, `points` times; Dagster's storage is on it too."""
    root = trial.scratch / "small-disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(root)], check=True)
    try:
        home = with_delivery(root / "home")
        used = shutil.disk_usage(root).used
        for point in range(trial.points):
            size = used + (point + 1) * DISK_STEP_BYTES
            subprocess.run(["mount", "-o", f"remount,size={size}", str(root)], check=True)
            status, log = run_catch_up(home)
            if status == 0:
                break
            yield f"disk of {size / 1e6:.1f} MB full after {last_step(log)}"
        subprocess.run(["mount", "-o", "remount,size=4g", str(root)], check=True)
        settle(home)
        yield verdict(trial.expected, home)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def pairs(trial: Trial) -> Iterator[str]:
    """Two catch-ups of one home at once."""
    home = with_delivery(trial.scratch / "pair")
    both = [start_catch_up(home), start_catch_up(home)]
    yield f"two at once ended with {[process.communicate() and process.returncode for process in both]}"
    yield verdict(trial.expected, home)


def clocks(trial: Trial) -> Iterator[str]:
    """A day ahead, killed; a day back, killed; then the right time."""
    home = with_delivery(trial.scratch / "clock")
    for shift_s in (86_400, -86_400):
        status, log = run_catch_up(home, changes=trial.changes // 3, clock_shift_s=shift_s)
        yield f"clock {shift_s:+d} s, ended with {status} after {last_step(log)}"
    settle(home)
    yield verdict(trial.expected, home)


def with_delivery(root: Path) -> Home:
    """A home in which a delivery has landed and nothing has run."""
    home = new_home(root)
    simulate(home, "sim-a")
    return home


def verdict(expected: dict[str, str], home: Home) -> str:
    lines = differences(expected, contents(home))
    return "\n".join(["NOT as in the undisturbed home:", *lines]) if lines else AS_UNDISTURBED


FAULTS = {
    "kill": ("`kill -9` of the pipeline", kills),
    "disk": ("disk full", full_disks),
    "pair": ("two catch-ups at once", pairs),
    "clock": ("clock put forward and back", clocks),
}


def last_step(log: str) -> str:
    """The asset that was done last before a death."""
    steps = re.findall(r"^  (\S+) +(\S*) +[\d.]+ s  done", log, re.MULTILINE)
    return " ".join(steps[-1]).strip() if steps else "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=30, help="places to kill at, most sizes of disk")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        started = time.monotonic()
        home = with_delivery(scratch / "undisturbed")
        status, log = run_catch_up(home)
        if status:
            raise RuntimeError(log)
        changes = int(re.findall(r"^changes: (\d+)", log, re.MULTILINE)[0])
        expected = contents(home)
        print(f"undisturbed: {time.monotonic() - started:.0f} s, {changes} changes, {len(expected)} things compared")
        trial = Trial(scratch, arguments.points, arguments.seed, expected, changes)
        rows = []
        for name in arguments.only:
            fault, break_it = FAULTS[name]
            tried = pending = recovered = 0
            for line in break_it(trial):
                print(line, flush=True)
                if line == AS_UNDISTURBED:
                    recovered, pending = recovered + pending, 0
                elif not line.startswith("NOT"):
                    tried, pending = tried + 1, pending + 1
            rows.append(f"| {fault} | {tried} | {recovered} | {0 if tried == recovered else 'see above'} |")
        print("| fault | points tried | recovered | rows lost or doubled |", "|---|---|---|---|", *rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
