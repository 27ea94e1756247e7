"""Reference labels of a window from the references of its recording: totals, beats, intervals, heart rate over time."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


@dataclass(frozen=True)
class References:
    """What travelled with one recording, as arrays in order of time: read once, however many windows it has."""

    totals: Reference
    intervals: tuple[tuple[Floats, Floats], ...]  # starts and ends: between beats, then those that the device reports
    rate: tuple[Floats, Floats] | None  # instants and heart rates


def references(recording: Mapping[str, Any]) -> References:
    """The references of a recording, from the reference columns of its row as sequences of numbers."""
    series = {
        name: None if recording[name] is None else np.asarray(recording[name], np.float64)
        for name in ("reference_beat_s", "reference_ibi_end_s", "reference_ibi_s", "reference_hr_s", "reference_hr_bpm")
    }
    intervals = []
    if (beats := series["reference_beat_s"]) is not None:
        intervals.append((beats[:-1], beats[1:]))
    if (end := series["reference_ibi_end_s"]) is not None and (ibi := series["reference_ibi_s"]) is not None:
        intervals.append((end - ibi, end))
    instants, rates = series["reference_hr_s"], series["reference_hr_bpm"]
    return References(
        totals=Reference(**{name: recording[name] for name in LABELS}),
        intervals=tuple(intervals),
        rate=None if instants is None or rates is None else (instants, rates),
    )


def window_reference(known: References, offset_s: float, *, only_window: bool) -> Reference:
    """Reference labels of the 60 s from `offset_s` of a recording.

    If the recording has only this window its own totals count; else, or where they are missing, its beats, then its
    inter-beat intervals, and for the heart rate alone the mean of its rate over time. Takes time proportional to the
    references inside the window.
    """
    labels = Reference()
    if only_window:
        labels = known.totals
        if None not in vars(labels).values():
            return labels
    for start_s, end_s in known.intervals:
        # Ends increase; an interval that ends inside may have begun before
        near = slice(*np.searchsorted(end_s, (offset_s, np.nextafter(offset_s + DURATION_S, np.inf))))
        inside = start_s[near] >= offset_s
        labels = _fill_in(labels, _variability(start_s[near][inside], end_s[near][inside]))
    return _fill_in(labels, Reference(hr_bpm=_mean_rate(known, offset_s)))


def _variability(start_s: Floats, end_s: Floats) -> Reference:
    """Labels of the inter-beat intervals within a window, by the rule of the labels from PPG."""
    variability = rust_dsp.variability(start_s, end_s)
    values = {name: getattr(variability, name) for name in LABELS}
    return Reference(**{name: None if math.isnan(value) else value for name, value in values.items()})


def _mean_rate(known: References, offset_s: float) -> float | None:
    if known.rate is None:
        return None
    instants_s, rate_bpm = known.rate
    near = slice(*np.searchsorted(instants_s, (offset_s, offset_s + DURATION_S)))
    if near.start == near.stop or np.ptp(instants_s[near]) < _MIN_SPAN_S:
        return None
    return float(rate_bpm[near].mean())


def _fill_in(labels: Reference, fallback: Reference) -> Reference:
    """Each label, or where it is missing that of `fallback`."""
    return Reference(**{name: vars(fallback)[name] if value is None else value for name, value in vars(labels).items()})
