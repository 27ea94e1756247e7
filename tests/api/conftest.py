"""A home with a simulated batch and an untrained accelerometer encoder: segmented, embedded and published."""

from __future__ import annotations

import numpy as np
import pytest

import accelkd
from accelkd.evaluation.participant_probes import mean_embeddings
from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.evaluation.readouts import fit_readouts, write_readouts
from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.operations.readouts import predict_all, refresh_readouts
from accelkd.registry.history import decide
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.publish import publish
from tests.support.homes import checkpoint, copy_home, load_and_split, loaded_checkpoint, simulate

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


@pytest.fixture(scope="session")
def read_home(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home with readouts that were fitted elsewhere, and their predictions, published."""
    own = copy_home(home, tmp_path_factory.mktemp("read") / "home")
    encoder = accelkd.load_encoder("accel_student", home=own.root)
    signals = accelkd.open_home(own.root).segments().signals("accel")
    center = accelkd.embed(encoder, signals).mean(axis=0)
    rng = np.random.default_rng(0)
    people = np.repeat([f"e{number:02d}" for number in range(40)], 4)
    matrix = (center + 0.1 * rng.standard_normal((len(people), len(center)))).astype(np.float32)
    labels = {
        name: 70 + 40 * (matrix - center)[:, number] for number, name in enumerate(("hr_bpm", "sdnn_ms", "rmssd_ms"))
    }
    names, means = mean_embeddings(matrix, people)
    facts = {"age": 50 + 100 * (means - center)[:, 3], "sex": (means[:, 4] > center[4]).astype(float)}
    readouts = fit_readouts(
        "accel_student",
        encoder.model_id,
        LabelledEmbeddings(matrix, people, labels),
        LabelledEmbeddings(means, names, facts),
        {"elsewhere": "v"},
    )
    write_readouts(readouts, own.checkpoint("accel_student", encoder.model_id))
    refresh_readouts(own)
    predict_all(own)
    publish(own)
    return own
