"""Supervised training from scratch, with early stopping on training participants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from accelkd.models.transformer import TransformerShape
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import load_encoder, load_regressor, read_config, read_metrics
from accelkd.training.optimisation import Optimisation
from accelkd.training.presets import PRESETS
from accelkd.training.supervised import SupervisedConfig
from tests.support.segments import pulse_trains, segment_store
from tests.support.training import train

SHAPE = TransformerShape(width=16, layers=1, heads=2, mlp=32)
OPTIMISATION = Optimisation(
    steps=80, batch_size=8, learning_rate=3e-3, warmup_steps=5, decay_steps=40, log_every=10, save_every=10,
    precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> SegmentStore:
    """Eight participants with eight segments each; the heart rate is known, of one participant no SDNN."""
    participants = [f"p{number}" for number in range(8) for _ in range(8)]
    rates_hz = np.random.default_rng(1).uniform(0.8, 1.6, len(participants))
    sdnn_ms = [None if name == "p3" else 40.0 for name in participants]
    labels = {"hr_bpm": (60 * rates_hz).tolist(), "sdnn_ms": sdnn_ms}
    return segment_store(
        tmp_path_factory.mktemp("labelled") / "batch.arrow", pulse_trains(participants, rates_hz, labels)
    )


def test_it_learns_its_target_and_predicts_in_its_unit(labelled: SegmentStore, tmp_path: Path) -> None:
    """The heart rate of a pulse train; segments of participants that training never saw."""
    people = np.asarray(labelled.metadata.column("participant_id").to_pylist())
    test = np.isin(people, ["p6", "p7"])
    config = SupervisedConfig("ppg", SHAPE, "hr_bpm", OPTIMISATION)
    folder = train(labelled, config, tmp_path, rows=np.flatnonzero(~test))
    truth = labelled.metadata.column("hr_bpm").to_numpy()
    regressor = load_regressor(folder)
    assert not regressor.training
    with torch.inference_mode():
        predicted = regressor(torch.from_numpy(labelled.signals("ppg", np.flatnonzero(test))).float()).numpy()
    error = np.abs(predicted - truth[test]).mean()
    assert error < 0.7 * np.abs(np.median(truth[~test]) - truth[test]).mean()
    assert read_config(folder)["method"] == "supervised"
    encoder, info = load_encoder(folder)
    assert (info.modality, info.channels, info.width) == ("ppg", 2, 16)
    tokenizer = "tokenizer.weight"
    assert torch.equal(encoder.get_parameter(tokenizer), regressor.get_parameter(f"encoder.{tokenizer}"))


def test_the_weights_with_the_least_held_out_error_are_kept(labelled: SegmentStore, tmp_path: Path) -> None:
    unlearnable = Optimisation(
        steps=200, batch_size=8, learning_rate=0.5, warmup_steps=1, decay_steps=1e9, log_every=2, precision="fp32"
    )
    config = SupervisedConfig("ppg", SHAPE, "hr_bpm", unlearnable, patience=3)
    folder = train(labelled, config, tmp_path)
    errors = pq.read_table(folder / "training.parquet")["validation_error"].to_pylist()
    assert len(errors) < 100  # it stopped early
    assert len(errors) - 1 - max(i for i, error in enumerate(errors) if error == min(errors)) == 3
    assert read_metrics(folder)["validation_error"] == min(errors)


def test_what_cannot_be_trained_is_named(labelled: SegmentStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two training participants"):
        train(labelled, SupervisedConfig("ppg", SHAPE, "hr_bpm", OPTIMISATION), tmp_path, rows=np.arange(3))
    with pytest.raises(ValueError, match="8 of 64 segments have no sdnn_ms"):
        train(labelled, SupervisedConfig("ppg", SHAPE, "sdnn_ms", OPTIMISATION), tmp_path)


def test_only_supervised_checkpoints_predict(labelled: SegmentStore, tmp_path: Path) -> None:
    folder = train(labelled, PRESETS["smoke"].teacher, tmp_path)
    with pytest.raises(ValueError, match="masked_autoencoding: it predicts no target"):
        load_regressor(folder)
