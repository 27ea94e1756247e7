"""Every table and view of a published warehouse is in docs/data-model.md."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.registry.history import decide, promoted_models
from accelkd.warehouse.publish import publish
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
