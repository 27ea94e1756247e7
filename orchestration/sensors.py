"""Sensors only register partitions; conditions, jobs and people launch runs."""

import dagster as dg

from accelkd.lake import Lake
from accelkd.recordings.batches import MANIFEST
from assets.partitions import arrival_batches


def arrived_batches(lake: Lake) -> list[str]:
    """Batches in the landing zone whose manifest is there, by name; the others are still arriving."""
    return sorted(manifest.parent.name for manifest in lake.landing.glob(f"[!.]*/{MANIFEST}"))


@dg.sensor(
    description="Registers a partition for every batch that has arrived in the landing zone.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def arrivals(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult | dg.SkipReason:
    known = set(context.instance.get_dynamic_partitions(str(arrival_batches.name)))
    new = [batch_id for batch_id in arrived_batches(lake) if batch_id not in known]
    if not new:
        return dg.SkipReason("no new batch in the landing zone")
    return dg.SensorResult(dynamic_partitions_requests=[arrival_batches.build_add_request(new)])
