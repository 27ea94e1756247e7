"""Mutated deliveries of every format: each ends in segments or in a named reason, and nothing is lost uncounted.

    python -m tests.reliability.fuzz_deliveries ../shared/data --cases 100000 --seed 1 --processes 2

Needs the public recordings that docs/devices.md names; prints what came of the cases as Markdown, and ends with status
1 if one failed. `--results` keeps the cases: with the same folder the next call goes on where this one stopped. `--only
'polar' --case 17` repeats one case and shows its mutations.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from tests.support.fuzz import run_case
from tests.support.fuzz_seeds import seeds
from tests.support.mutations import Seed

_FAST = Path("/dev/shm")  # where there is one, deliveries are written into memory
_NEVER = float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=_NEVER)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", help="one format")
    parser.add_argument("--case", type=int, help="one case of it")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="accelkd-fuzz-", dir=_FAST if _FAST.is_dir() else None) as scratch:
        deliveries = seeds(arguments.data)
        if arguments.case is not None:
            name = arguments.only
            case = run_case(
                deliveries[name], arguments.case, _key(arguments.seed, deliveries, name), Path(scratch, "case")
            )
            print(case)
            return int(bool(case.failure))
        results = arguments.results or Path(scratch, "results")
        results.mkdir(parents=True, exist_ok=True)
        _run_all(deliveries, arguments, results, Path(scratch), time.monotonic() + 60 * arguments.minutes)
        return _print(results, deliveries)


def _key(seed: int, deliveries: Mapping[str, Seed], name: str) -> tuple[int, int]:
    return seed, list(deliveries).index(name)


def _run_all(
    deliveries: Mapping[str, Seed], arguments: argparse.Namespace, results: Path, scratch: Path, until: float
) -> None:
    """Run all cases that have no result yet; a process that dies costs the case that it was at, which failed."""
    numbers = range(arguments.processes)
    running: dict[int, multiprocessing.Process] = {}
    while True:
        for number in numbers:
            process = running.get(number)
            if process is None or (not process.is_alive() and process.exitcode != 0):
                if process is not None:
                    _died(results, number, process.exitcode)
                target = (deliveries, arguments, results, scratch / str(number), number, until)
                running[number] = multiprocessing.Process(target=_work, args=target)
                running[number].start()
        if not any(process.is_alive() or process.exitcode for process in running.values()):
            return
        time.sleep(1)


def _work(
    deliveries: Mapping[str, Seed],
    arguments: argparse.Namespace,
    results: Path,
    scratch: Path,
    number: int,
    until: float,
) -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    warnings.simplefilter("ignore")
    done = {(case["format"], case["number"]) for case in _cases(results)}
    names = [name for name in deliveries if arguments.only in (None, name)]

    with (results / f"{number}.jsonl").open("a", encoding="utf-8") as out:
        for count in range(number, arguments.cases, arguments.processes):
            name = names[count % len(names)]
            if (name, count // len(names)) in done:
                continue
            if time.monotonic() > until:
                return
            (results / f"{number}.at").write_text(json.dumps({"format": name, "number": count // len(names)}))
            case = run_case(deliveries[name], count // len(names), _key(arguments.seed, deliveries, name), scratch)
            out.write(json.dumps({"format": name, **vars(case)}) + "\n")
            out.flush()


def _died(results: Path, number: int, status: int | None) -> None:
    at = json.loads((results / f"{number}.at").read_text())
    with (results / f"{number}.jsonl").open("a", encoding="utf-8") as out:
        died = {
            "outcome": "failed",
            "failure": f"the process died with status {status}",
            "reasons": {},
            "mutations": [],
        }
        out.write(json.dumps({**at, **died, "windows": 0, "segments": 0, "took_s": 0.0, "peak_mb": 0.0}) + "\n")


def _cases(results: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(results.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # cut where a call was stopped: the case is run again
                yield json.loads(line)


def _print(results: Path, deliveries: Mapping[str, Seed]) -> int:
    """The tables; returns 1 if a case failed."""
    by_format: dict[str, list[dict[str, Any]]] = {name: [] for name in deliveries}
    reasons: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    for case in _cases(results):
        by_format[case["format"]].append(case)
        reasons.update(case["reasons"])
        categories.update({mutation.partition(":")[0] for mutation in case["mutations"]})
    columns = "format, cases, read whole, read in part, rejected, failed, windows, segments, slowest (s), memory (MB)"
    print("|", columns.replace(",", " |"), "|")
    print("|" + " --- |" * len(columns.split(",")))
    listed = {name: cases for name, cases in by_format.items() if cases}
    everything = [case for cases in by_format.values() for case in cases]
    for name, cases in [*listed.items(), ("all", everything)]:
        outcomes = Counter("failed" if case["failure"] else case["outcome"] for case in cases)
        shown = [f"{outcomes[outcome]:,}" for outcome in ("read whole", "read in part", "rejected", "failed")]
        sums = [f"{sum(case[count] for case in cases):,}" for count in ("windows", "segments")]
        slowest, most = (max((case[fact] for case in cases), default=0.0) for fact in ("took_s", "peak_mb"))
        print(f"| {name} | {len(cases):,} | {' | '.join(shown + sums)} | {slowest:.1f} | {most:.0f} |")
    print("\nMutations:", ", ".join(f"{name} in {count:,} cases" for name, count in categories.most_common()))
    print("\nReasons:", ", ".join(f"`{reason}` {count:,}" for reason, count in reasons.most_common()))
    failed = [case for case in everything if case["failure"]]
    for case in failed:
        print(f"\nfailed: --only {case['format']!r} --case {case['number']}: {case['failure']}: {case['mutations']}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
