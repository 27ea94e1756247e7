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


def test_files_of_different_channels_do_not_mix(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    land(home, "b2", ["p2"], ppg_channels=4)
    with pytest.raises(ValueError, match=r"b1\.arrow has 2, b2\.arrow has 4"):
        SegmentStore([home.segments("b1"), home.segments("b2")])


def test_no_file_is_an_empty_store() -> None:
    assert len(SegmentStore([])) == 0
