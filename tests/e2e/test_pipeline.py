"""The whole pipeline on a small cohort: what a data engineer and an analyst rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

import orchestration.catch_up
from accelkd.cohort.split import participants_on
from accelkd.home.layout import Home
from accelkd.recordings.batches import MANIFEST
from accelkd.warehouse.summary import summary
from orchestration.catch_up import STAGES, catch_up
from orchestration.dagster_internals import CachingStaleStatusResolver, stale_status_resolver
from orchestration.definitions import build_defs
from tests.support.homes import new_home, simulate
from tests.support.pipeline import Pipeline


def test_everything_is_materialized_and_nothing_failed(pipeline: Pipeline, instance: dg.DagsterInstance) -> None:
    assert not pipeline.outcome.failed
    assert not pipeline.outcome.skipped
    graph = build_defs(pipeline.home).resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        by_hand = graph.get(key).tags["cadence"] == "manual"
        partitions = {"sim-a", "sim-b"} if graph.get(key).is_partitioned else set()
        assert (instance.get_latest_materialization_event(key) is None) == by_hand, key
        assert set(instance.get_materialized_partitions(key)) == partitions


def test_every_check_passes(pipeline: Pipeline, instance: dg.DagsterInstance) -> None:
    checks = build_defs(pipeline.home).resolve_asset_graph().asset_check_keys
    assert len(checks) >= 8
    for key in checks:
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        assert records, key
        for record in records:
            assert record.event is not None
            assert record.event.dagster_event is not None
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            assert evaluation.passed or evaluation.severity is dg.AssetCheckSeverity.WARN, (key, evaluation)


def test_a_second_run_does_nothing(
    pipeline: Pipeline, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(*arguments: Any) -> CachingStaleStatusResolver:
        made.append(stale_status_resolver(*arguments))
        return made[-1]

    monkeypatch.setattr(orchestration.catch_up, "stale_status_resolver", counted)
    outcome = catch_up(pipeline.home, instance)
    assert outcome.materialized == []
    assert len(made) <= len(STAGES)  # however many batches there are


def test_analyst_joins_embeddings_with_participants(pipeline: Pipeline) -> None:
    with duckdb.connect(str(pipeline.home.published), read_only=True) as connection:
        rows, widths, models = connection.execute(
            """
            SELECT count(*), count(DISTINCT len(teacher.embedding)), count(DISTINCT student.model_id)
            FROM embeddings.ppg_teacher teacher
            JOIN embeddings.accel_student student USING (segment_id, participant_id)
            JOIN participants USING (participant_id)
            WHERE age_years IS NOT NULL
            """
        ).fetchall()[0]
        segments = connection.execute("SELECT count(*) FROM segments").fetchall()[0][0]
        uncommented = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL AND NOT internal"
        ).fetchall()
    assert rows == segments > 60
    assert (widths, models) == (1, 1)
    assert uncommented == []


def test_no_participant_is_on_both_sides(pipeline: Pipeline) -> None:
    train, test = (participants_on(pipeline.home.split, side) for side in ("train", "test"))
    assert not train & test
    assert len(train | test) == 24
    assert abs(len(test) - 0.2 * 24) < 1


def test_windows_add_up(pipeline: Pipeline) -> None:
    with duckdb.connect(str(pipeline.home.published), read_only=True) as connection:
        for segments, quarantined, recordings in connection.execute(
            "SELECT segments, quarantined, recordings FROM batches"
        ).fetchall():
            assert segments + quarantined == recordings == 48  # one-minute recordings: one window each


def test_summary_names_what_a_newcomer_looks_for(pipeline: Pipeline) -> None:
    text = summary(pipeline.home.published)
    for word in ("participants", "recordings", "segments", "quarantined", "constant", "top-1"):
        assert word in text


def test_report_stands_on_disk(pipeline: Pipeline) -> None:
    text = (pipeline.home.reports / "report.md").read_text(encoding="utf-8")
    assert "heart rate" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (pipeline.home.reports / line.split("(")[1].rstrip(")")).is_file()


@pytest.fixture
def fresh(tmp_path: Path) -> Home:
    return new_home(tmp_path)


def test_a_damaged_batch_fails_alone_and_says_why(fresh: Home, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(fresh, "good", 0)
    simulate(fresh, "damaged", 12)
    with next((fresh.batch("damaged") / "recordings").iterdir()).open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 64)
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = catch_up(fresh, instance)
    assert outcome.failed == [("raw_recordings", "damaged")]
    assert "sha256" in capsys.readouterr().out
    with duckdb.connect(str(fresh.published), read_only=True) as connection:
        assert connection.execute("SELECT DISTINCT batch_id FROM embeddings.accel_student").fetchall() == [("good",)]


def test_a_batch_without_a_manifest_is_still_arriving(fresh: Home) -> None:
    simulate(fresh, "arriving", 0, participants=2)
    (fresh.batch("arriving") / MANIFEST).unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = catch_up(fresh, instance)
        assert instance.get_dynamic_partitions("arrival_batch") == []
    assert ("raw_recordings", "arriving") not in outcome.materialized
