"""Macros of a published file, opened itself and attached under any name, and what they say of what is not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from accelkd.cohort.split import age_band
from accelkd.home.layout import Home
from accelkd.operations.promote import fill_tables
from accelkd.registry.history import decide
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support.homes import land, load_and_split, loaded_pair, segment_keys

CLI = Path(sys.executable).parent / "duckdb"  # of an earlier release than the module


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A pair of encoders that embedded and projected a batch; everything is published."""
    home = Home(tmp_path_factory.mktemp("home"))
    land(home, "b1", [f"p{i}" for i in range(8)])
    load_and_split(home, ["b1"])
    decide(home, "promoted", loaded_pair(home, ["b1"], trained_on=[("p1", "b1", 3), ("p2", "b1", 3)]), "test")
    fill_tables(home)
    publish(home)
    return home


@pytest.fixture(scope="module")
def calls(home: Home) -> dict[str, str]:
    """A call of every table macro, by its name."""
    segment = segment_keys(home, "b1")[0][4]
    with duckdb.connect(str(home.published), read_only=True) as connection:
        ((student,),) = connection.execute("SELECT model_id FROM models WHERE encoder = 'accel_student'").fetchall()
    return {
        "similar_segments": f"'ppg_teacher', '{segment}', 3",
        "matching_segments": f"'accel_student', '{segment}', 'ppg_teacher', 3",
        "participant_embedding": "'accel_student'",
        "similar_participants": "'accel_student', 'p1', 3",
        "lineage_of": "'split:ledger'",
        "participants_in": f"'{student}'",
        "checkpoints_with": "'p1'",
    }


Rows = list[tuple[Any, ...]]


@contextmanager
def opened(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(home.published), read_only=True) as connection:
        yield connection


