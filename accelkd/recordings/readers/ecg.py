"""Heart beats of an electrocardiogram: where a file brings the signal instead of a list of beats.

A plain detector after Pan & Tompkins, IEEE Transactions on Biomedical Engineering 32(3):230-236, 1985: band-pass,
slope, its average over the length of a QRS complex, a threshold that follows the local height of the complexes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt

from accelkd.recordings.readers import Times

BAND_HZ = (8.0, 25.0)  # of QRS complexes; T waves and movement lie below
MIN_RATE_HZ = 60.0
QRS_S = 0.08
REFRACTORY_S = 0.25
THRESHOLD = 0.4  # of the median height of the largest complexes nearby
BLOCK_S = 2.0  # holds a complex at 30 beats a minute and more
_NEARBY_BLOCKS = 5
_CHUNK_S, _MARGIN_S = 1800.0, 10.0  # long signals are searched in chunks, whose margins overlap


def beats(ecg: npt.NDArray[np.floating], rate_hz: float) -> Times:
    """Instants of the R peaks of `ecg` [samples], in any unit and polarity, as seconds after its first sample.

    NaN counts as missing: no beat lies there. Empty where the rate is below 60 Hz or the signal has no complex.
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
    """The median of the maxima of the blocks around each sample; None where nothing moves."""
    starts = np.arange(0, len(slope), block)
    maxima = np.maximum.reduceat(slope, starts)
    maxima[maxima <= np.finfo(np.float64).eps * maxima.max()] = np.nan  # nothing is connected
    if np.isnan(maxima).all():
        return None
    reach = _NEARBY_BLOCKS // 2
    around = np.lib.stride_tricks.sliding_window_view(np.pad(maxima, reach, constant_values=np.nan), _NEARBY_BLOCKS)
    nearby = np.full(len(maxima), np.nan)
    some = np.isfinite(around).any(axis=1)
    nearby[some] = np.nanmedian(around[some], axis=1)
    nearby[~some] = np.inf
    height: npt.NDArray[np.float64] = nearby[np.arange(len(slope)) // block]
    return height


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
