"""Heart beats of an electrocardiogram: where a file brings the signal instead of a list of beats.

A plain detector after Pan & Tompkins, IEEE Transactions on Biomedical Engineering 32(3):230-236, 1985: band-pass,
slope, its average over the length of a QRS complex, a threshold that follows the local height of the complexes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_opening, uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt

from accelkd.recordings.readers import Times
from accelkd.recordings.timeline import Piece

BAND_HZ = (8.0, 25.0)  # of QRS complexes; T waves and movement lie below
MIN_RATE_HZ = 60.0
QRS_S = 0.08
REFRACTORY_S = 0.25
THRESHOLD = 0.4  # of the median height of the largest complexes nearby
MIN_CONTRAST = 2.6  # of the complexes to the median slope nearby: noise has 2, the poorest real lead 3
BLOCK_S = 2.0  # holds a complex at 30 beats a minute and more
_NEARBY_BLOCKS = 5
_CHUNK_S, _MARGIN_S = 1800.0, 10.0  # long signals are searched in chunks, whose margins overlap


def beats(ecg: npt.NDArray[np.floating], rate_hz: float) -> Times:
    """Instants of the R peaks of `ecg` [samples], in any unit and polarity, as seconds after its first sample.

    NaN counts as missing: no beat lies there, nor where no complexes stand out, as in noise of a lead that is off.
    Empty where the rate is below 60 Hz or the signal has no complex.
    """
    if rate_hz < MIN_RATE_HZ or len(ecg) < BLOCK_S * rate_hz:
        return np.empty(0)
    chunk, margin = round(_CHUNK_S * rate_hz), round(_MARGIN_S * rate_hz)
    peaks = []
    for first in range(0, len(ecg), chunk):
        begin, end = max(first - margin, 0), min(first + chunk + margin, len(ecg))
        peak = begin + _peaks(ecg[begin:end], rate_hz)
        peaks.append(peak[(peak >= first) & (peak < first + chunk)])
    beat_s: Times = np.concatenate(peaks) / rate_hz
    # Two chunks may place the beat on their border differently
    return beat_s[np.diff(beat_s, prepend=-np.inf) >= REFRACTORY_S]


def reference_beats(leads: Sequence[Piece], notes: list[str]) -> Times | None:
    """Instants of the beats of one lead on the clock of its pieces; None, with a note, where there are none."""
    beat_s = [lead.start_s + beats(lead.samples[0], lead.rate_hz) for lead in leads]
    detected: Times = np.sort(np.concatenate(beat_s)) if beat_s else np.empty(0)
    notes.append(f"{len(detected) or 'no'} beats detected in the ECG")
    return detected if len(detected) else None


def _peaks(ecg: npt.NDArray[np.floating], rate_hz: float) -> npt.NDArray[np.float64]:
    """Positions of R peaks in samples, with a fraction."""
    known = np.isfinite(ecg)
    if len(ecg) < BLOCK_S * rate_hz or not known.any():
        return np.empty(0)
    filled = np.interp(np.arange(len(ecg)), np.flatnonzero(known), ecg[known].astype(np.float64))
    filled -= np.median(filled)  # rounding of a large constant is no complex
    band = butter(2, BAND_HZ, "bandpass", fs=rate_hz, output="sos")
    complexes = sosfiltfilt(band, filled)
    slope = uniform_filter1d(np.abs(np.gradient(complexes)), round(QRS_S * rate_hz))
    slope[~known] = 0.0
    height = _local_height(slope, round(BLOCK_S * rate_hz))
    if height is None:
        return np.empty(0)
    steep, _ = find_peaks(slope, height=THRESHOLD * height, distance=round(REFRACTORY_S * rate_hz))
    return _refined(complexes, steep, round(QRS_S * rate_hz))


def _local_height(slope: npt.NDArray[np.float64], block: int) -> npt.NDArray[np.float64] | None:
    """The median of the maxima of the blocks around each sample, infinite where no complexes stand out.

    None where nothing moves.
    """
    blocks = slope[: len(slope) // block * block].reshape(-1, block)
    maxima = blocks.max(axis=1)
    maxima[maxima <= np.finfo(np.float64).eps * maxima.max()] = np.nan  # nothing is connected
    if np.isnan(maxima).all():
        return None
    height = _running_median(maxima)
    stands_out = height >= MIN_CONTRAST * _running_median(np.median(blocks, axis=1))
    stands_out = binary_opening(stands_out, np.ones(min(_NEARBY_BLOCKS, len(height))))  # not once in a while by chance
    height[~stands_out] = np.inf
    local: npt.NDArray[np.float64] = height[np.minimum(np.arange(len(slope)) // block, len(height) - 1)]
    return local


def _running_median(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Median of the blocks around each, of those that have a value; NaN where none has."""
    padded = np.pad(values, _NEARBY_BLOCKS // 2, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, _NEARBY_BLOCKS)
    some = np.isfinite(around).any(axis=1)
    median = np.full(len(values), np.nan)
    median[some] = np.nanmedian(around[some], axis=1)
    return median


def _refined(complexes: npt.NDArray[np.float64], steep: npt.NDArray[np.intp], reach: int) -> npt.NDArray[np.float64]:
    """The largest deflections near each steep place, of the sign that prevails, between samples by a parabola."""
    if not len(steep):
        return np.empty(0)
    near = np.clip(steep[:, None] + np.arange(-reach, reach + 1), 1, len(complexes) - 2)
    deflection = complexes[near]
    sign = 1.0 if np.median(deflection.max(axis=1)) >= np.median(-deflection.min(axis=1)) else -1.0
    at = near[np.arange(len(near)), (sign * deflection).argmax(axis=1)]
    before, peak, after = complexes[at - 1], complexes[at], complexes[at + 1]
    bend = before - 2 * peak + after
    shift = np.divide(before - after, 2 * bend, out=np.zeros(len(at)), where=bend != 0)
    refined: npt.NDArray[np.float64] = at + np.clip(shift, -0.5, 0.5)
    return refined
