"""docs/analysts.md on what the whole pipeline published: every query runs and says what is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from accelkd.cohort.split import AGE_BANDS, participants_on
from accelkd.cohort.training_set import MIN_SEGMENTS, training_set
from accelkd.operations.checks import CHECKS
from accelkd.registry.history import promoted_checkpoint
from tests.support import REPOSITORY
from tests.support.pipeline import Pipeline

Rows = list[dict[str, Any]]
DOCUMENT = (REPOSITORY / "docs" / "analysts.md").read_text(encoding="utf-8")
BATCHES: list[str | None] = ["sim-a", "sim-b"]
PUBLISHED = ".accelkd/warehouse/accelkd.duckdb"


def queries() -> dict[str, str]:
    """SQL of each question; a second query of the same question is called `<number>b`."""
    queries: dict[str, str] = {}
    for number, text in re.findall(r"^### (\d+)\. (.*?)(?=^##|\Z)", DOCUMENT, re.DOTALL | re.MULTILINE):
        for sql, suffix in zip(re.findall(r"```sql\n(.*?)```", text, re.DOTALL), ("", "b"), strict=False):
            queries[number + suffix] = sql
    return queries


QUERIES = queries()


@pytest.fixture
def warehouse(pipeline: Pipeline) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(pipeline.home.published), read_only=True) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> Rows:
    return connection.sql(sql).to_arrow_table().to_pylist()


def everything_is_commented(answer: Rows, _: Pipeline) -> None:
    assert all(row["comment"] for row in answer)


def sides_add_up(answer: Rows, pipeline: Pipeline) -> None:
    for side in ("train", "test"):
        (row,) = (row for row in answer if row["split"] == side)
        assert row["participants"] == len(participants_on(pipeline.home.split, side))


def hours_are_hours(answer: Rows, _: Pipeline) -> None:
    assert len({row["hour"] for row in answer}) == len(answer) > 12
    assert all(40 < row["hr_bpm"] < 180 for row in answer)


def every_segment_has_both(answer: Rows, _: Pipeline) -> None:
    assert len({row["segment_id"] for row in answer}) == len(answer) > 60
    assert all(row["ppg_embedding"] and row["accel_embedding"] and row["split"] for row in answer)


def nobody_twice(answer: Rows, _: Pipeline) -> None:
    assert len({row["participant_id"] for row in answer}) == len(answer) > 12
    assert {row["high_blood_pressure"] for row in answer} == {True, False}


def all_targets(answer: Rows, _: Pipeline) -> None:
    assert len(answer) == 46
    assert {row["yes"] + row["no"] + row["left_out"] for row in answer} == {24}


def places_follow_errors(answer: Rows, _: Pipeline) -> None:
    assert [row["place"] for row in answer] == [1, 2] * 3
    assert all(first["mae"] <= second["mae"] for first, second in zip(answer[::2], answer[1::2], strict=True))


def the_nearest_are_the_nearest(answer: Rows, pipeline: Pipeline) -> None:
    with duckdb.connect(str(pipeline.home.published), read_only=True) as connection:
        all_rows = rows(connection, "SELECT segment_id, embedding FROM embeddings.ppg_teacher ORDER BY segment_id")
    matrix = np.asarray([row["embedding"] for row in all_rows])
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    similarity = unit[1:] @ unit[0]
    assert [row["similarity"] for row in answer] == pytest.approx(np.sort(similarity)[:-11:-1].tolist(), abs=1e-5)


def raw_files_are_reached(answer: Rows, pipeline: Pipeline) -> None:
    paths = {row["path"] for row in answer}
    assert set(arrived(pipeline, ["sim-a", "sim-b"])) <= paths
    assert all(row["is_current"] for row in answer)
    made = [row for row in answer if str(row["artifact_id"]).partition(":")[0] not in ("file", "batch")]
    assert all(row["code_version"] for row in made)
    (cut,) = (row for row in answer if row["artifact_id"] == "segments:sim-a")
    assert '"gate": "strict"' in str(cut["configuration"])


def nothing(answer: Rows, _: Pipeline) -> None:
    assert answer == []


def training_participants(answer: Rows, pipeline: Pipeline) -> None:
    curated = training_set(pipeline.home)
    people = curated.store.metadata.column("participant_id").take(curated.rows)
    counts = {row["values"]: row["counts"] for row in people.value_counts().to_pylist()}
    enough = {participant: number for participant, number in counts.items() if number >= MIN_SEGMENTS}
    for encoder in ("ppg_teacher", "accel_student"):
        model_id = promoted_checkpoint(pipeline.home, encoder).name
        through = [row for row in answer if row["through_model_id"] == model_id]
        assert {row["participant_id"]: row["segments"] for row in through} == enough
    assert not set(enough) & participants_on(pipeline.home.split, "test")


def both_encoders(answer: Rows, _: Pipeline) -> None:
    assert [(row["encoder"], row["through"]) for row in answer] == [
        ("accel_student", ["accel_student", "ppg_teacher"]),
        ("ppg_teacher", ["ppg_teacher"]),
    ]


def everybody_once(answer: Rows, _: Pipeline) -> None:
    assert sum(row["participants"] for row in answer) == 24
    assert all(40 < row["hr_bpm"] < 180 for row in answer)
    assert all(row["age_band"] in AGE_BANDS and row["sex"] for row in answer)


def good_minutes(answer: Rows, _: Pipeline) -> None:
    assert 10 < len(answer) < 95
    assert all(row["hr_bpm"] and row["motion_p95_g"] < 0.03 for row in answer)


def groups_are_compared(answer: Rows, _: Pipeline) -> None:
    assert all(-1 <= row["similarity"] <= 1 for row in answer)


def most_similar_first(answer: Rows, _: Pipeline) -> None:
    assert len(answer) == 5
    assert [row["similarity"] for row in answer] == sorted((row["similarity"] for row in answer), reverse=True)


def own_pairs_are_closer(answer: Rows, _: Pipeline) -> None:
    own, others = answer
    assert (own["own_pair"], others["own_pair"]) == (True, False)
    assert others["pairs"] == own["pairs"] ** 2 - own["pairs"]
    assert own["similarity"] > others["similarity"]


def everything_is_embedded(answer: Rows, _: Pipeline) -> None:
    assert {row["state"] for row in answer} == {"embedded"}
    assert {row["encoder"] for row in answer} == {"ppg_teacher", "accel_student"}
    assert sum(row["segments"] for row in answer) == 2 * 95


def the_labelled_test_segments_are_predicted(answer: Rows, _: Pipeline) -> None:
    assert sum(row["segments"] for row in answer) == 95
    for row in answer:
        assert row["predicted"] == (row["segments"] if row["split"] == "test" and row["label_good"] else 0)


def the_second_batch_is_compared(answer: Rows, _: Pipeline) -> None:
    assert {row["batch_id"] for row in answer} == {"sim-b"}
    assert {row["encoder"] for row in answer} == {None, "ppg_teacher", "accel_student"}
    assert all(row["drifted"] == (row["ratio"] > 1) for row in answer)


def every_check_was_kept(answer: Rows, _: Pipeline) -> None:
    expected: set[tuple[str, str, str | None]] = set()
    for check in CHECKS:
        expected |= {(check.asset, check.name, batch) for batch in (BATCHES if check.per_batch else [None])}
    kept = {(row["asset"], row["check_name"], row["batch_id"]) for row in answer}
    # Measured after publishing: in the next published file
    after = ("published_equals_staging", "reports_are_current")
    assert expected - kept == {("published_warehouse", name, None) for name in after}
    assert all(row["run_id"] for row in answer)


def everybody_who_answered(answer: Rows, _: Pipeline) -> None:
    assert 0 < len({row["participant_id"] for row in answer}) == len(answer) <= 24


def afib_is_predicted_or_says_why_not(answer: Rows, _: Pipeline) -> None:
    assert [row["encoder"] for row in answer] == ["accel_student", "ppg_teacher"]
    for row in answer:
        assert (row["auc"] is None) == (row["not_decidable"] is not None)


def own_file_is_joined(answer: Rows, _: Pipeline) -> None:
    known, stranger = answer
    assert (known["participant_id"], known["arm"]) == ("sim3-000002", "A")
    assert known["age_band"] in AGE_BANDS
    assert len(known["embedding"]) == 16
    assert (stranger["arm"], stranger["embedding"]) == ("B", None)


def values_are_inside_their_intervals(answer: Rows, _: Pipeline) -> None:
    assert all(row["low"] <= row["hr_bpm"] <= row["high"] for row in answer)


def participants_are_read(answer: Rows, _: Pipeline) -> None:
    assert {"age", "bmi", "sex"} <= {row["target"] for row in answer}
    assert all((row["low"] is None) == (row["target"] not in ("age", "bmi")) for row in answer)


def everybody_is_first_of_the_groups(answer: Rows, pipeline: Pipeline) -> None:
    (everybody,) = (row for row in answer if row["attribute"] == "everybody")
    assert everybody["participants"] == len(participants_on(pipeline.home.split, "test"))
    assert {"sex", "age", "BMI", "skin tone", "device"} <= {row["attribute"] for row in answer}


EXPECTED: dict[str, Callable[[Rows, Pipeline], None]] = {
    "1": everything_is_commented,
    "1b": everything_is_commented,
    "2": everything_is_commented,
    "3": sides_add_up,
    "7": hours_are_hours,
    "8": every_segment_has_both,
    "9": nobody_twice,
    "10": all_targets,
    "11": places_follow_errors,
    "15": the_nearest_are_the_nearest,
    "17": raw_files_are_reached,
    "18": nothing,
    "20": training_participants,
    "20b": both_encoders,
    "21": everybody_once,
    "22": good_minutes,
    "23": groups_are_compared,
    "24": most_similar_first,
    "25": most_similar_first,
    "25b": own_pairs_are_closer,
    "26": everything_is_embedded,
    "26b": the_labelled_test_segments_are_predicted,
    "27": the_second_batch_is_compared,
    "28": every_check_was_kept,
    "29": everybody_who_answered,
    "29b": afib_is_predicted_or_says_why_not,
    "30": own_file_is_joined,
    "31": values_are_inside_their_intervals,
    "31b": participants_are_read,
    "32": everybody_is_first_of_the_groups,
}


def test_there_are_32_questions() -> None:
    assert list(dict.fromkeys(name.rstrip("b") for name in QUERIES)) == [str(number) for number in range(1, 33)]


@pytest.mark.parametrize("number", [number for number in QUERIES if number != "30b"])
def test_question(
    pipeline: Pipeline,
    warehouse: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: str,
) -> None:
    (tmp_path / "mine.csv").write_text("participant_id,arm\nsim3-000002,A\nstranger,B\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    answer = rows(warehouse, QUERIES[number])
    if number in EXPECTED:
        EXPECTED[number](answer, pipeline)
    else:
        assert answer


def test_a_query_is_taken_along_as_parquet(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    warehouse.execute(QUERIES["30b"])
    table = pl.read_parquet("minutes.parquet")
    assert table.columns == ["segment_id", "hr_bpm", "rmssd_ms", "embedding"]
    assert len(table) == 95


def test_questions_answer_in_an_attached_file(pipeline: Pipeline, warehouse: duckdb.DuckDBPyConnection) -> None:
    """After USE, as the document says: each as in the file itself."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{pipeline.home.published}' AS kd (READ_ONLY); USE kd")
        for number in ("8", "9", "15", "17", "20", "20b", "23", "24", "25"):
            assert rows(connection, QUERIES[number]) == rows(warehouse, QUERIES[number]), number


