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
from accelkd.warehouse.embedding_relations import numbered_relation, relations
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
    if table not in relations(connection):
        raise LookupError(f"no embeddings of {encoder} in the warehouse: embed a batch first")
    labels = ", ".join(f"coalesce({name}, 'nan') AS {name}" for name in LABELS)
    rows, matrix = copied_rows(
        connection,
        encoder,
        f"segment_id, participant_id, split = 'test' AS in_test, {labels}",
        "JOIN segments USING (segment_id, participant_id) JOIN split USING (participant_id) "
        "WHERE split = 'test' OR NOT ?",
        "segment_id",
        [test_only],
    )
    if not rows.num_rows:
        assigned = f"SELECT 1 FROM embeddings.{table} SEMI JOIN split USING (participant_id) LIMIT 1"
        if test_only and connection.execute(assigned).fetchall():
            raise NothingToMeasureError(f"nobody whose segments {encoder} embeds is in test")
        raise LookupError(f"no embeddings of {encoder} whose participants are in the split: extend the split first")
    model_ids = connection.execute(f"SELECT model_id FROM embeddings.{table} LIMIT 1").fetchall()
    names, people = numbered(rows.column("participant_id"))
    return Embeddings(
        model_id=model_ids[0][0],
        segment_ids=rows.column("segment_id").cast(pa.large_string()).combine_chunks(),
        names=names,
        people=people,
        in_test=rows.column("in_test").to_numpy(),
        labels={name: rows.column(name).to_numpy() for name in LABELS},
        matrix=matrix,
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
    connection: duckdb.DuckDBPyConnection,
    encoder: str,
    columns: str,
    source: str,
    order: str,
    parameters: Sequence[object],
) -> tuple[pa.Table, StoredMatrix]:
    """Columns and embeddings of rows of an encoder's table, sorted by `order`; the embeddings lie in a file.

    The file has no name and lies beside the warehouse: embeddings need not fit into memory, and can be read after the
    connection is closed. `source` follows the table's name in the query: joins and conditions.
    """
    table = f"{numbered_relation(connection, encoder_table(encoder))} e {source}"
    rows = connection.sql(f"SELECT e.rowid AS number, {columns} FROM {table} ORDER BY {order}", params=parameters)
    wanted = rows.to_arrow_table()
    path = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    folder = connection.execute(path).fetchall()[0][0]
    # As the table holds them: DuckDB sorts wide rows in memory alone
    unsorted = connection.sql(f"SELECT e.rowid AS number, embedding FROM {table}", params=parameters)
    reader: pa.RecordBatchReader = unsorted.to_arrow_reader(_ROWS_READ)
    numbers = wanted.column("number").to_numpy()
    by_number = np.argsort(numbers, kind="stable")

    def parts() -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
        for batch in reader:
            places = by_number[np.searchsorted(numbers, batch.column("number").to_numpy(), sorter=by_number)]
            yield places, batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)

    shape = (len(wanted), reader.schema.field("embedding").type.list_size)
    return wanted.drop_columns(["number"]), store(parts(), shape, Path(folder).parent if folder else None)
