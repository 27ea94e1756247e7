"""Every check on data that breaks what it watches, and on data that does not, run by Dagster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accelkd.home.files import write_checksum, write_json
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.sensor_check import check_sensors
from accelkd.registry.history import decide, make_candidate, promoted_models
from accelkd.segments.schema import SEGMENT
from accelkd.training.checkpoint import CONFIG, CURVE, read_config
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.sensors import load_sensor_checks
from accelkd.warehouse.staging import staging
from assets.metadata import COLUMNS
from orchestration.definitions import build_defs
from tests.support.homes import (
    checkpoint,
    copy_home,
    land,
    load_and_split,
    loaded_checkpoint,
    plant_embeddings,
)

BATCH = "b"
PEOPLE = [f"p{number}" for number in range(10)]
WIDTH = 16


@pytest.fixture
def home(healthy: Home, tmp_path: Path) -> Home:
    """A copy of the healthy home, to break."""
    return copy_home(healthy, tmp_path / "home")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A batch that went all the way to the published file, with noise as signals and embeddings."""
    home = Home(tmp_path_factory.mktemp("healthy"))
    Settings(preset="smoke").save(home)
    land(home, BATCH, PEOPLE)
    change_store(home, hr_bpm=71.0)  # the reference says 70
    change_quarantine(home, copies=1, seen=31)
    load_and_split(home, [BATCH])
    model_id = loaded_checkpoint(home, "ppg_teacher", [BATCH])
    decide(home, "promoted", {"ppg_teacher": model_id}, "the first")
    plant_embeddings(home, "ppg_teacher", model_id, [BATCH])
    publish(home)
    return home


def embed(home: Home, matrix: np.ndarray) -> None:
    """Put rows of `matrix` in the place of the embeddings of the batch."""
    plant_embeddings(home, "ppg_teacher", promoted_models(home)["ppg_teacher"], [BATCH], matrix)


