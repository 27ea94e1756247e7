"""How accelkd's results look in the Dagster UI: tables, schemas and figures as metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Literal

import dagster as dg
import pyarrow as pa

from accelkd.home.columns import Column, Table
from accelkd.models.specs import ENCODERS
from accelkd.reports import markdown
from accelkd.warehouse.schema import (
    BATCH_TABLES,
    PARTICIPANT_PROBE_RESULTS,
    PROBE_PREDICTIONS,
    PROBE_RESULTS,
    embeddings_table,
    sql_type,
)

Data = Literal["participant-level", "summaries"]
Cadence = Literal["each-batch", "each-training", "each-report", "manual"]
_ENCODERS = [spec.name for spec in ENCODERS]


def tags(data: Data, cadence: Cadence) -> dict[str, str]:
    """Tags of an asset: whether it holds rows or signals of single participants, and how often it is materialized."""
    return {"data": data, "cadence": cadence}


def file_table(table: Table, schema: pa.Schema | None = None) -> dict[str, dg.MetadataValue]:
    """Metadata of an asset that is a table in files, of the given Arrow schema: its columns and their sources."""
    types = {field.name: str(field.type) for field in schema or table.arrow()}
    origins = _origins(_ENCODERS)
    return _columns({column.name: (column, types[column.name], _sources(column, origins)) for column in table.columns})


def warehouse_tables(tables: Sequence[Table], encoders: Sequence[str] = _ENCODERS) -> dict[str, dg.MetadataValue]:
    """Metadata of an asset that is tables of the warehouse: their columns, `table.column` where there are several.

    `encoders` are those whose embeddings it was made from.
    """
    origins = _origins(encoders)
    return _columns(
        {
            column.name if len(tables) == 1 else f"{table.name}.{column.name}": (
                column,
                sql_type(column.type),
                _sources(column, origins),
            )
            for table in tables
            for column in table.columns
        }
    )


def copied_tables(tables: Sequence[Table]) -> dict[str, dg.MetadataValue]:
    """Metadata of an asset that is a copy of warehouse tables: each column's source is the same one of the original."""
    origins = _origins(_ENCODERS)
    return _columns(
        {
            f"{table.name}.{column.name}": (
                column,
                sql_type(column.type),
                [f"{origin}{column.name}" for origin in origins.get(table.name, ())],
            )
            for table in tables
            for column in table.columns
        }
    )


def _origins(encoders: Sequence[str]) -> dict[str, list[str]]:
    """The asset that makes each table, with the prefix that the table's columns have in it."""
    return {
        "landing.recordings": ["raw_recordings."],
        "store.segments": ["segments."],
        **{table.name: [f"segment_tables.{table.name}."] for table in BATCH_TABLES},
        "split": ["participant_split."],
        embeddings_table().name: [f"{encoder}_embeddings." for encoder in encoders],
        **{embeddings_table(encoder).name: [f"{encoder}_embeddings."] for encoder in encoders},
        **{
            table.name: [f"{encoder}_probes.{table.name}." for encoder in encoders]
            for table in (PROBE_RESULTS, PARTICIPANT_PROBE_RESULTS, PROBE_PREDICTIONS)
        },
        "retrieval_results": ["retrieval."],
    }


def _sources(column: Column, origins: Mapping[str, Sequence[str]]) -> list[str]:
    """What a column is computed from, as `asset.column`; without what no asset makes."""
    sources = (source.rpartition(".") for source in column.sources)
    return [f"{origin}{name}" for table, _, name in sources for origin in origins.get(table, ())]


def _columns(columns: Mapping[str, tuple[Column, str, Sequence[str]]]) -> dict[str, dg.MetadataValue]:
    """The columns of an asset by name: their declaration, their type, and what they are computed from.

    The UI shows the columns, but has no page for their lineage: so a column's description ends with it.
    """
    described = [
        dg.TableColumn(
            name,
            kind,
            description=" ".join([column.comment, *([f"← {', '.join(sources)}"] if sources else [])]),
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
            tags={"unit": column.unit} if column.unit else None,
        )
        for name, (column, kind, sources) in columns.items()
    ]
    dependencies = {
        name: [dg.TableColumnDep(*source.split(".", 1)) for source in sources]
        for name, (_, _, sources) in columns.items()
        if sources
    }
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(described))
    }
    if dependencies:
        metadata["dagster/column_lineage"] = dg.MetadataValue.column_lineage(dg.TableColumnLineage(dependencies))
    return metadata


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
