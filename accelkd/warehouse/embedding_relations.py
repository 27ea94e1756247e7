"""What `embeddings.<encoder>` is in the warehouse: a table, or a view of files where the home has a store.

With a store no embeddings are copied into DuckDB. Their files are pinned: they have a second name, below
`warehouse/objects`, by path and hash as in the store, and what is there never changes. Views read them. Names, columns
and rows are those of the tables. Which files a view reads is in `provenance.embedding_files`. DuckDB looks for relative
paths in the current folder, so views have absolute ones, and each machine makes them for its own folder.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.home.columns import Table
from accelkd.home.files import DamagedFileError, atomic_path, link_or_copy, scratch_folder, sha256_file, write_json
from accelkd.home.layout import Home
from accelkd.warehouse.schema import EMBEDDING_FILES, MEANS_SUFFIX, comments, create, embeddings_table, sql_type

_VIEW = "CREATE VIEW "  # as DuckDB shows the statement that would make one
KEPT_S = 86_400.0  # a pinned file, after the last publication that reads it: for connections that are open


def relations(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The tables and views of embeddings by name, without those of means, with the statement that would make each."""
    rows = connection.execute(
        "SELECT table_name, sql FROM duckdb_tables() WHERE schema_name = 'embeddings' UNION ALL "
        "SELECT view_name, sql FROM duckdb_views() WHERE schema_name = 'embeddings' AND NOT ends_with(view_name, ?) "
        "ORDER BY 1",
        [MEANS_SUFFIX],
    ).fetchall()
    return dict(rows)


def numbered_relation(connection: duckdb.DuckDBPyConnection, relation: str) -> str:
    """A table or view with `rowid`, as SQL. DuckDB reads files in their order: a row has one number in all queries."""
    if _is_view(connection, relation):
        return f"(SELECT row_number() OVER () AS rowid, * FROM embeddings.{relation})"
    return f"embeddings.{relation}"


def create_relation(home: Home, connection: duckdb.DuckDBPyConnection, relation: str, width: int) -> None:
    """Make a table or a view without rows."""
    if home.store is not None:
        _make_view(home, connection, relation, width)
        return
    table = _declared(relation, width)
    connection.execute(create(table) + comments(table))


def add_rows(home: Home, connection: duckdb.DuckDBPyConnection, relation: str, rows: pa.Table) -> None:
    """Add the rows of one batch: with a store its file, as it is now. Raises FileNotFoundError where there is none."""
    if home.store is None:
        connection.register("arriving", rows)
        connection.execute(f"INSERT INTO embeddings.{relation} BY NAME FROM arriving")
        connection.unregister("arriving")
        return
    model_id, batch_id = (rows.column(name)[0].as_py() for name in ("model_id", "batch_id"))
    _add_file(home, connection, relation, home.embeddings(_encoder(relation), model_id, batch_id), model_id, batch_id)
    _make_view(home, connection, relation, rows.schema.field("embedding").type.list_size)


def delete_rows(
    home: Home, connection: duckdb.DuckDBPyConnection, relation: str, where: str, parameters: Sequence[object]
) -> None:
    """Delete the rows of whole batches: `where` compares `batch_id` and `model_id`."""
    if _is_view(connection, relation):
        condition = f"relation = ? AND {where}"
        connection.execute(f"DELETE FROM {EMBEDDING_FILES.name} WHERE {condition}", [relation, *parameters])
        _make_view(home, connection, relation, _width(connection, relation))
    else:
        connection.execute(f"DELETE FROM embeddings.{relation} WHERE {where}", parameters)


def drop_relation(connection: duckdb.DuckDBPyConnection, relation: str) -> None:
    """Drop a table or a view, if it exists."""
    if _is_view(connection, relation):
        connection.execute(f"DELETE FROM {EMBEDDING_FILES.name} WHERE relation = ?", [relation])
        connection.execute(f"DROP VIEW embeddings.{relation}")
    else:
        connection.execute(f"DROP TABLE IF EXISTS embeddings.{relation}")


def rename_relation(home: Home, connection: duckdb.DuckDBPyConnection, relation: str, name: str) -> None:
    """Give a table or a view another name."""
    if _is_view(connection, relation):
        width = _width(connection, relation)
        connection.execute(f"UPDATE {EMBEDDING_FILES.name} SET relation = ? WHERE relation = ?", [name, relation])
        connection.execute(f"DROP VIEW embeddings.{relation}")
        _make_view(home, connection, name, width)
    else:
        connection.execute(f"ALTER TABLE embeddings.{relation} RENAME TO {name}")


