"""A small segment store to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from accelkd.segments.store import SegmentStore
from tests.support.segments import pulse_trains, segment_store

SEGMENTS_OF = {"anna": 6, "ben": 4, "cleo": 9, "dan": 3}  # dan has too few for pre-training


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("segments") / "batch.arrow"
    segment_store(path, pulse_trains([name for name, count in SEGMENTS_OF.items() for _ in range(count)]))
    return path


@pytest.fixture(scope="session")
def store(store_path: Path) -> SegmentStore:
    return SegmentStore([store_path])


@pytest.fixture(scope="session")
def rows(store: SegmentStore) -> npt.NDArray[np.intp]:
    return np.arange(len(store))
