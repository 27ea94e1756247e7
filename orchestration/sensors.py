"""Sensors: what arrives, what was promoted elsewhere, and when enough is new to train again."""

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

    Batches that cannot be used are told, with the reason, in the tick and in the check `landing_zone` of
    `raw_recordings`; they are tried again once their files change. While nothing changes, a tick costs one look at the
    landing zone.
    """
    before = json.loads(context.cursor) if context.cursor else {}
    changed_ns = home.landing.stat().st_mtime_ns if home.landing.is_dir() else 0
    if before.get("changed_ns") == changed_ns and not before.get("open") and not refused(home):
        return dg.SkipReason("nothing has changed in the landing zone")
    known = set(context.instance.get_dynamic_partitions(str(arrival_batches.name)))
    found = pending_arrivals(home, known)
    arrived = [one for one in found if one.arrived and not one.problem]
    verdict = check_result(landing_zone(found))
    why = hashlib.sha256(str([(one.batch_id, one.problem) for one in found if one.problem]).encode()).hexdigest()
    settled = time.time_ns() - changed_ns > _SETTLED_NS
    cursor = {
        "changed_ns": changed_ns if settled else 0,
        "open": len(arrived) > BATCHES_A_TICK or any(not one.arrived for one in found),
        "told": why,
    }
    now = arrived[:BATCHES_A_TICK]
    new = [one.batch_id for one in now if one.batch_id not in known]
    replaced = sorted(known & superseded(home).keys())
    for one in found:
        if one.problem:
            context.log.warning(f"batch {one.batch_id} cannot be used: {one.problem}")
    encode = bool(promoted_models(home))
    return dg.SensorResult(
        run_requests=[_request(one, encode=encode) for one in now],
        skip_reason=None if now else _nothing_arrived(found),
        dynamic_partitions_requests=[
            *([arrival_batches.build_add_request(new)] if new else []),
            *([arrival_batches.build_delete_request(replaced)] if replaced else []),
        ],
        asset_events=[_evaluation(verdict)] if why != before.get("told") else [],
        cursor=json.dumps(cursor),
    )


def _request(arrival: Arrival, *, encode: bool) -> dg.RunRequest:
    """The run of one batch; before the first encoders are in use, without embeddings."""
    assets = [raw_recordings, segments, segment_tables]
    assets += embeddings_assets if encode else []
    return dg.RunRequest(
        run_key=f"{arrival.batch_id}:{arrival.fingerprint}",
        partition_key=arrival.batch_id,
        asset_selection=[asset.key for asset in assets],
    )


def _nothing_arrived(found: list[Arrival]) -> str:
    problems = [f"{one.batch_id}: {one.problem}" for one in found if one.problem]
    arriving = [one.batch_id for one in found if not one.arrived and not one.problem]
    told = [f"cannot be used: {'; '.join(problems)}"] if problems else []
    told += [f"still arriving: {', '.join(arriving)}"] if arriving else []
    return ". ".join(told) or "no new batch in the landing zone"


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
    asked = Settings.load(home).retrain_after_participants
    if not asked:
        return dg.SkipReason("retrain_after_participants is 0: training waits for its weekly schedule")
    people = read_split(home.split).num_rows if home.split.exists() else 0
    new = people - participants_when_trained(home)
    if new < asked:
        return dg.SkipReason(f"{new} participants are new since the last training; {asked} are asked for")
    return dg.RunRequest(run_key=f"{people} participants")


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def promotions(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> dg.SensorResult | dg.SkipReason:
    """Tells Dagster of encoders that were promoted or rolled back on the command line."""
    event = unreported_promotion(home, context.instance)
    return dg.SensorResult(asset_events=[event]) if event else dg.SkipReason("Dagster knows which encoders are in use")


sensors = [arrivals, retraining, promotions]
