"""What one arriving batch costs, with few and with many batches present: `python benches/arrivals.py`.

Each home gets so many small batches through the real loaders and one pair of untrained encoders in use; then a new
batch of 12 participants arrives. Timed is what it sets off, as CPU time of this process (a shared machine disturbs
wall-clock time): the sensor's tick, the run of the batch with its checks, and, apart from it, what reads all batches.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.current import decide
from accelkd.evaluation.embed import embed_batch
from accelkd.lake import Lake
from accelkd.recordings.simulator import simulate_batch
from accelkd.settings import Settings
from accelkd.warehouse.load import load_batch, load_model, load_split
from accelkd.warehouse.publish import publish
from assets.partitions import arrival_batches
from orchestration.catch_up import QUIET
from orchestration.definitions import build_defs
from orchestration.sensors import arrivals
from tests.lakes import PPG_CHANNELS, checkpoint, land

REPOSITORY = Path(__file__).parents[1]
BATCH_ASSETS = ("raw_recordings", "segments", "segment_tables", "ppg_teacher_embeddings", "accel_student_embeddings")
WHOLE = ("participant_split", "published_warehouse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--present", type=int, nargs="+", default=[10, 100], help="batches that are there before")
    parser.add_argument("--rounds", type=int, default=3, help="batches that arrive in each home")
    arguments = parser.parse_args()
    print("| batches present | tick (s) | run of the batch (s) | split and publishing, over all (s) |")
    print("|---|---|---|---|")
    own = []
    for present in arguments.present:
        with tempfile.TemporaryDirectory() as root:
            tick_s, run_s, whole_s = measure(Path(root), present, arguments.rounds)
        own.append(tick_s + run_s)
        print(f"| {present} | {tick_s:.2f} | {run_s:.2f} | {whole_s:.2f} |", flush=True)
    print(f"\nTick and run with the most present: {own[-1] / own[0]:.2f} × those with the fewest.")


def measure(root: Path, present: int, rounds: int) -> tuple[float, float, float]:
    """Median CPU seconds of the sensor's tick, the run of a new batch, and the assets over all batches."""
    lake = Lake(root)
    (root / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", root / "dagster")
    Settings(preset="smoke").save(lake)
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        fill(lake, instance, present)
        defs = build_defs(lake)
        job, whole = defs.resolve_job_def("per_batch"), defs.resolve_implicit_global_asset_job_def()
        ticks, runs, wholes = [], [], []
        for number in range(rounds + 1):
            simulate_batch(
                lake.landing,
                f"new-{number}",
                participants=12,
                segments=4,
                seed=3,
                profile="easy",
                first_participant=12 * number,
            )
            context = dg.build_sensor_context(instance, resources={"lake": lake})
            ticks.append(cpu_s(lambda context=context: arrivals(context)))
            instance.add_dynamic_partitions(str(arrival_batches.name), [f"new-{number}"])
            runs.append(
                cpu_s(
                    lambda number=number: job.execute_in_process(
                        instance=instance, partition_key=f"new-{number}", run_config=QUIET
                    )
                )
            )
            keys = [dg.AssetKey(name) for name in WHOLE]
            wholes.append(
                cpu_s(
                    lambda keys=keys: whole.execute_in_process(
                        instance=instance, asset_selection=keys, run_config=QUIET
                    )
                )
            )
    return statistics.median(ticks[1:]), statistics.median(runs[1:]), statistics.median(wholes[1:])  # the first imports


def fill(lake: Lake, instance: dg.DagsterInstance, present: int) -> None:
    """Batches that are loaded, split and embedded, and known to Dagster."""
    names = [f"b{number:04d}" for number in range(present)]
    for name in names:
        land(lake, name, [f"{name}-p{i}" for i in range(4)], ppg_channels=PPG_CHANNELS)
        load_batch(lake, name)
    extend_split(lake.split, segmented_participants(lake, names))
    load_split(lake)
    teacher = checkpoint(lake, "ppg_teacher")
    student = checkpoint(lake, "accel_student", teacher=teacher)
    for encoder, model_id in (("ppg_teacher", teacher), ("accel_student", student)):
        load_model(lake, encoder, model_id, names)
    decide(lake, "promoted", {"ppg_teacher": teacher, "accel_student": student}, "benchmark")
    for name in names:
        embed_batch(lake, "ppg_teacher", name)
        embed_batch(lake, "accel_student", name)
    publish(lake)
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