def file_contents(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int | None]]:
    """Number of rows of each view, by its name with its schema, and the sum of their hashes, as for a table."""
    return {
        f"embeddings.{relation}": connection.execute(
            f"SELECT coalesce(sum(rows), 0)::BIGINT, sum(hash_sum::HUGEINT) FROM {EMBEDDING_FILES.name} "
            "WHERE relation = ?",
            [relation],
        ).fetchall()[0]
        for relation, sql in relations(connection).items()
        if sql.startswith(_VIEW)
    }


def settle_relations(home: Home, connection: duckdb.DuckDBPyConnection) -> None:
    """Make tables views, or views tables, where the home has got a store since or lost it; views of its folder now."""
    if home.store is not None and not _has_files(connection):
        connection.execute(create(EMBEDDING_FILES) + comments(EMBEDDING_FILES))
    for relation, sql in relations(connection).items():
        if not sql.startswith(_VIEW):
            if home.store is not None:
                _table_to_files(home, connection, relation)
        elif home.store is None:
            _files_to_table(home, connection, relation)
        elif "read_parquet" in sql and _quoted(home.objects)[:-1] not in sql:
            _make_view(home, connection, relation, _width(connection, relation))


def make_views(home: Home, file: Path) -> None:
    """Make the views of a DuckDB file that another machine has made read the files of this one."""
    with duckdb.connect(str(file)) as connection:
        for relation, sql in relations(connection).items():
            if sql.startswith(_VIEW):
                _make_view(home, connection, relation, _width(connection, relation))
        connection.execute("FORCE CHECKPOINT")


def pinned_files(home: Home, file: Path) -> set[Path]:
    """The files that the views of a DuckDB file read; none where the file is missing."""
    if not file.exists():
        return set()
    with scratch_folder(file) as scratch:
        # By a name of its own: DuckDB takes a file that this process has open under the same name for the same file
        link_or_copy(file, scratch / file.name)
        with duckdb.connect(str(scratch / file.name), read_only=True) as connection:
            names = f"SELECT DISTINCT object FROM {EMBEDDING_FILES.name}"
            return (
                {home.objects / name for (name,) in connection.execute(names).fetchall()}
                if _has_files(connection)
                else set()
            )


def remove_unused(home: Home, keep_s: float = KEPT_S) -> None:
    """Remove pinned files that no view has read for `keep_s` seconds: those of other models and of replaced batches."""
    if not home.objects.exists():
        return
    used = set().union(*(pinned_files(home, file) for file in (home.staging, home.published, home.shared)))
    record, now = home.objects / "unused.json", time.time()
    since = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    unused = {}
    for path in sorted(home.objects.glob("embeddings/*/*/*/*")):
        if path in used or not path.is_file():
            continue
        name = path.relative_to(home.objects).as_posix()
        unused[name] = since.get(name, now)
        if now - unused[name] >= keep_s:
            path.unlink()
            del unused[name]
            with suppress(OSError):  # another one lies there
                path.parent.rmdir()
    write_json(record, unused)


def remove_participant(home: Home, connection: duckdb.DuckDBPyConnection, participant_id: str) -> None:
    """Make views read files without a participant's rows; those with them stay until `remove_unused`.

    Raises DamagedFileError for a file that cannot be read.
    """
    if not _has_files(connection):
        return
    listed = connection.execute(f"SELECT relation, batch_id, model_id, object FROM {EMBEDDING_FILES.name}").fetchall()
    for relation, batch_id, model_id, name in listed:
        try:
            people = pq.read_table(home.objects / name, columns=["participant_id"]).column(0)
            kept = pc.not_equal(people, participant_id)
            if pc.all(kept).as_py():
                continue
            rows = pq.read_table(home.objects / name).filter(kept)
        except (OSError, pa.ArrowException) as error:
            raise DamagedFileError(f"{home.objects / name} cannot be read: {error}") from None
        width = _width(connection, relation)
        delete_rows(home, connection, relation, "batch_id = ? AND model_id = ?", [batch_id, model_id])
        _add_table(home, connection, relation, rows, model_id, batch_id)
        _make_view(home, connection, relation, width)


