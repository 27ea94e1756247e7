"""The presets."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from accelkd.models.encoders import build_encoder
from accelkd.models.transformer import SIZES, Encoder
from accelkd.training.masked_autoencoding import MaskedAutoencoder
from accelkd.training.presets import PRESETS, adjusted, preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_builds_and_is_plain_data(name: str) -> None:
    chosen = preset(name)
    MaskedAutoencoder(Encoder(4, chosen.teacher.encoder), chosen.teacher.decoder, chosen.teacher.kept_tokens, "ppg")
    build_encoder(3, chosen.student.encoder)
    assert json.loads(json.dumps(asdict(chosen))) == asdict(chosen)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="unknown preset 'large'; known: paper, demo, scratch, night, smoke"):
        preset("large")


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_the_paper_s_method(name: str) -> None:
    """Presets differ in size and length, not in what is done."""
    teacher, student = PRESETS[name].teacher, PRESETS[name].student
    assert teacher.kept_tokens == 38
    assert (student.temperature, student.teacher_weight) == (0.04, 1.0)
    assert (student.augmentations.cut_out, student.augmentations.time_warp) == (0.4, 0.15)
    transformer, efficientnet = ("adamw", 3.0, 1e-5, 0.985), ("adam", None, 1e-5, 0.5)  # tables 4 and 5
    at_night = ("adamw", 3.0, 1e-5, 0.5)  # of students of both architectures, with a decay that a short run needs
    for config in (teacher, student):
        optimisation = config.optimisation
        expected = transformer if config.encoder.architecture == "transformer" else efficientnet
        expected = at_night if (name, config) == ("night", student) else expected
        values = (optimisation.optimizer, optimisation.clip_norm, optimisation.weight_decay, optimisation.decay)
        assert values == expected


@pytest.mark.parametrize("name", list(PRESETS))
def test_another_length_keeps_the_shape_of_the_schedule(name: str) -> None:
    for config in (PRESETS[name].teacher, PRESETS[name].student):
        before = config.optimisation
        after = adjusted(config, steps=10 * before.steps).optimisation
        assert after.steps == 10 * before.steps
        assert (after.warmup_steps == 0) == (before.warmup_steps == 0)
        for share in (0.2, 0.5, 0.9):
            rates = [schedule.learning_rate_at(int(share * schedule.steps)) for schedule in (before, after)]
            assert rates[1] == pytest.approx(rates[0], rel=0.25)


def test_paper_has_the_paper_s_values() -> None:
    teacher, student = PRESETS["paper"].teacher, PRESETS["paper"].student
    assert teacher.encoder == student.encoder == SIZES["XL"]
    assert (teacher.optimisation.learning_rate, teacher.optimisation.batch_size) == (2e-4, 512)
    assert (student.optimisation.learning_rate, student.optimisation.batch_size) == (1e-3, 256)
    for optimisation in (teacher.optimisation, student.optimisation):
        assert (optimisation.warmup_steps, optimisation.decay_steps) == (20_000, 1_000)