def test_the_python_section_runs_and_shares_memory(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    monkeypatch.chdir(pipeline.home.root.parent)
    names: dict[str, object] = {}
    exec(code.replace(PUBLISHED, str(pipeline.home.published)), names)
    exec(lines, names)
    assert len(names["participants"]) == 24  # type: ignore[arg-type]
    assert len(names["similar"]) == 5  # type: ignore[arg-type]
    table, frame, tensor = names["table"], names["frame"], names["embeddings"]
    assert isinstance(table, pa.Table)
    assert isinstance(frame, pl.DataFrame)
    assert isinstance(tensor, torch.Tensor)
    chunk = table.column("embedding").chunk(0)
    memory = chunk.values.buffers()[1].address
    assert tensor.shape == (95, chunk.type.list_size)
    assert tensor.data_ptr() == memory
    assert frame["embedding"].to_numpy().ctypes.data == memory
    assert torch.equal(tensor, torch.tensor(frame["embedding"].to_list()))


def test_a_database_of_ones_own_beside_it(pipeline: Pipeline) -> None:
    (sql,) = (sql for sql in re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL) if "ATTACH" in sql)
    with duckdb.connect() as connection:
        connection.execute(sql.replace(PUBLISHED, str(pipeline.home.published)))
        assert connection.execute("SELECT count(*) FROM mine").fetchall() == [(6,)]
        assert connection.execute("SELECT count(embedding) FROM groups").fetchall() == [(2,)]
        origins = connection.execute("SELECT artifact_id FROM origins").fetchall()
        assert {("report:report",), ("segments:sim-a",), ("split:ledger",)} <= set(origins)


