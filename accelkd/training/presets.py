"""What a training run is made of, as data: the paper's values, and small versions for a laptop and for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.training.augment import Augmentations

# The paper names no total; over 200,000 iterations its schedule falls to a fifteenth of the highest rate.
_PAPER_STEPS = 200_000
_PAPER_WARMUP_STEPS = 20_000
_PAPER_DECAY_STEPS = 1_000


@dataclass(frozen=True)
class Optimisation:
    """How long, how fast and how exactly to train. The defaults are those of table 4."""

    steps: int
    batch_size: int
    learning_rate: float  # the highest, at the end of the warm-up
    warmup_steps: int = _PAPER_WARMUP_STEPS
    decay_steps: float = _PAPER_DECAY_STEPS  # the rate falls by `decay` every so many steps; a fraction in short runs
    decay: float = 0.985
    weight_decay: float = 1e-5
    clip_norm: float = 3.0
    precision: Literal["bf16", "fp32"] = "bf16"  # bf16 falls back to fp32 where the processor lacks it
    seed: int = 0
    log_every: int = 100  # steps from one row of the curve to the next
    save_every: int = 5_000  # steps from one resumable state to the next

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a staircase of exponential decay."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        return float(self.learning_rate * self.decay ** ((step - self.warmup_steps) // self.decay_steps))


def scaled_schedule(steps: int) -> tuple[int, float]:
    """Warm-up and decay steps that give a short run the shape of the paper's schedule."""
    return max(1, steps * _PAPER_WARMUP_STEPS // _PAPER_STEPS), steps * _PAPER_DECAY_STEPS / _PAPER_STEPS


@dataclass(frozen=True)
class TeacherConfig:
    """PPG teacher by masked autoencoding (section 3.1)."""

    encoder: TransformerShape
    decoder: TransformerShape
    optimisation: Optimisation
    kept_tokens: int = 38  # of 192: four fifths are dropped


@dataclass(frozen=True)
class StudentConfig:
    """Accelerometer student by cross-modal distillation (section 3.2)."""

    encoder: TransformerShape
    optimisation: Optimisation
    augmentations: Augmentations = field(default_factory=Augmentations)
    temperature: float = 0.04
    teacher_weight: float = 1.0  # λ of equation 1


@dataclass(frozen=True)
class Preset:
    """A teacher and the student that learns from it."""

    teacher: TeacherConfig
    student: StudentConfig


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


# Smaller than XS, and in small batches: what two cores learn from in minutes is the number of steps.
_DEMO_ENCODER = TransformerShape(width=64, layers=3, heads=2, mlp=256)
_SMOKE_ENCODER = TransformerShape(width=16, layers=1, heads=2, mlp=32)

PRESETS = {
    "paper": Preset(
        teacher=TeacherConfig(
            encoder=SIZES["XL"],
            decoder=TransformerShape(width=256, layers=4, heads=8, mlp=1024),
            optimisation=Optimisation(steps=_PAPER_STEPS, batch_size=512, learning_rate=2e-4),
        ),
        student=StudentConfig(
            encoder=SIZES["XL"],
            optimisation=Optimisation(steps=_PAPER_STEPS, batch_size=256, learning_rate=1e-3),
        ),
    ),
    "demo": Preset(
        teacher=TeacherConfig(
            encoder=_DEMO_ENCODER,
            decoder=TransformerShape(width=64, layers=1, heads=2, mlp=256),
            optimisation=_short(steps=1600, batch_size=16, learning_rate=2e-3, precision="fp32", log_every=20),
        ),
        student=StudentConfig(
            encoder=_DEMO_ENCODER,
            optimisation=_short(steps=1000, batch_size=32, learning_rate=2e-3, precision="fp32", log_every=20),
        ),
    ),
    "smoke": Preset(
        teacher=TeacherConfig(
            encoder=_SMOKE_ENCODER,
            decoder=_SMOKE_ENCODER,
            optimisation=_short(steps=6, batch_size=8, learning_rate=1e-3, precision="fp32", log_every=2),
        ),
        student=StudentConfig(
            encoder=_SMOKE_ENCODER,
            optimisation=_short(steps=6, batch_size=8, learning_rate=1e-3, precision="fp32", log_every=2),
        ),
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError that lists the names there are."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
