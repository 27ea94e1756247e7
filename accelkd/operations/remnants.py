"""Search for remnants of a participant in every file of a home."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MIN_BYTES = 6  # of a name that is looked for in raw bytes: shorter ones occur in them by chance


def find_remnants(
    root: Path, names: Collection[str], signals: Collection[bytes], exclude: Collection[Path] = ()
) -> list[str]:
    """Files below `root`, with where in them one of `names` or `signals` occurs.

    `signals` are runs of float32 or float16 samples as bytes. Parquet, Arrow and DuckDB files are decoded and searched
    column by column, because compression hides what they hold; all files are also searched byte by byte, which finds
    what lies in freed blocks, logs and SQLite. Pictures are not looked at. Names count as whole words.
    """
    words = [re.escape(name.encode()) for name in names if len(name) >= MIN_BYTES]
    pattern = re.compile(
        b"|".join(
            [*(rb"(?<![A-Za-z0-9_-])" + word + rb"(?![A-Za-z0-9_-])" for word in words), *map(re.escape, signals)]
        )
        or b"(?!)"
    )
    remnants = []
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path not in set(exclude)):
        name = path.relative_to(root).as_posix()
        remnants += [f"{name}: {where}" for where in _inside(path, names, signals)]
        if path.stat().st_size and path.suffix != ".png":
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if match := pattern.search(content):
                    remnants.append(f"{name}: byte {match.start()}")
    return remnants


def _inside(path: Path, names: Collection[str], signals: Collection[bytes]) -> Iterator[str]:
    """Columns of a columnar file in which a name or a signal occurs."""
    if path.suffix == ".duckdb":
        yield from _inside_duckdb(path, names)
    elif path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            yield from _inside_table(
                pa.ipc.open_file(source).read_all(), names, ()
            )  # the search of the bytes finds signals
    elif path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            columns = set()
            for group in range(file.num_row_groups):
                columns |= set(_inside_table(file.read_row_group(group), names, signals))
            yield from sorted(columns)


def _inside_table(table: pa.Table, names: Collection[str], signals: Collection[bytes]) -> Iterator[str]:
    wanted = pa.array(sorted(names), pa.string())
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_string(field.type):
            if pc.any(pc.is_in(column, value_set=wanted)).as_py() or _mentions(column, names):
                yield f"column {field.name}"
        elif signals and pa.types.is_list(field.type):
            values = column.combine_chunks()
            while pa.types.is_list(values.type):
                values = values.flatten()
            if pa.types.is_float32(values.type):
                content = np.asarray(values).tobytes()
                if any(signal in content for signal in signals):
                    yield f"column {field.name}"


def _mentions(column: pa.ChunkedArray, names: Collection[str]) -> bool:
    """Whether a text holds one of the names among other words."""
    return any(
        pc.any(pc.match_substring_regex(column, rf"(^|[^A-Za-z0-9_-]){re.escape(name)}($|[^A-Za-z0-9_-])")).as_py()
        for name in names
        if len(name) >= MIN_BYTES
    )


def _inside_duckdb(path: Path, names: Collection[str]) -> Iterator[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() JOIN duckdb_tables() "
            "USING (database_name, schema_name, table_name) "
            "WHERE data_type IN ('VARCHAR', 'JSON') AND NOT duckdb_tables.internal ORDER BY ALL"
        ).fetchall()
        for schema, table, column in columns:
            ((rows,),) = connection.execute(
                f"SELECT count(*) FROM {schema}.{table} "
                f'WHERE list_has_any($names, split("{column}"::VARCHAR, \'"\'))',  # a value, or a string inside JSON
                {"names": sorted(names)},
            ).fetchall()
            if rows:
                yield f"{schema}.{table}.{column}, {rows} rows"
