"""Reference labels of a window from what travelled with its recording: totals, beats, intervals, a rate over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from accelkd.segments.schema import DURATION_S

Floats = npt.NDArray[np.float64]

# As in the labels from PPG: intervals of 0.3 to 2 s within 20 % of the median of the five around, and enough of them
_INTERVAL_S = (0.3, 2.0)
_TOLERANCE = 0.2
_MIN_FOR_RATE, _MIN_FOR_VARIABILITY, _MIN_PAIRS, _MIN_COVERAGE = 5, 20, 15, 0.7
_NEXT_S = 0.02  # intervals are neighbours if one ends where the other starts: devices round to about 1/64 s
_MIN_SPAN_S = 30.0  # of a rate over time inside the window


@dataclass(frozen=True)
class Reference:
    """Labels of one window; None where the reference does not say."""

    hr_bpm: float | None = None
    sdnn_ms: float | None = None
    rmssd_ms: float | None = None


def window_reference(recording: Mapping[str, Any], offset_s: float, *, only_window: bool) -> Reference:
    """Reference labels of the 60 s from `offset_s` of a recording (the reference columns of its row, as lists).

    If the recording has only this window its own totals count; else, or where they are missing, its beats, then its
    inter-beat intervals, and for the heart rate alone the mean of its rate over time.
    """
    best = Reference()
    if only_window:
        best = Reference(recording["hr_bpm"], recording["sdnn_ms"], recording["rmssd_ms"])
        if None not in (best.hr_bpm, best.sdnn_ms, best.rmssd_ms):
            return best
    for start, end in _intervals(recording):
        inside = (start >= offset_s) & (end <= offset_s + DURATION_S)
        best = _first(best, variability(start[inside], end[inside]))
    return _first(best, Reference(hr_bpm=_mean_rate(recording, offset_s)))


def variability(start_s: Floats, end_s: Floats) -> Reference:
    """Heart rate, SDNN and RMSSD of inter-beat intervals inside a minute, by the rules of the labels from PPG."""
    interval = end_s - start_s
    kept = _plausible(interval)
    pair = kept[1:] & kept[:-1] & (np.abs(start_s[1:] - end_s[:-1]) < _NEXT_S)
    if kept.sum() < _MIN_FOR_RATE:
        return Reference()
    hr_bpm = 60 / float(interval[kept].mean())
    enough = kept.sum() >= _MIN_FOR_VARIABILITY and pair.sum() >= _MIN_PAIRS
    if not enough or interval[kept].sum() < _MIN_COVERAGE * DURATION_S:
        return Reference(hr_bpm)
    return Reference(
        hr_bpm,
        sdnn_ms=1e3 * float(interval[kept].std(ddof=1)),
        rmssd_ms=1e3 * float(np.sqrt(np.square(np.diff(interval)[pair]).mean())),
    )


def _intervals(recording: Mapping[str, Any]) -> list[tuple[Floats, Floats]]:
    """(starts, ends) of the intervals between beats, and of those that the device itself gave."""
    found = []
    if recording["reference_beat_s"] is not None:
        beats = np.asarray(recording["reference_beat_s"], np.float64)
        found.append((beats[:-1], beats[1:]))
    if recording["reference_ibi_s"] is not None:
        end = np.asarray(recording["reference_ibi_end_s"], np.float64)
        found.append((end - np.asarray(recording["reference_ibi_s"], np.float64), end))
    return found


def _plausible(interval_s: Floats) -> npt.NDArray[np.bool_]:
    possible = (interval_s >= _INTERVAL_S[0]) & (interval_s <= _INTERVAL_S[1])
    if not possible.any():
        return possible
    padded = np.pad(np.where(possible, interval_s, np.nan), 2, constant_values=np.nan)
    around = sliding_window_view(padded, 5)[possible]
    kept = possible.copy()
    kept[possible] = np.abs(interval_s[possible] / np.nanmedian(around, axis=1) - 1) <= _TOLERANCE
    return kept


def _mean_rate(recording: Mapping[str, Any], offset_s: float) -> float | None:
    if recording["reference_hr_s"] is None:
        return None
    at = np.asarray(recording["reference_hr_s"], np.float64)
    inside = (at >= offset_s) & (at < offset_s + DURATION_S)
    if not inside.any() or np.ptp(at[inside]) < _MIN_SPAN_S:
        return None
    return float(np.asarray(recording["reference_hr_bpm"], np.float64)[inside].mean())


def _first(one: Reference, other: Reference) -> Reference:
    """Each label from `one`, or where it does not say from `other`."""
    return Reference(
        other.hr_bpm if one.hr_bpm is None else one.hr_bpm,
        other.sdnn_ms if one.sdnn_ms is None else one.sdnn_ms,
        other.rmssd_ms if one.rmssd_ms is None else one.rmssd_ms,
    )
