"""Named jobs: what a person or a schedule launches as one thing."""

import time

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG
from dagster._core.utils import make_new_backfill_id
from pydantic import Field

from accelkd.lake import Lake
from accelkd.promotion import roll_back
from accelkd.recordings.arrivals import refused_unchanged
from assets.partitions import arrival_batches
from orchestration.automation import HOUR_S
from orchestration.freshness import Freshness
from orchestration.promotions import tell_of_promotions

NIGHTLY = "accelkd/nightly"

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
    selection=dg.AssetSelection.groups("reports", "warehouse") - dg.AssetSelection.tag("cadence", "by-hand"),
    description="Probe, retrieve, project; publish the DuckDB file and the written report.",
    tags={"dagster/max_runtime": str(12 * HOUR_S)},
)


@dg.op(pool="duckdb_writer")
def request_backfill(context: dg.OpExecutionContext, lake: dg.ResourceParam[Lake]) -> None:
    """Request one backfill of everything missing or stale, unless an earlier one is still at work."""
    instance = context.instance
    earlier = instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))
    for backfill in earlier:
        if NIGHTLY in backfill.tags:
            context.log.info(f"backfill {backfill.backfill_id} is still at work")
            return
    tell_of_promotions(lake, instance)
    graph = context.repository_def.asset_graph
    running = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES))
    busy = {run.tags.get(PARTITION_NAME_TAG) for run in running} | refused_unchanged(lake)
    batches = [name for name in instance.get_dynamic_partitions(str(arrival_batches.name)) if name not in busy]
    due = list(Freshness(instance, graph).due(batches, retrain=False))
    if not due:
        context.log.info("everything is fresh")
        return
    for key, partition in due:
        context.log.info(f"due: {key.to_user_string()} {partition or ''}")
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time.time(),
        tags={NIGHTLY: "true", "dagster/max_runtime": str(12 * HOUR_S)},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset.from_asset_partition_set(
            {AssetKeyPartitionKey(*one) for one in due}, graph
        ),
        title="Catch up",
        description=f"{len(due)} missing or stale",
        run_config=None,
    )
    instance.add_backfill(backfill)
    context.add_output_metadata({"backfill": backfill.backfill_id, "due": len(due)})


@dg.job(
    description="One backfill of everything missing or stale: late batches, failed partitions, new code or encoders."
)
def catch_up() -> None:
    request_backfill()


class Rollback(dg.Config):
    """Why."""

    reason: str = Field("asked for in the UI", description="Kept in the history of promotions.")


@dg.op(pool="duckdb_writer")
def go_back(context: dg.OpExecutionContext, config: Rollback, lake: dg.ResourceParam[Lake]) -> None:
    """Put the pair of encoders that was in use before back into use, tables and published file included."""
    decision = roll_back(lake, config.reason)
    context.log.info(f"in use again: {', '.join(f'{name} {model_id}' for name, model_id in decision.models.items())}")
    tell_of_promotions(lake, context.instance)


@dg.job(description="Go back to the encoders that were in use before the present ones, at once.")
def rollback() -> None:
    go_back()


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
