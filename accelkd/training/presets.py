"""Teacher and student of the pipeline in named sizes: the paper's, one for a laptop, one for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from accelkd.models import bundled
from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.specs import EncoderSpec
from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.training.distillation import DistillationConfig
from accelkd.training.masked_autoencoding import MaskedAutoencodingConfig
from accelkd.training.optimisation import PAPER_STEPS, Optimisation, efficientnet_optimisation, scaled_schedule


@dataclass(frozen=True)
class Preset:
    """How teachers are pre-trained, and how students learn from them."""

    teacher: MaskedAutoencodingConfig
    student: DistillationConfig
    others: Mapping[str, MaskedAutoencodingConfig | DistillationConfig] = field(default_factory=dict)  # by encoder
    otherwise: str | None = None  # preset of what cannot go on from the weights that this one starts from

    def config(self, spec: EncoderSpec) -> MaskedAutoencodingConfig | DistillationConfig:
        """The configuration of one encoder: its own, or that of its kind."""
        if spec.name in self.others:
            return self.others[spec.name]
        return self.student if spec.teacher is not None else replace(self.teacher, modality=spec.modality)


def _short(
    steps: int, batch_size: int, learning_rate: float, precision: Literal["bf16", "fp32"], log_every: int
) -> Optimisation:
    warmup_steps, decay_steps = scaled_schedule(steps)
    return Optimisation(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        precision=precision,
        log_every=log_every,
        save_every=10 * log_every,
    )


def night_distillation(steps: int, learning_rate: float = 4e-3) -> Optimisation:
    """Of students on two cores: a short warm-up, and half the rate after every sixth of the steps."""
    return Optimisation(
        steps=steps,
        batch_size=64,
        learning_rate=learning_rate,
        warmup_steps=steps // 28,
        decay_steps=steps / 6,
        decay=0.5,
        precision="bf16",
        log_every=20,
        save_every=200,
    )


_SMOKE_ENCODER = TransformerShape(width=16, layers=1, heads=2, mlp=32)

# Smaller than XS, and with small batches: within minutes on two cores, the number of steps matters most
_SCRATCH = Preset(
    teacher=MaskedAutoencodingConfig(
        modality="ppg",
        encoder=TransformerShape(width=64, layers=3, heads=2, mlp=256),
        decoder=TransformerShape(width=64, layers=1, heads=2, mlp=256),
        optimisation=_short(steps=1600, batch_size=16, learning_rate=2e-3, precision="fp32", log_every=20),
    ),
    # Within minutes on two cores convolutions learn variability from acceleration, a Transformer does not
    # (docs/training.md)
    student=DistillationConfig(
        encoder=EfficientNetShape(width=64, width_multiplier=0.125),
        optimisation=replace(
            efficientnet_optimisation(steps=600, batch_size=16, learning_rate=4e-3),
            precision="fp32",
            log_every=20,
            save_every=200,
        ),
    ),
)

PRESETS = {
    "paper": Preset(
        teacher=MaskedAutoencodingConfig(
            modality="ppg",
            encoder=SIZES["XL"],
            decoder=TransformerShape(width=256, layers=4, heads=8, mlp=1024),
            optimisation=Optimisation(steps=PAPER_STEPS, batch_size=512, learning_rate=2e-4),
        ),
        student=DistillationConfig(
            encoder=SIZES["XL"],
            optimisation=Optimisation(steps=PAPER_STEPS, batch_size=256, learning_rate=1e-3),
        ),
    ),
    # On from the encoders that come with the package: after their hour of training little is left to learn
    "demo": Preset(
        teacher=replace(
            _SCRATCH.teacher,
            optimisation=_short(steps=200, batch_size=16, learning_rate=2e-4, precision="fp32", log_every=20),
            start=bundled.TEACHER,
        ),
        student=replace(
            _SCRATCH.student,
            optimisation=replace(
                efficientnet_optimisation(steps=200, batch_size=16, learning_rate=5e-4),
                precision="fp32",
                log_every=20,
                save_every=100,
            ),
            start=bundled.STUDENT,
        ),
        otherwise="scratch",
    ),
    "scratch": _SCRATCH,
    # An hour of two cores (benches/bundled.py trains by it)
    "night": Preset(
        teacher=replace(
            _SCRATCH.teacher,
            optimisation=_short(steps=10_000, batch_size=32, learning_rate=2e-3, precision="fp32", log_every=50),
        ),
        student=replace(_SCRATCH.student, optimisation=night_distillation(steps=5_600)),
    ),
    "smoke": Preset(
        teacher=MaskedAutoencodingConfig(
            modality="ppg",
            encoder=_SMOKE_ENCODER,
            decoder=_SMOKE_ENCODER,
            optimisation=_short(steps=6, batch_size=8, learning_rate=1e-3, precision="fp32", log_every=2),
        ),
        student=DistillationConfig(
            encoder=_SMOKE_ENCODER,
            optimisation=_short(steps=6, batch_size=8, learning_rate=1e-3, precision="fp32", log_every=2),
        ),
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError that lists the known names."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def adjusted(
    config: MaskedAutoencodingConfig | DistillationConfig,
    *,
    steps: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
) -> MaskedAutoencodingConfig | DistillationConfig:
    """A configuration with another length, rate or seed; the schedule keeps its shape."""
    optimisation = config.optimisation
    if steps is not None:
        optimisation = optimisation.with_steps(steps)
    if learning_rate is not None:
        optimisation = replace(optimisation, learning_rate=learning_rate)
    if seed is not None:
        optimisation = replace(optimisation, seed=seed)
    return replace(config, optimisation=optimisation)
