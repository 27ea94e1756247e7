"""Seconds of the written documents: report.md of the home's warehouse, and REPRODUCTION.md of docs/reproduction.

    make demo && python benches/reports.py

Works on copies. Prints a Markdown table, best of three: with figures, and the text alone where figures can be left out.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from accelkd.home.layout import Home
from accelkd.reports.report import write_report
from accelkd.reproduction.report import write_reproduction

RESULTS = Path(__file__).parents[1] / "docs" / "reproduction"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(shutil.copytree(RESULTS, Path(scratch) / "results"))
        work: dict[str, Callable[[], Path]] = {
            "REPRODUCTION.md, text": lambda: write_reproduction(results, figures=False),
            "REPRODUCTION.md, text and figures": lambda: write_reproduction(results),
        }
        root = Home.from_environment().root
        if (root / "warehouse").is_dir():
            home = Home(Path(scratch) / "home")
            shutil.copytree(root, home.root)
            work["report.md, text and figures"] = lambda: write_report(home)
        print("| document | seconds | of one core |\n| --- | --- | --- |")
        for what, write in work.items():
            timed = [_seconds(write) for _ in range(3)]
            wall_s, cpu_s = (min(times) for times in zip(*timed, strict=True))
            print(f"| {what} | {wall_s:.2f} | {cpu_s:.2f} |", flush=True)


def _seconds(write: Callable[[], Path]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one call."""
    started, busy = time.perf_counter(), time.process_time()
    write()
    return time.perf_counter() - started, time.process_time() - busy


if __name__ == "__main__":
    main()
