"""What Dagster knows of problems is reported once, without a participant, and again when it is over."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from accelkd.home.layout import Home
from accelkd.operations.alerts import alert_status
from accelkd.recordings.arrivals import accept, refuse
from assets.partitions import arrival_batches
from orchestration.alerts import alerts, failed_runs
from tests.support.homes import land, new_home
from tests.support.pipeline import opened_instance

PSEUDONYM = "p-0815"


class Behaviour(dg.Config):
    fails: bool = False
    passes: bool = True


@dg.asset(partitions_def=arrival_batches)
def tables(config: Behaviour) -> None:
    if config.fails:
        raise OSError(f"participant {PSEUDONYM} cannot be read")


@dg.asset_check(asset=tables, partitions_def=arrival_batches, blocking=True)
def rows_add_up(config: Behaviour) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"rows": 7, "share": 0.123456, "who": PSEUDONYM, "whole": config.passes}
    return dg.AssetCheckResult(passed=config.passes, metadata=metadata)


@dg.asset_check(asset=tables, partitions_def=arrival_batches)
def looks_usual(config: Behaviour) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=config.passes, severity=dg.AssetCheckSeverity.WARN)


@dg.op
def clean(config: Behaviour) -> None:
    if config.fails:
        raise ValueError(PSEUDONYM)


@dg.job
def cleaning() -> None:
    clean()


class Platform:
    """One asset with two checks over a real instance, and ticks as the daemon makes them."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        make = dg.define_asset_job("make", dg.AssetSelection.assets(tables))
        self.defs = dg.Definitions(
            assets=[tables], asset_checks=[rows_add_up, looks_usual], jobs=[make, cleaning], resources={"home": home}
        )
        self.cursors: dict[str, str | None] = {}
        instance.add_dynamic_partitions(str(arrival_batches.name), ["b1", "b2"])
        kinds = ["run_failed", "check_error", "check_warning", "landing_zone", "overdue"]
        (home.root / "alerts.toml").write_text(f"[file.log]\nsend = {kinds}\n")
        self.tick()

    def make(self, batch: str, *, fails: bool = False, passes: bool = True) -> dg.ExecuteInProcessResult:
        config = {"config": {"fails": fails, "passes": passes}}
        ops = dict.fromkeys(("tables", "tables_rows_add_up", "tables_looks_usual"), config)
        return self._run("make", partition_key=batch, run_config={"ops": ops})

    def clean(self, *, fails: bool) -> dg.ExecuteInProcessResult:
        return self._run("cleaning", run_config={"ops": {"clean": {"config": {"fails": fails}}}})

    def _run(self, job: str, **options: Any) -> dg.ExecuteInProcessResult:
        definition = self.defs.resolve_job_def(job)
        return definition.execute_in_process(instance=self.instance, raise_on_error=False, **options)

    def tick(self) -> None:
        for sensor in (failed_runs, alerts):
            context = dg.build_sensor_context(
                self.instance,
                cursor=self.cursors.get(sensor.name),
                repository_def=self.defs.get_repository_def(),
                resources={"home": self.home},
            )
            self.cursors[sensor.name] = sensor.evaluate_tick(context).cursor

    def reported(self) -> list[str]:
        """What was reported since the last call, by ticks until nothing is new."""
        for _ in range(3):
            self.tick()
        path = self.home.root / "alerts" / "alerts.jsonl"
        text = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        assert PSEUDONYM not in text
        entries = [json.loads(line) for line in text.splitlines()]
        return [f"{entry['status']} {entry['kind']}: {entry['text']}" for entry in entries]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    home = new_home(tmp_path / "home")
    with opened_instance(home) as instance:
        yield Platform(home, instance)


def test_a_failed_run_is_reported_without_its_message_until_its_asset_is_there(platform: Platform) -> None:
    platform.make("b1")
    run = platform.make("b1", fails=True).run_id[:8]
    (line,) = platform.reported()
    assert line == f"new run_failed: job make failed in tables (OSError), batch b1; run {run}"
    platform.make("b1", fails=True)
    platform.make("b2")
    assert platform.reported() == []
    platform.make("b1")
    assert platform.reported() == [line.replace("new", "resolved", 1)]


