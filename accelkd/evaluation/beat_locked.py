"""Whether acceleration carries the heart: beat-locked averages against shifted beats, agreement of two bands, verdict.

The average of the acceleration around the beats of a minute shows the body's recoil where the sensor feels it (Inan et
al. 2015, doi 10.1109/JBHI.2014.2361732). Whether an average is larger than chance is decided by the same beats, shifted
in a circle (time-shifted surrogates: Andrzejak et al. 2003, doi 10.1103/PhysRevE.68.066202): a shift keeps the rhythm
of the beats and everything about the acceleration, and takes away only that the two belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

Floats = npt.NDArray[np.floating]
Carries = Literal["carries", "carries nothing", "not decidable"]

MIN_BEATS = 20  # of a minute
MAX_P_VALUE = 0.01  # of a locked minute
TOLERANCE_BPM = 3.0  # of rates that agree
# Around a beat: recoil begins at the R wave, and the pulse of a wrist or an arm is up to 0.3 s later
_BEFORE_S, _AFTER_S = 0.35, 0.45
_MAX_INTERVAL = 0.9  # of the window, in beats: a longer one has more of the wave at another shift
_LEVEL_S = 1.0  # over which the strength of the acceleration is made even for the p-value
# Shifts by less than the window average the same wave again and are left out; without their peak a minute would look
# rarer than it is, so they count as this much
_PEAK_S = 0.25
_MIN_DURATION_S = 10.0

MIN_MINUTES = 20  # before few locked minutes say that there is nothing
MIN_LOCKED = 0.1  # share of the minutes: less is of no use, however sure it is
MIN_AGREEING = 0.5  # share of the segments whose two bands agree
MAX_CHANCE = 1e-3  # that so many minutes are locked, or agree, by chance


@dataclass(frozen=True)
class BeatLock:
    """One minute of acceleration and its beats."""

    p_value: float  # share of the shifts at which the average is at least as large
    rms_mg: float  # of the locked wave: over the axes and around the beat, above that of shifted beats
    beats: int

    @property
    def locked(self) -> bool:
        return self.p_value < MAX_P_VALUE


@dataclass(frozen=True)
class Agreement:
    """How often two estimates of the heart rate of a segment agree within TOLERANCE_BPM."""

    segments: int  # with both
    share: float | None  # None without segments
    by_chance: float | None  # with the partners of all other segments; None for fewer than two segments


@dataclass(frozen=True)
class SensorCheck:
    """What was measured of the accelerometer of one device in the still minutes of one batch."""

    device_id: str
    still_minutes: int  # with acceleration
    tested_minutes: int  # with enough beats, of at most a few thousand still ones
    reference_minutes: (
        int  # of these, tested with the beats that travelled with the recording; the others with the PPG's
    )
    locked_minutes: int  # of the tested ones
    locked_rms_mg: float | None  # median of the locked wave over the tested minutes; None without one, as what follows
    false_alarm_tests: int  # tested minutes with the beats of other people, or of other minutes of the only one
    false_alarm_share: float | None  # of these that are locked
    peak: float | None  # median height of the autocorrelation's peak (accel_hr_peak)
    bands: Agreement  # of the rates of 4 to 11 Hz and of the heart sounds, where the device is sampled fast enough
    verdict: Carries
    reason: str

    @property
    def locked_share(self) -> float | None:
        return self.locked_minutes / self.tested_minutes if self.tested_minutes else None


def beat_lock(accel_g: Floats, rate_hz: float, beat_s: Floats) -> BeatLock | None:
    """Test the beats `beat_s` [beats], in seconds from the first sample, on `accel_g` [axes, samples].

    The acceleration is in g and band-passed to the recoil (`rust_dsp.band_pass`). The statistic is the power of its
    average from 0.35 s before to 0.45 s after the beats, or less where they follow each other faster. Each second
    counts as much as any other, whatever moved in it; the size of the wave is that in a second of median strength. All
    shifts by whole samples are measured, by one Fourier transform: nothing is drawn. With beats that have nothing to do
    with the acceleration the p-value is below 1 % in 1 % of the minutes (docs/sensors.md). None for fewer than
    MIN_BEATS beats inside, less than 10 s, or acceleration that is zero or not finite.
    """
    samples = accel_g.shape[1]
    index = np.round(np.asarray(beat_s, np.float64)[np.isfinite(beat_s)] * rate_hz).astype(np.intp)
    index = index[(index >= 0) & (index < samples)]
    power = np.square(accel_g, dtype=np.float64).sum(axis=0)
    if len(index) < MIN_BEATS or samples < _MIN_DURATION_S * rate_hz or not np.isfinite(power).all() or not power.any():
        return None
    level = np.sqrt(_moving_mean(power, round(_LEVEL_S * rate_hz)))
    even = accel_g / np.where(level > 0, level, 1.0)
    beats = np.bincount(index, minlength=samples) / len(index)
    interval_s = float(np.median(np.diff(np.sort(index)))) / rate_hz
    shorter = min(1.0, _MAX_INTERVAL * interval_s / (_BEFORE_S + _AFTER_S))
    before, after = max(1, round(shorter * _BEFORE_S * rate_hz)), round(shorter * _AFTER_S * rate_hz)
    average = _locked_power(even, beats, before, after)
    at_least = int((average[before + after : samples - before - after] >= average[0]).sum())
    return BeatLock(
        p_value=min(1.0, (at_least + round(_PEAK_S * rate_hz)) / (samples - 2 * (before + after))),
        rms_mg=1e3 * float(np.median(level) * np.sqrt(max(average[0] - np.median(average), 0.0))),
        beats=len(index),
    )


def agreement(first_bpm: Floats, second_bpm: Floats) -> Agreement:
    """How often two rates [segments] of the same segments agree; NaN where there is no estimate."""
    both = np.isfinite(first_bpm) & np.isfinite(second_bpm)
    first, second = first_bpm[both], np.sort(second_bpm[both])
    count = len(first)
    agreeing = int((np.abs(first - second_bpm[both]) <= TOLERANCE_BPM).sum())
    pairs = np.searchsorted(second, first + TOLERANCE_BPM, "right") - np.searchsorted(second, first - TOLERANCE_BPM)
    others = int(pairs.sum()) - agreeing
    return Agreement(
        segments=count,
        share=agreeing / count if count else None,
        by_chance=others / (count * (count - 1)) if count > 1 else None,
    )


def verdict(tested: int, locked: int, false_alarms: float | None, bands: Agreement) -> tuple[Carries, str]:
    """Whether a sensor carries the heart, and why, from its minutes.

    `tested` minutes had beats, `locked` of them were locked; `false_alarms` is the share that is locked with other
    people's beats, None where it was not measured. Without enough beats, `bands` decides: that of 4 to 11 Hz and that
    of the heart sounds can agree only by what they share, but a sensor that feels the recoil alone disagrees.
    """
    expected = max(MAX_P_VALUE, false_alarms or 0.0)
    said = f"{locked} of {tested} minutes are locked to the beats, {expected:.1%} would be by chance"
    if tested and locked >= MIN_LOCKED * tested and binom.sf(locked - 1, tested, expected) < MAX_CHANCE:
        return "carries", said
    if tested >= MIN_MINUTES:
        return ("carries nothing", said) if locked < MIN_LOCKED * tested else ("not decidable", said)
    too_few = f"too few minutes with beats: {tested}, {MIN_MINUTES} are needed"
    if bands.share is None or bands.by_chance is None or bands.segments < MIN_MINUTES:
        return "not decidable", too_few
    agreed = (
        f"the rates of 4 to 11 Hz and of the heart sounds agree in {bands.share:.0%} of {bands.segments} minutes, "
        f"{bands.by_chance:.0%} by chance"
    )
    agreeing = round(bands.share * bands.segments)
    if bands.share >= MIN_AGREEING and binom.sf(agreeing - 1, bands.segments, bands.by_chance) < MAX_CHANCE:
        return "carries", agreed
    return "not decidable", f"{too_few}; {agreed}"


def _locked_power(signal: Floats, beats: Floats, before: int, after: int) -> npt.NDArray[np.float64]:
    """Mean square of the average around the beats, for every circular shift of the beats: [samples].

    `beats` [samples] has a sum of 1; the average is from `before` samples before a beat until `after` after it.
    """
    samples = signal.shape[1]
    spectrum = np.conj(np.fft.rfft(beats)) * np.fft.rfft(signal, axis=1)
    average = np.fft.irfft(spectrum, samples, axis=1)  # of each axis, at every lag after the beats
    power = np.square(average).mean(axis=0)
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([power[-before:], power, power[:after]]))])
    width = before + after
    return np.asarray((sums[width : width + samples] - sums[:samples]) / width)


def _moving_mean(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Mean over `width` values around each; values beyond the ends are mirrored."""
    padded = np.pad(values, (width // 2, width - 1 - width // 2), "symmetric")
    return np.convolve(padded, np.full(width, 1 / width), "valid")
