"""How accelkd's results look in the Dagster UI: tables, schemas and figures as metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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

# Not `dagster/column_schema`, which the UI lists at full length above everything that was measured
COLUMNS = "columns"
MAX_EMBEDDED_BYTES = 1_000_000  # of the figures of one entry: Dagster keeps them in its database, for every event


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
        "sensor_checks": ["sensor_check."],
        "readouts": ["readouts."],
        "predictions": ["predictions."],
        "fairness_results": ["fairness."],
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
    metadata: dict[str, dg.MetadataValue] = {COLUMNS: dg.MetadataValue.table_schema(dg.TableSchema(described))}
    if dependencies:
        metadata["dagster/column_lineage"] = dg.MetadataValue.column_lineage(dg.TableColumnLineage(dependencies))
    return metadata


def presented(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a materialization or a check as the UI shows it, which keeps the order: what people look at first.

    Figures, numbers, tables, text, files. Numbers are rounded, and stay numbers, so that the UI plots them over time;
    empty values are left out.
    """
    shown = {name: _rounded(value) for name, value in metadata.items() if value is not None and value != ""}
    return dict(sorted(shown.items(), key=lambda entry: _rank(*entry)))


def _rank(name: str, value: object) -> int:
    if isinstance(value, dg.MarkdownMetadataValue):
        return 0 if str(value.value).startswith("![") else 2
    if isinstance(value, int | float):
        return 1
    return 4 if name.startswith("dagster/") or isinstance(value, dg.PathMetadataValue) else 3


def _rounded(value: object) -> object:
    """A float with four significant digits, or to the next integer; NaN and infinity, which no plot shows, as text."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return str(value)
    return float(round(value)) if abs(value) >= 1000 else float(f"{value:.4g}")


def figure(png: bytes, caption: str) -> dg.MarkdownMetadataValue:
    """A PNG that shows inside the UI: Dagster has no image metadata, but it renders Markdown with a data URI."""
    if len(png) > MAX_EMBEDDED_BYTES:
        return dg.MetadataValue.md(f"*{markdown.escape(caption)}: too large to be shown here*")
    return dg.MetadataValue.md(markdown.embedded_png(png, caption))


def document(path: Path) -> dg.MarkdownMetadataValue:
    """A Markdown file with the figures beside it, which its links would not reach from the UI."""
    text = path.read_text(encoding="utf-8")
    return dg.MetadataValue.md(markdown.embed_images(text, path.parent, max_bytes=MAX_EMBEDDED_BYTES))


def markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows with the same keys as a Markdown table; floats with four significant digits.

    The UI shows a short one in a narrow column and a long one in a dialog: up to five columns fit either.
    """
    if not rows:
        return dg.MetadataValue.md("*none*")
    header = list(rows[0])
    values = ([row[name] for name in header] for row in rows)
    return dg.MetadataValue.md(markdown.table(header, values, floats=".4g", integers=""))


def transposed(rows: Sequence[Mapping[str, object]], heading: str) -> list[dict[str, object]]:
    """A few rows of many keys as many rows of few: a column for each row, named by its value of `heading`."""
    names = [name for name in rows[0] if name != heading] if rows else []
    return [{heading: name, **{str(row[heading]): row[name] for row in rows}} for name in names]


def counts_table(counts: Mapping[str, int], name: str) -> dg.MarkdownMetadataValue:
    """Counts by reason, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return markdown_table([{name: key, "count": count} for key, count in ordered])
