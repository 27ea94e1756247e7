"""The presets."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from accelkd.models.transformer import SIZES, Encoder
from accelkd.training.masked_autoencoding import MaskedAutoencoder
from accelkd.training.presets import PRESETS, preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_builds_and_is_plain_data(name: str) -> None:
    chosen = preset(name)
    MaskedAutoencoder(Encoder(4, chosen.teacher.encoder), chosen.teacher.decoder, chosen.teacher.kept_tokens, "ppg")
    Encoder(3, chosen.student.encoder)
    assert json.loads(json.dumps(asdict(chosen))) == asdict(chosen)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="no preset 'large'; there are paper, demo, smoke"):
        preset("large")


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_the_paper_s_method(name: str) -> None:
    """Presets differ in size and length, not in what is done."""
    teacher, student = PRESETS[name].teacher, PRESETS[name].student
    assert teacher.kept_tokens == 38
    assert (student.temperature, student.teacher_weight) == (0.04, 1.0)
    assert (student.augmentations.cut_out, student.augmentations.time_warp) == (0.4, 0.15)
    for optimisation in (teacher.optimisation, student.optimisation):
        assert (optimisation.clip_norm, optimisation.weight_decay, optimisation.decay) == (3.0, 1e-5, 0.985)


def test_paper_has_the_paper_s_values() -> None:
    teacher, student = PRESETS["paper"].teacher, PRESETS["paper"].student
    assert teacher.encoder == student.encoder == SIZES["XL"]
    assert (teacher.optimisation.learning_rate, teacher.optimisation.batch_size) == (2e-4, 512)
    assert (student.optimisation.learning_rate, student.optimisation.batch_size) == (1e-3, 256)
    for optimisation in (teacher.optimisation, student.optimisation):
        assert (optimisation.warmup_steps, optimisation.decay_steps) == (20_000, 1_000)
