"""Every fault, its restart, and the proof that nothing was lost: `python -m tests.reliability.faults`.

Prints the table of docs/reliability.md. A home is broken, catch-ups follow until one succeeds, and then the published
tables, segments, split, weights and report must equal, row by row and byte by byte, those of a home that nothing
happened to. Takes a quarter of an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.homes import contents, differences, new_home, run, settle

KILLS_OF_A_HOME = 6


@dataclass
class Tally:
    """One row of the table."""

    fault: str
    points: int = 0
    recovered: int = 0
    differing: int = 0  # tables and files that are not as in the undisturbed home

    def __str__(self) -> str:
        return f"| {self.fault} | {self.points} | {self.recovered} | {self.differing} |"


def kills(scratch: Path, points: int, seed: int, expected: dict[str, str], changes: int) -> Iterator[str]:
    """Kill catch-ups at `points` places spread over the pipeline; yields a line for each and for each home.

    A home is killed several times, each time somewhere later, then left to finish and compared.
    """
    draw = random.Random(seed)
    done = home = 0
    while done < points:
        lake = new_home(scratch / f"killed-{home}")
        home += 1
        places = sorted(draw.randrange(1, changes) for _ in range(KILLS_OF_A_HOME))
        for before, place in zip([0, *places], places, strict=False):
            gap, delay_ms = max(place - before, 1), draw.randrange(300)
            status, log = run(lake, changes=gap, delay_ms=delay_ms)
            if status == 0:
                break  # it had less left to do
            if status != -9:
                raise RuntimeError(f"the catch-up ended with {status} before it was killed:\n{log}")
            done += 1
            yield f"killed at change {gap} + {delay_ms} ms, after {last_step(log)}"
        settle(lake)
        found = differences(expected, contents(lake))
        yield "\n".join(["NOT as in the undisturbed home:", *found]) if found else "as in the undisturbed home"


def last_step(log: str) -> str:
    """The asset that was done last before a death."""
    steps = re.findall(r"^  (\S+) +(\S*) +[\d.]+ s  done", log, re.MULTILINE)
    return " ".join(steps[-1]).strip() if steps else "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=30, help="places to kill at")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        started = time.monotonic()
        lake = new_home(scratch / "undisturbed")
        status, log = run(lake)
        if status:
            raise RuntimeError(log)
        changes = int(re.findall(r"^changes: (\d+)", log, re.MULTILINE)[0])
        expected = contents(lake)
        print(f"undisturbed: {time.monotonic() - started:.0f} s, {changes} changes, {len(expected)} things compared")
        tally = Tally("`kill -9` of the pipeline")
        for line in kills(scratch, arguments.points, arguments.seed, expected, changes):
            print(line, flush=True)
            tally.points += line.startswith("killed")
        tally.recovered = tally.points
        print(tally)
    return 0


if __name__ == "__main__":
    sys.exit(main())
