"""Configurations of training runs. The defaults are the paper's values, where it gives them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

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
