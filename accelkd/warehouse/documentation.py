"""What every table of a home holds, from the declarations of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa

from accelkd.cohort.split import LEDGER
from accelkd.home.columns import Column, Table
from accelkd.recordings.schema import BATCH_TABLES
from accelkd.registry.trained_on import TRAINED_ON
from accelkd.segments.schema import QUARANTINE, SEGMENT
from accelkd.warehouse.schema import EMBEDDING_FILES, TABLES, embeddings_table, mean_embeddings, schema_sql, sql_type

FILES = {
    "landing/<batch>/recordings/part-<number>.parquet": BATCH_TABLES["recordings"],
    **{f"landing/<batch>/{name}.parquet": table for name, table in BATCH_TABLES.items() if name != "recordings"},
    "segments/<batch>.arrow": SEGMENT,
    "quarantine/<batch>.parquet": QUARANTINE,
    "cohort/split.parquet": LEDGER,
    "cohort/trained_on/<encoder>/<model>.parquet": TRAINED_ON,
}


@dataclass(frozen=True)
class DocumentedTable:
    """A table of a home, as a reader finds it. `<encoder>` in a name stands for every encoder."""

    table: Table
    kind: Literal["file", "table", "view"]
    path: str | None = None  # of a file, relative to the home

    def type_of(self, column: Column) -> str:
        """Arrow's type of a column in a file, DuckDB's in the warehouse."""
        return _arrow_type(column.type) if self.kind == "file" else sql_type(column.type)


def documented_tables() -> tuple[DocumentedTable, ...]:
    """Every table in a home's files, in the order in which they are written, then the warehouse's tables and views."""
    return (
        *(DocumentedTable(table, "file", path) for path, table in FILES.items()),
        *(DocumentedTable(table, "table") for table in (*TABLES, embeddings_table(), EMBEDDING_FILES)),
        *(DocumentedTable(view, "view") for view in (*_views(), mean_embeddings())),
    )


def _views() -> list[Table]:
    """The views of views.sql, as a warehouse in which nothing has been loaded describes them."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(schema_sql())
        comments = {
            (view, column): comment
            for view, column, comment in connection.execute(
                "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
            ).fetchall()
        }
        views = connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY 1")
        return [
            Table(
                view,
                tuple(
                    Column(field.name, field.type, meaning=comments[view, field.name])
                    for field in connection.table(view).limit(0).to_arrow_table().schema
                ),
                meaning=comment,
            )
            for view, comment in views.fetchall()
        ]


def _arrow_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_arrow_type(kind.value_type)}"
    return {"halffloat": "float16"}.get(str(kind), str(kind))