def arrived(pipeline: Pipeline, batch_ids: list[str]) -> list[str]:
    """Every file of the batches in the landing zone, relative to the home, without the manifests."""
    return [
        path.relative_to(pipeline.home.root).as_posix()
        for batch_id in batch_ids
        for path in pipeline.home.batch(batch_id).rglob("*")
        if path.is_file() and path.name != "manifest.json"
    ]


def test_every_number_of_a_report_leads_to_every_raw_file(
    pipeline: Pipeline, warehouse: duckdb.DuckDBPyConnection
) -> None:
    results = warehouse.execute(
        "SELECT 'probe:' || encoder || '/' || model_id FROM probe_results "
        "UNION ALL SELECT 'probe:' || encoder || '/' || model_id FROM participant_probe_results "
        "UNION ALL SELECT 'retrieval:accel_student/' || model_id FROM retrieval_results, models "
        "WHERE encoder = 'accel_student' AND model_id IN (query_model_id, key_model_id)"
    ).fetchall()
    (numbers,) = warehouse.execute(
        "SELECT (SELECT count(*) FROM probe_results) + (SELECT count(*) FROM participant_probe_results) "
        "+ (SELECT count(*) FROM retrieval_results)"
    ).fetchall()
    assert len(results) == numbers[0] > 100
    files = set(arrived(pipeline, ["sim-a", "sim-b"]))
    assert len(files) >= 8
    for (artifact,) in set(results):
        reached = warehouse.execute(
            """
            WITH RECURSIVE behind AS (
                SELECT ? AS artifact_id
                UNION
                SELECT input_id FROM behind JOIN provenance.edges USING (artifact_id)
            )
            SELECT path FROM behind JOIN provenance.artifacts USING (artifact_id) WHERE kind = 'file'
            """,
            [artifact],
        ).fetchall()
        assert files <= {path for (path,) in reached}, artifact


