"""Reference labels of a window from the references of its recording: totals, beats, intervals, heart rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import rust_dsp
from accelkd.recordings.labels import LABELS
from accelkd.segments.schema import DURATION_S

Floats = npt.NDArray[np.float64]

_MIN_SPAN_S = 30.0  # of a heart rate over time within the window


@dataclass(frozen=True)
class Reference:
    """Labels of one window; None where the reference does not provide one."""

    hr_bpm: float | None = None
    sdnn_ms: float | None = None
    rmssd_ms: float | None = None


def window_reference(recording: Mapping[str, Any], offset_s: float, *, only_window: bool) -> Reference:
    """Reference labels of the 60 s from `offset_s` of a recording (the reference columns of its row, as lists).

    If the recording has only this window its own totals count; else, or where they are missing, its beats, then its
    inter-beat intervals, and for the heart rate alone the mean of its rate over time.
    """
    labels = Reference()
    if only_window:
        labels = Reference(**{name: recording[name] for name in LABELS})
        if None not in vars(labels).values():
            return labels
    for start_s, end_s in _intervals(recording):
        in_window = (start_s >= offset_s) & (end_s <= offset_s + DURATION_S)
        labels = _fill_in(labels, _variability(start_s[in_window], end_s[in_window]))
    return _fill_in(labels, Reference(hr_bpm=_mean_rate(recording, offset_s)))


def _variability(start_s: Floats, end_s: Floats) -> Reference:
    """Labels of the inter-beat intervals within a window, by the rule of the labels from PPG."""
    variability = rust_dsp.variability(start_s, end_s)
    values = {name: getattr(variability, name) for name in LABELS}
    return Reference(**{name: None if math.isnan(value) else value for name, value in values.items()})


def _intervals(recording: Mapping[str, Any]) -> Iterator[tuple[Floats, Floats]]:
    """(starts, ends) of the intervals between beats, then of the intervals that the device itself reports."""
    if recording["reference_beat_s"] is not None:
        beats = np.asarray(recording["reference_beat_s"], np.float64)
        yield beats[:-1], beats[1:]
    if recording["reference_ibi_s"] is not None:
        end = np.asarray(recording["reference_ibi_end_s"], np.float64)
        yield end - np.asarray(recording["reference_ibi_s"], np.float64), end


def _mean_rate(recording: Mapping[str, Any], offset_s: float) -> float | None:
    if recording["reference_hr_s"] is None:
        return None
    instants_s = np.asarray(recording["reference_hr_s"], np.float64)
    in_window = (instants_s >= offset_s) & (instants_s < offset_s + DURATION_S)
    if not in_window.any() or np.ptp(instants_s[in_window]) < _MIN_SPAN_S:
        return None
    return float(np.asarray(recording["reference_hr_bpm"], np.float64)[in_window].mean())


def _fill_in(labels: Reference, fallback: Reference) -> Reference:
    """Each label, or where it is missing that of `fallback`."""
    return Reference(**{name: vars(fallback)[name] if value is None else value for name, value in vars(labels).items()})
