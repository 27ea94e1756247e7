"""Schedules and conditions on a real instance: what is stale or missing, and what only seems to be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.layout import Home
from accelkd.recordings.arrivals import refuse
from accelkd.registry.history import decide, promoted_checkpoint, promoted_models
from accelkd.training.checkpoint import WEIGHTS
from accelkd.warehouse.inspect import table_contents
from accelkd.warehouse.staging import staging
from assets.encoders import Training
from assets.partitions import arrival_batches
from orchestration.catch_up import catch_up as materialize_missing
from orchestration.dagster_internals import DATA_VERSION_TAG, PartitionBackfill, data_version
from orchestration.definitions import build_defs
from orchestration.freshness import Freshness
from orchestration.jobs import request_missing
from orchestration.outside import report_outside
from tests.support.damage import flip, flip_all
from tests.support.homes import copy_home, land, simulate
from tests.support.pipeline import Pipeline, materialize_batch, opened_instance

NAME = str(arrival_batches.name)


@pytest.fixture
def home(pipeline: Pipeline, tmp_path: Path) -> Home:
    """A copy of the home that the pipeline ran on."""
    return copy_home(pipeline.home, tmp_path / "home")


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with opened_instance(home) as opened:
        yield opened


def catch_up(home: Home, instance: dg.DagsterInstance) -> PartitionBackfill | None:
    requested = request_missing(home, instance, build_defs(home).resolve_asset_graph())
    return instance.get_backfill(requested[0]) if requested else None


def partitions_of(backfill: PartitionBackfill | None) -> dict[str, set[str]]:
    """Partitions by asset; the empty set for an asset without partitions."""
    assert backfill is not None
    assert backfill.asset_backfill_data is not None
    subset = backfill.asset_backfill_data.target_subset
    keys = {key.to_user_string(): set[str]() for key in subset.non_partitioned_asset_keys}
    return keys | {
        key.to_user_string(): set(partitions.get_partition_keys())
        for key, partitions in subset.partitions_subsets_by_asset_key.items()
    }


def names_to_materialize(home: Home, instance: dg.DagsterInstance) -> set[str]:
    """Assets without partitions that are stale or missing."""
    freshness = Freshness(home, instance, build_defs(home).resolve_asset_graph())
    return {key.to_user_string() for key, _ in freshness.stale_or_missing([], retrain=False)}


def test_the_nightly_catch_up_does_nothing_when_all_is_fresh(home: Home, instance: dg.DagsterInstance) -> None:
    assert catch_up(home, instance) is None
    assert instance.get_backfills() == []


def test_a_late_batch_is_one_backfill_and_a_refused_one_is_none(home: Home, instance: dg.DagsterInstance) -> None:
    for batch_id in ("late", "damaged"):
        land(home, batch_id, ["p1"])
    instance.add_dynamic_partitions(NAME, ["late", "damaged"])
    refuse(home, "damaged", ["sha256"])
    backfill = catch_up(home, instance)
    assert partitions_of(backfill) == {
        name: {"late"}
        for name in (
            "raw_recordings",
            "segments",
            "segment_tables",
            "ppg_teacher_embeddings",
            "accel_student_embeddings",
        )
    }
    again = catch_up(home, instance)  # the first one still runs
    assert again is not None
    assert backfill is not None
    assert again.backfill_id == backfill.backfill_id
    assert len(instance.get_backfills()) == 1


def test_a_rollback_makes_embeddings_stale(home: Home, instance: dg.DagsterInstance) -> None:
    student = promoted_checkpoint(home, "accel_student")
    shutil.copytree(student, student.with_name("another"))
    decide(home, "promoted", {**promoted_models(home), "accel_student": "another"}, "test")
    assert partitions_of(catch_up(home, instance)) == {
        name: {"sim-a", "sim-b"} for name in ("ppg_teacher_embeddings", "accel_student_embeddings")
    }
    reported = instance.get_latest_materialization_event(dg.AssetKey("promoted_encoders"))
    assert reported is not None
    report_outside(home, instance)  # there is nothing new to report
    assert instance.get_latest_materialization_event(dg.AssetKey("promoted_encoders")) == reported


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_damaged_promoted_checkpoint_is_trained_again_and_nothing_else(
    home: Home, instance: dg.DagsterInstance, damage: Callable[[Path], None]
) -> None:
    weights = promoted_checkpoint(home, "ppg_teacher") / WEIGHTS
    before = weights.read_bytes()
    damage(weights)
    assert partitions_of(catch_up(home, instance)) == {"ppg_teacher": set()}
    assert materialize_missing(home, instance, encoders="keep").materialized == [("ppg_teacher", None)]
    assert weights.read_bytes() == before
    assert materialize_missing(home, instance).materialized == []


def test_a_damaged_promoted_pair_gives_way_to_the_one_that_was_trained_last(
    home: Home, instance: dg.DagsterInstance
) -> None:
    decide(home, "promoted", {**promoted_models(home), "accel_student": "lost"}, "test")
    assert "promoted_encoders" in partitions_of(catch_up(home, instance))
    assert ("promoted_encoders", None) in materialize_missing(home, instance, encoders="keep").materialized
    assert promoted_checkpoint(home, "accel_student").name != "lost"
    assert materialize_missing(home, instance).materialized == []


def test_with_new_data_a_damaged_teacher_is_trained_again_with_its_student(
    home: Home, instance: dg.DagsterInstance
) -> None:
    split = dg.AssetMaterialization("participant_split", tags={DATA_VERSION_TAG: "another"})
    instance.report_runless_asset_event(split)
    encoders = {"ppg_teacher", "accel_student"}
    assert not encoders & names_to_materialize(home, instance)
    flip(promoted_checkpoint(home, "ppg_teacher") / WEIGHTS)
    assert encoders <= names_to_materialize(home, instance)


def land_late(home: Home, instance: dg.DagsterInstance) -> None:
    simulate(home, "late", 40, participants=2)
    instance.add_dynamic_partitions(NAME, ["late"])


def test_a_damaged_staging_file_is_rebuilt_after_a_catch_up_that_failed(
    home: Home, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    before = table_contents(home.published)
    flip_all(home.staging)
    assert materialize_missing(home, instance).materialized == []  # nothing needs the file
    simulate(home, "late", 40, participants=2)
    assert [batch for _, batch in materialize_missing(home, instance, encoders="keep").failed] == ["late"]
    assert not materialize_missing(home, instance, encoders="keep").failed
    assert "staging.duckdb is damaged or gone" in capsys.readouterr().out
    after = table_contents(home.published)
    assert after["batches"][0] == before["batches"][0] + 1
    assert after["models"] == before["models"]


def assets_of_late_batch(home: Home, instance: dg.DagsterInstance) -> set[str]:
    """Assets that are to be made again for the late batch, and for no other one."""
    partitions = {name: batches for name, batches in partitions_of(catch_up(home, instance)).items() if batches}
    assert set(map(frozenset, partitions.values())) == {frozenset({"late"})}
    return set(partitions)


def test_only_what_failed_is_made_again_and_what_lies_below_it(home: Home, instance: dg.DagsterInstance) -> None:
    land_late(home, instance)
    student = promoted_checkpoint(home, "accel_student")
    away = student.rename(student.with_name("away"))
    assert not materialize_batch(home, instance, "late").success
    away.rename(student)
    assert assets_of_late_batch(home, instance) == {"accel_student_embeddings"}


def test_what_a_failed_run_was_to_make_again_is_made_again(home: Home, instance: dg.DagsterInstance) -> None:
    land_late(home, instance)
    assert materialize_batch(home, instance, "late").success
    participants = home.batch("late") / "participants.parquet"
    away = participants.rename(home.root / "away")
    job = build_defs(home).resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in ("segment_tables", "accel_student_embeddings")]
    run = job.execute_in_process(instance=instance, partition_key="late", asset_selection=keys, raise_on_error=False)
    assert not run.success
    away.rename(participants)
    assert assets_of_late_batch(home, instance) == {"segment_tables", "accel_student_embeddings"}


def test_what_fails_a_blocking_check_is_made_again(home: Home, instance: dg.DagsterInstance) -> None:
    with staging(home) as connection:
        connection.execute("DELETE FROM segments WHERE batch_id = 'sim-a' AND offset_s = 0")
    check = dg.AssetCheckKey(dg.AssetKey("segment_tables"), "tables_hold_the_batch")
    job = build_defs(home).resolve_implicit_global_asset_job_def()
    subset = job.get_subset(asset_selection=set(), asset_check_selection={check})
    subset.execute_in_process(instance=instance, partition_key="sim-a", raise_on_error=False)
    assert partitions_of(catch_up(home, instance)) == {"segment_tables": {"sim-a"}}


def requests(result: dg.EvaluateAutomationConditionsResult) -> set[str]:
    names = ("ppg_teacher_probes", "accel_student_probes", "retrieval", "written_report", "published_warehouse")
    return {name for name in names if result.get_num_requested(dg.AssetKey(name))}


def test_reports_follow_what_changed_and_only_that(home: Home, instance: dg.DagsterInstance) -> None:
    defs = build_defs(home)
    state = dg.evaluate_automation_conditions(defs, instance)
    assert state.total_requested == 0
    key = dg.AssetKey("accel_student_embeddings")
    materializations = dg.AssetRecordsFilter(key, asset_partitions=["sim-a"])
    same = data_version(instance.fetch_materializations(materializations, limit=1).records[0])
    assert same is not None

    def materialize(version: str) -> dg.EvaluateAutomationConditionsResult:
        event = dg.AssetMaterialization(key, partition="sim-a", tags={DATA_VERSION_TAG: version})
        instance.report_runless_asset_event(event)
        return dg.evaluate_automation_conditions(defs, instance, cursor=state.cursor)

    state = materialize(same)  # made again, the same
    assert state.total_requested == 0
    state = materialize("another")
    assert requests(state) == {"accel_student_probes", "retrieval", "written_report", "published_warehouse"}


def test_a_failed_batch_does_not_hold_up_the_reports(home: Home, instance: dg.DagsterInstance) -> None:
    defs = build_defs(home)
    instance.add_dynamic_partitions(NAME, ["never-loaded"])
    state = dg.evaluate_automation_conditions(defs, instance)
    event = dg.AssetMaterialization("segment_tables", partition="sim-a", tags={DATA_VERSION_TAG: "another"})
    instance.report_runless_asset_event(event)
    state = dg.evaluate_automation_conditions(defs, instance, cursor=state.cursor)
    assert state.get_num_requested(dg.AssetKey("participant_split")) == 1


def test_the_shipped_instance_limits_writers_and_retries_only_dead_runs(pipeline: Pipeline) -> None:
    with opened_instance(pipeline.home) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
    graph = build_defs(pipeline.home)
    for name in ("ppg_teacher_embeddings", "segment_tables", "participant_split", "published_warehouse"):
        assert graph.get_assets_def(name).op.pool == "duckdb_writer"


def test_a_run_may_ask_for_another_training(pipeline: Pipeline) -> None:
    job = build_defs(pipeline.home).resolve_job_def("retrain")
    asked = {"preset": "demo", "steps": 7, "learning_rate": 0.001, "seed": 4, "device": "cpu"}
    assert dg.validate_run_config(job, {"ops": {"ppg_teacher": {"config": asked}}})
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, {"ops": {"ppg_teacher": {"config": {"preset": "huge"}}}})
    assert all(field.description for field in Training.model_fields.values())


def test_the_job_of_one_batch_reaches_its_embeddings(home: Home, instance: dg.DagsterInstance) -> None:
    simulate(home, "fine", 40, participants=2)
    assert materialize_batch(home, instance, "fine").success
    assert instance.get_materialized_partitions(dg.AssetKey("accel_student_embeddings")) == {"sim-a", "sim-b", "fine"}
