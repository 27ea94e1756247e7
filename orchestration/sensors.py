"""Sensors: what arrives, what was promoted elsewhere, and when enough is new to train again.

Belongs here: what starts a run, or reports an event, because something happened outside of Dagster. Does not belong
here: following changes inside of Dagster (automation), and judging batches (accelkd.operations).
"""

import hashlib
import json
import time

import dagster as dg

from accelkd.cohort.split import read_split
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.checks import landing_zone
from accelkd.recordings.arrivals import Arrival, pending_arrivals, refused, superseded
from accelkd.registry.history import participants_when_trained, promoted_models
from assets.checks import check_result
from assets.embeddings import embeddings_assets
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings
from assets.segments import segments
from assets.warehouse import segment_tables
from orchestration.jobs import per_batch, retrain
from orchestration.promotions import unreported_promotion

BATCHES_A_TICK = 50  # more are taken up by the next ticks: a tick is cut off after a minute
_SETTLED_NS = 2_000_000_000  # a folder's time is trusted to show the next change only after a while


@dg.sensor(
    job=per_batch,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def arrivals(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> dg.SensorResult | dg.SkipReason:
    """Registers every batch that has arrived in the landing zone and requests its assets.

    Batches that cannot be used are reported, with the reason, in the tick and in the check `landing_zone` of
    `raw_recordings`; they are tried again once their files change. While nothing changes, a tick costs one look at the
    landing zone.
    """
    last_tick = json.loads(context.cursor) if context.cursor else {}
    changed_ns = home.landing.stat().st_mtime_ns if home.landing.is_dir() else 0
    if last_tick.get("changed_ns") == changed_ns and not last_tick.get("open") and not refused(home):
        return dg.SkipReason("nothing has changed in the landing zone")
    known = set(context.instance.get_dynamic_partitions(str(arrival_batches.name)))
    pending = pending_arrivals(home, known)
    usable = [arrival for arrival in pending if arrival.arrived and not arrival.problem]
    unusable = [arrival for arrival in pending if arrival.problem]
    problems = str([(arrival.batch_id, arrival.problem) for arrival in unusable])
    problems_sha256 = hashlib.sha256(problems.encode()).hexdigest()
    settled = time.time_ns() - changed_ns > _SETTLED_NS
    cursor = {
        "changed_ns": changed_ns if settled else 0,
        "open": len(usable) > BATCHES_A_TICK or any(not arrival.arrived for arrival in pending),
        "problems": problems_sha256,
    }
    now = usable[:BATCHES_A_TICK]
    new = [arrival.batch_id for arrival in now if arrival.batch_id not in known]
    replaced = sorted(known & superseded(home).keys())
    for arrival in unusable:
        context.log.warning(f"batch {arrival.batch_id} cannot be used: {arrival.problem}")
    encode = bool(promoted_models(home))
    verdict = check_result(landing_zone(pending))
    return dg.SensorResult(
        run_requests=[_request(arrival, encode=encode) for arrival in now],
        skip_reason=None if now else _nothing_arrived(pending),
        dynamic_partitions_requests=[
            *([arrival_batches.build_add_request(new)] if new else []),
            *([arrival_batches.build_delete_request(replaced)] if replaced else []),
        ],
        asset_events=[_evaluation(verdict)] if problems_sha256 != last_tick.get("problems") else [],
        cursor=json.dumps(cursor),
    )


def _request(arrival: Arrival, *, encode: bool) -> dg.RunRequest:
    """The run of one batch; before the first encoders are promoted, without embeddings."""
    assets = [raw_recordings, segments, segment_tables]
    assets += embeddings_assets if encode else []
    return dg.RunRequest(
        run_key=f"{arrival.batch_id}:{arrival.fingerprint}",
        partition_key=arrival.batch_id,
        asset_selection=[asset.key for asset in assets],
    )


def _nothing_arrived(pending: list[Arrival]) -> str:
    problems = [f"{arrival.batch_id}: {arrival.problem}" for arrival in pending if arrival.problem]
    arriving = [arrival.batch_id for arrival in pending if not arrival.arrived and not arrival.problem]
    reasons = [f"cannot be used: {'; '.join(problems)}"] if problems else []
    reasons += [f"still arriving: {', '.join(arriving)}"] if arriving else []
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
    job=retrain,
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def retraining(home: dg.ResourceParam[Home]) -> dg.RunRequest | dg.SkipReason:
    """Requests a training once enough participants are new in the split (setting `retrain_after_participants`)."""
    threshold = Settings.load(home).retrain_after_participants
    if not threshold:
        return dg.SkipReason("retrain_after_participants is 0: training waits for its weekly schedule")
    participants = read_split(home.split).num_rows if home.split.exists() else 0
    new = participants - participants_when_trained(home)
    if new < threshold:
        return dg.SkipReason(f"{new} participants are new since the last training; {threshold} are asked for")
    return dg.RunRequest(run_key=f"{participants} participants")


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def promotions(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> dg.SensorResult | dg.SkipReason:
    """Reports to Dagster which encoders were promoted or rolled back on the command line."""
    event = unreported_promotion(home, context.instance)
    return (
        dg.SensorResult(asset_events=[event]) if event else dg.SkipReason("Dagster knows which encoders are promoted")
    )


sensors = [arrivals, retraining, promotions]
