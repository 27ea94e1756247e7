"""What every table of a home holds, from the declarations of its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from accelkd.cohort.split import LEDGER
from accelkd.home.columns import Column, Table
from accelkd.recordings.schema import BATCH_TABLES
from accelkd.registry.trained_on import TRAINED_ON
from accelkd.segments.schema import QUARANTINE, SEGMENT
from accelkd.warehouse.schema import TABLES, embeddings_table, mean_embeddings, schema_sql, sql_type


@dataclass(frozen=True)
class DocumentedTable:
    """A table, where it is, and what its columns are. `<encoder>` in a name stands for every encoder."""

    table: Table
    kind: Literal["file", "table", "view"]
    path: str | None = None  # of a file, relative to the home

    def type_of(self, column: Column) -> str:
        """Arrow's name of a column's type in a file, DuckDB's in the warehouse."""
        return str(column.type) if self.kind == "file" else sql_type(column.type)


def documented_tables() -> tuple[DocumentedTable, ...]:
    """Every table in a home's files, in the order in which they come to be, then the warehouse's tables and views."""
    files = {
        "landing/<batch>/recordings/part-<number>.parquet": BATCH_TABLES["recordings"],
        **{f"landing/<batch>/{name}.parquet": table for name, table in BATCH_TABLES.items() if name != "recordings"},
        "segments/<batch>.arrow": SEGMENT,
        "quarantine/<batch>.parquet": QUARANTINE,
        "cohort/split.parquet": LEDGER,
        "cohort/trained_on/<encoder>/<model>.parquet": TRAINED_ON,
    }
    return (
        *(DocumentedTable(table, "file", path) for path, table in files.items()),
        *(DocumentedTable(table, "table") for table in (*TABLES, embeddings_table())),
        *(DocumentedTable(view, "view") for view in (*_views(), mean_embeddings())),
    )


def columns_markdown(documented: DocumentedTable) -> str:
    """The columns of a table as a Markdown table."""
    rows = [
        (
            f"`{column.name}`",
            documented.type_of(column),
            column.unit or "",
            "yes" if column.nullable else "",
            column.meaning,
            ", ".join(f"`{source}`" for source in column.sources),
        )
        for column in documented.table.columns
    ]
    return _markdown(("column", "type", "unit", "null", "meaning", "computed from"), rows)


def tables_markdown(documented: Iterable[DocumentedTable]) -> str:
    """Tables with what a row of each is, as a Markdown table."""
    rows = [
        (f"`{table.table.name}`{' (view)' if table.kind == 'view' else ''}", table.table.meaning)
        for table in documented
    ]
    return _markdown(("table", "meaning"), rows)


def _views() -> list[Table]:
    """The views of views.sql, as a warehouse in which nothing has been loaded describes them."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(schema_sql())
        views = connection.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        comments = {
            (view, column): comment
            for view, column, comment in connection.execute(
                "SELECT table_name, column_name, comment FROM duckdb_columns()"
            ).fetchall()
        }
        return [
            Table(
                view,
                tuple(
                    Column(field.name, field.type, meaning=comments[view, field.name])
                    for field in connection.table(view).limit(0).to_arrow_table().schema
                ),
                meaning=comment,
            )
            for view, comment in views
        ]


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
