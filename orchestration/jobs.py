"""Named jobs: what a person or a schedule launches as one thing."""

import time
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster._core.utils import make_new_backfill_id
from pydantic import Field

from accelkd.home.layout import Home
from accelkd.operations.promote import roll_back
from accelkd.recordings.arrivals import refused_unchanged
from accelkd.registry.history import promoted_models
from assets.partitions import arrival_batches
from orchestration.automation import HOUR_S
from orchestration.freshness import Freshness
from orchestration.promotions import report_promotions

NIGHTLY = "accelkd/nightly"  # tag of the backfills
WITHOUT_ENCODERS = ("recordings", "segments", "cohort")  # groups that need none

per_batch = dg.define_asset_job(
    "per_batch",
    selection=dg.AssetSelection.groups("recordings", "segments", "embeddings"),
    description="One arrival batch: validate its recordings, cut segments, load its tables, embed it.",
    tags={"dagster/max_runtime": str(12 * HOUR_S)},
)
retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.groups("encoders"),
    description="Train a teacher and its student; put them into use if they are no worse on held-out participants.",
    tags={"dagster/max_runtime": str(14 * 24 * HOUR_S)},
)
report = dg.define_asset_job(
    "report",
    selection=dg.AssetSelection.groups("reports", "warehouse") - dg.AssetSelection.tag("cadence", "manual"),
    description="Probe, retrieve, project; publish the DuckDB file and the written report.",
    tags={"dagster/max_runtime": str(12 * HOUR_S)},
)


def request_catch_up(home: Home, instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> tuple[str, int] | None:
    """Request one backfill of everything missing or stale but trainings: its id and size, or None if all is fresh.

    Batches that a run works on, and those that were refused and have not changed, are left alone. Returns an earlier
    backfill of this kind, with size 0, while it is still at work.
    """
    for earlier in instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])):
        if NIGHTLY in earlier.tags:
            return earlier.backfill_id, 0
    report_promotions(home, instance)
    running = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
    elsewhere = {run.tags.get(PARTITION_NAME_TAG) for run in running} | refused_unchanged(home)
    known = instance.get_dynamic_partitions(str(arrival_batches.name))
    due = set(Freshness(home, instance, graph).due([name for name in known if name not in elsewhere], retrain=False))
    if not promoted_models(home):  # what needs encoders waits for the first training
        due = {(key, partition) for key, partition in due if graph.get(key).group_name in WITHOUT_ENCODERS}
    if not due:
        return None
    subset = AssetGraphSubset.from_asset_partition_set({AssetKeyPartitionKey(*one) for one in due}, graph)
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time.time(),
        tags={NIGHTLY: "true", "dagster/max_runtime": str(12 * HOUR_S)},
        dynamic_partitions_store=instance,
        asset_graph_subset=subset,
        title="Catch up",
        description=f"{len(due)} missing or stale",
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id, len(due)


@dg.op
def request_backfill(context: dg.OpExecutionContext, home: dg.ResourceParam[Home]) -> None:
    """Request the backfill and tell of it."""
    requested = request_catch_up(home, context.instance, context.repository_def.asset_graph)
    if requested is None:
        context.log.info("everything is fresh")
    elif not requested[1]:
        context.log.info(f"backfill {requested[0]} is still at work")
    else:
        context.log.info(f"backfill {requested[0]}: {requested[1]} missing or stale")


@dg.job(
    description="One backfill of everything missing or stale: late batches, failed partitions, new code or encoders."
)
def catch_up() -> None:
    request_backfill()


class Rollback(dg.Config):
    """Why."""

    reason: str = Field("asked for in the UI", description="Kept in the history of promotions.")


@dg.op(pool="duckdb_writer")
def roll_back_encoders(context: dg.OpExecutionContext, config: Rollback, home: dg.ResourceParam[Home]) -> None:
    """Put the pair of encoders that was in use before back into use, tables and published file included."""
    decision = roll_back(home, config.reason)
    context.log.info(f"in use again: {', '.join(f'{name} {model_id}' for name, model_id in decision.models.items())}")
    report_promotions(home, context.instance)


@dg.job(description="Go back to the encoders that were in use before the present ones, at once.")
def rollback() -> None:
    roll_back_encoders()


jobs: list[dg.JobDefinition | UnresolvedAssetJobDefinition] = [per_batch, retrain, report, catch_up, rollback]

nightly = dg.ScheduleDefinition(
    name="nightly_catch_up",
    job=catch_up,
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Backfills what is missing or stale; does nothing when everything is fresh.",
)
weekly = dg.ScheduleDefinition(
    name="weekly_retraining",
    job=retrain,
    cron_schedule="0 4 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Trains a candidate on what has arrived; the same training again costs nothing.",
)
schedules = [nightly, weekly]
