"""R peaks of an ECG, after Pan & Tompkins, IEEE Trans. Biomedical Engineering 32(3):230-236, 1985.

Band-pass, slope, square and moving mean bring out the QRS complexes; two running levels tell them from noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, find_peaks, sosfiltfilt

_BAND_HZ = (5.0, 18.0)
_WINDOW_S = 0.15  # of the moving mean: about a QRS complex
_REFRACTORY_S = 0.25  # no two beats are closer
_SEARCH_BACK = 1.66  # of the mean interval: after that long without a beat, a lower peak may be one
_MIN_S = 10.0


def r_peaks(ecg: npt.NDArray[np.floating], rate_hz: float) -> npt.NDArray[np.int64]:
    """Samples of the R peaks of an ECG in any unit and of either polarity; none where it is short or flat.

    Missing samples (NaN) are bridged, and no beat lies in them.
    """
    ecg = np.asarray(ecg, np.float64)
    missing = ~np.isfinite(ecg)
    if len(ecg) < _MIN_S * rate_hz or missing.mean() > 0.5 or rate_hz < 2.5 * _BAND_HZ[1]:
        return np.empty(0, np.int64)
    if missing.any():
        ecg = np.interp(np.arange(len(ecg)), np.flatnonzero(~missing), ecg[~missing])
    waves = sosfiltfilt(butter(2, _BAND_HZ, "bandpass", fs=rate_hz, output="sos"), ecg)
    width = max(round(_WINDOW_S * rate_hz), 1)
    energy = np.convolve(np.gradient(waves) ** 2, np.ones(width) / width, mode="same")
    peaks, _ = find_peaks(energy, distance=round(_REFRACTORY_S * rate_hz))
    beats = _beats(peaks, energy[peaks], rate_hz)
    # The R peak itself: the largest wave within the complex, on the side to which most of them point
    around = np.arange(-width // 2, width // 2 + 1)
    near = np.clip(beats[:, None] + around, 0, len(ecg) - 1)
    complexes = waves[near]
    sign = 1.0 if len(beats) and np.median(complexes.max(axis=1)) >= np.median(-complexes.min(axis=1)) else -1.0
    placed = np.unique(near[np.arange(len(beats)), (sign * complexes).argmax(axis=1)])
    sound: npt.NDArray[np.int64] = placed[~missing[placed]]
    return sound


def _beats(peaks: npt.NDArray[np.int64], heights: npt.NDArray[np.float64], rate_hz: float) -> npt.NDArray[np.int64]:
    """The peaks that rise above a threshold between the running levels of signal and noise."""
    if not len(peaks) or not heights.max() > 0:
        return np.empty(0, np.int64)
    start = heights[peaks < 8 * rate_hz]
    signal, noise = (float(np.percentile(start, 90)), float(np.percentile(start, 20))) if len(start) else (0.0, 0.0)
    beats: list[int] = []  # numbers of peaks
    intervals: list[int] = []
    for number, height in enumerate(heights):
        threshold = noise + 0.25 * (signal - noise)
        if intervals and peaks[number] - peaks[beats[-1]] > _SEARCH_BACK * np.mean(intervals[-8:]):
            between = np.arange(beats[-1] + 1, number)
            missed = between[heights[between] > 0.5 * threshold]
            if len(missed):
                best = int(missed[heights[missed].argmax()])
                intervals.append(int(peaks[best] - peaks[beats[-1]]))
                beats.append(best)
                signal = 0.25 * heights[best] + 0.75 * signal
        if height > threshold:
            if beats:
                intervals.append(int(peaks[number] - peaks[beats[-1]]))
            beats.append(number)
            signal = 0.125 * min(height, 4 * signal) + 0.875 * signal
        else:
            noise = 0.125 * height + 0.875 * noise
    chosen: npt.NDArray[np.int64] = peaks[beats]
    return chosen