def _files_to_table(home: Home, connection: duckdb.DuckDBPyConnection, relation: str) -> None:
    width = _width(connection, relation)
    connection.execute(f"CREATE TEMP TABLE moved AS FROM embeddings.{relation}")
    drop_relation(connection, relation)
    create_relation(home, connection, relation, width)
    connection.execute(f"INSERT INTO embeddings.{relation} BY NAME FROM moved")
    connection.execute("DROP TABLE moved")


def _table_to_files(home: Home, connection: duckdb.DuckDBPyConnection, relation: str) -> None:
    width = _width(connection, relation)
    batches = connection.execute(f"SELECT DISTINCT batch_id, model_id FROM embeddings.{relation} ORDER BY ALL")
    for batch_id, model_id in batches.fetchall():
        rows = connection.sql(f"FROM embeddings.{relation} WHERE batch_id = ?", params=[batch_id]).to_arrow_table()
        _add_table(home, connection, relation, rows, model_id, batch_id)
    connection.execute(f"DROP TABLE embeddings.{relation}")
    _make_view(home, connection, relation, width)


def _add_table(
    home: Home, connection: duckdb.DuckDBPyConnection, relation: str, rows: pa.Table, model_id: str, batch_id: str
) -> None:
    if rows.num_rows:
        with scratch_folder(home.objects / relation) as scratch:
            pq.write_table(rows, scratch / "rows", compression="none")
            _add_file(home, connection, relation, scratch / "rows", model_id, batch_id)


def _add_file(
    home: Home, connection: duckdb.DuckDBPyConnection, relation: str, path: Path, model_id: str, batch_id: str
) -> None:
    """Pin a file as it is now, and list it."""
    folder = home.objects / home.relative(home.embeddings(_encoder(relation), model_id, batch_id))
    with scratch_folder(folder / path.name) as scratch:
        part = scratch / path.name
        link_or_copy(path, part)
        pinned = folder / sha256_file(part)
        with atomic_path(pinned) as target:
            link_or_copy(part, target)
    width = pq.read_schema(pinned).field("embedding").type.list_size
    ((rows, hash_sum),) = connection.execute(
        f"SELECT count(*), sum(hash(t))::VARCHAR FROM ({_select(relation, width, [pinned])}) t"
    ).fetchall()
    connection.execute(
        f"INSERT INTO {EMBEDDING_FILES.name} VALUES (?, ?, ?, ?, ?, ?)",
        [relation, batch_id, model_id, pinned.relative_to(home.objects).as_posix(), rows, hash_sum],
    )


def _make_view(home: Home, connection: duckdb.DuckDBPyConnection, relation: str, width: int) -> None:
    names = connection.execute(
        f"SELECT object FROM {EMBEDDING_FILES.name} WHERE relation = ? ORDER BY batch_id", [relation]
    ).fetchall()
    table = _declared(relation, width)
    select = _select(relation, width, [home.objects / name for (name,) in names])
    connection.execute(f"CREATE OR REPLACE VIEW {table.name} AS {select};{comments(table, 'VIEW')}")


def _select(relation: str, width: int, paths: Sequence[Path]) -> str:
    columns = _declared(relation, width).columns
    types = ", ".join(f"{column.name}::{sql_type(column.type)} AS {column.name}" for column in columns)
    empty = f"(SELECT {', '.join(f'NULL AS {column.name}' for column in columns)} WHERE false)"
    return f"SELECT {types} FROM " + (f"read_parquet([{', '.join(map(_quoted, paths))}])" if paths else empty)


def _declared(relation: str, width: int) -> Table:
    encoder, separator, suffix = relation.partition("__")
    return embeddings_table(encoder, width, suffix=separator + suffix)


def _encoder(relation: str) -> str:
    return relation.partition("__")[0]


def _width(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    ((kind,),) = connection.execute(
        "SELECT data_type FROM duckdb_columns() WHERE schema_name = 'embeddings' AND table_name = ? "
        "AND column_name = 'embedding'",
        [relation],
    ).fetchall()
    return int(re.findall(r"\d+", kind)[0])


def _is_view(connection: duckdb.DuckDBPyConnection, relation: str) -> bool:
    return relations(connection).get(relation, "").startswith(_VIEW)


def _has_files(connection: duckdb.DuckDBPyConnection) -> bool:
    query = "SELECT 1 FROM duckdb_tables() WHERE schema_name || '.' || table_name = ?"
    return bool(connection.execute(query, [EMBEDDING_FILES.name]).fetchall())


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