def run_check(home: Home, asset: str, name: str) -> dg.AssetCheckEvaluation:
    """What Dagster keeps of one check."""
    defs = build_defs(home)
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    partitioned = defs.resolve_asset_graph().get(key.asset_key).is_partitioned
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("arrival_batch", [BATCH])
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.get_subset(asset_selection=set(), asset_check_selection={key}).execute_in_process(
            instance=instance,
            partition_key=BATCH if partitioned else None,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def change_store(home: Home, **columns: object) -> None:
    """Write the segment store again with other columns."""
    with pa.OSFile(str(home.segments(BATCH))) as source:
        table = pa.ipc.open_file(source).read_all()
    for name, values in columns.items():
        field = table.schema.field(name)
        array = values if isinstance(values, pa.Array) else pa.array([values] * len(table), field.type)
        table = table.set_column(table.schema.names.index(name), field.with_type(array.type), array)
    with pa.ipc.new_file(str(home.segments(BATCH)), table.schema) as writer:
        writer.write_table(table)
    write_checksum(home.segments(BATCH))


def change_quarantine(home: Home, *, copies: int, seen: int) -> None:
    """Write the quarantine again with more of its one row, and another number of windows seen."""
    table = pa.concat_tables([pq.read_table(home.quarantine(BATCH))] * copies)
    pq.write_table(table.replace_schema_metadata({"seen": str(seen), "gate": "strict"}), home.quarantine(BATCH))
    write_checksum(home.quarantine(BATCH))


def in_warehouse(sql: str) -> Callable[[Home], None]:
    def change(home: Home) -> None:
        with staging(home) as connection:
            connection.execute(sql)

    return change


def not_a_number(home: Home) -> None:
    signals = pa.array(np.full(30 * 3 * 3840, np.nan, np.float16))
    edges = pa.array(np.arange(31, dtype=np.int32) * 3 * 3840)
    change_store(home, accel=pa.ListArray.from_arrays(edges, signals))


def late_batch(home: Home) -> None:
    land(home, "late", ["nobody-has-placed-me"])
    load_batch(home, "late")


def one_direction(home: Home) -> None:
    embed(home, np.outer(np.random.default_rng(0).standard_normal(30), np.ones(WIDTH)) + 5)


def one_embedding_of_nothing(home: Home) -> None:
    matrix = np.random.default_rng(0).standard_normal((30, WIDTH))
    matrix[3] = 0
    embed(home, matrix)


# check, its asset, what breaks it, part of what it then says
BROKEN: dict[str, tuple[str, Callable[[Home], None], dict[str, object]]] = {
    "windows_add_up": ("segments", lambda home: change_quarantine(home, copies=1, seen=40), {"seen": 40}),
    "quarantine_rate": (
        "segments",
        lambda home: change_quarantine(home, copies=31, seen=61),
        {"quarantine_rate": 0.5082},
    ),
    "store_has_its_schema": (
        "segments",
        lambda home: change_store(home, offset_s=pa.array([1] * 30, pa.int32())),
        {"columns_that_differ": 1},
    ),
    "signals_are_finite": ("segments", not_a_number, {"accel_segments_not_finite": 30}),
    "labels_are_plausible": ("segments", lambda home: change_store(home, hr_bpm=250.0), {"implausible_labels": 30}),
    "tables_hold_the_batch": (
        "segment_tables",
        in_warehouse("DELETE FROM segments WHERE participant_id = 'p0' AND offset_s = 60"),
        {"rows": 29, "segments_in_store": 30},
    ),
    "minutes_are_unique": (
        "segment_tables",
        in_warehouse(
            "UPDATE segments SET started_at = '2026-03-01'::TIMESTAMPTZ + to_seconds(offset_s); "
            "UPDATE segments SET participant_id = 'p0' WHERE participant_id = 'p1'"
        ),
        {"segments_shared": 6},
    ),
    "every_segment_is_embedded": (
        "ppg_teacher_embeddings",
        in_warehouse("DELETE FROM embeddings.ppg_teacher WHERE participant_id = 'p0'"),
        {"embedded": 27},
    ),
    "one_model_per_table": (
        "ppg_teacher_embeddings",
        in_warehouse("UPDATE embeddings.ppg_teacher SET model_id = 'other' WHERE participant_id = 'p0'"),
        {"models": 2},
    ),
    "embeddings_have_not_collapsed": ("ppg_teacher_embeddings", one_direction, {"effective_rank_threshold": 1.5}),
    "published_equals_staging": (
        "published_warehouse",
        in_warehouse("UPDATE segments SET motion_median_g = motion_median_g + 1"),  # as many rows as before
        {"tables_that_differ": "segments"},
    ),
    "split_is_disjoint": (
        "participant_split",
        late_batch,
        {"on_no_side": 1},
    ),
    "split_is_balanced": (
        "participant_split",
        lambda home: Settings(preset="smoke", test_fraction=0.6).save(home),
        {"test_share": 0.2, "test_fraction": 0.6},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_check_passes_until_something_breaks(home: Home, name: str) -> None:
    asset, damage, expected = BROKEN[name]
    assert run_check(home, asset, name).passed
    damage(home)
    evaluation = run_check(home, asset, name)
    assert not evaluation.passed
    assert {key: evaluation.metadata[key].value for key in expected} == expected


def test_a_sensor_that_carries_nothing_is_reported_and_stops_nothing(home: Home) -> None:
    sensors = check_sensors(home, BATCH)
    carries = [replace(sensor, verdict="carries", reason="all are locked") for sensor in sensors]
    load_sensor_checks(home, BATCH, carries)
    assert run_check(home, "sensor_check", "accelerometer_carries_the_heart").passed
    load_sensor_checks(home, BATCH, sensors)  # noise
    evaluation = run_check(home, "sensor_check", "accelerometer_carries_the_heart")
    assert not evaluation.passed
    assert not evaluation.blocking
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["carries_nothing"].value == "sim-wrist-64"
    assert "would be by chance" in str(evaluation.metadata["details"].value)


def test_an_embedding_of_nothing_is_reported(home: Home) -> None:
    one_embedding_of_nothing(home)
    evaluation = run_check(home, "ppg_teacher_embeddings", "embeddings_have_not_collapsed")
    assert not evaluation.passed
    assert evaluation.metadata["norm_smallest"].value == 0


def test_a_loss_that_rises_is_reported(home: Home) -> None:
    model_id = checkpoint(home, "ppg_teacher", seed=1)
    make_candidate(home, "ppg_teacher", model_id, len(PEOPLE))
    assert run_check(home, "ppg_teacher", "loss_fell").passed
    curve = home.checkpoint("ppg_teacher", model_id) / CURVE
    pq.write_table(pa.table({"step": [0, 1], "loss": [1.0, 1.5]}), curve)
    evaluation = run_check(home, "ppg_teacher", "loss_fell")
    assert not evaluation.passed
    assert (evaluation.metadata["first"].value, evaluation.metadata["last"].value) == (1.0, 1.5)
    config = curve.with_name(CONFIG)
    content = read_config(curve.parent)
    content["config"]["start"] = "ppg-teacher-xs@0123456789abcdef"  # whose loss was low already
    write_json(config, content)
    assert not run_check(home, "ppg_teacher", "loss_fell").passed
    pq.write_table(pa.table({"step": [0, 1], "loss": [1.0, 1.05]}), curve)
    assert run_check(home, "ppg_teacher", "loss_fell").passed


def test_what_blocks_and_what_only_warns(home: Home) -> None:
    """What makes results wrong stops what is downstream; what a person has to judge does not."""
    graph = build_defs(home).resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {
        *("windows_add_up", "store_has_its_schema", "signals_are_finite", "tables_hold_the_batch"),
        *("split_is_disjoint", "every_segment_is_embedded", "one_model_per_table", "embeddings_have_not_collapsed"),
        "published_equals_staging",
    }


def test_every_asset_is_described(home: Home) -> None:
    graph = build_defs(home).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        asset = graph.get(key)
        assert asset.description, key
        assert asset.owners, key
        assert asset.kinds, key
        assert asset.group_name != "default", key
        assert {"data", "cadence"} <= asset.tags.keys(), key


def test_lineage_of_columns_leads_to_columns_that_are_there(home: Home) -> None:
    graph = build_defs(home).resolve_asset_graph()
    columns, sources = {}, {}
    for key in graph.get_all_asset_keys():
        metadata = graph.get(key).metadata
        if COLUMNS in metadata:
            columns[key] = {column.name for column in metadata[COLUMNS].value.columns}
        if "dagster/column_lineage" in metadata:
            sources[key] = metadata["dagster/column_lineage"].value.deps_by_column
    assert {key.to_user_string() for key in columns} >= {
        *("raw_recordings", "segments", "segment_tables", "participant_split", "retrieval", "published_warehouse"),
        *("ppg_teacher_embeddings", "accel_student_embeddings", "ppg_teacher_probes", "accel_student_probes"),
    }
    for key, by_column in sources.items():
        assert by_column.keys() <= columns[key], key
        for source in (source for sources_of_column in by_column.values() for source in sources_of_column):
            assert source.column_name in columns[source.asset_key], (key, source)
            assert source.asset_key in graph.get_ancestor_asset_keys(key), (key, source)
    tables = {column.partition(".")[0] for column in sources[dg.AssetKey("ppg_teacher_probes")]}
    assert tables == {"probe_results", "participant_probe_results", "probe_predictions"}
    assert set(SEGMENT.names) - sources[dg.AssetKey("segments")].keys() == {"batch_id"}  # the name of the partition
