"""`make demo`: simulate a cohort, run the whole pipeline on it, print what came out.

Belongs here: the cohort of the demo and what is printed. Does not belong here: anything that a real home needs too.
"""

from __future__ import annotations

import os
import sys
import time

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.recordings.simulator import simulate_batch
from accelkd.warehouse.summary import summary
from orchestration.catch_up import catch_up
from orchestration.instance import dagster_home, opened_instance

SEED = 7
SEGMENTS_PER_PARTICIPANT = 8
# Three deliveries of one cohort; the last from a device that samples at 256 Hz.
DELIVERIES = (("demo-2026-01", 0, 96, 64), ("demo-2026-02", 96, 96, 64), ("demo-2026-03", 192, 48, 256))


def main() -> int:
    started = time.monotonic()
    home = Home.from_environment()
    Settings(preset="demo").save(home)
    print("Simulating the cohort", flush=True)
    for batch_id, first, participants, rate_hz in DELIVERIES:
        if not home.batch(batch_id).exists():
            simulate_batch(
                home.landing,
                batch_id,
                participants=participants,
                segments=SEGMENTS_PER_PARTICIPANT,
                seed=SEED,
                profile="easy",
                rate_hz=rate_hz,
                first_participant=first,
                processes=os.cpu_count() or 1,
            )
    print("Materializing what is missing or stale", flush=True)
    with opened_instance(dagster_home(home)) as instance:
        outcome = catch_up(home, instance)
    if outcome.failed:
        print(f"FAILED: {', '.join(name for name, _ in outcome.failed)}", file=sys.stderr)
        return 1
    print(f"\n{summary(home.published)}\n")
    print(f"Took {time.monotonic() - started:.0f} s. Where to look next:")
    print("  make ui                                    the asset graph, its figures and checks")
    print(f"  duckdb -readonly {os.path.relpath(home.published)}")
    print(f"  {os.path.relpath(home.reports / 'report.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
