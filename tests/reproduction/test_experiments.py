"""Every experiment of the paper is there in every size, and fits together."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from accelkd.models.encoders import build_encoder
from accelkd.models.transformer import SIZES, Encoder, TransformerShape
from accelkd.reproduction.experiments import (
    AUGMENTATIONS,
    MAIN,
    PRESETS,
    ExperimentPreset,
    as_data,
    experiment_preset,
    shown_in,
)
from accelkd.training.distillation import DistillationConfig
from accelkd.training.masked_autoencoding import MaskedAutoencoder, MaskedAutoencodingConfig
from accelkd.training.supervised import SupervisedConfig

_NAMES = """
ppg-mae ppg-mae-1-channel ppg-mae-16-layers ppg-cl ppg-cl-participant ppg-cl-transformer accel-mae accel-cl
accel-kd-mae-efficientnet accel-kd-mae-stem
accel-cl-transformer accel-kd-mae accel-kd-cl accel-kd-cl-transformer accel-kd-cl-participant
kd-augment-none kd-augment-cut-out kd-augment-gaussian-noise kd-augment-magnitude-warp kd-augment-channel-permute
kd-augment-time-warp kd-lambda-0 kd-lambda-0.25 kd-lambda-0.5 kd-lambda-0.75
simultaneous-random-lambda-0 simultaneous-random-lambda-0.5 simultaneous-random-lambda-1
simultaneous-pretrained-lambda-0 simultaneous-pretrained-lambda-0.5 simultaneous-pretrained-lambda-1
kd-size-xs kd-size-s kd-size-m kd-size-l
"""
EXPERIMENTS = _NAMES.split()

every_preset = pytest.mark.parametrize("chosen", PRESETS.values(), ids=list(PRESETS))
whole_preset = pytest.mark.parametrize("chosen", [experiment_preset(name) for name in ("smoke", "small", "gpu")])


@whole_preset
def test_every_experiment_is_in_every_whole_preset(chosen: ExperimentPreset) -> None:
    supervised = [
        f"supervised-{target}-{fraction:g}"
        for target in ("hr_bpm", "sdnn_ms", "rmssd_ms")
        for fraction in chosen.label_fractions
    ]
    assert set(chosen.experiments) == {*EXPERIMENTS, *supervised}
    assert {0.001, 1.0} <= set(chosen.label_fractions)  # tables 9 to 11


@every_preset
def test_experiments_need_only_what_comes_before_them(chosen: ExperimentPreset) -> None:
    before: set[str] = set()
    for name, experiment in chosen.experiments.items():
        assert set(experiment.needs) <= before
        before.add(name)
        if experiment.teacher is not None:
            assert chosen.experiments[experiment.teacher].config.modality == "ppg"


@every_preset
def test_every_encoder_can_be_built_and_fits_its_teacher(chosen: ExperimentPreset) -> None:
    for experiment in chosen.experiments.values():
        config = experiment.config
        encoder = build_encoder(4 if config.modality == "ppg" else 3, config.encoder)
        if isinstance(config, MaskedAutoencodingConfig):
            assert isinstance(encoder, Encoder)
            MaskedAutoencoder(encoder, config.decoder, config.kept_tokens, config.modality)
        if isinstance(config, DistillationConfig):
            assert (experiment.teacher is None) == (config.teacher_encoder is not None)
        assert (experiment.label_fraction is not None) == isinstance(config, SupervisedConfig)


@whole_preset
def test_ablations_differ_from_the_main_student_in_one_thing(chosen: ExperimentPreset) -> None:
    main = asdict(chosen.experiments["accel-kd-mae"].config)

    def different(name: str) -> set[str]:
        other = asdict(chosen.experiments[name].config)
        return {field for field in main if other[field] != main[field]}

    for name in chosen.experiments:
        if name.startswith("kd-lambda-"):
            assert different(name) == {"teacher_weight"}
        if name.startswith("kd-augment-"):
            assert different(name) == {"augmentations"}
        if name.startswith("kd-size-"):
            assert different(name) == {"encoder"}
        if name.startswith("simultaneous-pretrained"):
            assert different(name) <= {"teacher", "teacher_weight"}
    for name in AUGMENTATIONS:
        single = chosen.experiments[f"kd-augment-{name.replace('_', '-')}"].config
        assert isinstance(single, DistillationConfig)
        assert {each: getattr(single.augmentations, each) for each in AUGMENTATIONS} == {
            each: float(each == name) for each in AUGMENTATIONS
        }


@whole_preset
def test_sizes_shrink_from_xl_to_xs(chosen: ExperimentPreset) -> None:
    names = ["accel-kd-mae", "kd-size-l", "kd-size-m", "kd-size-s", "kd-size-xs"]
    parameters = [
        sum(p.numel() for p in build_encoder(3, chosen.experiments[name].config.encoder).parameters()) for name in names
    ]
    assert parameters == sorted(parameters, reverse=True)
    assert len(set(parameters)) == len(parameters)


def test_the_gpu_preset_has_the_papers_sizes() -> None:
    experiments = experiment_preset("gpu").experiments
    assert experiments["accel-kd-mae"].config.encoder == SIZES["XL"]
    assert [experiments[f"kd-size-{size}"].config.encoder for size in ("l", "m", "s", "xs")] == [
        SIZES[size] for size in ("L", "M", "S", "XS")
    ]
    deep = experiments["ppg-mae-16-layers"].config.encoder
    assert isinstance(deep, TransformerShape)
    assert deep.layers == 16


def test_longer_trains_what_small_trains_for_three_times_as_many_steps() -> None:
    small, longer = experiment_preset("small").experiments, experiment_preset("longer").experiments
    for name, experiment in longer.items():
        before, after = small[name].config, experiment.config
        assert after.optimisation.steps == 3 * before.optimisation.steps
        assert (after.encoder, after.modality) == (before.encoder, before.modality)
        assert experiment.needs == small[name].needs


def test_more_seeds_come_last_and_only_for_the_main_comparison() -> None:
    chosen = experiment_preset("small")
    runs = chosen.runs()
    first, more = runs[: len(chosen.experiments)], runs[len(chosen.experiments) :]
    assert {run.seed for run in first} == {chosen.seeds[0]}
    assert {(run.experiment.name, run.seed) for run in more} == {(name, s) for name in MAIN for s in chosen.seeds[1:]}
    assert all(run.config.optimisation.seed == run.seed for run in runs)
    assert len({run.name for run in runs}) == len(runs)


def test_one_table_runs_only_what_it_needs() -> None:
    chosen = experiment_preset("smoke")
    assert {run.experiment.name for run in chosen.runs(["table-18"])} == {
        "ppg-mae",
        "accel-kd-mae",
        *(name for name in EXPERIMENTS if name.startswith("kd-lambda-")),
    }
    both = {run.experiment.name for run in chosen.runs(["table-15", "figure-3"])}
    assert both == {"ppg-mae", "ppg-mae-1-channel", "accel-mae", "accel-kd-mae"}
    with pytest.raises(ValueError, match=r"'table-99'.*table-1, .*figure-4"):
        chosen.runs(["table-99"])


def test_every_experiment_is_shown_somewhere() -> None:
    chosen = experiment_preset("small")
    shown = shown_in(chosen.experiments)
    assert {name for names in shown.values() for name in names} == set(chosen.experiments)


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ValueError, match="smoke, small, longer, gpu"):
        experiment_preset("huge")


def test_configurations_of_different_methods_differ_as_data() -> None:
    experiments = experiment_preset("smoke").experiments
    kinds = {name: as_data(experiments[name].config)["kind"] for name in ("ppg-mae", "ppg-cl", "accel-kd-mae")}
    assert len(set(kinds.values())) == 3
