"""How accelkd's results look in the Dagster UI: tables, schemas and figures as metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """The columns of an Arrow schema as the UI shows them; a field's `comment` becomes its description."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                description=(field.metadata or {}).get(b"comment", b"").decode() or None,
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )


def figure(png: bytes, caption: str) -> dg.MarkdownMetadataValue:
    """A PNG that shows inside the UI: Dagster has no image metadata, but it renders Markdown with a data URI."""
    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{base64.b64encode(png).decode()})")


def markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows with the same keys as a Markdown table; floats with four significant digits."""
    if not rows:
        return dg.MetadataValue.md("*none*")
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in header) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def counts_table(counts: Mapping[str, int], name: str) -> dg.MarkdownMetadataValue:
    """Counts by reason, largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return markdown_table([{name: key, "count": count} for key, count in ordered])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
