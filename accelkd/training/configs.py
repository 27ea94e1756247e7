"""Configurations of training runs. The defaults are the paper's values, where it gives them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from accelkd.models.encoders import EncoderShape
from accelkd.models.transformer import TransformerShape
from accelkd.recordings.labels import LabelName
from accelkd.segments.store import Modality
from accelkd.training.augment import Augmentations

# The paper gives no total; over 200,000 iterations its schedule falls to a fifteenth of the peak rate
PAPER_STEPS = 200_000
_WARMUP_STEPS = 20_000
_DECAY_STEPS = 1_000


@dataclass(frozen=True)
class Optimisation:
    """Length, learning rate and precision of a training run. The defaults are those of table 4 (Transformer)."""

    steps: int
    batch_size: int  # over all processes
    learning_rate: float  # the peak, at the end of the warm-up
    warmup_steps: int = _WARMUP_STEPS
    decay_steps: float = _DECAY_STEPS  # the rate is multiplied by `decay` after so many steps; fractional in short runs
    decay: float = 0.985
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = 1e-5
    clip_norm: float | None = 3.0
    precision: Literal["bf16", "fp32"] = "bf16"  # bf16 falls back to fp32 where the processor lacks it
    compile: bool = True  # the encoders, on a GPU
    seed: int = 0
    log_every: int = 100  # steps from one row of the curve to the next
    save_every: int = 5_000  # steps from one resumable state to the next

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a staircase of exponential decay."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        return float(self.learning_rate * self.decay ** ((step - self.warmup_steps) // self.decay_steps))

    def with_steps(self, steps: int) -> Optimisation:
        """The same with another number of steps: warm-up and decay keep their share of the total."""
        factor = steps / self.steps
        warmup_steps = max(1, round(factor * self.warmup_steps)) if self.warmup_steps else 0
        return replace(self, steps=steps, warmup_steps=warmup_steps, decay_steps=factor * self.decay_steps)


def scaled_schedule(steps: int) -> tuple[int, float]:
    """Warm-up and decay steps that give a short run the shape of the paper's schedule for Transformers."""
    return max(1, steps * _WARMUP_STEPS // PAPER_STEPS), steps * _DECAY_STEPS / PAPER_STEPS


def efficientnet_optimisation(steps: int, batch_size: int, learning_rate: float = 1e-3) -> Optimisation:
    """Table 5: Adam, no warm-up, half the rate every 125,000 of (here) 200,000 steps, no clipping."""
    return Optimisation(
        steps,
        batch_size,
        learning_rate,
        warmup_steps=0,
        decay_steps=steps * 125_000 / PAPER_STEPS,
        decay=0.5,
        optimizer="adam",
        clip_norm=None,
    )


@dataclass(frozen=True)
class MaskedAutoencodingConfig:
    """Pre-training by masked autoencoding (section 3.1)."""

    modality: Modality
    encoder: TransformerShape
    decoder: TransformerShape
    optimisation: Optimisation
    kept_tokens: int = 38  # of 192: four fifths are dropped
    ppg_channels: int | None = None  # number of first channels to use (table 15); None: all


@dataclass(frozen=True)
class ContrastiveConfig:
    """Pre-training by contrasting two views of each segment, or of each participant (section 3.1, table 14)."""

    modality: Modality
    encoder: EncoderShape
    optimisation: Optimisation
    augmentations: Augmentations = field(default_factory=Augmentations)
    temperature: float = 0.04
    koleo_weight: float = 0.1
    momentum: float = 0.99
    positives: Literal["segment", "participant"] = "segment"


@dataclass(frozen=True)
class DistillationConfig:
    """Accelerometer student by cross-modal distillation (section 3.2), or, with a trainable teacher, both together."""

    encoder: EncoderShape
    optimisation: Optimisation
    augmentations: Augmentations = field(default_factory=Augmentations)
    temperature: float = 0.04
    teacher_weight: float = 1.0  # λ of equation 1
    teacher: Literal["frozen", "trainable"] = "frozen"  # trainable: simultaneous pre-training (tables 3 and 19)
    teacher_encoder: EncoderShape | None = None  # of a randomly initialised teacher; None: a teacher's checkpoint

    def __post_init__(self) -> None:
        if self.teacher == "frozen" and self.teacher_encoder is not None:
            raise ValueError("a frozen teacher comes from a checkpoint: it cannot be randomly initialised")

    @property
    def modality(self) -> Modality:
        return "accel"


@dataclass(frozen=True)
class SupervisedConfig:
    """An encoder with a linear head, trained from scratch on one target (section 5.2)."""

    modality: Modality
    encoder: EncoderShape
    target: LabelName
    optimisation: Optimisation
    validation_share: float = 0.2  # of the participants with labels: the weights with the lowest error on them are kept
    patience: int = 5  # rows of the curve without improvement after which training stops


EncoderConfig = MaskedAutoencodingConfig | ContrastiveConfig | DistillationConfig | SupervisedConfig
