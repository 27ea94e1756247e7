"""Signal processing of wearable PPG and accelerometer recordings; docs/signal-processing.md states the rules."""

from rust_dsp._native import (
    Labels,
    Plan,
    Preprocessed,
    Segment,
    Stream,
    Variability,
    Windows,
    band_pass,
    label,
    motion,
    recoil_rate,
    recoil_rates,
    variability,
)

__all__ = [
    "Labels",
    "Plan",
    "Preprocessed",
    "Segment",
    "Stream",
    "Variability",
    "Windows",
    "band_pass",
    "label",
    "motion",
    "recoil_rate",
    "recoil_rates",
    "variability",
]
