"""Named jobs, and their schedules: what a person or a clock launches as one thing.

Belongs here: jobs, the ops of those that are no assets, schedules. Does not belong here: what starts a run because
something happened (sensors), and deciding what is stale (freshness).
"""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.promote import roll_back
from accelkd.recordings.arrivals import settled_arrivals
from accelkd.registry.history import promoted_models
from assets.failures import explained
from assets.partitions import arrival_batches
from orchestration.dagster_internals import (
    PARTITION_TAG,
    AssetGraph,
    UnresolvedAssetJobDefinition,
    request_backfill,
    requested_backfills,
)
from orchestration.freshness import Freshness
from orchestration.outside import report_outside
from orchestration.retention import delete_old_runs

HOUR_S = 3600
NIGHTLY = "accelkd/nightly"  # tag of the backfills
RUNNING = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.SUSPENDED,
]
Job = dg.JobDefinition | UnresolvedAssetJobDefinition
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
    description="Train a teacher and its student; promote them if they are no worse on held-out participants.",
    tags={"dagster/max_runtime": str(14 * 24 * HOUR_S)},
)
report = dg.define_asset_job(
    "report",
    selection=dg.AssetSelection.groups("reports", "warehouse") - dg.AssetSelection.tag("cadence", "manual"),
    description="Probe, retrieve, project; publish the DuckDB file and the written report.",
    tags={"dagster/max_runtime": str(12 * HOUR_S)},
)


def request_missing(home: Home, instance: dg.DagsterInstance, graph: AssetGraph) -> tuple[str, int] | None:
    """Request one backfill of everything missing or stale but trainings: its id and size, or None if all is fresh.

    Batches that a run works on, and those that are superseded, or were refused and have not changed, are left alone.
    Returns an earlier backfill of this kind, with size 0, while it is still running.
    """
    for earlier in requested_backfills(instance):
        if NIGHTLY in earlier.tags:
            return earlier.backfill_id, 0
    report_outside(home, instance)
    running = {run.tags.get(PARTITION_TAG) for run in instance.get_runs(dg.RunsFilter(statuses=RUNNING))}
    left_alone = running | settled_arrivals(home)
    known = instance.get_dynamic_partitions(str(arrival_batches.name))
    batches = [batch_id for batch_id in known if batch_id not in left_alone]
    targets = set(Freshness(home, instance, graph).stale_or_missing(batches, retrain=False))
    if not promoted_models(home):  # what needs encoders waits for the first training
        targets = {target for target in targets if graph.get(target[0]).group_name in WITHOUT_ENCODERS}
    if not targets:
        return None
    backfill_id = request_backfill(
        instance,
        graph,
        targets,
        title="Catch up",
        description=f"{len(targets)} missing or stale",
        tags={NIGHTLY: "true", "dagster/max_runtime": str(12 * HOUR_S)},
    )
    return backfill_id, len(targets)


@dg.op(name="request_backfill")
@explained
def request_backfill_of_missing(context: dg.OpExecutionContext, home: dg.ResourceParam[Home]) -> None:
    """Request the backfill and log its size."""
    requested = request_missing(home, context.instance, context.repository_def.asset_graph)
    if requested is None:
        context.log.info("everything is fresh")
    elif not requested[1]:
        context.log.info(f"backfill {requested[0]} is still running")
    else:
        context.log.info(f"backfill {requested[0]}: {requested[1]} missing or stale")


@dg.job(
    description="One backfill of everything missing or stale: late batches, failed partitions, new code or encoders."
)
def backfill() -> None:
    request_backfill_of_missing()


class CatchUp(dg.Config):
    """What is tried though it failed before."""

    arrived: list[str] = Field([], description="Batches that have just arrived or were sent again.")
    retry_failed: bool = Field(False, description="Everything else that failed, too.")


@dg.op
def materialize_missing(context: dg.OpExecutionContext, config: CatchUp, home: dg.ResourceParam[Home]) -> None:
    """Materialize everything missing or stale but trainings, then publish: in this process, batch after batch.

    What each batch came to stands in runs of its own, which carry this run's id in their tag `accelkd/catch_up`. A
    batch that fails is reported by its own run; it stops nothing else, and this run succeeds.
    """
    from orchestration.catch_up import catch_up as bring_up_to_date  # which needs the definitions, this job among them

    outcome = bring_up_to_date(
        home,
        context.instance,
        encoders="wait",
        retry_failed=config.retry_failed,
        arrived=config.arrived,
        parent=context.run_id,
    )
    failed = [f"{asset} {batch_id or ''}".strip() for asset, batch_id in outcome.failed]
    context.log.info(f"{len(outcome.materialized)} materialized, {len(failed)} failed")
    if failed:
        context.log.warning(f"failed, each in a run of its own: {', '.join(failed)}")


@dg.job(
    description="Everything missing or stale in one process, which ends with one published state: what arrived, what "
    "newly promoted encoders have not embedded, reports, published file. Trains nothing.",
    tags={"dagster/max_runtime": str(12 * HOUR_S)},
)
def catch_up() -> None:
    materialize_missing()


class Rollback(dg.Config):
    """Why."""

    reason: str = Field("asked for in the UI", description="Kept in the history of promotions.")


@dg.op(pool="duckdb_writer")
@explained
def roll_back_encoders(context: dg.OpExecutionContext, config: Rollback, home: dg.ResourceParam[Home]) -> None:
    """Promote the previous encoders again, tables and published file included."""
    decision = roll_back(home, config.reason)
    context.log.info(f"promoted again: {', '.join(f'{name} {model_id}' for name, model_id in decision.models.items())}")
    report_outside(home, context.instance)


@dg.job(description="Promote the previous encoders again, at once.")
def rollback() -> None:
    roll_back_encoders()


@dg.op(name="delete_old_runs")
@explained
def delete_runs(context: dg.OpExecutionContext, home: dg.ResourceParam[Home]) -> None:
    """Delete the runs that are old and not needed, and log how many."""
    days = Settings.load(home).keep_runs_days
    if not days:
        context.log.info("keep_runs_days is 0: every run is kept")
        return
    tidied = delete_old_runs(context.instance, context.repository_def.asset_graph, timedelta(days=days))
    context.log.info(
        f"{tidied.deleted} runs older than {days} days deleted ({tidied.freed_bytes / 1e6:.1f} MB); "
        f"{tidied.kept} kept whose results are the latest"
    )


@dg.job(
    description="Deletes runs older than the setting `keep_runs_days`, except those whose results are the latest.",
    tags={"dagster/max_runtime": str(2 * HOUR_S)},
)
def tidy() -> None:
    delete_runs()


nightly = dg.ScheduleDefinition(
    name="nightly_backfill",
    job=backfill,
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
nightly_tidy = dg.ScheduleDefinition(
    name="nightly_tidy",
    job=tidy,
    cron_schedule="30 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Keeps Dagster's storage from growing for ever.",
)
jobs: list[Job] = [per_batch, retrain, report, catch_up, backfill, rollback, tidy]
schedules = [nightly, weekly, nightly_tidy]
