"""Reading embeddings: rows, labels and participants belong together, in whatever order the table holds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.home.layout import Home
from accelkd.warehouse.read_embeddings import copied_rows, numbered, people_of, read_embeddings
from accelkd.warehouse.schema import create, embeddings_table
from accelkd.warehouse.staging import staging

ROWS = 10_000  # two chunks
PEOPLE = 50
OUTSIDE = 7  # participant that is in no split


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Segment i has participant i mod 50, the heart rate i (every third none) and the embedding (i, -i)."""
    facts = (
        "md5(i::VARCHAR) AS segment_id, format('p{:02d}', i % $people) AS participant_id, 'b' AS batch_id "
        "FROM range($rows) t(i)"
    )
    numbers = {"rows": ROWS, "people": PEOPLE}
    with staging(Home(tmp_path)) as connection:
        connection.execute(create(embeddings_table("e", 2)))
        connection.execute(
            "INSERT INTO segments BY NAME SELECT md5(i::VARCHAR) AS recording_id, 'e4' AS device_id, 0 AS offset_s, "
            "0 AS motion_median_g, 0 AS motion_p95_g, true AS label_good, [0] AS ppg_status, [0] AS accel_status, "
            f"if(i % 3 = 0, NULL, i) AS hr_bpm, {facts}",
            numbers,
        )
        connection.execute(
            "INSERT INTO split BY NAME SELECT DISTINCT participant_id, if(participant_id < 'p10', 'test', 'train') "
            "AS split, 'male' AS sex, 'b' AS age_band, 'e4' AS device_id, 'b' AS batch_id FROM segments "
            f"WHERE participant_id <> 'p{OUTSIDE:02d}'"
        )
        for part in (0, 1, 0):  # the first half is loaded again behind the second one
            connection.execute("DELETE FROM embeddings.e WHERE (embedding[1] >= ?)::INTEGER = ?", [ROWS // 2, part])
            connection.execute(
                "INSERT INTO embeddings.e BY NAME "
                f"SELECT * FROM (SELECT 'm' AS model_id, [i, -i] AS embedding, {facts}) "
                "WHERE (embedding[1] >= $rows / 2)::INTEGER = $part ORDER BY hash(segment_id)",
                {**numbers, "part": part},
            )
    with staging(Home(tmp_path)) as connection:
        yield connection


@pytest.mark.parametrize("test_only", [False, True])
def test_each_row_keeps_its_embedding_label_and_participant(
    connection: duckdb.DuckDBPyConnection, test_only: bool, tmp_path: Path
) -> None:
    files = sorted(path.name for path in (tmp_path / "warehouse").iterdir())
    read = read_embeddings(connection, "e", test_only=test_only)
    number = read.matrix[:][:, 0].astype(int)
    ids = dict(connection.execute("SELECT md5(i::VARCHAR), i FROM range(?) t(i)", [ROWS]).fetchall())
    person = np.arange(ROWS) % PEOPLE
    wanted = np.flatnonzero((person != OUTSIDE) & ((person < 10) | (not test_only)))
    assert sorted(number.tolist()) == wanted.tolist()
    assert [ids[name] for name in read.segment_ids.to_pylist()] == number.tolist()
    assert read.segment_ids.to_pylist() == sorted(read.segment_ids.to_pylist())
    np.testing.assert_array_equal(read.matrix[:][:, 1], -number)
    np.testing.assert_array_equal(read.labels["hr_bpm"], np.where(number % 3 == 0, np.nan, number))
    assert read.participants.tolist() == [f"p{of:02d}" for of in (number % PEOPLE).tolist()]
    assert (read.in_test == (number % PEOPLE < 10)).all()
    assert sorted(path.name for path in (tmp_path / "warehouse").iterdir()) == files  # no file stays
    some = read.take(np.flatnonzero(read.in_test)[::-7])
    assert some.labelled().participants.tolist() == some.people.tolist()
    assert [ids[name] for name in some.segment_ids.to_pylist()] == some.matrix[:][:, 0].astype(int).tolist()
    people = people_of(connection, some)
    for name, mean in zip(people.participants, people.matrix, strict=True):
        assert mean[0] == pytest.approx(some.matrix[:][some.participants == name][:, 0].astype(np.float64).mean())


def test_nobody_in_test_and_nothing_in_the_split_are_said(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(LookupError, match="no embeddings of other in the warehouse"):
        read_embeddings(connection, "other", test_only=False)
    connection.execute("UPDATE split SET split = 'train'")
    with pytest.raises(NothingToMeasureError, match="nobody whose segments e embeds is in test"):
        read_embeddings(connection, "e", test_only=True)
    connection.execute("DELETE FROM split")
    with pytest.raises(LookupError, match="extend the split first"):
        read_embeddings(connection, "e", test_only=True)


def test_some_participants_are_copied_with_their_names(connection: duckdb.DuckDBPyConnection) -> None:
    wanted = ("participant_id", "WHERE list_contains(?, participant_id)", "segment_id")
    rows, matrix = copied_rows(connection, "e", *wanted, [["p07", "p03"]])
    assert rows.column_names == ["participant_id"]
    names, people = numbered(rows.column("participant_id"))
    assert names.tolist() == ["p03", "p07"]
    np.testing.assert_array_equal(np.array([3, 7])[people], matrix[:][:, 0].astype(int) % PEOPLE)
    assert len(matrix) == 2 * ROWS // PEOPLE
    rows, matrix = copied_rows(connection, "e", *wanted, [["nobody"]])
    assert (len(rows), matrix.shape) == (0, (0, 2))
