"""Old runs are deleted from Dagster's storage, and nothing becomes stale, forgotten or forgiven by that."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from assets.partitions import arrival_batches
from orchestration.dagster_internals import AssetGraph
from orchestration.definitions import build_defs
from orchestration.freshness import Freshness
from orchestration.retention import Tidied, delete_old_runs
from tests.support.homes import copy_home, new_home
from tests.support.pipeline import Pipeline, opened_instance

AT_ONCE = timedelta(0)


class Content(dg.Config):
    version: str = "1"


@dg.asset(partitions_def=arrival_batches, code_version="1")
def tables(config: Content) -> dg.MaterializeResult[None]:
    if config.version == "broken":
        raise OSError("broken")
    print("what a step prints")
    return dg.MaterializeResult(data_version=dg.DataVersion(config.version))


@dg.asset_check(asset=tables, partitions_def=arrival_batches)
def is_whole() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


@dg.asset(deps=[tables], code_version="1")
def report() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("1"))


class Platform:
    """Two assets and a check over a real SQLite instance."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = Home(root), instance
        selections = {
            "make_tables": dg.AssetSelection.assets(tables),
            "make_tables_unchecked": dg.AssetSelection.assets(tables).without_checks(),
            "make_report": dg.AssetSelection.assets(report),
        }
        jobs = [dg.define_asset_job(name, selection) for name, selection in selections.items()]
        self.defs = dg.Definitions(assets=[tables, report], asset_checks=[is_whole], jobs=jobs)
        self.graph: AssetGraph = self.defs.resolve_asset_graph()
        instance.add_dynamic_partitions(str(arrival_batches.name), ["b1", "b2"])

    def make(self, batch: str, version: str = "1", *, job: str = "make_tables") -> str:
        """Materialize the tables of a batch; the run's id."""
        config = {"ops": {"tables": {"config": {"version": version}}}}
        return self._run(job, partition_key=batch, run_config=config)

    def make_report(self) -> str:
        return self._run("make_report")

    def _run(self, job: str, **options: Any) -> str:
        definition = self.defs.resolve_job_def(job)
        return str(definition.execute_in_process(instance=self.instance, raise_on_error=False, **options).run_id)

    def stale(self) -> list[tuple[str, str | None]]:
        freshness = Freshness(self.home, self.instance, self.graph)
        targets = freshness.stale_or_missing(["b1", "b2"], retrain=True)
        return [(key.to_user_string(), partition) for key, partition in targets]

    def tidy(self, keep: timedelta = AT_ONCE) -> Tidied:
        return delete_old_runs(self.instance, self.graph, keep)

    def runs(self) -> set[str]:
        return {run.run_id for run in self.instance.get_runs()}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with opened_instance(new_home(tmp_path / "home")) as instance:
        yield Platform(tmp_path / "home", instance)


def test_superseded_runs_go_with_their_files_and_the_latest_stay(platform: Platform) -> None:
    first, second, other = (platform.make(batch) for batch in ("b1", "b1", "b2"))
    whole = platform.make_report()
    history, logs = platform.home.root / "dagster" / "history" / "runs", platform.home.root / "dagster" / "storage"
    assert (history / f"{first}.db").exists()
    tidied = platform.tidy()
    assert platform.runs() == {second, other, whole}
    assert (tidied.deleted, tidied.kept) == (1, 3)
    assert tidied.freed_bytes > 0
    assert not list(history.glob(f"{first}*"))
    assert not (logs / first).exists()
    assert (history / f"{second}.db").exists()
    assert platform.stale() == []
    assert platform.tidy().deleted == 0


def test_runs_that_are_not_old_stay(platform: Platform) -> None:
    platform.make("b1")
    platform.make("b1")
    assert platform.tidy(timedelta(days=1)) == Tidied(0, 0, 0)


def test_what_a_report_was_made_from_is_still_compared(platform: Platform) -> None:
    for batch in ("b1", "b2"):
        platform.make(batch, "1")
    platform.make_report()
    platform.make("b1", "1")  # the same again: the report stays fresh
    platform.tidy()
    assert platform.stale() == []
    platform.make("b2", "2")
    platform.make("b2", "2")
    assert platform.stale() == [("report", None)]
    platform.tidy()
    assert platform.stale() == [("report", None)]
    platform.make_report()
    assert platform.tidy().deleted > 0
    assert platform.stale() == []


def test_dagster_alone_would_call_the_report_stale(platform: Platform) -> None:
    """Why the run is kept that an input came from: without it the same version counts as another."""
    read = platform.make("b1", "1")
    platform.make("b2", "1")
    platform.make_report()
    platform.make("b1", "1")
    platform.instance.delete_run(read)
    assert platform.stale() == [("report", None)]


def test_a_failure_is_not_forgotten(platform: Platform) -> None:
    good = platform.make("b1")
    failed = platform.make("b1", "broken")
    platform.make("b2")
    platform.make_report()
    assert platform.stale() == [("tables", "b1")]
    platform.tidy()
    assert {good, failed} <= platform.runs()
    assert platform.stale() == [("tables", "b1")]
    platform.make("b1")
    platform.tidy()
    assert failed not in platform.runs()
    assert platform.stale() == []


def test_the_run_of_a_checks_last_verdict_stays(platform: Platform) -> None:
    checked = platform.make("b1")
    platform.make("b1", job="make_tables_unchecked")
    platform.tidy()
    assert checked in platform.runs()


def test_runs_of_a_superseded_batch_go(platform: Platform) -> None:
    gone = platform.make("b2")
    platform.instance.delete_dynamic_partition(str(arrival_batches.name), "b2")
    platform.tidy()
    assert gone not in platform.runs()


def test_a_home_stays_up_to_date_when_all_that_can_go_has_gone(pipeline: Pipeline, tmp_path: Path) -> None:
    home = copy_home(pipeline.home, tmp_path / "home")
    defs = build_defs(home)
    graph = defs.resolve_asset_graph()
    batches = ["sim-a", "sim-b"]
    with opened_instance(home) as instance:
        job = defs.resolve_job_def("per_batch")
        assert job.execute_in_process(instance=instance, partition_key="sim-a").success  # the same again
        runs = instance.get_runs_count()
        assert list(Freshness(home, instance, graph).stale_or_missing(batches, retrain=True)) == []
        Settings(preset="smoke", keep_runs_days=0).save(home)
        assert defs.resolve_job_def("tidy").execute_in_process(instance=instance).success
        assert instance.get_runs_count() == runs + 1  # for ever
        tidied = delete_old_runs(instance, graph, AT_ONCE)
        assert tidied.deleted >= 2
        assert tidied.deleted + tidied.kept == runs + 1
        assert list(Freshness(home, instance, graph).stale_or_missing(batches, retrain=True)) == []
