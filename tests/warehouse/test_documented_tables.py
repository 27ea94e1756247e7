"""What a published warehouse holds is documented: in docs/data-model.md, and column by column by declarations."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.registry.history import decide, promoted_models
from accelkd.warehouse.documentation import documented_tables
from accelkd.warehouse.publish import publish
from accelkd.warehouse.schema import EMBEDDING_FILES
from tests.support import REPOSITORY
from tests.support.homes import land, load_and_split, loaded_checkpoint

DOCUMENT = REPOSITORY / "docs" / "data-model.md"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home(tmp_path_factory.mktemp("home"))
    land(home, "b1", [f"p{i}" for i in range(8)])
    load_and_split(home, ["b1"])
    for encoder in ("ppg_teacher", "accel_student"):
        model_id = loaded_checkpoint(home, encoder, ["b1"])
        decide(home, "promoted", {**promoted_models(home), encoder: model_id}, "test")
        embed_batch(home, encoder, "b1", device="cpu")
    return publish(home).path


def test_every_table_is_documented(published: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    with duckdb.connect(str(published), read_only=True) as connection:
        tables = connection.execute(
            "SELECT if(schema_name = 'main', table_name, schema_name || '.' || table_name) FROM duckdb_tables() "
            "WHERE NOT internal AND table_name <> 'schema_version' UNION ALL "
            "SELECT if(schema_name = 'main', view_name, schema_name || '.' || view_name) FROM duckdb_views() "
            "WHERE NOT internal"
        ).fetchall()
    assert len(tables) > 10
    assert [name for (name,) in tables if f"`{name}`" not in text] == []


def test_the_documentation_of_columns_is_the_catalog(published: Path) -> None:
    documented = {
        (entry.table.name, column.name): (column.comment, entry.type_of(column).replace("FLOAT[]", "FLOAT[16]"))
        for entry in documented_tables()
        if entry.kind != "file" and entry.table != EMBEDDING_FILES  # which only a home with a store has
        for column in entry.table.columns
    }
    with duckdb.connect(str(published), read_only=True) as connection:
        catalog = {
            (re.sub(r"ppg_teacher|accel_student", "<encoder>", table), column): (comment, kind)
            for table, column, comment, kind in connection.execute(
                "SELECT if(schema_name = 'main', '', schema_name || '.') || table_name, column_name, comment, "
                "data_type FROM duckdb_columns() WHERE NOT internal"
            ).fetchall()
        }
    assert catalog == documented


def test_sources_of_columns_are_columns() -> None:
    tables = [documented.table for documented in documented_tables()]
    columns = {f"{table.name}.{column.name}" for table in tables for column in table.columns}
    sources = {source for table in tables for column in table.columns for source in column.sources}
    assert "store.segments.ppg" in sources
    assert sources - columns == set()


def test_a_unit_in_a_name_is_the_column_s() -> None:
    suffixes = {"bpm": "bpm", "ms": "ms", "s": "s", "hz": "Hz", "g": "g", "mg": "mg", "years": "years"}
    named = {
        f"{documented.table.name}.{column.name}": (column.unit, suffixes[column.name.rpartition("_")[2]])
        for documented in documented_tables()
        if documented.kind != "view"
        for column in documented.table.columns
        if column.name.rpartition("_")[2] in suffixes
    }
    assert named
    assert {name: units for name, units in named.items() if units[0] != units[1]} == {}
