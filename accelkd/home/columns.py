"""Columns and tables, declared once: Arrow schemas, DDL, comments, lineage and documentation are made from these."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

from accelkd.home.files import sha256_json

Unit = Literal["bpm", "ms", "s", "Hz", "g", "mg", "m", "kg/m²", "years", "%"]
_SUFFIXES: dict[Unit, str] = {"Hz": "hz", "kg/m²": "kg_m2", "%": "percent"}  # as names carry them; others as they are


@dataclass(frozen=True)
class Column:
    """One column of a table.

    `sources` are the columns that it is computed from, as `table.column`. The wording of `meaning` does not count in
    code versions (accelkd.home.behaviour), so it is always written as a keyword.
    """

    name: str
    type: pa.DataType
    meaning: str = field(kw_only=True)  # one line, without the unit
    unit: Unit | None = field(default=None, kw_only=True)
    nullable: bool = field(default=True, kw_only=True)
    sources: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def comment(self) -> str:
        """The meaning, with the unit where the name does not carry it."""
        if self.unit is None or f"_{_SUFFIXES.get(self.unit, self.unit)}_" in f"_{self.name}_":
            return self.meaning
        return f"{self.meaning} ({self.unit})"


@dataclass(frozen=True)
class Table:
    """A table, in a file or in the warehouse. Raises ValueError for two columns of one name, and for a bad key."""

    name: str  # with the name of its schema or folder where it has one, such as `provenance.edges`
    columns: tuple[Column, ...]
    meaning: str = field(kw_only=True)
    key: tuple[str, ...] = field(default=(), kw_only=True)  # primary key: columns that are never null

    def __post_init__(self) -> None:
        if repeated := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ValueError(f"table {self.name}: {', '.join(repeated)} declared twice")
        if bad := [name for name in self.key if name not in self.names or self[name].nullable]:
            raise ValueError(f"table {self.name}: {', '.join(bad)} in its key, but no column that is never null")

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def __getitem__(self, name: str) -> Column:
        """The column of a name. Raises KeyError that names the table."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name!r}")

    def arrow(self, *, comments: bool = False) -> pa.Schema:
        """The Arrow schema; with `comments` each field says in its metadata what it means."""
        return pa.schema(
            [
                pa.field(
                    column.name,
                    column.type,
                    nullable=column.nullable,
                    metadata={"comment": column.comment} if comments else None,
                )
                for column in self.columns
            ]
        )

    @property
    def version(self) -> str:
        """8 hex digits that change with names, types, nulls and key, and not with the wording."""
        columns = [(column.name, str(column.type), column.nullable) for column in self.columns]
        return sha256_json([self.name, columns, self.key])[:8]

    def with_column(self, column: Column) -> Table:
        """The table with one column more, at its end."""
        return replace(self, columns=(*self.columns, column))

    def copied(self, *names: str) -> tuple[Column, ...]:
        """Columns of the given names, or all, for another table: each has the one here as its source."""
        return tuple(replace(self[name], sources=(f"{self.name}.{name}",)) for name in names or self.names)
