"""The segment store: rows and signals of several batches in the order given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from accelkd.home.layout import Home
from accelkd.segments.schema import SAMPLES, metadata_schema
from accelkd.segments.store import Modality, SegmentStore
from tests.support.homes import land


def test_signals_come_from_the_right_file_in_any_order(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1", "p2"], minutes=2)
    land(home, "b2", ["p3"], minutes=3)
    store = SegmentStore([home.segments("b2"), home.segments("b1")])
    assert len(store) == store.metadata.num_rows == 7
    assert store.metadata.schema.names == metadata_schema().names
    tables = [pa.ipc.open_file(str(home.segments(b))).read_all() for b in ("b2", "b1")]
    modalities: dict[Modality, int] = {"ppg": 2, "accel": 3}
    for modality, channels in modalities.items():
        flat = np.concatenate([np.stack(table.column(modality).to_numpy()) for table in tables])
        expected = flat.reshape(7, channels, SAMPLES)
        rows = np.array([5, 0, 6, 2, 0])
        signals = store.signals(modality, rows)
        assert signals.dtype == np.float16
        assert (signals == expected[rows]).all()


def test_files_of_different_channels_are_read_apart(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"], minutes=2)
    land(home, "b2", ["p2"], minutes=1, ppg_channels=4)
    store = SegmentStore([home.segments("b1"), home.segments("b2")])
    assert store.counts("ppg").tolist() == [2, 2, 4]
    with pytest.raises(ValueError, match=r"differ in their number of ppg channels: \[2, 4\]"):
        store.channels("ppg")
    with pytest.raises(ValueError, match=r"differ in their number of ppg channels: \[2, 4\]"):
        store.signals("ppg")
    four = store.subset(store.counts("ppg") == 4)
    assert (len(four), four.channels("ppg"), four.channels("accel")) == (1, 4, 3)
    assert four.metadata.column("participant_id").to_pylist() == ["p2"]
    assert (four.signals("ppg") == SegmentStore([home.segments("b2")]).signals("ppg")).all()
    assert (store.signals("ppg", np.array([1])) == store.subset(np.array([1])).signals("ppg")).all()


def test_a_store_of_version_0_1_0_can_be_read(tmp_path: Path) -> None:
    """Its signals were lists of one size."""
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    store = SegmentStore([home.segments("b1")])
    table = pa.ipc.open_file(str(home.segments("b1"))).read_all()
    for modality, channels in (("ppg", 2), ("accel", 3)):
        index = table.column_names.index(modality)
        sized = pa.FixedSizeListArray.from_arrays(table.column(modality).combine_chunks().flatten(), channels * SAMPLES)
        table = table.set_column(index, modality, sized)
    with pa.ipc.new_file(str(tmp_path / "old.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    old = SegmentStore([tmp_path / "old.arrow"])
    assert (old.signals("ppg") == store.signals("ppg")).all()
    assert (old.signals("accel") == store.signals("accel")).all()


def test_no_file_is_an_empty_store() -> None:
    assert len(SegmentStore([])) == 0
