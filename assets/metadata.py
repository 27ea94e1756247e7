"""How accelkd's results look in the Dagster UI: tables, schemas and figures as metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Literal

import dagster as dg
import pyarrow as pa

from accelkd.reports import markdown
from accelkd.warehouse.inspect import Column

Lineage = Mapping[str, Sequence[str]]  # a column, and the columns that it is made from as `asset.column`
Data = Literal["participant-level", "summaries"]
Cadence = Literal["each-batch", "each-training", "each-report", "manual"]


def tags(data: Data, cadence: Cadence) -> dict[str, str]:
    """Tags of an asset: whether it holds rows or signals of single people, and when it is made anew."""
    return {"data": data, "cadence": cadence}


def arrow_columns(schema: pa.Schema, comments: Mapping[str, str] | None = None) -> list[dg.TableColumn]:
    """The columns of an Arrow schema; described by `comments`, or by the `comment` in a field's metadata."""
    return [
        dg.TableColumn(
            field.name,
            str(field.type),
            description=(comments or {}).get(field.name)
            or (field.metadata or {}).get(b"comment", b"").decode()
            or None,
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in schema
    ]


def warehouse_columns(columns: Sequence[Column], tables: Sequence[str] | None = None) -> list[dg.TableColumn]:
    """Columns of the warehouse, of the given tables or of all; named `table.column` unless they are of one table."""
    return [
        dg.TableColumn(
            column.name if tables is not None and len(tables) == 1 else f"{column.table}.{column.name}",
            column.type,
            description=column.comment,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in columns
        if tables is None or column.table in tables
    ]


def table(columns: Sequence[dg.TableColumn], lineage: Lineage | None = None) -> dict[str, dg.MetadataValue]:
    """Metadata of an asset that is a table: its columns, and what each is made from.

    The UI shows the columns, but has no page for their lineage: so a column's description ends with it.
    """
    lineage = lineage or {}
    described = [
        dg.TableColumn(
            column.name,
            column.type,
            description=_with_sources(column.description, lineage.get(column.name, ())),
            constraints=column.constraints,
        )
        for column in columns
    ]
    dependencies = {
        name: [dg.TableColumnDep(*source.split(".", 1)) for source in sources] for name, sources in lineage.items()
    }
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(described))
    }
    if dependencies:
        metadata["dagster/column_lineage"] = dg.MetadataValue.column_lineage(dg.TableColumnLineage(dependencies))
    return metadata


def _with_sources(description: str | None, sources: Sequence[str]) -> str | None:
    return " ".join(filter(None, [description, f"← {', '.join(sources)}" if sources else None])) or None


def figure(png: bytes, caption: str) -> dg.MarkdownMetadataValue:
    """A PNG that shows inside the UI: Dagster has no image metadata, but it renders Markdown with a data URI."""
    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{base64.b64encode(png).decode()})")


def markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows with the same keys as a Markdown table; floats with four significant digits."""
    if not rows:
        return dg.MetadataValue.md("*none*")
    header = list(rows[0])
    values = ([row[name] for name in header] for row in rows)
    return dg.MetadataValue.md(markdown.table(header, values, floats=".4g", integers=""))


def counts_table(counts: Mapping[str, int], name: str) -> dg.MarkdownMetadataValue:
    """Counts by reason, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return markdown_table([{name: key, "count": count} for key, count in ordered])
