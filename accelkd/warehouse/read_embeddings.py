"""The embeddings of an encoder with the labels of their segments, as reports and readouts take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.evaluation.matrix import StoredMatrix, store
from accelkd.evaluation.participant_probes import mean_embeddings, participant_targets
from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.recordings.labels import LABELS
from accelkd.warehouse.embeddings import encoder_table

_ROWS_READ = 8_192  # of embeddings, at a time


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of one encoder with the labels of their segments, ordered by segment."""

    model_id: str
    segment_ids: pa.LargeStringArray
    names: npt.NDArray[np.str_]  # of participants, sorted
    people: npt.NDArray[np.int32]  # position of each segment's participant among them
    in_test: npt.NDArray[np.bool_]
    labels: dict[str, npt.NDArray[np.float64]]  # NaN where a segment has none
    matrix: StoredMatrix  # [segments, width]

    @property
    def participants(self) -> npt.NDArray[np.str_]:
        """The participant of each segment by name, which takes far more memory than `people`."""
        return self.names[self.people]

    def take(self, rows: npt.NDArray[np.intp]) -> Embeddings:
        """The given rows."""
        return Embeddings(
            self.model_id,
            self.segment_ids.take(pa.array(rows)),
            self.names,
            self.people[rows],
            self.in_test[rows],
            {name: values[rows] for name, values in self.labels.items()},
            self.matrix.take(rows),
        )

    def labelled(self) -> LabelledEmbeddings:
        """The segments with their labels, participants by number."""
        matrix: Any = self.matrix
        return LabelledEmbeddings(matrix, self.people, self.labels)


def read_embeddings(connection: duckdb.DuckDBPyConnection, encoder: str, *, test_only: bool) -> Embeddings:
    """Embeddings of the participants in the split, or of its test side alone.

    The matrix lies in a file (`copied_rows`). Raises LookupError that says what is missing if there are none,
    NothingToMeasureError if nobody is in test.
    """
    table = encoder_table(encoder)
    query = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'embeddings' AND table_name = ?"
    if not connection.execute(query, [table]).fetchall():
        raise LookupError(f"no embeddings of {encoder} in the warehouse: embed a batch first")
    labels = ", ".join(f"coalesce({name}, 'nan') AS {name}" for name in LABELS)
    rows = connection.sql(
        f"SELECT e.rowid AS number, segment_id, participant_id, split = 'test' AS in_test, {labels} "
        f"FROM embeddings.{table} e JOIN segments USING (segment_id, participant_id) JOIN split USING (participant_id) "
        "WHERE split = 'test' OR NOT ? ORDER BY segment_id",
        params=[test_only],
    ).to_arrow_table()
    if not rows.num_rows:
        assigned = f"SELECT 1 FROM embeddings.{table} SEMI JOIN split USING (participant_id) LIMIT 1"
        if test_only and connection.execute(assigned).fetchall():
            raise NothingToMeasureError(f"nobody whose segments {encoder} embeds is in test")
        raise LookupError(f"no embeddings of {encoder} whose participants are in the split: extend the split first")
    model_ids = connection.execute(f"SELECT model_id FROM embeddings.{table} LIMIT 1").fetchall()
    names, people = numbered(rows.column("participant_id"))
    in_split = "JOIN split USING (participant_id) WHERE split = 'test' OR NOT ?"
    numbers, stored = copied_rows(connection, encoder, "e.rowid", in_split, [test_only])
    order = np.argsort(numbers.to_numpy(), kind="stable")
    places = order[np.searchsorted(numbers.to_numpy(), rows.column("number").to_numpy(), sorter=order)]
    return Embeddings(
        model_id=model_ids[0][0],
        segment_ids=rows.column("segment_id").cast(pa.large_string()).combine_chunks(),
        names=names,
        people=people,
        in_test=rows.column("in_test").to_numpy(),
        labels={name: rows.column(name).to_numpy() for name in LABELS},
        matrix=stored.take(places),
    )


def people_of(connection: duckdb.DuckDBPyConnection, side: Embeddings) -> LabelledEmbeddings:
    """The mean embeddings of a side's participants, with their targets: age, BMI, sex and those of the survey."""
    numbers, means = mean_embeddings(side.matrix, side.people)
    names = side.names[numbers]
    demographics = connection.sql("SELECT participant_id, sex, age_years, bmi_kg_m2 FROM participants").to_arrow_table()
    health = connection.sql("SELECT participant_id, target, value FROM participant_targets").to_arrow_table()
    return LabelledEmbeddings(means, names, participant_targets(demographics, health, names))


def numbered(participants: pa.ChunkedArray) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int32]]:
    """Names, sorted, and the position of each participant among them."""
    encoded = participants.combine_chunks().dictionary_encode()
    names, rank = np.unique(np.asarray(encoded.dictionary.to_pylist(), np.str_), return_inverse=True)
    return names, rank.astype(np.int32)[encoded.indices.to_numpy()]


def copied_rows(
    connection: duckdb.DuckDBPyConnection, encoder: str, column: str, source: str, parameters: Sequence[object]
) -> tuple[pa.ChunkedArray, StoredMatrix]:
    """A column of an encoder's table and its embeddings, in the order in which the table holds them.

    `source` is what follows the table's name in the query, where it is called `e`: joins and conditions. The embeddings
    are copied to a file without a name beside the warehouse, so that they need not fit into memory and can be read
    after the connection is closed.
    """
    table = f"embeddings.{encoder_table(encoder)}"
    path = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    folder = connection.execute(path).fetchall()[0][0]
    widths = connection.execute(f"SELECT len(embedding) FROM {table} LIMIT 1").fetchall()
    values: list[pa.Array] = []

    def parts() -> Iterator[npt.NDArray[np.float32]]:
        query = f"SELECT {column}, embedding FROM {table} e {source}"
        reader: pa.RecordBatchReader = connection.sql(query, params=parameters).to_arrow_reader(_ROWS_READ)
        for batch in reader:
            # A copy: the column alone would keep the memory of the whole batch
            values.append(batch.column(0).take(pa.array(np.arange(batch.num_rows))))
            yield batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)

    stored = store(parts(), widths[0][0] if widths else 0, Path(folder).parent if folder else None)
    return pa.chunked_array(values, None if values else pa.null()), stored
