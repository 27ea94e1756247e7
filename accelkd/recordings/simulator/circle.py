"""Signals as spectra on a circle of 64 s: the 60 s of a recording with 2 s of lead and tail.

All physiological signals are below 32 Hz. They are composed as amplitudes at multiples of 1/64 Hz and sampled once, at
any rate and at any instant of a frame; the pulse wave at every beat costs one product of two spectra. An amplitude S
represents the signal Re(S exp(2πift)), t in seconds from the circle's start.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from accelkd.recordings.simulator.streams import F32, F64, white_noise

C64 = npt.NDArray[np.complex64]

SECONDS = 60
LEAD_S = 2
CIRCLE_S = 64
SLOW_RATE_HZ = 4  # grid of what changes slowly: breathing, vascular tone, rhythm
SLOW = SLOW_RATE_HZ * CIRCLE_S
SLOW_S = np.arange(SLOW) / SLOW_RATE_HZ - LEAD_S  # instants of that grid from the recording's start
BINS = 32 * CIRCLE_S  # amplitudes below 32 Hz
BIN_HZ = np.arange(BINS) / CIRCLE_S

_KERNEL_RATE_HZ = 64
_KERNEL_TAPS = 96
_KERNEL_LEAD = 10  # taps before the beat
KERNEL_S: F32 = ((np.arange(_KERNEL_TAPS) - _KERNEL_LEAD) / _KERNEL_RATE_HZ).astype(np.float32)

_TRAIN_RATE_HZ = 128
_TRAIN = _TRAIN_RATE_HZ * CIRCLE_S
# Undoes the effect on the spectrum of spreading an impulse over four grid points (a cubic B-spline)
_SPLINE_CORRECTION: F32 = (np.sinc(BIN_HZ / _TRAIN_RATE_HZ) ** -4.0).astype(np.float32)


def train(time_s: F64, weight: F64) -> C64:
    """Spectrum of impulses at `time_s` `[recordings, beats]` of `weight`: `[recordings, BINS]`.

    Impulses outside the circle are left out. Exact to 1e-4 below 12 Hz, between grid points as on them.
    """
    position = (time_s + LEAD_S - _KERNEL_LEAD / _KERNEL_RATE_HZ) * _TRAIN_RATE_HZ
    row, beat = np.nonzero((position >= 1.0) & (position < _TRAIN - 3.0))
    position, weight = position[row, beat], weight[row, beat]
    first = np.floor(position)
    f = position - first
    shares = np.stack([(1 - f) ** 3, 4 - 6 * f**2 + 3 * f**3, 1 + 3 * f + 3 * f**2 - 3 * f**3, f**3]) / 6.0 * weight
    index = row * _TRAIN + first.astype(np.intp) + np.arange(-1, 3)[:, None]
    impulses = np.zeros((len(time_s), _TRAIN), np.float32)
    np.add.at(impulses.reshape(-1), index, shares.astype(np.float32))
    spectrum: C64 = fft.rfft(impulses)[:, :BINS] * _SPLINE_CORRECTION
    return spectrum


def response(kernel: F32) -> C64:
    """Spectrum of the response to each impulse of a train: `kernel` `[..., taps]`, sampled at KERNEL_S."""
    spectrum: C64 = fft.rfft(kernel, CIRCLE_S * _KERNEL_RATE_HZ)[..., :BINS]
    return spectrum * np.float32(2.0 / (CIRCLE_S * _KERNEL_RATE_HZ))


def slow_spectrum(signal: F32) -> C64:
    """Spectrum below 2 Hz of a signal on the slow grid `[..., SLOW]`; its ends fade in and out outside the 60 s."""
    fade = np.clip(np.minimum(SLOW_S + LEAD_S, CIRCLE_S - LEAD_S - SLOW_S) / (LEAD_S - 0.5), 0.0, 1.0)
    fade = (np.sin(0.5 * np.pi * fade) ** 2).astype(np.float32)
    spectrum: C64 = fft.rfft(signal * fade)[..., : SLOW // 2]
    return spectrum * np.float32(2.0 / SLOW)


def random_spectrum(rng: np.random.Generator, shape: tuple[int, ...], power: F32) -> C64:
    """Gaussian noise of unit rms whose power at the bins follows `power` `[..., bins]`: spectrum `[*shape, bins]`."""
    amplitude: F32 = np.sqrt(power / power.sum(-1, keepdims=True))
    pairs = white_noise(rng, (*shape, power.shape[-1], 2))
    noise: C64 = pairs.view(np.complex64)[..., 0] * amplitude
    return noise


@lru_cache(maxsize=4)
def slot_phases(offsets_s: tuple[float, ...]) -> C64:
    """Factors `[slots, BINS]` that move the sampling instants by `offsets_s` seconds."""
    return np.exp(2j * np.pi * np.asarray(offsets_s)[:, None] * BIN_HZ).astype(np.complex64)


def samples(spectrum: C64, rate_hz: int) -> F32:
    """The 60 s of a recording: `[..., BINS]` to `[..., 60 · rate_hz]`."""
    size = CIRCLE_S * rate_hz
    whole = np.zeros((*spectrum.shape[:-1], size // 2 + 1), np.complex64)
    np.multiply(spectrum, np.float32(size / 2), out=whole[..., :BINS])
    signal: F32 = fft.irfft(whole, size, overwrite_x=True)
    return signal[..., LEAD_S * rate_hz : (LEAD_S + SECONDS) * rate_hz]
