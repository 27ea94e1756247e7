"""Schedules and conditions on a real instance: what is stale or missing, and what only seems to be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from accelkd.cohort.split import participants_on
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.embed import EmbeddedBatch, embed_batch
from accelkd.operations.withdraw import withdraw
from accelkd.recordings.arrivals import refuse
from accelkd.registry.history import decide, promoted_checkpoint, promoted_models
from accelkd.training.checkpoint import WEIGHTS
from accelkd.warehouse.inspect import table_contents
from accelkd.warehouse.report_state import report_state
from accelkd.warehouse.staging import staging
from assets.encoders import Training
from assets.partitions import arrival_batches
from orchestration.catch_up import catch_up as materialize_missing
from orchestration.dagster_internals import DATA_VERSION_TAG, PartitionBackfill
from orchestration.definitions import build_defs
from orchestration.freshness import Freshness
from orchestration.jobs import request_missing
from orchestration.outside import report_outside
from orchestration.sensors import changes
from tests.support.damage import flip, flip_all
from tests.support.homes import copy_home, land, simulate
from tests.support.pipeline import Pipeline, materialize_batch, opened_instance

NAME = str(arrival_batches.name)
STARTED = dg.DagsterRunStatus.STARTED
EMBEDDING_ASSETS = [
    f"{encoder}_{kind}" for encoder in ("ppg_teacher", "accel_student") for kind in ("embedding_files", "embeddings")
]


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
            "sensor_check",
            *EMBEDDING_ASSETS,
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
    assert partitions_of(catch_up(home, instance)) == {name: {"sim-a", "sim-b"} for name in EMBEDDING_ASSETS}
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


def test_a_sensor_check_that_fails_costs_nothing_else(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_home: Home, _batch_id: str) -> None:
        raise ValueError("no sensor")

    with monkeypatch.context() as patched:
        patched.setattr("accelkd.operations.sensor_check.check_sensors", fail)
        land_late(home, instance)
        outcome = materialize_missing(home, instance, encoders="keep")
    assert outcome.failed == [("sensor_check", "late")]
    assert outcome.skipped == []
    assert {"segment_tables", "accel_student_embeddings", "published_warehouse"} <= {
        asset for asset, _ in outcome.materialized
    }
    assert table_contents(home.published)["batches"][0] == 3
    assert table_contents(home.published)["sensor_checks"][0] == 2
    outcome = materialize_missing(home, instance, encoders="keep")
    assert outcome.materialized[0] == ("sensor_check", "late")
    assert table_contents(home.published)["sensor_checks"][0] == 3


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
    assert {batch for _, batch in materialize_missing(home, instance, encoders="keep").failed} == {"late"}
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
    assert assets_of_late_batch(home, instance) == {"accel_student_embedding_files", "accel_student_embeddings"}


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


class Changes:
    """Ticks of the sensor `changes`, as the daemon makes them: its events are reported, its cursor is kept."""

    def __init__(self, home: Home, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = home, instance
        self.cursor: str | None = None
        while not isinstance(self.tick(), dg.SkipReason):  # until it has seen all that is there
            pass

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            self.instance,
            cursor=self.cursor,
            resources={"home": self.home},
            repository_def=build_defs(self.home).get_repository_def(),
        )
        result = changes(context)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor
            for event in result.asset_events or []:
                self.instance.report_runless_asset_event(event)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def requests(self) -> bool:
        """Whether the next ticks request a catch-up."""
        result = self.tick()
        while isinstance(result, dg.SensorResult) and not result.run_requests:
            result = self.tick()
        return isinstance(result, dg.SensorResult)


def test_a_catch_up_follows_what_others_have_materialized(home: Home, instance: dg.DagsterInstance) -> None:
    sensor = Changes(home, instance)
    assert materialize_missing(home, instance).materialized == []
    assert not sensor.requests()
    land_late(home, instance)
    assert ("published_warehouse", None) in materialize_missing(home, instance).materialized
    assert not sensor.requests()  # its own runs are no news
    event = dg.AssetMaterialization("segment_tables", partition="sim-a", tags={DATA_VERSION_TAG: "another"})
    instance.report_runless_asset_event(event)
    running = instance.create_run_for_job(build_defs(home).resolve_job_def("per_batch"), status=STARTED)
    assert "waiting for the runs in progress" in str(sensor.tick())
    instance.report_run_canceled(running)
    instance.create_run_for_job(build_defs(home).resolve_job_def("retrain"), status=STARTED)  # may last for weeks
    assert sensor.requests()
    assert not sensor.requests()


def test_a_catch_up_that_dagster_does_not_start_again_is_requested_again(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Changes(home, instance)
    run_config = {"ops": {"materialize_missing": {"config": {"arrived": ["sim-a"]}}}}
    run = instance.create_run_for_job(build_defs(home).resolve_job_def("catch_up"), run_config=run_config)
    instance.report_run_failed(run, "killed")
    assert not sensor.requests()  # Dagster still has its minute
    monkeypatch.setattr("orchestration.sensors._RETRIED_WITHIN_S", 0)
    result = sensor.tick()
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    (request,) = result.run_requests
    assert (request.run_key, request.run_config) == (f"instead of {run.run_id}", run_config)
    instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": "another"})
    assert not sensor.requests()


def test_a_promotion_elsewhere_and_a_changed_setting_request_a_catch_up(
    home: Home, instance: dg.DagsterInstance
) -> None:
    sensor = Changes(home, instance)
    decide(home, "promoted", {**promoted_models(home), "accel_student": "another"}, "test")
    assert sensor.requests()
    Settings(preset="smoke", hop_s=30.0).save(home)
    assert sensor.requests()
    assert not sensor.requests()


def test_a_withdrawal_requests_a_catch_up_that_makes_the_reports_without_them(
    home: Home, instance: dg.DagsterInstance
) -> None:
    sensor = Changes(home, instance)
    participant = min(participants_on(home.split, "test"))
    withdraw(home, participant)
    assert sensor.requests()
    outcome = materialize_missing(home, instance, encoders="wait", retry_failed=False)
    assert outcome.failed == []
    made = {name for name, _ in outcome.materialized}
    assert {"raw_recordings", "segment_tables", "accel_student_embeddings", "published_warehouse"} <= made
    assert report_state(home).mixed == ()
    assert materialize_missing(home, instance, encoders="wait").materialized == []
    assert not sensor.requests()


def test_a_changed_setting_makes_stale_what_it_changes_and_needs_no_reload(
    home: Home, instance: dg.DagsterInstance
) -> None:
    defs = build_defs(home)  # as a running UI holds them
    graph, job = defs.resolve_asset_graph(), defs.resolve_implicit_global_asset_job_def()

    def stale() -> set[tuple[str, str | None]]:
        targets = Freshness(home, instance, graph).stale_or_missing(["sim-a", "sim-b"], retrain=False)
        return {(key.to_user_string(), partition) for key, partition in targets}

    assert stale() == set()
    Settings(preset="smoke", motion_gate="loose").save(home)
    keys = [dg.AssetKey("segments")]
    assert job.execute_in_process(instance=instance, asset_selection=keys, partition_key="sim-a").success
    assert ("segments", "sim-a") not in stale()  # made with the setting, which the run has reported
    assert ("segments", "sim-b") in stale()
    assert "participant_split" not in {name for name, _ in stale()}  # has other settings
    Settings(preset="smoke").save(home)
    report_outside(home, instance)
    assert ("segments", "sim-a") in stale()
    assert ("segments", "sim-b") not in stale()


def test_what_failed_is_left_alone_until_an_input_changes(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(home: Home, encoder: str, batch_id: str) -> EmbeddedBatch:
        if encoder == "accel_student":
            raise RuntimeError("out of memory")
        return embed_batch(home, encoder, batch_id)

    land_late(home, instance)
    with monkeypatch.context() as patch:
        patch.setattr("accelkd.operations.embed.embed_batch", fails)
        first = materialize_missing(home, instance, encoders="wait", retry_failed=False)
    assert first.failed == [("accel_student_embeddings", "late")]
    again = materialize_missing(home, instance, encoders="wait", retry_failed=False)
    assert (again.materialized, again.failed) == ([], [])
    event = dg.AssetMaterialization("segment_tables", partition="late", tags={DATA_VERSION_TAG: "another"})
    instance.report_runless_asset_event(event)
    third = materialize_missing(home, instance, encoders="wait", retry_failed=False)
    assert ("accel_student_embeddings", "late") in third.materialized
    assert third.failed == []


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
    for name in ("raw_recordings", "segments", "ppg_teacher_embedding_files"):  # side by side
        assert graph.get_assets_def(name).op.pool is None


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
