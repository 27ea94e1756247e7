"""The staging file: one writer and one transaction at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import duckdb

from accelkd.home.columns import Table
from accelkd.home.layout import Home
from accelkd.home.locks import home_lock
from accelkd.home.version import UnusableHomeError, mark_new
from accelkd.warehouse.embedding_relations import file_contents, relations, settle_relations
from accelkd.warehouse.migrations import MIGRATIONS, new_rows
from accelkd.warehouse.schema import (
    EMBEDDING_FILES,
    TABLES,
    VIEWS,
    comments,
    create,
    embeddings_table,
    schema_sql,
    schemas,
    sql_type,
)

# Of new files: analysts' command lines and drivers may be older than the pipeline's DuckDB
READABLE_BY_OLDER: dict[str, str | bool | int | float | list[str]] = {"storage_compatibility_version": "v1.4.0"}
# Without SQL's own comments and line breaks: rewording one makes no other schema; texts in quotes stay
_STATEMENTS = re.sub(r"('(?:[^']|'')*')|(?:--[^\n]*|\s+)+", lambda part: part[1] or " ", schema_sql())
_SCHEMA_SHA256 = hashlib.sha256(_STATEMENTS.encode()).hexdigest()


@contextmanager
def staging(home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the staging file for one transaction: committed when the block ends well, rolled back when it raises.

    Waits for whoever has it open. Makes the file and its schema on first use, and brings a file that an older version
    of the schema made up to date. Raises UnusableHomeError, and leaves the file as it is, where that would lose
    anything, and for a file of a newer version.
    """
    with staging_lock(home), duckdb.connect(str(home.staging), config=READABLE_BY_OLDER) as connection:
        connection.begin()
        try:
            connection.execute("SET VARIABLE run_id = ?", [home.run_id])
            _ensure_schema(home, connection)
            settle_relations(home, connection)
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def staging_lock(home: Home) -> AbstractContextManager[None]:
    """Hold the staging file's lock: DuckDB refuses a second process at once, here it waits for its turn.

    Raises UnusableHomeError on a machine that has no warehouse.
    """
    if home.is_worker:
        raise UnusableHomeError(
            "this machine is a worker, and has no warehouse: run it on the head, where ACCELKD_HEAD is 1"
        )
    home.staging.parent.mkdir(parents=True, exist_ok=True)
    return home_lock(home, home.relative(home.staging.with_suffix(".lock")))


def schema_is_current(home: Home) -> bool:
    """Whether the staging file has the schema of this version."""
    with staging_lock(home), duckdb.connect(str(home.staging)) as connection:
        return _is_current(connection)


def readable(home: Home) -> bool:
    """Whether the staging file is there and all tables can be read: DuckDB checks its blocks as it reads them."""
    if not home.staging.exists():
        return False
    try:
        with staging_lock(home), duckdb.connect(str(home.staging)) as connection:
            contents(connection)
    except duckdb.Error:
        return False
    return True


