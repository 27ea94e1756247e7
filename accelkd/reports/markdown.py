"""Markdown tables from rows of values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, floats: str = ",.2f", integers: str = ",") -> str:
    """A Markdown table without a line break at its end; `rows` have a value for each column of `header`.

    `floats` and `integers` are the format specifications of numbers. None becomes an empty cell, anything else is
    written by `str`; pipes are escaped and line breaks become spaces, so that a row stays one row.
    """
    cells = [[_cell(value, floats, integers) for value in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(header), *cells[1:]))


def _cell(value: object, floats: str, integers: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, floats)
    if isinstance(value, int) and not isinstance(value, bool):
        return format(value, integers)
    return str(value).replace("\n", " ").replace("|", "\\|")
