"""An upgrade keeps what an older version wrote, does nothing twice, and leaves a newer home alone."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from accelkd.home.version import LAYOUT, UnusableHomeError, layout_version, write_layout
from accelkd.operations.upgrade import upgrade
from accelkd.recordings.arrivals import superseded
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.migrations import MIGRATIONS
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support import REPOSITORY
from tests.support.homes import land, new_home

SCHEMA_0_1_0 = REPOSITORY / "tests" / "warehouse" / "schema-0.1.0.sql"


@pytest.fixture
def older(tmp_path: Path) -> Home:
    """A home as 0.1.0 left it: its names, its warehouse, and Dagster's databases."""
    home = new_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(home.root / "dagster")) as instance:
        instance.add_dynamic_partitions("arrival_batch", ["b1"])
    (home.root / "retired.json").write_text('[{"batch_id": "b0", "replaced_by": "b1"}]', encoding="utf-8")
    (home.root / "checkpoints").mkdir()
    home.staging.parent.mkdir(parents=True)
    with duckdb.connect(str(home.staging)) as connection:
        connection.execute(SCHEMA_0_1_0.read_text(encoding="utf-8"))
        connection.execute("INSERT INTO schema_version VALUES ('of 0.1.0')")
        connection.execute("INSERT INTO retired_batches VALUES ('b0', 'b1')")
        connection.execute("INSERT INTO provenance.runs VALUES ('batch:b1', 'v', 'run-1', '2026-01-01T00:00:00Z')")
    return home


def test_a_home_of_0_1_0_keeps_what_it_holds(older: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(older.root), "upgrade"]) == 0
    assert "2 steps" in capsys.readouterr().out
    assert layout_version(older) == LAYOUT
    assert superseded(older)["b0"].replaced_by == "b1"
    with duckdb.connect(str(older.published), read_only=True) as connection:
        assert connection.execute("FROM superseded_batches").fetchall() == [("b0", "b1")]
        assert connection.execute("SELECT run_id FROM provenance.runs").fetchall() == [("run-1",)]
        assert connection.execute("SELECT migrations FROM schema_version").fetchall() == [(len(MIGRATIONS),)]
    with dg.DagsterInstance.from_config(str(older.root / "dagster")) as instance:
        assert instance.get_dynamic_partitions("arrival_batch") == ["b1"]
    assert main(["--home", str(older.root), "upgrade"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_new_home_needs_no_upgrade(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1", "p2"])
    load_batch(home, "b1")
    publish(home)
    assert layout_version(home) == LAYOUT
    assert upgrade(home) == []


def test_a_newer_home_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path)
    with staging(home):
        pass
    write_layout(home, LAYOUT + 1)
    with pytest.raises(UnusableHomeError, match=f"has layout {LAYOUT + 1}"), shared_lock(home):
        pass
    for command in (["upgrade"], ["repair"], ["withdraw", "p1"]):
        assert main(["--home", str(home.root), *command]) == 2
        assert "install the version that wrote it" in capsys.readouterr().err
    assert json.loads((home.root / "layout.json").read_text(encoding="utf-8")) == {"layout": LAYOUT + 1}


def test_an_unfinished_restore_is_finished_first(tmp_path: Path) -> None:
    (tmp_path / "restore.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UnusableHomeError, match="a restore was interrupted"):
        upgrade(Home(tmp_path))
