"""The staging file: one writer at a time, one transaction per visit."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import duckdb

from accelkd.lake import Lake

SCHEMA_SQL = files("accelkd.warehouse").joinpath("schema.sql").read_text(encoding="utf-8")
_SCHEMA_SHA256 = hashlib.sha256(SCHEMA_SQL.encode()).hexdigest()


@contextmanager
def staging(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the staging file for one transaction: committed when the block ends well, rolled back when it raises.

    Waits for whoever has it open. Makes the file and its schema on first use. Raises RuntimeError for a file that
    another version of the schema made.
    """
    with staging_lock(lake), duckdb.connect(str(lake.staging)) as connection:
        connection.begin()
        try:
            _ensure_schema(lake, connection)
            yield connection
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


@contextmanager
def staging_lock(lake: Lake) -> Iterator[None]:
    """Hold the staging file's lock: DuckDB refuses a second process at once, here it waits for its turn."""
    lake.staging.parent.mkdir(parents=True, exist_ok=True)
    with lake.staging.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a killed process
        yield


def _ensure_schema(lake: Lake, connection: duckdb.DuckDBPyConnection) -> None:
    found = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_version'").fetchall()
    if found == [(0,)]:
        connection.execute(SCHEMA_SQL)
        connection.execute("INSERT INTO schema_version VALUES (?)", [_SCHEMA_SHA256])
    elif connection.execute("FROM schema_version").fetchall() != [(_SCHEMA_SHA256,)]:
        raise RuntimeError(
            f"{lake.staging} was made by another version of accelkd/warehouse/schema.sql; "
            "everything in it is derived: delete it and load the batches again"
        )
