"""What one arriving batch costs, with few and with many batches present: `python benches/arrivals.py`.

Each home gets so many small simulated batches and a promoted pair of encoders; then a new batch of 12 participants
arrives. Timed is what it sets off, as CPU time of this process (a shared machine disturbs
wall-clock time): the sensor's tick, the run of the batch with its checks, and, apart from it, what reads all batches.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.promote import promote
from accelkd.operations.split import split_participants
from accelkd.operations.train import train_all
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch
from assets.partitions import arrival_batches
from orchestration.catch_up import QUIET
from orchestration.dagster_internals import DATA_VERSION_TAG
from orchestration.definitions import build_defs
from orchestration.sensors import arrivals

REPOSITORY = Path(__file__).parents[1]
BATCH_ASSETS = (
    *("raw_recordings", "segments", "segment_tables", "sensor_check"),
    *("ppg_teacher_embedding_files", "accel_student_embedding_files"),
    *("ppg_teacher_embeddings", "accel_student_embeddings"),
)
WHOLE = ("participant_split", "published_warehouse")


@dataclass(frozen=True)
class Bench:
    """A home with batches, and what was measured in it: CPU seconds, one number for each batch that arrived."""

    home: Home
    instance: dg.DagsterInstance
    tick_s: list[float] = field(default_factory=list)  # of the sensor
    run_s: list[float] = field(default_factory=list)  # of the new batch
    whole_s: list[float] = field(default_factory=list)  # of the assets over all batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--present", type=int, nargs="+", default=[10, 100], help="batches that are there before")
    parser.add_argument("--rounds", type=int, default=5, help="batches that arrive in each home")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        homes = [prepare(Path(folder) / str(present), present, opened) for present in arguments.present]
        for number in range(arguments.rounds + 1):
            for bench in homes:  # in turn, so that a busy machine disturbs all alike
                arrive(bench, number)
    print("| batches present | tick (s) | run of the batch (s) | split and publishing, over all (s) |")
    print("|---|---|---|---|")
    own = []
    for present, bench in zip(arguments.present, homes, strict=True):
        # The first imports
        tick_s, run_s, whole_s = (statistics.median(times[1:]) for times in (bench.tick_s, bench.run_s, bench.whole_s))
        own.append(tick_s + run_s)
        print(f"| {present} | {tick_s:.2f} | {run_s:.2f} | {whole_s:.2f} |")
    print(f"\nTick and run with the most present: {own[-1] / own[0]:.2f} × those with the fewest.")


def prepare(root: Path, present: int, opened: ExitStack) -> Bench:
    """A home with so many batches, its instance open."""
    home = Home(root)
    (root / "dagster").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster.yaml", root / "dagster")
    Settings(preset="smoke").save(home)
    instance = opened.enter_context(dg.DagsterInstance.from_config(str(root / "dagster")))
    fill(home, instance, present)
    return Bench(home, instance)


def arrive(bench: Bench, number: int) -> None:
    """Land one more batch and do what follows from it."""
    defs = build_defs(bench.home)
    job, whole = defs.resolve_job_def("per_batch"), defs.resolve_implicit_global_asset_job_def()
    name = f"new-{number}"
    simulate_batch(
        bench.home.landing, name, participants=12, segments=4, seed=3, profile="easy", first_participant=12 * number
    )
    context = dg.build_sensor_context(bench.instance, resources={"home": bench.home})
    bench.tick_s.append(cpu_s(lambda: arrivals(context)))
    bench.instance.add_dynamic_partitions(str(arrival_batches.name), [name])
    bench.run_s.append(
        cpu_s(lambda: job.execute_in_process(instance=bench.instance, partition_key=name, run_config=QUIET))
    )
    keys = [dg.AssetKey(asset) for asset in WHOLE]
    bench.whole_s.append(
        cpu_s(lambda: whole.execute_in_process(instance=bench.instance, asset_selection=keys, run_config=QUIET))
    )


def fill(home: Home, instance: dg.DagsterInstance, present: int) -> None:
    """Batches that are loaded, split and embedded, and known to Dagster."""
    names = [f"b{number:04d}" for number in range(present)]
    for number, name in enumerate(names):
        simulate_batch(
            home.landing, name, participants=4, segments=4, seed=2, profile="easy", first_participant=4 * number
        )
        segment_batch(home, name)
        load_batch(home, name)
    split_participants(home)
    list(train_all(home))
    promote(home, force="a benchmark")
    instance.add_dynamic_partitions(str(arrival_batches.name), names)
    for name in names:
        for asset in BATCH_ASSETS:
            event = dg.AssetMaterialization(asset, partition=name, tags={DATA_VERSION_TAG: name})
            instance.report_runless_asset_event(event)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    before = time.process_time()
    work()
    return time.process_time() - before


if __name__ == "__main__":
    main()
