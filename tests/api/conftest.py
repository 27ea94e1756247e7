"""A home with a simulated batch and an untrained accelerometer encoder: segmented, embedded and published."""

from __future__ import annotations

import pytest

from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.registry.history import decide
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.publish import publish
from tests.support.homes import checkpoint, load_and_split, loaded_checkpoint, simulate

BATCH = "sim-a"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    simulate(home, BATCH, participants=2, segments=3)
    segment_batch(home, BATCH)
    load_and_split(home, [BATCH])
    model_id = loaded_checkpoint(home, "accel_student", [BATCH])
    decide(home, "promoted", {"accel_student": model_id}, "test")
    embed_batch(home, "accel_student", BATCH, device="cpu")
    publish(home)
    checkpoint(home, "ppg_teacher")  # trained last, not promoted
    return home
