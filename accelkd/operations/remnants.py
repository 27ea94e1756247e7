"""Search for remnants of a participant in every file of a home."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.home.files import open_below, verify_checksum

MAX_REASON = 200  # characters of an error
MIN_BYTES = 6  # of a name that is looked for in raw bytes: shorter ones occur in them by chance
_COMPRESSED = {  # by the first bytes: what a search of the bytes cannot look into
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf": "7z",
}
_PICTURE = b"\x89PNG"
_DELIVERED = "landing/"  # whose DuckDB files, if there are any, are others' and not opened


@dataclass
class Remnants:
    """What a search found, and what it could not search. Paths are relative to the folder that was searched."""

    places: dict[str, list[str]] = field(default_factory=dict)  # of each file that holds something
    not_searched: dict[str, str] = field(default_factory=dict)  # why, by path

    @property
    def lines(self) -> list[str]:
        """Each place with its file."""
        return [f"{path}: {place}" for path, places in self.places.items() for place in places]


@dataclass(frozen=True)
class _Wanted:
    """What is looked for, in the form that each kind of search takes."""

    names: frozenset[str]
    signals: Collection[bytes]
    pattern: re.Pattern[bytes]  # long names as whole words, and signals

    @property
    def long_names(self) -> list[str]:
        return sorted(name for name in self.names if len(name) >= MIN_BYTES)


def find_remnants(
    root: Path, names: Collection[str], signals: Collection[bytes], exclude: Collection[Path] = ()
) -> Remnants:
    """Files below `root`, with where in them, or in their path, one of `names` or `signals` occurs.

    `signals` are runs of float32 or float16 samples as bytes. Parquet, Arrow and DuckDB files are decoded and searched
    column by column, because compression hides what they hold; all files are also searched byte by byte, which finds
    what lies in freed blocks, logs and SQLite. Pictures are not looked at. Names count as whole words. Links are
    followed from `root` itself, not below: one that leads out of `root` is reported, as is whatever cannot be read or
    decoded.
    """
    words = [re.escape(name.encode()) for name in names if len(name) >= MIN_BYTES]
    pattern = re.compile(
        b"|".join(
            [*(rb"(?<![A-Za-z0-9_-])" + word + rb"(?![A-Za-z0-9_-])" for word in words), *map(re.escape, signals)]
        )
        or b"(?!)"
    )
    wanted, remnants = _Wanted(frozenset(names), signals, pattern), Remnants()
    for name in _files(root, remnants.not_searched):
        if root / name in exclude:
            continue
        places = ["its name"] if pattern.search(os.fsencode(name)) else []
        try:
            top, _, rest = name.partition("/")
            with open_below(root / top, rest) if rest else open_below(root, top) as file:
                places += _places(root, name, file, wanted, remnants.not_searched)
        except OSError as error:
            remnants.not_searched[name] = f"cannot be read: {error.strerror}"
        if places:
            remnants.places[name] = places
    return remnants


def _files(root: Path, not_searched: dict[str, str]) -> Iterator[str]:
    """The regular files below `root`, sorted, by their paths relative to it; what cannot be entered is added."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            not_searched[folder or "."] = f"cannot be listed: {error.strerror}"
            continue
        files = []
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=not folder):  # a home's own folders may lie on another disk
                folders.append(name)
            elif entry.is_symlink():
                target = Path(os.path.realpath(entry))
                if target.exists() and not target.is_relative_to(os.path.realpath(root)):
                    not_searched[name] = "a link that leads elsewhere is not followed"
            elif entry.is_file():
                files.append(name)
        yield from reversed(files)


def _places(
    root: Path, name: str, file: BufferedReader, wanted: _Wanted, not_searched: dict[str, str]
) -> Iterator[str]:
    """Where in one file something occurs."""
    start = file.read(16)
    if not start:
        return
    if not start.startswith(_PICTURE):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if match := wanted.pattern.search(content):
                yield f"byte {match.start()}"
    try:
        for first_bytes, kind in _COMPRESSED.items():
            if start.startswith(first_bytes):
                raise ValueError(f"compressed ({kind})")
        yield from _inside(root, name, file, start, wanted)
    except Exception as error:  # whatever a decoder makes of a damaged file
        not_searched[name] = f"only its bytes were searched: {first_line(error)}"


