"""A home with a simulated batch and an untrained accelerometer encoder: segmented, embedded and published."""

from __future__ import annotations

import pytest

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.recordings.simulator import simulate_batch
from accelkd.registry.history import decide
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch, load_model, load_split
from accelkd.warehouse.publish import publish
from tests.homes import checkpoint

BATCH = "sim-a"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    simulate_batch(home.landing, BATCH, participants=2, segments=3, seed=3, profile="easy")
    segment_batch(home, BATCH)
    load_batch(home, BATCH)
    extend_split(home.split, segmented_participants(home, [BATCH]))
    load_split(home)
    model_id = checkpoint(home, "accel_student")
    load_model(home, "accel_student", model_id, [BATCH])
    decide(home, "promoted", {"accel_student": model_id}, "test")
    embed_batch(home, "accel_student", BATCH, device="cpu")
    publish(home)
    checkpoint(home, "ppg_teacher")  # trained last, not promoted
    return home
