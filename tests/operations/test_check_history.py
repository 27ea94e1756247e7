"""The history of checks and of drift: what a check measured stays in the warehouse, and never costs the check."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from accelkd.cli import main
from accelkd.home.files import write_checksum
from accelkd.home.layout import Home
from accelkd.operations.checks import CHECKS, Verdict, check_batch, record_verdict
from accelkd.operations.promote import fill_tables
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.sensor_check import check_sensors
from accelkd.registry.history import decide
from accelkd.warehouse.publish import publish
from accelkd.warehouse.sensors import load_sensor_checks
from accelkd.warehouse.staging import staging
from tests.support.homes import copy_home, land, load_and_split, loaded_pair

BATCHES = ["b1", "b2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home") / "home")
    land(home, "b1", [f"p{i}" for i in range(8)])
    land(home, "b2", [f"q{i}" for i in range(4)])
    for batch_id, seen in (("b1", 25), ("b2", 13)):  # one window each is in quarantine
        table = pq.read_table(home.quarantine(batch_id))
        pq.write_table(table.replace_schema_metadata({"seen": str(seen)}), home.quarantine(batch_id))
        write_checksum(home.quarantine(batch_id))
    load_and_split(home, BATCHES)
    for batch_id in BATCHES:
        load_sensor_checks(home, batch_id, check_sensors(home, batch_id))
    decide(home, "promoted", loaded_pair(home, BATCHES), "test")
    fill_tables(home)
    publish(home)
    return home


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return copy_home(made, tmp_path / "home")


def rows(home: Home, sql: str, file: Path | None = None) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(file or home.staging), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def measured_again(home: Home, batch_id: str) -> dict[str, Verdict | str]:
    return {f"{check.asset}.{check.name}": verdict for check, verdict in check_batch(home, batch_id)}


def test_every_check_of_a_batch_is_a_row_with_what_was_measured(home: Home) -> None:
    verdicts = measured_again(home, "b2")
    kept = rows(
        home, "SELECT asset || '.' || check_name, batch_id, passed, severity, measured, run_id FROM check_results"
    )
    assert {row[0] for row in kept} == verdicts.keys() == {f"{c.asset}.{c.name}" for c in CHECKS if c.per_batch}
    blocking = {f"{check.asset}.{check.name}" for check in CHECKS if check.blocking}
    for name, batch_id, passed, severity, measured, run_id in kept:
        verdict = verdicts[name]
        assert isinstance(verdict, Verdict)
        assert (batch_id, passed, run_id) == ("b2", verdict.passed, None)
        assert severity == ("error" if name in blocking else "warning")
        assert json.loads(measured).keys() == verdict.measured.keys()


def test_drift_is_a_row_for_each_quantity_beside_its_threshold(home: Home) -> None:
    verdicts = measured_again(home, "b2")
    drifts = [drift for verdict in verdicts.values() if isinstance(verdict, Verdict) for drift in verdict.drifts]
    kept = rows(
        home,
        "SELECT quantity, difference, threshold, drifted, drift_history.batch_id, encoder IS NULL "
        "FROM drift_history JOIN check_results USING (number) ORDER BY number, quantity",
    )
    assert len(kept) == len(drifts) > 5
    assert sorted(row[:4] for row in kept) == sorted(
        (drift.quantity, drift.difference, drift.threshold, drift.drifted) for drift in drifts
    )
    assert {row[4] for row in kept} == {"b2"}
    assert {row[0]: row[5] for row in kept}["embedding"] is False
    assert rows(home, "SELECT DISTINCT encoder, count(model_id) FROM drift_history GROUP BY 1 ORDER BY 1") == [
        ("accel_student", 1),
        ("ppg_teacher", 1),
        (None, 0),
    ]


def test_the_same_result_is_kept_once_and_another_one_again(home: Home) -> None:
    measured_again(home, "b1")
    before = rows(home, "FROM check_results ORDER BY number")
    measured_again(replace(home, run_id="run-7"), "b1")
    assert rows(home, "FROM check_results ORDER BY number") == before
    with staging(home) as connection:
        connection.execute("DELETE FROM segments WHERE batch_id = 'b1' AND participant_id = 'p0'")
    for _ in range(2):
        measured_again(replace(home, run_id="run-8"), "b1")
    new = rows(home, f"SELECT asset, check_name, passed, run_id FROM check_results WHERE number > {len(before)}")
    assert ("segment_tables", "tables_hold_the_batch", False, "run-8") in new
    assert len(new) == len(set(new))
    record_verdict(home, "segments", "windows_add_up", Verdict(True, {"seen": 1}), batch_id="b1")
    record_verdict(home, "segments", "windows_add_up", Verdict(True, {"seen": 1}))  # of all batches: another check
    assert rows(home, "SELECT batch_id FROM check_results ORDER BY number DESC LIMIT 2") == [(None,), ("b1",)]


def test_the_command_keeps_what_it_measures(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "b2", "--home", str(home.root)])
    printed = capsys.readouterr().out
    assert rows(home, "SELECT count(*) FROM check_results") == [(printed.count("passed ") + printed.count("WARNING"),)]


def test_values_that_json_has_not_are_null(home: Home) -> None:
    record_verdict(home, "a", "c", Verdict(True, {"nan": float("nan"), "names": ["x"], "flag": True}))
    assert rows(home, "SELECT measured ->> 'nan', measured -> 'names', measured ->> 'flag' FROM check_results") == [
        (None, '["x"]', "true")
    ]


def test_history_is_no_content(home: Home) -> None:
    before = publish(home).content_version
    measured_again(home, "b1")
    (check,) = (check for check in CHECKS if check.name == "published_equals_staging")
    assert check.measure(home).passed  # though the history went on
    assert publish(home).content_version == before
    assert rows(home, "SELECT count(*) > 10 FROM check_results", home.published) == [(True,)]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "accelkd.warehouse.check_history"):
        yield caplog


def test_a_damaged_staging_file_costs_no_check(home: Home, warnings: pytest.LogCaptureFixture) -> None:
    home.staging.write_bytes(b"no database")
    (check,) = (check for check in CHECKS if check.name == "windows_add_up")
    assert check.measure(home, "b1").measured["segments"] == 24
    assert "windows_add_up is not in the history of checks" in warnings.text
    assert home.staging.read_bytes() == b"no database"


def test_a_lost_staging_file_is_not_replaced_by_an_empty_one(home: Home, warnings: pytest.LogCaptureFixture) -> None:
    home.staging.unlink()
    (check,) = (check for check in CHECKS if check.name == "windows_add_up")
    assert check.measure(home, "b1").passed is not None
    assert "is gone" in warnings.text
    assert not home.staging.exists()


@pytest.mark.parametrize("lost", [False, True])
def test_a_rebuilt_warehouse_keeps_the_history(home: Home, lost: bool) -> None:
    measured_again(home, "b2")
    publish(home)
    tables = ("check_results", "drift_history")
    before = {table: rows(home, f"FROM {table} ORDER BY ALL") for table in tables}
    assert all(before.values())
    if lost:
        home.staging.unlink()
    rebuild_warehouse(home)
    for file in (home.staging, home.published):
        assert {table: rows(home, f"FROM {table} ORDER BY ALL", file) for table in tables} == before
    record_verdict(home, "segments", "windows_add_up", Verdict(False, {}), batch_id="b2")
    assert rows(home, "SELECT max(number) FROM check_results") == [(len(before["check_results"]) + 1,)]
