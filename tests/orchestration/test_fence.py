"""A run that was given up, and lives on: the database takes nothing from it, whatever it does."""

from collections.abc import Iterator

import dagster as dg
import pytest

from accelkd.home.layout import Home
from orchestration.fence import fence_runs, run_is_alive
from tests.support.cluster_instance import cluster_instance
from tests.support.pipeline import opened_instance
from tests.support.services import Postgres


@pytest.fixture(scope="module")
def instance(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home = Home(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster_instance(home, postgres).items():
            patch.setenv(name, value)
        patch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # nothing is launched
        with opened_instance(home) as opened:
            fence_runs(opened)
            fence_runs(opened)  # as every process that launches runs does
            yield opened


@dg.asset
def given_up(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """In the middle of its own run somebody else gives the run up, as Dagster does when its machine does not answer."""
    assert run_is_alive(context.instance, context.run.run_id)
    if context.run.tags["ends as"] == "FAILURE":
        context.instance.report_run_failed(context.run)
    if context.run.tags["ends as"] == "CANCELED":
        context.instance.report_run_canceled(context.run)
    return dg.MaterializeResult()


def execute(instance: dg.DagsterInstance, ends_as: str) -> dg.DagsterRun:
    job = dg.Definitions([given_up]).resolve_implicit_global_asset_job_def()
    if ends_as == "SUCCESS":
        job.execute_in_process(instance=instance, tags={"ends as": ends_as})
    else:
        with pytest.raises(Exception, match=f"has ended as {ends_as}"):
            job.execute_in_process(instance=instance, tags={"ends as": ends_as})
    [run] = instance.get_runs(limit=1)
    return run


@pytest.mark.parametrize("ends_as", ["FAILURE", "CANCELED"])
def test_nothing_is_made_of_what_a_run_that_was_given_up_reports(instance: dg.DagsterInstance, ends_as: str) -> None:
    run = execute(instance, ends_as)
    assert run.status.value == ends_as
    assert not run_is_alive(instance, run.run_id)
    events = [entry.dagster_event_type for entry in instance.all_logs(run.run_id)]
    assert dg.DagsterEventType.STEP_START in events
    assert not {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION} & {*events}
    assert instance.get_latest_materialization_event(given_up.key) is None


def test_any_other_run_is_free(instance: dg.DagsterInstance) -> None:
    run = execute(instance, "SUCCESS")
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert not run_is_alive(instance, run.run_id)
    materialized = instance.get_latest_materialization_event(given_up.key)
    assert materialized is not None
    assert materialized.run_id == run.run_id
    assert not run_is_alive(instance, "a run that was deleted")


def test_a_storage_that_cannot_refuse_is_refused() -> None:
    with dg.DagsterInstance.ephemeral() as ephemeral, pytest.raises(ValueError, match="PostgreSQL"):
        fence_runs(ephemeral)
