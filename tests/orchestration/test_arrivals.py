"""What happens by itself when something lands: the sensor, tick by tick."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.layout import Home
from accelkd.recordings.arrivals import STALLED_S, Supersession, accept, refuse, refused, supersede
from accelkd.recordings.batches import MANIFEST
from accelkd.reports.markdown import escape
from accelkd.warehouse.load import load_batch
from assets.partitions import arrival_batches
from orchestration.definitions import build_defs
from orchestration.sensors import arrivals
from tests.support.homes import land
from tests.support.odd_entries import GOOD, KINDS, no_longer_than

NAME = str(arrival_batches.name)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.landing.mkdir(parents=True)
    return home


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


class Sensor:
    """Ticks as the daemon does: the cursor goes from one to the next, partitions are registered in between."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, resources={"home": self.home})
        result = arrivals(context)
        if isinstance(result, dg.SkipReason):
            return dg.SensorResult(skip_reason=result)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(NAME, list(request.partition_keys))
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition(NAME, key)
        return result


@pytest.fixture
def sensor(home: Home, instance: dg.DagsterInstance) -> Sensor:
    return Sensor(home, instance)


def requested(result: dg.SensorResult) -> list[str]:
    """The batches of the catch-up that the tick requests; none if it requests none."""
    requests = result.run_requests or []
    assert len(requests) <= 1
    return [
        batch_id
        for request in requests
        for batch_id in request.run_config["ops"]["materialize_missing"]["config"]["arrived"]
    ]


def reported(result: dg.SensorResult) -> tuple[bool, str]:
    """The check that the tick reports: whether it passed, and its table of batches that cannot be used, if any."""
    (event,) = result.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.asset_key, event.check_name) == (dg.AssetKey("raw_recordings"), "landing_zone")
    details = event.metadata.get("details")
    return event.passed, "" if details is None else str(details.value)