def tables(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Every table, with the statement that would make it; named with its schema where that is not the main one.

    With a store those of embeddings are views.
    """
    rows = connection.execute(
        "SELECT if(schema_name = 'main', table_name, schema_name || '.' || table_name), sql "
        "FROM duckdb_tables() WHERE NOT internal AND NOT temporary"
    ).fetchall()
    return dict(rows) | {f"embeddings.{name}": sql for name, sql in relations(connection).items()}


def contents(
    connection: duckdb.DuckDBPyConnection, without_suffixes: tuple[str, ...] = ()
) -> dict[str, tuple[int, int | None]]:
    """Number of rows of every table, and the sum of their hashes, which is the same in any order of the rows.

    Tables whose names end with one of `without_suffixes` are left out, and the list of the files of embeddings, whose
    sums are known.
    """
    known = file_contents(connection)
    return {
        table: known.get(table) or connection.execute(f"SELECT count(*), sum(hash(t)) FROM {table} t").fetchall()[0]
        for table in sorted(tables(connection))
        if not table.endswith(without_suffixes) and table != EMBEDDING_FILES.name
    }


def _ensure_schema(home: Home, connection: duckdb.DuckDBPyConnection) -> None:
    present = tables(connection)
    if "schema_version" not in present:
        mark_new(home)
        connection.execute(schema_sql(TABLES, VIEWS))
    else:
        if _is_current(connection):
            return
        version = connection.sql("FROM schema_version").to_arrow_table().to_pylist()
        _migrate(home, connection, present, done=max((row.get("migrations") or 0 for row in version), default=0))
    connection.execute("DELETE FROM schema_version")
    connection.execute("INSERT INTO schema_version VALUES (?, ?)", [_SCHEMA_SHA256, len(MIGRATIONS)])


def _is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    return connection.execute("SELECT sha256 FROM schema_version").fetchall() == [(_SCHEMA_SHA256,)]


def _migrate(home: Home, connection: duckdb.DuckDBPyConnection, present: dict[str, str], done: int) -> None:
    """Bring an older file to the schema: recreate views, macros, comments; recreate and refill tables that differ.

    `done` is the number of migrations that the file has been through.
    """
    if done > len(MIGRATIONS):
        raise UnusableHomeError(
            f"{home.staging} has been through {done} migrations, this accelkd knows {len(MIGRATIONS)}: install the "
            "version that wrote it"
        )
    with duckdb.connect(":memory:") as fresh:
        fresh.execute(schema_sql(TABLES, VIEWS))
        wanted = tables(fresh)
    views = "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'"
    for (view,) in connection.execute(views).fetchall():
        connection.execute(f"DROP VIEW {view}")
    macros = "SELECT DISTINCT function_name, function_type FROM duckdb_functions() WHERE NOT internal"
    for macro, kind in connection.execute(macros).fetchall():
        connection.execute(f"DROP MACRO {'TABLE ' if kind == 'table_macro' else ''}{macro}")
    for migration in MIGRATIONS[done:]:
        schema, dot, name = migration.table.rpartition(".")
        if migration.renamed_from and f"{schema}{dot}{migration.renamed_from}" in present:
            connection.execute(f"ALTER TABLE {schema}{dot}{migration.renamed_from} RENAME TO {name}")
            present = tables(connection)
    connection.execute(schemas(TABLES))
    connection.execute("DELETE FROM schema_version")
    for table in TABLES:
        rows = new_rows(table.name, done, MIGRATIONS)
        if table.name not in present:
            connection.execute(create(table))
        elif present[table.name] != wanted[table.name] or rows != "FROM old":
            _refill(home, connection, table, rows)
        connection.execute(comments(table))
    for name in present:
        if name.startswith("embeddings.") and present[name].startswith("CREATE TABLE"):
            encoder, separator, suffix = name.removeprefix("embeddings.").partition("__")
            _add_columns(connection, embeddings_table(encoder, suffix=separator + suffix))
    connection.execute(VIEWS)


def _add_columns(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Add to a table of embeddings the columns that it lacks; they stay empty until they are loaded again."""
    present = {row[0] for row in connection.execute(f"DESCRIBE {table.name}").fetchall()}
    for column in table.columns:
        if column.name not in present:
            connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {sql_type(column.type)}")
    connection.execute(comments(table))


def _refill(home: Home, connection: duckdb.DuckDBPyConnection, table: Table, rows: str) -> None:
    """Recreate a table with the rows that a query makes of those that it had, `old`: new columns stay empty."""
    connection.execute(f"CREATE TEMP TABLE old AS FROM {table.name}")
    connection.execute(f"DROP TABLE {table.name}")
    connection.execute(create(table))
    try:
        connection.execute(f"CREATE TEMP TABLE migrated AS {rows}")
        names = [row[0] for row in connection.execute("DESCRIBE migrated").fetchall()]
        gone = [name for name in names if name not in table.names]
        if lost := [
            name for name in gone if connection.execute(f'SELECT count("{name}") FROM migrated').fetchall() != [(0,)]
        ]:
            raise ValueError(f"the schema no longer has {', '.join(sorted(lost))}")
        kept = ", ".join(f'"{name}"' for name in names if name in table.names)
        connection.execute(f"INSERT INTO {table.name} BY NAME SELECT {kept} FROM migrated")
    except (ValueError, duckdb.Error) as error:
        raise UnusableHomeError(
            f"{home.staging}, table {table.name}, was made by another version of accelkd/warehouse/schema.py, and "
            f"accelkd/warehouse/migrations.py does not say how its rows become rows of this one: {error}. The file is "
            "as it was. What is derived in it `accelkd rebuild-warehouse` makes again from the home's files"
        ) from error
    connection.execute("DROP TABLE old")
    connection.execute("DROP TABLE migrated")
