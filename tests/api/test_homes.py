"""`accelkd.open_home`: what a home holds, read and not written."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import assert_type

import duckdb
import pyarrow as pa
import pytest

import accelkd
from accelkd.home.files import DamagedFileError, sha256_file
from accelkd.home.layout import Home
from accelkd.recordings.simulator import simulate_batch


@pytest.fixture
def copy(home: Home, tmp_path: Path) -> Home:
    return Home(Path(shutil.copytree(home.root, tmp_path / "copy")))


def contents(root: Path) -> dict[Path, str]:
    return {path: sha256_file(path) for path in root.rglob("*") if path.is_file()}


def test_a_home_shows_what_is_in_it_and_is_not_changed(copy: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(copy.root)
    monkeypatch.setenv("ACCELKD_HOME", str(copy.root))
    home = accelkd.open_home()
    assert_type(home, accelkd.OpenHome)
    assert home == accelkd.open_home(copy.root) == accelkd.open_home(str(copy.root))
    assert home.root == copy.root
    assert home.batches == ("sim-a",)
    store = home.segments("sim-a")
    assert len(store) == len(home.segments()) == 6
    assert store.signals("ppg").shape == (6, 4, 3840)
    people = home.participants()
    assert people.column("participant_id").to_pylist() == ["sim3-000000", "sim3-000001"]
    assert {"sex", "age_years", "split"} <= set(people.column_names)
    assert home.encoder("accel_student").model_id == accelkd.load_encoder("accel_student").model_id
    with home.warehouse() as warehouse:
        assert warehouse.sql("SELECT count(*) FROM segments").fetchall() == [(6,)]
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            warehouse.execute("DELETE FROM segments")
    assert contents(copy.root) == before


def test_what_is_not_there_is_said(copy: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no home: none of landing, segments"):
        accelkd.open_home(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCELKD_HOME", raising=False)
    with pytest.raises(FileNotFoundError, match=r"\.accelkd holds no home"):
        accelkd.open_home()
    home = accelkd.open_home(copy.root)
    simulate_batch(copy.landing, "landed-only", participants=1, segments=1, seed=1)
    assert home.batches == ("sim-a",)
    with pytest.raises(FileNotFoundError, match=r"no segments of a batch 'landed-only' in .*; there are sim-a"):
        home.segments("landed-only")
    with pytest.raises(FileNotFoundError, match="promoted there: accel_student"):
        home.encoder("ppg_teacher")
    copy.published.unlink()
    with pytest.raises(FileNotFoundError, match="nothing is published in"):
        home.participants()


def test_damaged_segments_are_not_read(copy: Home) -> None:
    path = copy.segments("sim-a")
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"sim-a\.arrow is damaged.*`accelkd repair`"):
        accelkd.open_home(copy.root).segments()


def test_segments_of_an_empty_home_are_none(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    home = accelkd.open_home(tmp_path)
    assert home.batches == ()
    assert len(home.segments()) == 0
    assert isinstance(home.segments().metadata, pa.Table)


def test_the_warehouse_asks_for_duckdb(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    opened = accelkd.open_home(home.root)
    assert len(opened.segments()) == 6
    with pytest.raises(ImportError, match=r"needs DuckDB: pip install 'accelkd\[platform\]'"):
        opened.warehouse()