def first_line(error: Exception) -> str:
    """An error in one line of reasonable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


def _inside(root: Path, name: str, file: BufferedReader, start: bytes, wanted: _Wanted) -> Iterator[str]:
    """Columns of a columnar file in which a name or a signal occurs. Raises whatever its decoder raises."""
    if name.endswith(".duckdb") or start[8:12] == b"DUCK":
        if name.startswith(_DELIVERED):
            raise ValueError("a DuckDB file that was delivered is not opened")
        yield from _inside_duckdb(root / name, wanted)
    elif name.endswith(".parquet") or start.startswith(b"PAR1"):
        with pq.ParquetFile(file) as parquet:
            tables = (parquet.read_row_group(group) for group in range(parquet.num_row_groups))
            yield from sorted(
                {place for table in tables for place in _inside_table(table, wanted.names, wanted.signals)}
            )
    elif name.endswith(".arrow") or start.startswith(b"ARROW1"):
        reader = pa.ipc.open_file(file)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        tables = (pa.Table.from_batches([batch]) for batch in batches)
        yield from sorted({place for table in tables for place in _inside_table(table, wanted.names, ())})
    else:
        return
    if not name.endswith(".duckdb") and (root / f"{name}.sha256").is_file():
        verify_checksum(root / name)  # in a damaged file a name may be hidden


def _inside_table(table: pa.Table, names: Collection[str], signals: Collection[bytes]) -> Iterator[str]:
    wanted = pa.array(sorted(names), pa.string())
    for field_, column in zip(table.schema, table.columns, strict=True):
        for values in _leaves(column.combine_chunks()):
            if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
                texts = values.cast(pa.string())
                if pc.any(pc.is_in(texts, value_set=wanted)).as_py() or _mentions(texts, names):
                    yield f"column {field_.name}"
            elif signals and pa.types.is_floating(values.type):
                content = np.asarray(values).tobytes()
                if any(signal in content for signal in signals):
                    yield f"column {field_.name}"


def _leaves(values: pa.Array) -> Iterator[pa.Array]:
    """The values of a column without its lists, structures and dictionaries."""
    if isinstance(values, pa.ChunkedArray):  # of no chunk
        return
    kind = values.type
    if pa.types.is_dictionary(kind):
        yield from _leaves(values.dictionary)
    elif pa.types.is_nested(kind):
        parts = values.flatten()
        for part in parts if isinstance(parts, list) else [parts]:
            yield from _leaves(part)
    else:
        yield values


def _mentions(texts: pa.Array, names: Collection[str]) -> bool:
    """Whether a text holds one of the names among other words."""
    return any(
        pc.any(pc.match_substring_regex(texts, rf"(^|[^A-Za-z0-9_-]){re.escape(name)}($|[^A-Za-z0-9_-])")).as_py()
        for name in names
        if len(name) >= MIN_BYTES
    )


def _inside_duckdb(path: Path, wanted: _Wanted) -> Iterator[str]:
    # The names that the file gives its tables and columns are quoted, and nothing else is reached from it
    with duckdb.connect(str(path), read_only=True, config={"enable_external_access": False}) as connection:
        columns = connection.execute(
            "SELECT schema_name, table_name, column_name FROM duckdb_columns() JOIN duckdb_tables() "
            "USING (database_name, schema_name, table_name) "
            "WHERE regexp_matches(data_type, 'VARCHAR|JSON|ENUM') AND NOT duckdb_tables.internal ORDER BY ALL"
        ).fetchall()
        for schema, table, column in columns:
            ((rows,),) = connection.execute(
                f"SELECT count(*) FROM {quoted(schema, table)} WHERE "
                # a value, or a string inside JSON; a long name also as a word
                f"list_has_any($names, split({quoted(column)}::VARCHAR, '\"')) OR "
                f"list_has_any($long_names, regexp_extract_all({quoted(column)}::VARCHAR, '[A-Za-z0-9_-]+'))",
                {"names": sorted(wanted.names), "long_names": wanted.long_names},
            ).fetchall()
            if rows:
                yield f"{schema}.{table}.{column}, {rows} rows"


def quoted(*names: str) -> str:
    """A name in SQL, qualified by those before it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
