"""What was measured of the accelerometers of each batch, as rows: whether they carry the heart."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from accelkd.evaluation.beat_locked import Agreement, SensorCheck, verdict
from accelkd.home.behaviour import code_stamp
from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.schema import SENSOR_CHECKS
from accelkd.warehouse.staging import staging

Row = dict[str, object]  # of sensor_checks


def sensor_rows(batch_id: str, checks: Sequence[SensorCheck]) -> list[Row]:
    """Rows of `sensor_checks`."""
    return [
        {
            "batch_id": batch_id,
            "device_id": check.device_id,
            "verdict": check.verdict,
            "reason": check.reason,
            "still_minutes": check.still_minutes,
            "tested_minutes": check.tested_minutes,
            "reference_minutes": check.reference_minutes,
            "locked_minutes": check.locked_minutes,
            "locked_share": check.locked_share,
            "locked_rms_mg": check.locked_rms_mg,
            "false_alarm_tests": check.false_alarm_tests,
            "false_alarm_share": check.false_alarm_share,
            "peak": check.peak,
            "bands_minutes": check.bands.segments,
            "bands_share": check.bands.share,
            "bands_by_chance": check.bands.by_chance,
        }
        for check in checks
    ]


def load_sensor_checks(home: Home, batch_id: str, checks: Sequence[SensorCheck]) -> str:
    """Replace a batch's rows, in one transaction; returns a hash of them. Raises LookupError if it was not loaded."""
    rows = sensor_rows(batch_id, checks)
    version = sha256_json(rows)
    with staging(home) as connection:
        inputs = [known_artifact(connection, kind, batch_id) for kind in ("batch", "segments", "tables")]
        if not connection.execute("SELECT 1 FROM batches WHERE batch_id = ?", [batch_id]).fetchall():
            raise LookupError(f"batch {batch_id} is not in the warehouse: materialize `segment_tables` first")
        connection.execute("DELETE FROM sensor_checks WHERE batch_id = ?", [batch_id])
        if rows:
            places = ", ".join("?" * len(SENSOR_CHECKS.names))
            connection.executemany(
                f"INSERT INTO sensor_checks ({', '.join(SENSOR_CHECKS.names)}) VALUES ({places})",
                [[row[name] for name in SENSOR_CHECKS.names] for row in rows],
            )
        record(
            connection, Artifact("sensors", batch_id, version, code_version=code_stamp("accelkd.evaluation")), inputs
        )
    return version


def read_sensor_checks(connection: duckdb.DuckDBPyConnection, batch_ids: Collection[str] | None = None) -> list[Row]:
    """Rows of `sensor_checks` of these batches, or of all, by batch and device."""
    rows = connection.execute(
        f"SELECT {', '.join(SENSOR_CHECKS.names)} FROM sensor_checks "
        "WHERE $batches IS NULL OR list_contains($batches, batch_id) ORDER BY batch_id, device_id",
        {"batches": None if batch_ids is None else sorted(batch_ids)},
    ).fetchall()
    return [dict(zip(SENSOR_CHECKS.names, row, strict=True)) for row in rows]


def pooled_sensors(
    connection: duckdb.DuckDBPyConnection, batch_ids: Collection[str] | None = None
) -> list[SensorCheck]:
    """What was measured of each device in these batches, or in all, together; sizes are means over the minutes."""
    rows = connection.sql(
        "SELECT device_id, sum(still_minutes)::BIGINT AS still_minutes, sum(tested_minutes)::BIGINT AS tested_minutes, "
        "sum(reference_minutes)::BIGINT AS reference_minutes, sum(locked_minutes)::BIGINT AS locked_minutes, "
        "sum(locked_rms_mg * tested_minutes) / nullif(sum(tested_minutes), 0) AS locked_rms_mg, "
        "sum(false_alarm_tests)::BIGINT AS false_alarm_tests, "
        "sum(false_alarm_share * false_alarm_tests) / nullif(sum(false_alarm_tests), 0) AS false_alarm_share, "
        "sum(peak * still_minutes) / nullif(sum(still_minutes) FILTER (peak IS NOT NULL), 0) AS peak, "
        "sum(bands_minutes)::BIGINT AS bands_minutes, "
        "sum(bands_share * bands_minutes) / nullif(sum(bands_minutes), 0) AS bands_share, "
        "sum(bands_by_chance * bands_minutes) / nullif(sum(bands_minutes), 0) AS bands_by_chance "
        "FROM sensor_checks WHERE $batches IS NULL OR list_contains($batches, batch_id) "
        "GROUP BY device_id ORDER BY device_id",
        params={"batches": None if batch_ids is None else sorted(batch_ids)},
    )
    sensors = []
    for row in rows.to_arrow_table().to_pylist():
        bands = Agreement(*(row.pop(f"bands_{name}") for name in ("minutes", "share", "by_chance")))
        carries, reason = verdict(row["tested_minutes"], row["locked_minutes"], row["false_alarm_share"], bands)
        sensors.append(SensorCheck(**row, bands=bands, verdict=carries, reason=reason))
    return sensors


def sensor_warnings(home: Home, batch_ids: Collection[str]) -> list[str]:
    """A sentence for each device whose accelerometer carries nothing in these batches; none without a warehouse."""
    if not home.staging.exists():
        return []
    with staging(home) as connection:
        return warnings_of(pooled_sensors(connection, batch_ids))


def warnings_of(sensors: Sequence[SensorCheck]) -> list[str]:
    """What a reader of results from these sensors has to know."""
    return [
        f"the accelerometer of {sensor.device_id} carries nothing of the heart: {sensor.reason}; "
        "distilling from it would distil noise"
        for sensor in sensors
        if sensor.verdict == "carries nothing"
    ]


def batch_sensor_checks(home: Home, batch_id: str) -> list[Row]:
    """Rows of `sensor_checks` of one batch, by device. Raises LookupError if its sensors were not checked."""
    with staging(home) as connection:
        try:
            known_artifact(connection, "sensors", batch_id)
        except LookupError:
            raise LookupError(f"the sensors of batch {batch_id} were not checked: materialize `sensor_check`") from None
        return read_sensor_checks(connection, [batch_id])