def test_a_batch_that_has_arrived_is_registered_and_requested_once(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    first = sensor.tick()
    assert requested(first) == ["b1"]
    assert sensor.instance.get_dynamic_partitions(NAME) == ["b1"]
    land(home, "b1", ["p1"])  # the same again
    assert requested(sensor.tick()) == []


def test_batches_that_land_together_share_a_run(home: Home, sensor: Sensor) -> None:
    for batch_id in ("b2", "b1", "b3"):
        land(home, batch_id, ["p1"])
    assert requested(sensor.tick()) == ["b1", "b2", "b3"]


def test_what_lands_during_a_catch_up_waits_for_its_end(home: Home, sensor: Sensor) -> None:
    run = sensor.instance.create_run_for_job(build_defs(home).resolve_job_def("catch_up"))
    land(home, "b1", ["p1"])
    tick = sensor.tick()
    assert requested(tick) == []
    assert "wait for the end of a catch-up: b1" in str(tick.skip_reason)
    assert sensor.instance.get_dynamic_partitions(NAME) == []
    os.utime(home.landing, (1, 1))  # long ago: nothing else lands
    assert requested(sensor.tick()) == []
    sensor.instance.report_run_canceled(run)
    assert requested(sensor.tick()) == ["b1"]


def test_a_quiet_landing_zone_costs_one_look(home: Home, sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    land(home, "b1", ["p1"])
    os.utime(home.landing, (1, 1))  # long ago
    sensor.tick()
    monkeypatch.setattr(
        "orchestration.sensors.pending_arrivals", lambda *_: pytest.fail("looked into the landing zone")
    )
    assert "nothing has changed" in str(sensor.tick().skip_reason)


def test_an_unfinished_batch_waits_and_is_reported_when_it_stalls(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    manifest = (home.batch("b1") / MANIFEST).rename(home.root / "kept")
    tick = sensor.tick()
    assert requested(tick) == []
    assert "still arriving: b1" in str(tick.skip_reason)
    assert reported(tick) == (True, "")
    for path in (home.batch("b1"), *home.batch("b1").rglob("*")):
        os.utime(path, (time.time() - 2 * STALLED_S,) * 2)
    stalled = sensor.tick()
    passed, why = reported(stalled)
    assert not passed
    assert "no manifest.json" in why
    assert sensor.tick().asset_events == []  # reported once
    manifest.rename(home.batch("b1") / MANIFEST)
    done = sensor.tick()
    assert requested(done) == ["b1"]
    assert reported(done)[0]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [("schema_version", 99, "schema version is 99"), ("batch_id", "other", "batch 'other'"), ("files", 1, "be read")],
)
def test_an_unknown_manifest_is_reported_with_its_reason(
    home: Home, sensor: Sensor, field: str, value: object, why: str
) -> None:
    land(home, "b1", ["p1"])
    path = home.batch("b1") / MANIFEST
    good = path.read_text()
    path.write_text(json.dumps({**json.loads(good), field: value}))
    tick = sensor.tick()
    assert requested(tick) == []
    assert why in reported(tick)[1]
    assert why in str(tick.skip_reason)
    path.write_text(good)
    assert requested(sensor.tick()) == ["b1"]


def test_a_missing_file_is_reported(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    (home.batch("b1") / "participants.parquet").unlink()
    assert "participants.parquet" in reported(sensor.tick())[1]


def test_a_refused_batch_is_tried_again_when_its_files_change_and_only_then(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    first = sensor.tick()
    file = home.batch("b1") / "participants.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    refuse(home, "b1", ["participants.parquet: sha256: damaged"])  # as its run does
    tick = sensor.tick()
    assert requested(tick) == []
    passed, why = reported(tick)
    assert not passed
    assert "sha256: damaged" in why
    assert requested(sensor.tick()) == []
    file.write_bytes(content)
    again = sensor.tick()
    assert requested(again) == ["b1"]
    assert (again.run_requests or [])[0].run_key != (first.run_requests or [])[0].run_key
    accept(home, "b1")
    assert requested(sensor.tick()) == []


def test_a_superseded_batch_loses_its_partition_and_does_not_come_back(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    sensor.tick()
    supersede(home, Supersession("b1", "b2"))
    land(home, "b2", ["p1"])
    assert requested(sensor.tick()) == ["b2"]
    assert sensor.instance.get_dynamic_partitions(NAME) == ["b2"]
    assert requested(sensor.tick()) == []


def test_a_delivery_that_is_removed_before_it_was_loaded_is_forgotten(home: Home, sensor: Sensor) -> None:
    for batch_id in ("b0", "b1"):
        land(home, batch_id, ["p1"])
    sensor.tick()
    load_batch(home, "b0")
    refuse(home, "b1", ["participants.parquet: sha256: damaged"])  # as its run does
    assert not reported(sensor.tick())[0]
    shutil.rmtree(home.batch("b1"))
    assert reported(sensor.tick()) == (True, "")
    assert sensor.instance.get_dynamic_partitions(NAME) == ["b0"]
    assert refused(home) == {}


def test_a_loaded_batch_whose_folder_is_gone_is_reported_and_kept(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    sensor.tick()
    load_batch(home, "b1")
    shutil.rmtree(home.batch("b1"))
    passed, why = reported(sensor.tick())
    assert not passed
    assert "b1" in why
    assert sensor.instance.get_dynamic_partitions(NAME) == ["b1"]


def test_a_hostile_folder_name_is_reported_and_never_a_partition(home: Home, sensor: Sensor) -> None:
    land(home, "b1", ["p1"])
    home.batch("b1").rename(home.landing / "b1; DROP TABLE segments")
    tick = sensor.tick()
    assert requested(tick) == []
    assert "not an identifier" in reported(tick)[1]


def test_odd_entries_stop_no_good_batch_and_each_is_reported_under_its_name(home: Home, sensor: Sensor) -> None:
    land(home, GOOD, ["p1"])
    for kind in KINDS.values():
        kind.make(home.landing)
    with no_longer_than(20):
        started = time.monotonic()
        tick = sensor.tick()
        assert time.monotonic() - started < 10
    assert requested(tick) == [GOOD]
    assert sensor.instance.get_dynamic_partitions(NAME) == [GOOD]
    passed, table = reported(tick)
    assert not passed
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(KINDS)
    for kind in KINDS.values():
        assert any(escape(kind.shown) in row and escape(kind.problem) in row for row in rows), kind.shown
    again = sensor.tick()
    assert (requested(again), again.asset_events) == ([], [])  # reported once
