"""A column of segments is declared once, and what computes it is the second place: everything else follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accelkd.home.layout import Home
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from tests.support import REPOSITORY

DECLARED = """
import json, sys
from pathlib import Path

import pyarrow as pa

from accelkd.home.columns import Column
from accelkd.home.layout import Home
from accelkd.segments import schema

column = Column(
    "perfusion_index",
    pa.float64(),
    unit="%",
    sources=("landing.recordings.ppg",),
    meaning="Pulsatile share of the light",
)
schema.SEGMENT = schema.SEGMENT.with_column(column)
home = Home(Path(sys.argv[1]))

from accelkd.segments import segment
"""
OUTDATED = f"""{DECLARED}
from accelkd.segments.store import SegmentStore

SegmentStore([home.segments("b1")])
"""
UNCOMPUTED = f"""{DECLARED}
segment.segment_batch(home, "b1")
"""
COMPUTED = f"""{DECLARED}
without = segment.segment_columns
segment.segment_columns = lambda batch_id, windows, *rest: {{
    **without(batch_id, windows, *rest),
    "perfusion_index": [1.5] * len(windows),
}}

import duckdb
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.documentation import documented_tables
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from assets.metadata import COLUMNS
from orchestration.definitions import build_defs

segment.segment_batch(home, "b1")
load_batch(home, "b1")
publish(home)
with duckdb.connect(str(home.published), read_only=True) as connection:
    rows = connection.execute("SELECT DISTINCT perfusion_index FROM segments").fetchall()
    catalog = connection.execute(
        "SELECT data_type, is_nullable, comment FROM duckdb_columns() WHERE column_name = 'perfusion_index'"
    ).fetchall()
graph = build_defs(home).resolve_asset_graph()
assets = {{}}
for key in graph.get_all_asset_keys():
    metadata = graph.get(key).metadata
    schema_of = metadata.get(COLUMNS)
    lineage = metadata.get("dagster/column_lineage")
    for listed in schema_of.value.columns if schema_of else ():
        if "perfusion_index" in listed.name:
            sources = lineage.value.deps_by_column[listed.name]
            assets[f"{{key.to_user_string()}}: {{listed.name}}"] = [
                listed.type,
                listed.description,
                dict(listed.tags),
                [f"{{source.asset_key.to_user_string()}}: {{source.column_name}}" for source in sources],
            ]
print(json.dumps({{
    "store": SegmentStore([home.segments("b1")]).metadata.column("perfusion_index").to_pylist(),
    "rows": rows,
    "catalog": catalog,
    "assets": assets,
    "documented": [table.table.name for table in documented_tables() if "perfusion_index" in table.table.names],
}}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A batch that was segmented, loaded and published before the column was declared."""
    home = Home(tmp_path)
    simulate_batch(home.landing, "b1", participants=1, segments=2, seed=1)
    segment_batch(home, "b1")
    load_batch(home, "b1")
    publish(home)
    return home


def run(program: str, home: Home) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(home.root)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )


def test_a_declared_column_is_in_store_warehouse_assets_and_documentation(home: Home) -> None:
    done = run(COMPUTED, home)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert results["store"] == [1.5, 1.5]
    assert results["rows"] == [[1.5]]
    assert results["catalog"] == [["DOUBLE", True, "Pulsatile share of the light (%)"]]
    assert results["assets"].keys() == {
        "segments: perfusion_index",
        "segment_tables: segments.perfusion_index",
        "published_warehouse: segments.perfusion_index",
    }
    kind, description, tags, sources = results["assets"]["segments: perfusion_index"]
    assert kind == "double"
    assert description == "Pulsatile share of the light (%) ← raw_recordings.ppg"
    assert tags == {"unit": "%"}
    assert sources == ["raw_recordings: ppg"]
    assert results["assets"]["segment_tables: segments.perfusion_index"][0] == "DOUBLE"
    assert results["assets"]["segment_tables: segments.perfusion_index"][3] == ["segments: perfusion_index"]
    assert results["documented"] == ["store.segments", "segments"]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (OUTDATED, "b1.arrow has no perfusion_index: materialize `segments` of its batch again"),
        (UNCOMPUTED, "perfusion_index: a column of segments is declared in accelkd/segments/schema.py (SEGMENT) and"),
    ],
)
def test_a_store_or_a_computation_that_lacks_a_declared_column_is_named(home: Home, program: str, message: str) -> None:
    done = run(program, home)
    assert done.returncode != 0
    assert message in done.stderr
