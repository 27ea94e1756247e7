"""The rhythm of a minute: breathing, vascular tone, and the beats that follow from them.

Integral pulse-frequency model (Mateo & Laguna, IEEE Trans Biomed Eng 2000, 47:985): beats fall where the integral of
the heart's rate passes a whole number; the rate carries respiratory sinus arrhythmia, a slow rhythm (0.07 to 0.13 Hz),
a slower 1/f part and white jitter, scaled to the participant's RMSSD. Ectopic beats come early with a compensatory
pause; in atrial fibrillation intervals are irregular and independent; a pacemaker takes over some minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelkd.recordings.simulator.circle import CIRCLE_S, LEAD_S, SLOW_RATE_HZ, SLOW_S
from accelkd.recordings.simulator.participants import Traits
from accelkd.recordings.simulator.streams import F32, F64

_MEAN_HEART_RATE_BPM = 66.0  # about which a profile widens the heart rates
_SLOW_S: F32 = SLOW_S.astype(np.float32)
_MAX_ECTOPIC = 0.2  # share of beats, so that normal intervals are left


@dataclass(frozen=True)
class Rhythm:
    """Beats and slow processes of recordings: arrays `[recordings]`, `[recordings, beats]` or `[recordings, SLOW]`."""

    hour: F64  # of the day
    heart_rate_bpm: F64  # target of the minute
    beat_s: F64  # R peaks, seconds after the recording's start, from before it to after its end
    interval_s: F64  # interval that ends with the beat
    ectopic: npt.NDArray[np.bool_]
    strength: F64  # of the beat, 1 on average
    breathing: F32
    vascular_tone: F32  # gain of the pulse in the skin
    breathing_hz: F64
    atrial_fibrillation: npt.NDArray[np.bool_]


def draw_rhythm(rng: np.random.Generator, traits: Traits, heart_rate_spread: float) -> Rhythm:
    """Rhythm of one minute for each row of `traits`; `heart_rate_spread` scales the heart rates about their mean."""
    n = len(traits.age_years)
    hour = 24.0 * rng.random(n)
    arousal = rng.gamma(1.6, 1.0, n) - 0.9  # the day's load is skewed
    afib = rng.random(n) < traits.af_burden
    # Heart rate peaks in the afternoon (Vandewalle et al., J Sleep Res 2007, 16:148)
    rate_bpm = (
        traits.heart_rate_bpm
        + 4.0 * arousal
        + 3.0 * np.cos(2.0 * np.pi * (hour - 15.0) / 24.0)
        + 2.0 * rng.standard_normal(n)
    )
    rate_bpm = _MEAN_HEART_RATE_BPM + heart_rate_spread * (rate_bpm - _MEAN_HEART_RATE_BPM)
    rate_bpm = np.clip(rate_bpm + 10.0 * afib, 40.0, 140.0)
    mean_s = 60.0 / rate_bpm
    ln_rmssd = np.clip(traits.ln_rmssd + 0.28 * rng.standard_normal(n) - 0.07 * arousal, 1.2, 5.0)
    lf_hf = traits.lf_hf * np.exp(0.35 * rng.standard_normal(n) + 0.10 * arousal)
    respiratory_share = np.clip(0.62 + 0.15 * rng.standard_normal(n), 0.2, 0.95)
    breathing_hz = np.clip(traits.breathing_hz + 0.025 * rng.standard_normal(n) + 0.012 * arousal, 0.12, 0.45)
    ectopic_per_min = traits.ectopic_per_min * np.exp(0.8 * rng.standard_normal(n))

    # Breathing: rate and depth drift
    rate = breathing_hz[:, None] * (1.0 + 0.10 * _slow_noise(rng, n, 6, 0.01, 0.06))
    phase = 2.0 * np.pi * (np.cumsum(rate, axis=1) / SLOW_RATE_HZ + rng.random((n, 1)))
    depth = np.exp(0.18 * _slow_noise(rng, n, 6, 0.01, 0.08))
    breathing = depth * (np.sin(phase) + 0.18 * np.sin(2.0 * phase + 0.6))
    tone = np.exp(0.20 * _slow_noise(rng, n, 8, 0.01, 0.12, 0.5))

    # A sinusoid of amplitude A sampled at every beat has successive differences of rms A·√2·sin(π·f·interval)
    rmssd_s = np.exp(ln_rmssd) / 1000.0
    gain = np.sqrt(2.0) * np.sin(np.clip(np.pi * breathing_hz * mean_s, 0.2, 0.5 * np.pi))
    respiratory = np.sqrt(respiratory_share) * rmssd_s / gain
    jitter = np.sqrt(1.0 - respiratory_share) * rmssd_s / np.sqrt(2.0)
    slow = respiratory / np.sqrt(2.0) * np.sqrt(lf_hf)
    interval_s = (
        mean_s[:, None]
        + respiratory[:, None] * breathing
        + slow[:, None] * _slow_noise(rng, n, 10, 0.07, 0.13)
        + 0.8 * slow[:, None] * _slow_noise(rng, n, 10, 0.004, 0.05, 1.0)
    )
    count = np.cumsum(1.0 / (SLOW_RATE_HZ * np.clip(interval_s, 0.33, 2.5)), axis=1)

    paced = (traits.pace_bpm > 0.0) & (rng.random(n) < 0.6)
    max_count = max(count[:, -1].max(), (paced * traits.pace_bpm).max() * CIRCLE_S / 60.0)
    beats = int(1.15 * max_count) + 6
    number = np.arange(1, beats + 1) - rng.random((n, 1))
    # Past the circle's end the rhythm continues at its mean rate
    extended_s = np.append(SLOW_S, SLOW_S[-1] + beats * mean_s.max())
    extended_count = np.column_stack([count, count[:, -1] + (extended_s[-1] - SLOW_S[-1]) / mean_s])
    time = np.stack([np.interp(number[i], extended_count[i], extended_s) for i in range(n)])

    start = time[:, :1]
    interval = np.diff(time, axis=1, prepend=start - mean_s[:, None])
    interval += jitter[:, None] * rng.standard_normal((n, beats))
    irregular = np.maximum(mean_s[:, None] * np.exp(0.21 * rng.standard_normal((n, beats))), 0.32)
    interval = np.where(afib[:, None], irregular, interval)
    if paced.any():
        regular = 60.0 / traits.pace_bpm[paced, None] + 0.003 * rng.standard_normal((int(paced.sum()), beats))
        interval[paced] = regular

    ectopic = rng.random((n, beats)) < np.minimum(ectopic_per_min * mean_s / 60.0, _MAX_ECTOPIC)[:, None]
    ectopic[:, 0] = False
    ectopic[:, 1:] &= ~ectopic[:, :-1]
    pause = np.zeros_like(ectopic)
    pause[:, 1:] = ectopic[:, :-1]
    early = 0.60 + 0.12 * rng.random((n, beats))
    early[:, 1:] = np.where(pause[:, 1:], 2.0 - early[:, :-1], early[:, 1:])
    interval = np.clip(np.where(ectopic | pause, interval * early, interval), 0.30, 2.6)
    time = start + np.cumsum(interval, axis=1) - interval[:, :1]

    # Longer filling, stronger beat (Frank and Starling); inspiration draws blood into the lungs
    filling = interval / interval.mean(axis=1, keepdims=True) - 1.0
    strength = np.clip(1.0 + 0.6 * filling, 0.4, 1.6) * np.where(ectopic, 0.7, 1.0)
    strength *= 1.0 + 0.08 * at_beats(breathing, time)
    return Rhythm(
        hour=hour,
        heart_rate_bpm=rate_bpm,
        beat_s=time,
        interval_s=interval,
        ectopic=ectopic,
        strength=strength,
        breathing=breathing.astype(np.float32),
        vascular_tone=tone.astype(np.float32),
        breathing_hz=breathing_hz,
        atrial_fibrillation=afib & ~paced,
    )


def at_beats(slow: npt.NDArray[np.floating], beat_s: F64) -> F64:
    """Values of a process on the slow grid `[recordings, SLOW]` at the beats, interpolated linearly."""
    position = np.clip((beat_s + LEAD_S) * SLOW_RATE_HZ, 0.0, slow.shape[1] - 1.001)
    left = position.astype(np.intp)
    share = position - left
    low = np.take_along_axis(slow, left, axis=1)
    values: F64 = low + share * (np.take_along_axis(slow, left + 1, axis=1) - low)
    return values


def _slow_noise(rng: np.random.Generator, n: int, lines: int, low_hz: float, high_hz: float, power: float = 0.0) -> F32:
    """Sum of random sinusoids of unit variance on the slow grid, power falling as frequency to the minus `power`."""
    frequency = low_hz * (high_hz / low_hz) ** rng.random((n, lines))
    amplitude = frequency ** (-0.5 * power) * np.sqrt(rng.exponential(size=(n, lines)))
    amplitude *= np.sqrt(2.0 / np.square(amplitude).sum(axis=1, keepdims=True))
    phase = rng.random((n, lines))
    turns = frequency.astype(np.float32)[:, :, None] * _SLOW_S + phase.astype(np.float32)[:, :, None]
    waves = np.sin(np.float32(2.0 * np.pi) * turns)
    noise: F32 = np.einsum("nk,nkt->nt", amplitude.astype(np.float32), waves)
    return noise


@dataclass(frozen=True)
class Reference:
    """Labels of each recording as from an electrocardiogram: arrays `[recordings]`, NaN where it is too short."""

    in_recording: npt.NDArray[np.bool_]  # [recordings, beats]: whether the beat falls in the recording
    hr_bpm: F64  # over all intervals
    sdnn_ms: F64  # over normal-to-normal intervals
    rmssd_ms: F64  # over neighbouring normal-to-normal intervals


def reference(rhythm: Rhythm, duration_s: F64) -> Reference:
    """Heart rate and its variability in the first `duration_s` `[recordings]` of each recording."""
    time, interval = rhythm.beat_s, rhythm.interval_s
    in_recording = (time >= 0.0) & (time < duration_s[:, None])
    whole = in_recording & (time - interval >= 0.0)
    normal = whole & ~rhythm.ectopic
    normal[:, 1:] &= ~rhythm.ectopic[:, :-1]
    neighbours = normal[:, 1:] & normal[:, :-1]
    deviation = interval - _mean(interval, normal)[:, None]
    unbiased = normal.sum(axis=1) / np.maximum(normal.sum(axis=1) - 1, 1)
    return Reference(
        in_recording=in_recording,
        hr_bpm=60.0 / _mean(interval, whole),
        sdnn_ms=1000.0 * np.sqrt(unbiased * _mean(np.square(deviation), normal)),
        rmssd_ms=1000.0 * np.sqrt(_mean(np.square(np.diff(interval, axis=1)), neighbours)),
    )


def _mean(values: F64, where: npt.NDArray[np.bool_]) -> F64:
    """Mean of each row over the elements that `where` selects; NaN for none."""
    count = where.sum(axis=1)
    mean: F64 = np.where(where, values, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
    return mean
