"""Rows of what was measured of the accelerometers: loaded by batch, published, gone with their batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from accelkd.evaluation.beat_locked import Agreement, SensorCheck
from accelkd.home.layout import Home
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.sensor_check import check_sensors
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.sensors import (
    batch_sensor_checks,
    load_sensor_checks,
    pooled_sensors,
    sensor_rows,
    sensor_warnings,
)
from accelkd.warehouse.staging import staging
from tests.support.homes import land

CHECK = SensorCheck(
    device_id="e4",
    still_minutes=278,
    tested_minutes=127,
    reference_minutes=0,
    locked_minutes=0,
    locked_rms_mg=0.09,
    false_alarm_tests=508,
    false_alarm_share=0.0138,
    peak=0.14,
    bands=Agreement(0, None, None),
    verdict="carries nothing",
    reason="0 of 127 minutes are locked to the beats, 1.4% would be by chance",
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land(home, "b1", ["p1", "p2"])
    load_batch(home, "b1")
    return home


def published_rows(home: Home) -> list[tuple[str, str, str]]:
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        return connection.execute("SELECT batch_id, device_id, verdict FROM sensor_checks ORDER BY ALL").fetchall()


def test_rows_replace_those_of_before_and_are_published(home: Home) -> None:
    first = load_sensor_checks(home, "b1", [CHECK, replace(CHECK, device_id="polar", verdict="carries")])
    assert batch_sensor_checks(home, "b1") == sensor_rows(
        "b1", [CHECK, replace(CHECK, device_id="polar", verdict="carries")]
    )
    second = load_sensor_checks(home, "b1", [CHECK])
    assert first != second == load_sensor_checks(home, "b1", [CHECK])
    assert published_rows(home) == [("b1", "e4", "carries nothing")]
    load_batch(home, "b1")  # the same again: what was measured of it holds
    assert published_rows(home) == [("b1", "e4", "carries nothing")]
    with staging(home) as connection:
        lineage = connection.execute("SELECT kind FROM lineage_of('sensors:b1')").fetchall()
    assert {"batch", "segments", "tables", "file"} <= {kind for (kind,) in lineage}


def test_rows_go_with_their_batch(home: Home) -> None:
    load_sensor_checks(home, "b1", [CHECK])
    land(home, "b2", ["p1"], prefix="corrected", replaces="b1")
    load_batch(home, "b2")
    assert published_rows(home) == []
    with pytest.raises(LookupError, match="batch b1 is not in the warehouse"):
        load_sensor_checks(home, "b1", [CHECK])


def test_batches_that_were_not_loaded_or_not_checked_are_named(home: Home) -> None:
    with pytest.raises(LookupError, match="the sensors of batch b1 were not checked: materialize `sensor_check`"):
        batch_sensor_checks(home, "b1")
    with pytest.raises(LookupError, match="b9"):
        load_sensor_checks(home, "b9", [CHECK])
    load_sensor_checks(home, "b1", [])
    assert batch_sensor_checks(home, "b1") == []


def test_what_small_batches_say_together(home: Home) -> None:
    land(home, "b2", ["p3"])
    load_batch(home, "b2")
    few = replace(
        CHECK, tested_minutes=12, still_minutes=12, false_alarm_tests=48, verdict="not decidable", reason="few"
    )
    for batch_id in ("b1", "b2"):
        load_sensor_checks(home, batch_id, [few, replace(few, device_id="polar", locked_minutes=12)])
    assert sensor_warnings(home, ["b1"]) == []
    assert sensor_warnings(home, ["b1", "b2"]) == [
        "the accelerometer of e4 carries nothing of the heart: 0 of 24 minutes are locked to the beats, 1.4% would be "
        "by chance; distilling from it would distil noise"
    ]
    with staging(home) as connection:
        e4, polar = pooled_sensors(connection)
    assert (polar.verdict, polar.locked_share, polar.false_alarm_tests) == ("carries", 1.0, 96)
    assert e4.locked_rms_mg == pytest.approx(0.09)
    assert sensor_warnings(Home(home.root / "nowhere"), ["b1"]) == []


def test_a_rebuilt_warehouse_measures_them_again(home: Home) -> None:
    load_sensor_checks(home, "b1", check_sensors(home, "b1"))
    before = batch_sensor_checks(home, "b1")
    assert [row["device_id"] for row in before] == ["sim-wrist-64"]
    rebuild_warehouse(home)
    assert batch_sensor_checks(home, "b1") == before