@contextmanager
def attached(home: Home, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{home.published}' AS \"{name}\" (READ_ONLY)")
        yield connection


def test_every_macro_is_called(home: Home, calls: dict[str, str]) -> None:
    with opened(home) as connection:
        macros = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal")
        assert {name for (name,) in macros.fetchall()} == {*calls, "cosine_similarity", "mean_embedding"}


def test_macros_answer_in_an_attached_file_as_in_an_opened_one(home: Home, calls: dict[str, str]) -> None:
    with opened(home) as connection:
        expected = {macro: connection.execute(f"FROM {macro}({given})").fetchall() for macro, given in calls.items()}
    assert all(expected.values())
    for name in ("kd", "accelkd", "my ware-house"):
        with attached(home, name) as connection:
            for macro, given in calls.items():
                answer = connection.execute(f"FROM \"{name}\".{macro}({given}, catalog := '{name}')").fetchall()
                assert answer == expected[macro], (name, macro)
            connection.execute("CREATE TABLE own AS SELECT 'p1' AS participant_id")
            means = f"\"{name}\".participant_embedding('ppg_teacher', catalog := '{name}')"
            assert len(connection.execute(f"FROM own JOIN {means} USING (participant_id)").fetchall()) == 1
            connection.execute(f'USE "{name}"')
            for macro, given in calls.items():
                assert connection.execute(f"FROM {macro}({given})").fetchall() == expected[macro], (name, macro)


def test_functions_need_no_catalog(home: Home) -> None:
    with attached(home, "kd") as connection:
        rows = connection.execute(
            "SELECT len(kd.mean_embedding(embedding)), kd.cosine_similarity(max(embedding), max(embedding)) "
            "FROM kd.embeddings.ppg_teacher"
        ).fetchall()
    assert rows == [(16, pytest.approx(1))]


def test_the_command_line_of_an_earlier_duckdb_calls_them(home: Home, calls: dict[str, str], tmp_path: Path) -> None:
    copy = shutil.copy(home.published, tmp_path)
    queries = [f"FROM kd.{macro}({given}, catalog := 'kd')" for macro, given in calls.items()]
    queries.append("SELECT kd.mean_embedding(embedding) FROM kd.embeddings.ppg_teacher")
    script = "; ".join([f"ATTACH '{copy}' AS kd (READ_ONLY)", *queries, "USE kd", "FROM lineage_of('split:ledger')"])
    done = subprocess.run([CLI, "-csv", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("split:ledger") == 2


MISSPELT = {
    "FROM similar_segments('ppg_teecher', '{segment}', 3)": "ppg_teecher does not exist",
    "FROM similar_segments('ppg_teacher', 'nobody', 3)": "embeddings.ppg_teacher has no segment nobody",
    "SELECT count(*) FROM similar_segments('ppg_teacher', 'nobody', 3)": "has no segment nobody",
    "FROM similar_segments('ppg_teacher', NULL, 3)": "has no segment",
    "FROM matching_segments('accel_studnet', '{segment}', 'ppg_teacher', 3)": "accel_studnet does not exist",
    "FROM matching_segments('accel_student', '{segment}', 'ppg', 3)": "Table with name ppg does not exist",
    "FROM matching_segments('accel_student', 'nobody', 'ppg_teacher', 3)": "accel_student has no segment nobody",
    "FROM matching_segments('accel_student', NULL, 'ppg_teacher', 3)": "accel_student has no segment",
    "FROM participant_embedding('ppg')": "ppg__by_participant does not exist",
    "FROM similar_participants('ppg_teacher', 'p99', 3)": "embeddings.ppg_teacher has no participant p99",
    "FROM similar_participants('ppg', 'p1', 3)": "ppg__by_participant does not exist",
    "FROM similar_participants('ppg_teacher', NULL, 3)": "has no participant",
    "FROM lineage_of('report:reprot')": "there is no artifact report:reprot",
    "SELECT 1 FROM lineage_of(NULL)": "there is no artifact",
    "FROM lineage_of((SELECT artifact_id FROM probe_leaderboard))": "there is no artifact",
    "FROM participants_in('0')": "there is no model 0",
    "FROM participants_in(NULL)": "there is no model",
    "FROM checkpoints_with('p99')": "there is no participant p99",
    "FROM checkpoints_with(NULL)": "there is no participant",
}


@pytest.mark.parametrize("query", MISSPELT)
def test_what_is_not_there_is_an_error_and_no_empty_answer(home: Home, query: str) -> None:
    sql = query.format(segment=segment_keys(home, "b1")[0][0])
    with opened(home) as connection, pytest.raises(duckdb.Error, match=MISSPELT[query]):
        connection.execute(sql).fetchall()


def test_what_is_there_and_has_nothing_to_show_is_empty(home: Home) -> None:
    with opened(home) as connection:
        assert connection.execute("FROM checkpoints_with('p7')").fetchall() == []  # in no training set


def test_projections_in_another_space_are_an_error(home: Home, tmp_path: Path) -> None:
    copy = shutil.copy(home.published, tmp_path)
    segment = segment_keys(home, "b1")[0][0]
    call = f"FROM matching_segments('accel_student', '{segment}', 'ppg_teacher', 3)"
    with duckdb.connect(str(copy)) as connection:
        connection.execute("UPDATE embeddings.ppg_teacher SET projected_by = 'another'")
        with pytest.raises(duckdb.Error, match=r"embeddings.ppg_teacher has no projection in the space of"):
            connection.execute(call).fetchall()
        connection.execute("UPDATE embeddings.accel_student SET projected = NULL, projected_by = NULL")
        with pytest.raises(duckdb.Error, match=f"embeddings.accel_student has no projection of segment {segment}"):
            connection.execute(call).fetchall()


def test_matching_segments_are_the_nearest_of_the_other_encoder(home: Home, calls: dict[str, str]) -> None:
    segment = segment_keys(home, "b1")[0][4]
    with opened(home) as connection:
        answer = connection.execute(f"FROM matching_segments({calls['matching_segments']})").fetchall()
        keys = dict(connection.execute("SELECT segment_id, projected FROM embeddings.ppg_teacher").fetchall())
        own = connection.execute("SELECT projected FROM embeddings.accel_student WHERE segment_id = ?", [segment])
        ((query,),) = own.fetchall()

    def similarity(key: str) -> float:
        return float(np.dot(query, keys[key]) / np.linalg.norm(query) / np.linalg.norm(keys[key]))

    nearest = sorted(keys, key=similarity, reverse=True)[:3]
    assert [row[0] for row in answer] == nearest
    assert [row[2] for row in answer] == pytest.approx([similarity(key) for key in nearest], abs=1e-5)
    assert [row[3] for row in answer] == [key == segment for key in nearest]


def test_similar_participants_are_the_nearest_means(home: Home) -> None:
    with opened(home) as connection:
        means = dict(
            connection.execute("SELECT participant_id, embedding FROM participant_embedding('ppg_teacher')").fetchall()
        )
        answer = connection.execute("FROM similar_participants('ppg_teacher', 'p1', 2)").fetchall()

    def similarity(name: str) -> float:
        return float(np.dot(means["p1"], means[name]) / np.linalg.norm(means["p1"]) / np.linalg.norm(means[name]))

    nearest = sorted(means.keys() - {"p1"}, key=similarity, reverse=True)[:2]
    assert [row[0] for row in answer] == nearest
    assert [row[2] for row in answer] == [3, 3]


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ("([1, 2]), ([3, 6])", [2, 4]),
        ("([1, 2]), (NULL), ([3, 6]), ([8, 1])", [4, 3]),
        ("([5, 7])", [5, 7]),
        ("(NULL::FLOAT[2])", None),
    ],
)
def test_mean_embedding_is_the_mean_of_any_group(home: Home, values: str, mean: list[float] | None) -> None:
    with opened(home) as connection:
        query = f"SELECT mean_embedding(e::FLOAT[2]) FROM (VALUES {values}) AS t (e)"
        assert connection.execute(query).fetchall() == [(mean,)]
        assert connection.execute(f"{query} WHERE false").fetchall() == [(None,)]


def test_mean_embedding_of_a_participant_is_the_view_s(home: Home) -> None:
    with opened(home) as connection:
        rows = connection.execute(
            "SELECT any_value(v.embedding), mean_embedding(e.embedding) FROM embeddings.ppg_teacher AS e "
            "JOIN embeddings.ppg_teacher__by_participant AS v USING (participant_id) GROUP BY participant_id"
        ).fetchall()
    assert len(rows) == 8
    for view, macro in rows:
        assert macro == pytest.approx(list(view), abs=1e-6)


@pytest.mark.parametrize("age", [None, 18.0, 29.99, 30.0, 39.9, 40.0, 59.5, 60.0, 69.99, 70.0, 101.0, float("nan")])
def test_age_bands_are_those_of_the_split(tmp_path: Path, age: float | None) -> None:
    with staging(Home(tmp_path)) as connection:
        connection.execute("INSERT INTO demographics (participant_id, batch_id, age_years) VALUES ('p', 'b', ?)", [age])
        assert connection.execute("SELECT age_band FROM participants").fetchall() == [(age_band(age),)]
