"""Files of older versions keep their rows, and files of newer ones are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from accelkd.home.columns import Column, Table
from accelkd.home.layout import Home
from accelkd.home.version import UnusableHomeError
from accelkd.warehouse import staging as staging_module
from accelkd.warehouse.migrations import MIGRATIONS, Migration
from accelkd.warehouse.publish import publish
from accelkd.warehouse.schema import QUARANTINED, TABLES
from accelkd.warehouse.staging import staging, tables

SCHEMA_0_1_0 = Path(__file__).with_name("schema-0.1.0.sql")
RENAMED = {"retired_batches": "superseded_batches"}
VALUES = {"VARCHAR": "'x'", "JSON": "'{}'", "BOOLEAN": "true", "TIMESTAMP WITH TIME ZONE": "'2026-01-01T00:00:00Z'"}


def rows(connection: duckdb.DuckDBPyConnection, table: str, columns: str = "*") -> list[tuple[object, ...]]:
    return connection.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()


def test_a_warehouse_of_0_1_0_keeps_every_row(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.staging.parent.mkdir(parents=True)
    before: dict[str, tuple[str, list[tuple[object, ...]]]] = {}
    with duckdb.connect(str(home.staging)) as connection:
        connection.execute(SCHEMA_0_1_0.read_text(encoding="utf-8"))
        for table in tables(connection):
            if table == "schema_version":
                connection.execute("INSERT INTO schema_version VALUES ('of 0.1.0')")
                continue
            columns = connection.execute(f"DESCRIBE {table}").fetchall()
            values = [
                f"[{VALUES.get(kind[:-2], 7)}]" if "[" in kind else VALUES.get(kind, "7") for _, kind, *_ in columns
            ]
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join(values)})")
            names = ", ".join(column[0] for column in columns)
            before[RENAMED.get(table, table)] = names, rows(connection, table)
    assert len(before) > 15
    with staging(home) as connection:
        assert {table: (names, rows(connection, table, names)) for table, (names, _) in before.items()} == before
        assert rows(connection, "schema_version", "migrations") == [(len(MIGRATIONS),)]
        assert rows(connection, "superseded_batches") == [("x", "x")]
    assert publish(home).rows["segments"] == 1


def renamed(table: Table) -> Table:
    return replace(
        table, columns=tuple(replace(c, name="reason_code") if c.name == "reason" else c for c in table.columns)
    )


def retyped(table: Table) -> Table:
    return replace(
        table, columns=tuple(replace(c, type=pa.int32()) if c.name == "reason" else c for c in table.columns)
    )


def filled(table: Table) -> Table:
    return table.with_column(Column("site", pa.string(), nullable=False, meaning="Where it was worn"))


def shortened(table: Table) -> Table:
    return replace(table, columns=tuple(c for c in table.columns if c.name != "participants"))


NEWER: dict[str, tuple[Callable[[Table], Table], str, tuple[object, ...]]] = {
    "a renamed column": (renamed, "SELECT * RENAME (reason AS reason_code) FROM old", ("b", "window", "motion", 3, 2)),
    "a retyped column": (
        retyped,
        "SELECT * REPLACE (if(reason = 'motion', 1, 0) AS reason) FROM old",
        ("b", "window", 1, 3, 2),
    ),
    "a filled column": (filled, "SELECT *, 'wrist' AS site FROM old", ("b", "window", "motion", 3, 2, "wrist")),
    "a column given up": (shortened, "SELECT * EXCLUDE (participants) FROM old", ("b", "window", "motion", 3)),
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    with staging(home) as connection:
        connection.execute("INSERT INTO quarantine VALUES ('b', 'window', 'motion', 3, 2)")
    return home


def newer_version(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Table], Table], migrations: tuple[Migration, ...]
) -> None:
    newer = tuple(change(table) if table is QUARANTINED else table for table in TABLES)
    monkeypatch.setattr(staging_module, "TABLES", newer)
    monkeypatch.setattr(staging_module, "MIGRATIONS", migrations)
    monkeypatch.setattr(staging_module, "_SCHEMA_SHA256", "newer")


@pytest.mark.parametrize(("change", "select", "row"), NEWER.values(), ids=NEWER.keys())
def test_a_declared_migration_keeps_the_rows(
    home: Home, monkeypatch: pytest.MonkeyPatch, change: Callable[[Table], Table], select: str, row: tuple[object, ...]
) -> None:
    with monkeypatch.context() as patched:
        newer_version(patched, change, MIGRATIONS)
        with pytest.raises(UnusableHomeError, match="table quarantine, was made by another version"), staging(home):
            pass
    newer_version(monkeypatch, change, (*MIGRATIONS, Migration("quarantine", "a test", select)))
    for _ in range(2):  # the second time nothing is done again
        with staging(home) as connection:
            assert rows(connection, "quarantine") == [row]
    monkeypatch.setattr(staging_module, "_SCHEMA_SHA256", "newer still")  # other tables changed
    with staging(home) as connection:
        assert rows(connection, "quarantine") == [row]


def test_migrations_of_one_table_follow_each_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ("SELECT * REPLACE (10 * number AS number) FROM old", "SELECT * REPLACE (number + 1 AS number) FROM old")
    newer_version(
        monkeypatch, lambda table: table, (*MIGRATIONS, *(Migration("quarantine", "a test", step) for step in steps))
    )
    with staging(home) as connection:
        assert rows(connection, "quarantine", "number") == [(31,)]


def test_a_warehouse_of_a_newer_version_is_left_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        newer_version(patched, lambda table: table, (*MIGRATIONS, Migration("quarantine", "a test")))
        with staging(home):
            pass
    with pytest.raises(UnusableHomeError, match=f"been through {len(MIGRATIONS) + 1} migrations"), staging(home):
        pass
    with duckdb.connect(str(home.staging)) as connection:
        assert rows(connection, "schema_version", "migrations") == [(len(MIGRATIONS) + 1,)]
