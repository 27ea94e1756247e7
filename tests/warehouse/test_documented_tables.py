"""Every table and view of a published warehouse is in docs/data-model.md."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.current import current_models, decide
from accelkd.evaluation.embed import embed_batch
from accelkd.lake import Lake
from accelkd.warehouse.load import load_batch, load_model, load_split
from accelkd.warehouse.publish import publish
from tests.lakes import checkpoint, land

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-model.md"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    land(lake, "b1", [f"p{i}" for i in range(8)])
    load_batch(lake, "b1")
    extend_split(lake.split, segmented_participants(lake, ["b1"]))
    load_split(lake)
    for encoder in ("ppg_teacher", "accel_student"):
        model_id = checkpoint(lake, encoder)
        load_model(lake, encoder, model_id, ["b1"])
        decide(lake, "promoted", {**current_models(lake), encoder: model_id}, "test")
        embed_batch(lake, encoder, "b1", device="cpu")
    return publish(lake).path


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