@pytest.mark.parametrize(("retries", "reported"), [("2", []), ("0", ["job cleaning failed: its process is gone"])])
def test_a_run_that_is_started_again_is_not_reported(platform: Platform, retries: str, reported: list[str]) -> None:
    job = platform.defs.resolve_job_def("cleaning")
    run = platform.instance.create_run_for_job(job, tags={"dagster/max_retries": retries})
    platform.instance.report_run_failed(run, "killed")
    lines = platform.reported()
    assert [line.partition(": ")[2].partition(";")[0] for line in lines] == reported


def test_a_failed_job_is_over_when_it_succeeds(platform: Platform) -> None:
    platform.clean(fails=True)
    (line,) = platform.reported()
    assert line.startswith("new run_failed: job cleaning failed in clean (ValueError); run ")
    platform.clean(fails=False)
    assert platform.reported() == [line.replace("new", "resolved", 1)]


def test_failed_checks_are_reported_by_severity_until_they_pass(platform: Platform) -> None:
    platform.make("b1", passes=False)
    lines = platform.reported()
    assert lines == [
        "new check_error: check rows_add_up of tables failed, batch b1: rows 7, share 0.1235",
        "new check_warning: check looks_usual of tables failed, batch b1",
    ]
    platform.make("b1", passes=False)
    platform.make("b2")
    assert platform.reported() == []
    platform.make("b1", fails=True)  # checks are planned and never measured
    assert [line.split(":")[0] for line in platform.reported()] == ["new run_failed"]
    platform.make("b1")
    assert sorted(line.split(":")[0] for line in platform.reported()) == [
        "resolved check_error",
        "resolved check_warning",
        "resolved run_failed",
    ]


def test_problems_of_a_batch_end_when_a_correction_has_replaced_it(platform: Platform) -> None:
    platform.make("b1", passes=False)
    platform.make("b2", fails=True)
    assert len(platform.reported()) == 3
    for batch in ("b1", "b2"):
        platform.instance.delete_dynamic_partition(str(arrival_batches.name), batch)
    assert [line.split()[0] for line in platform.reported()] == ["resolved"] * 3
    assert alert_status(platform.home).open == []


def test_a_refused_batch_is_reported_once_for_the_same_files(platform: Platform) -> None:
    land(platform.home, "b3", ["p1"])
    assert platform.reported() == []
    refuse(platform.home, "b3", ["participants.parquet: sha256: damaged", "another reason"])
    text = "landing_zone: batch b3 cannot be used: participants.parquet: sha256: damaged"
    assert platform.reported() == [f"new {text}"]
    assert platform.reported() == []
    (platform.home.batch("b3") / "participants.parquet").write_bytes(b"x")
    refuse(platform.home, "b3", ["participants.parquet: sha256: damaged"])
    assert platform.reported() == [f"changed {text}"]
    accept(platform.home, "b3")
    assert platform.reported() == [f"resolved {text}"]


def test_an_overdue_asset_is_reported_until_it_is_not(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.alerts.freshness_states", lambda *_: {tables.key: "FAIL"})
    text = "overdue: tables was not materialized within its freshness window"
    assert platform.reported() == [f"new {text}"]
    monkeypatch.undo()
    assert platform.reported() == [f"resolved {text}"]


def test_without_alerts_toml_nothing_is_looked_at(platform: Platform) -> None:
    (platform.home.root / "alerts.toml").unlink()
    platform.make("b1", fails=True, passes=False)
    platform.tick()
    assert not (platform.home.root / "alerts" / "alerts.jsonl").exists()
    assert alert_status(platform.home).open == []


def test_a_bad_configuration_shows_in_the_tick_and_loses_no_failure(platform: Platform) -> None:
    good = (platform.home.root / "alerts.toml").read_text()
    (platform.home.root / "alerts.toml").write_text("[fil.log]\n")
    platform.make("b1", fails=True)
    assert platform.reported() == []
    (platform.home.root / "alerts.toml").write_text(good)
    assert [line.split(":")[0] for line in platform.reported()] == ["new run_failed"]
