"""Projected embeddings in the warehouse: in one space for teacher and student, and never two spaces in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch

from accelkd.home.layout import Home
from accelkd.models.heads import PROJECTED
from accelkd.operations.embed import embed_batch
from accelkd.operations.promote import fill_tables, roll_back
from accelkd.registry.history import decide
from accelkd.reports.report import retrieve_pairs
from accelkd.training.checkpoint import WEIGHTS, load_heads
from accelkd.warehouse.embeddings import embedding_table
from accelkd.warehouse.inspect import batch_embeddings, coverage
from accelkd.warehouse.publish import publish
from accelkd.warehouse.schema import PROJECTED_WIDTH
from accelkd.warehouse.staging import staging
from tests.support.homes import land_two_batches, loaded_checkpoint

BATCHES = ["b1", "b2"]
TEACHER, STUDENT = "ppg_teacher", "accel_student"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land_two_batches(home)
    return home


def promoted_pair(home: Home, *, seed: int, teacher: str | None = None) -> dict[str, str]:
    """An untrained student of a teacher, which is new unless it is given, both promoted."""
    teacher = teacher or loaded_checkpoint(home, TEACHER, BATCHES, seed=seed)
    student = loaded_checkpoint(home, STUDENT, BATCHES, seed=seed, teacher=teacher)
    decide(home, "promoted", {TEACHER: teacher, STUDENT: student}, "test")
    return {TEACHER: teacher, STUDENT: student}


def rows(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with staging(home) as connection:
        return connection.execute(sql).fetchall()


def spaces(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    """Model, student that projected, and number of rows of every embedding table that readers see."""
    query = "SELECT model_id, projected_by, count(*) FROM embeddings.{} GROUP BY ALL"
    return {encoder: rows(home, query.format(encoder)) for encoder in (TEACHER, STUDENT)}


def test_both_encoders_are_projected_by_the_heads_of_the_student(home: Home) -> None:
    pair = promoted_pair(home, seed=0)
    fill_tables(home)
    assert spaces(home) == {encoder: [(pair[encoder], pair[STUDENT], 36)] for encoder in (TEACHER, STUDENT)}
    heads = dict(zip((TEACHER, STUDENT), load_heads(home.checkpoint(STUDENT, pair[STUDENT])), strict=True))
    for encoder, head in heads.items():
        embedded = rows(home, f"SELECT embedding, projected FROM embeddings.{encoder} ORDER BY segment_id")
        with torch.inference_mode():
            expected = head(torch.tensor([row[0] for row in embedded])).numpy()
        np.testing.assert_allclose([row[1] for row in embedded], expected, atol=1e-5)
    assert PROJECTED_WIDTH == PROJECTED == len(embedded[0][1])


def test_a_student_s_retrieval_is_that_of_the_published_projections(home: Home) -> None:
    promoted_pair(home, seed=0)
    fill_tables(home)
    retrieve_pairs(home)
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        own_first = connection.execute(
            """
            WITH test AS (SELECT participant_id FROM split WHERE split = 'test'),
            ranked AS (
                SELECT
                    query.segment_id = key.segment_id AS own,
                    rank() OVER (
                        PARTITION BY query.segment_id
                        ORDER BY cosine_similarity(query.projected, key.projected) DESC
                    ) AS place
                FROM embeddings.accel_student AS query
                JOIN embeddings.ppg_teacher AS key USING (projected_by)
                WHERE query.participant_id IN (FROM test) AND key.participant_id IN (FROM test)
            )
            SELECT avg(place) FILTER (own), count(*) FILTER (own) FROM ranked
            """
        ).fetchall()
        reported = connection.execute(
            "SELECT mean_rank, segments FROM retrieval_results WHERE space = 'projected' "
            "AND query_encoder = 'accel_student'"
        ).fetchall()
    ((rank, segments),), ((mean_rank, pool),) = own_first, reported
    assert abs(rank / segments - mean_rank / pool) < 0.15  # pools are drawn with replacement


def test_an_encoder_without_heads_has_embeddings_and_no_projections(home: Home) -> None:
    teacher = loaded_checkpoint(home, TEACHER, BATCHES)
    decide(home, "promoted", {TEACHER: teacher}, "alone")
    fill_tables(home)
    assert rows(home, "SELECT count(embedding), count(projected), count(projected_by) FROM embeddings.ppg_teacher") == [
        (36, 0, 0)
    ]


def test_another_student_of_the_same_teacher_projects_both_again_and_swaps_them_at_once(home: Home) -> None:
    old = promoted_pair(home, seed=0)
    fill_tables(home)
    before = spaces(home)
    new = promoted_pair(home, seed=1, teacher=old[TEACHER])
    assert [embed_batch(home, TEACHER, batch_id, device="cpu").status for batch_id in BATCHES] == ["staged"] * 2
    assert embed_batch(home, STUDENT, "b1", device="cpu").status == "staged"
    assert spaces(home) == before  # readers see one space
    for encoder in (TEACHER, STUDENT):  # and checks look at each segment once
        assert coverage(home, encoder, "b1").embedded == 24
        assert batch_embeddings(home, encoder, ["b1"]).num_rows == 24
    assert embed_batch(home, STUDENT, "b2", device="cpu").status == "swapped in"
    assert spaces(home) == {encoder: [(new[encoder], new[STUDENT], 36)] for encoder in (TEACHER, STUDENT)}

    roll_back(home, "test")
    assert spaces(home) == before


def test_an_interrupted_projection_by_another_student_is_finished(home: Home) -> None:
    old = promoted_pair(home, seed=0)
    fill_tables(home)
    new = promoted_pair(home, seed=1, teacher=old[TEACHER])
    embed_batch(home, TEACHER, "b1", device="cpu")  # and then nothing more
    fill_tables(home)
    assert spaces(home) == {encoder: [(new[encoder], new[STUDENT], 36)] for encoder in (TEACHER, STUDENT)}


def test_embeddings_are_loaded_where_the_heads_cannot_be_read(home: Home) -> None:
    pair = promoted_pair(home, seed=0)
    fill_tables(home)
    (home.checkpoint(STUDENT, pair[STUDENT]) / WEIGHTS).write_bytes(b"damaged")
    assert embed_batch(home, TEACHER, "b1", device="cpu").status == "active"  # from its file
    assert rows(home, "SELECT count(projected) FROM embeddings.ppg_teacher") == [(36,)]
    home.embeddings(TEACHER, pair[TEACHER], "b1").unlink()
    assert embed_batch(home, TEACHER, "b1", device="cpu").status == "active"
    held = embedding_table(home, TEACHER)
    assert (held.rows, held.missing, held.projections) == (36, 0, 1)
    assert rows(home, "SELECT batch_id, count(projected) FROM embeddings.ppg_teacher GROUP BY 1 ORDER BY 1") == [
        ("b1", 0),
        ("b2", 12),
    ]


def test_a_file_without_projections_gets_them_from_the_next_embedding(home: Home) -> None:
    pair = promoted_pair(home, seed=0)
    fill_tables(home)
    with duckdb.connect(str(home.staging)) as connection:  # as an earlier version left it
        for encoder in (TEACHER, STUDENT):
            for column in ("projected", "projected_by"):
                connection.execute(f"ALTER TABLE embeddings.{encoder} DROP COLUMN {column}")
        connection.execute("UPDATE schema_version SET sha256 = 'older'")
    assert spaces(home) == {encoder: [(pair[encoder], None, 36)] for encoder in (TEACHER, STUDENT)}
    for encoder in (TEACHER, STUDENT):
        for batch_id in BATCHES:
            embed_batch(home, encoder, batch_id, device="cpu")
    assert spaces(home) == {encoder: [(pair[encoder], pair[STUDENT], 36)] for encoder in (TEACHER, STUDENT)}
    assert publish(home).rows["embeddings.ppg_teacher"] == 36