def test_runs_of_the_warehouse_are_runs_of_the_orchestrator(
    pipeline: Pipeline, instance: dg.DagsterInstance, warehouse: duckdb.DuckDBPyConnection
) -> None:
    recorded = warehouse.execute("SELECT artifact_id, run_id FROM provenance.runs").fetchall()
    assert {artifact for artifact, _ in recorded} == {
        artifact for (artifact,) in warehouse.execute("SELECT artifact_id FROM provenance.artifacts").fetchall()
    }
    for asset, artifact in {
        "ppg_teacher": f"model:ppg_teacher/{promoted_checkpoint(pipeline.home, 'ppg_teacher').name}",
        "participant_split": "split:ledger",
        "written_report": "report:report",
    }.items():
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event is not None
        assert dict(recorded)[artifact] == event.run_id


def test_the_command_line_section_runs(pipeline: Pipeline, tmp_path: Path) -> None:
    (block,) = (code for code in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL) if "-csv" in code)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # an older DuckDB's command line lies beside Python
    subprocess.run(
        ["bash", "-euc", block.replace(PUBLISHED, str(pipeline.home.published))],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
        timeout=60,
    )
    assert (tmp_path / "leaderboard.csv").read_text(encoding="utf-8").count("\n") == 7
    assert pq.read_metadata(tmp_path / "segments.parquet").num_rows == 95
