"""Sensors: whether the accelerometer of each device carries the heart. Nothing is stopped by it, and reports say it."""

from collections.abc import Mapping, Sequence

import dagster as dg

from accelkd.home.layout import Home
from accelkd.warehouse.schema import SENSOR_CHECKS
from assets.failures import explained
from assets.metadata import markdown_table, presented, tags, transposed, warehouse_tables
from assets.partitions import arrival_batches, current_batch
from assets.warehouse import segment_tables


@dg.asset(
    deps=[segment_tables],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"rust", "duckdb"},
    owners=["team:data-engineering", "team:research"],
    tags=tags("summaries", "each-batch"),
    pool="duckdb_writer",
    code_version="1",
    metadata={"dagster/table_name": SENSOR_CHECKS.name, **warehouse_tables([SENSOR_CHECKS])},
)
@explained
def sensor_check(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """Whether the accelerometer of each device of one batch carries the heart, by its still minutes.

    Where beats are known, their average of the acceleration is compared with that of shifted beats and of other
    people's; without beats, the rate of the recoil with that of the heart sounds. `accelkd check-sensor` measures the
    same.
    """
    from accelkd.operations.sensor_check import check_sensors  # imports SciPy
    from accelkd.warehouse.sensors import load_sensor_checks, sensor_rows

    batch_id = context.partition_key
    with current_batch(home, batch_id):
        checks = check_sensors(home, batch_id)
        version = load_sensor_checks(home, batch_id, checks)
    rows = sensor_rows(batch_id, checks)
    for row in rows:
        context.log.info(f"{row['device_id']}: {row['verdict']}: {row['reason']}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata=presented(
            {
                **_numbers(rows),
                "devices": markdown_table(
                    transposed([{name: row[name] for name in row if name != "batch_id"} for row in rows], "device_id")
                ),
                "dagster/row_count": len(rows),
                "dagster/uri": str(home.staging),
            }
        ),
    )


def _numbers(rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Numbers to plot, of each device."""
    measures = ("tested_minutes", "locked_share", "locked_rms_mg", "false_alarm_share", "bands_share", "peak")
    return {f"{row['device_id']}_{measure}": row[measure] for row in rows for measure in measures}
