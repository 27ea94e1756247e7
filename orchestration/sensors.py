"""Sensors: what arrives, what else has changed, and when enough is new to train again.

Belongs here: what requests a run, or reports an event, because something happened. Does not belong here: deciding what
is stale (freshness), and judging batches (accelkd.operations).
"""

import hashlib
import json
import time
from collections.abc import Sequence

import dagster as dg

from accelkd.cohort.split import read_split
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.checks import landing_zone, removed_from_landing_zone
from accelkd.operations.train import nothing_to_train_on
from accelkd.recordings.arrivals import Arrival, forget, landed_versions, pending_arrivals, refused, superseded
from accelkd.registry.history import participants_when_trained
from assets.checks import check_result
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings
from orchestration.catch_up_lock import CATCH_UP
from orchestration.dagster_internals import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG, AssetGraph
from orchestration.jobs import catch_up, retrain
from orchestration.outside import unreported
from orchestration.statuses import UNFINISHED

MAX_NAMED = 50  # batches that cannot be used, in the reason of a tick; the check has them all
_RETRIED_WITHIN_S = 60  # Dagster looks every five seconds
_SETTLED_NS = 2_000_000_000  # a folder's time is trusted to show the next change only after a while


@dg.sensor(
    description="Registers what has arrived and requests a catch-up; names batches that cannot be used.",
    job=catch_up,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def arrivals(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> dg.SensorResult | dg.SkipReason:
    """Registers every batch that has arrived in the landing zone and requests one catch-up for all of them.

    What arrives while a catch-up runs waits for its end: so each one publishes, however steadily batches arrive.
    Batches that cannot be used are reported, with the reason, in the tick and in the check `landing_zone` of
    `raw_recordings`; they are tried again once their files change. A delivery that is removed before it was loaded is
    forgotten. While nothing changes, a tick costs one look at the landing zone.
    """
    last_tick = json.loads(context.cursor) if context.cursor else {}
    changed_ns = home.landing.stat().st_mtime_ns if home.landing.is_dir() else 0
    if last_tick.get("changed_ns") == changed_ns and not last_tick.get("open") and not refused(home):
        return dg.SkipReason("nothing has changed in the landing zone")
    known = set(context.instance.get_dynamic_partitions(str(arrival_batches.name)))
    removed = removed_from_landing_zone(home, known)
    for batch_id in removed.forgotten:
        forget(home, batch_id)
    pending = [*pending_arrivals(home, known), *removed.missing]
    usable = [arrival for arrival in pending if arrival.arrived and not arrival.problem]
    unusable = [arrival for arrival in pending if arrival.problem]
    problems = str([(arrival.batch_id, arrival.problem) for arrival in unusable])
    problems_sha256 = hashlib.sha256(problems.encode()).hexdigest()
    settled = time.time_ns() - changed_ns > _SETTLED_NS
    now = [] if _catching_up(context.instance) else usable
    cursor = {
        "changed_ns": changed_ns if settled else 0,
        "open": len(usable) > len(now) or any(not arrival.arrived for arrival in pending),
        "problems": problems_sha256,
    }
    new = [arrival.batch_id for arrival in now if arrival.batch_id not in known]
    gone = sorted({*(known & superseded(home).keys()), *removed.forgotten})
    news = problems_sha256 != last_tick.get("problems")
    for arrival in unusable[:MAX_NAMED] if news else []:
        context.log.warning(f"batch {arrival.batch_id} cannot be used: {arrival.problem}")
    return dg.SensorResult(
        run_requests=[_request(now)] if now else [],
        skip_reason=None if now else _nothing_to_do(pending),
        dynamic_partitions_requests=[
            *([arrival_batches.build_add_request(new)] if new else []),
            *([arrival_batches.build_delete_request(gone)] if gone else []),
        ],
        asset_events=[_evaluation(check_result(landing_zone(pending)))] if news else [],
        cursor=json.dumps(cursor),
    )


def _catching_up(instance: dg.DagsterInstance) -> bool:
    """Whether a catch-up runs or waits for its turn."""
    return bool(instance.get_runs(dg.RunsFilter(job_name=catch_up.name, statuses=UNFINISHED), limit=1))


def _request(arrived: list[Arrival]) -> dg.RunRequest:
    """One catch-up for batches that have just arrived, or were sent again."""
    names = sorted(arrival.batch_id for arrival in arrived)
    files = sorted(f"{arrival.batch_id}:{arrival.fingerprint}" for arrival in arrived)
    return dg.RunRequest(
        run_key=hashlib.sha256("\n".join(files).encode()).hexdigest(),
        run_config={"ops": {"materialize_missing": {"config": {"arrived": names}}}},
        tags={"accelkd/arrived": names[0] if len(names) == 1 else f"{len(names)} batches"},
    )


def _nothing_to_do(pending: list[Arrival]) -> str:
    problems = [f"{arrival.batch_id}: {arrival.problem}" for arrival in pending if arrival.problem]
    if len(problems) > MAX_NAMED:
        problems[MAX_NAMED:] = [f"and {len(problems) - MAX_NAMED} more"]
    arriving = [arrival.batch_id for arrival in pending if not arrival.arrived and not arrival.problem]
    reasons = [f"cannot be used: {'; '.join(problems)}"] if problems else []
    reasons += [f"still arriving: {', '.join(arriving)}"] if arriving else []
    waiting = [arrival.batch_id for arrival in pending if arrival.arrived and not arrival.problem]
    reasons += [f"wait for the end of a catch-up: {', '.join(waiting)}"] if waiting else []
    return ". ".join(reasons) or "no new batch in the landing zone"


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=raw_recordings.key,
        check_name="landing_zone",
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
    )


@dg.sensor(
    description="Requests a training once enough participants are new (setting `retrain_after_participants`).",
    job=retrain,
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def retraining(home: dg.ResourceParam[Home]) -> dg.RunRequest | dg.SkipReason:
    """Requests a training once enough participants are new in the split (setting `retrain_after_participants`).

    Where nothing can be trained on, it says so instead, and what to do.
    """
    threshold = Settings.load(home).retrain_after_participants
    if not threshold:
        return dg.SkipReason("retrain_after_participants is 0: training waits for its weekly schedule")
    participants = read_split(home.split).num_rows if home.split.exists() else 0
    new = participants - participants_when_trained(home)
    if new < threshold:
        return dg.SkipReason(f"{new} participants are new since the last training; {threshold} are asked for")
    if reason := nothing_to_train_on(home):
        return dg.SkipReason(reason)
    return dg.RunRequest(run_key=f"{participants} participants")


@dg.sensor(
    description="Requests a catch-up when something was materialized other than by a catch-up, promoted or set.",
    job=catch_up,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def changes(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> dg.SensorResult | dg.SkipReason:
    """Requests a catch-up when something was materialized other than by a catch-up, promoted or set.

    Also instead of one whose process died, if Dagster does not start it again. It waits for runs that are still in
    progress, other than trainings, so that it follows all of them at once. What was promoted or set on the command line
    is reported to Dagster here.
    """
    if news := unreported(home, context.instance):
        return dg.SensorResult(asset_events=news, cursor=context.cursor)
    if lost := _lost_retry(context.instance):
        request = dg.RunRequest(f"instead of {lost.run_id}", lost.run_config, {"accelkd/instead_of": lost.run_id})
        return dg.SensorResult(run_requests=[request], cursor=context.cursor)
    graph: AssetGraph = context.repository_def.asset_graph  # type: ignore[union-attr]  # there is one in a sensor's tick
    seen = json.loads(context.cursor) if context.cursor else {}
    events, landed = _latest(context.instance, graph), landed_versions(home)
    cursor = json.dumps({"events": events, "landed": landed})
    if cursor == context.cursor:
        return dg.SkipReason("nothing was materialized, promoted, set or withdrawn, and no batch has changed")
    if _in_progress(context.instance):
        return dg.SkipReason("something has changed; waiting for the runs in progress")
    changed = sorted(
        name
        for name, storage_id in events.items()
        if _changed_elsewhere(
            context.instance, graph, name, after=seen.get("events", {}).get(name, 0), until=storage_id
        )
    )
    known = seen.get("landed", {})
    again = [batch_id for batch_id, sha256 in landed.items() if known.get(batch_id, sha256) != sha256]
    for batch_id in again:
        context.log.warning(
            f"batch {batch_id} has changed: it landed again, or somebody withdrew; what was made of it is made again"
        )
    changed += again
    if not changed:
        return dg.SensorResult(cursor=cursor, skip_reason="only catch-ups have materialized anything")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=None, tags={"accelkd/changed": ", ".join(changed)[:200]})],
        cursor=cursor,
    )


def _lost_retry(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """The last catch-up, if its process died and Dagster has not started it again, as it says it will.

    Dagster reads the event of a failure before it has recorded the failure of the run, if both fall into one moment,
    and then passes over it for ever.
    """
    for record in instance.get_run_records(dg.RunsFilter(job_name=catch_up.name), limit=1):
        run, age_s = record.dagster_run, time.time() - record.update_timestamp.timestamp()
        failed = run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY_TAG) == "true"
        if failed and AUTO_RETRY_RUN_ID_TAG not in run.tags and age_s > _RETRIED_WITHIN_S:
            return run
    return None


def _latest(instance: dg.DagsterInstance, graph: AssetGraph) -> dict[str, int]:
    """Storage id of the last event of each asset: a materialization, or an observation of what is set."""
    return {
        key.to_user_string(): records[0].storage_id
        for key in sorted(graph.get_all_asset_keys())
        if graph.get(key).tags.get("cadence") != "manual" or graph.get(key).is_observable
        if (records := _events(instance, graph, key, after=0, limit=1))
    }


def _events(
    instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, *, after: int, limit: int
) -> Sequence[dg.EventLogRecord]:
    fetch = instance.fetch_observations if graph.get(key).is_observable else instance.fetch_materializations
    return fetch(dg.AssetRecordsFilter(key, after_storage_id=after), limit=limit).records


def _changed_elsewhere(instance: dg.DagsterInstance, graph: AssetGraph, name: str, *, after: int, until: int) -> bool:
    """Whether an event of an asset, later than `after`, is not of a catch-up."""
    if until <= after:
        return False
    events = _events(instance, graph, dg.AssetKey.from_user_string(name), after=after, limit=1000)
    for run_id in {event.run_id for event in events}:
        run = instance.get_run_by_id(run_id) if run_id else None  # none: it was reported without a run
        if run is None or CATCH_UP not in run.tags:
            return True
    return False


def _in_progress(instance: dg.DagsterInstance) -> bool:
    """Whether a run is in progress or queued that a catch-up should not work beside: any but a training."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return any(run.job_name != retrain.name for run in runs)


sensors = [arrivals, retraining, changes]
