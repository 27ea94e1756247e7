"""Signal processing of wearable PPG and accelerometer recordings; docs/signal-processing.md states the rules."""

from rust_dsp._native import Labels, Plan, Preprocessed, Variability, Windows, label, motion, variability

__all__ = ["Labels", "Plan", "Preprocessed", "Variability", "Windows", "label", "motion", "variability"]
