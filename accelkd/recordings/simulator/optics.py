"""Photoplethysmogram: four LED slots and a dark slot per frame, in counts of the converter.

A pulse is a systolic wave with a steep rise and a slower fall, a wave reflected from the lower body whose delay is
height over pulse-wave velocity (Millasseau et al., Clin Sci 2002, 103:371), and a dicrotic wave after the aortic
valve's closure. Counts rise with blood volume (the device inverts reflected light), and every slot samples pulse and
ambient light at its own instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelkd.recordings.simulator.beats import Rhythm, at_beats
from accelkd.recordings.simulator.circle import (
    BIN_HZ,
    C64,
    CIRCLE_S,
    KERNEL_S,
    SECONDS,
    random_spectrum,
    response,
    samples,
    slot_phases,
    slow_spectrum,
    train,
)
from accelkd.recordings.simulator.movements import Course, Movements
from accelkd.recordings.simulator.participants import Traits
from accelkd.recordings.simulator.profiles import Profile
from accelkd.recordings.simulator.streams import F32, F64, white_noise

CHANNELS = 4
FULL_SCALE = 2.0**19
_COUNTS_PER_PULSE = 1_500.0  # of the first channel at median perfusion, about 1 % of its level
_LEVEL = 150_000.0
_CHANNEL_GAIN = np.array([1.0, 0.8, 0.65, 0.5])
_CHANNEL_REFLECTION = np.array([1.0, 1.15, 0.88, 1.25])  # wavelengths look to different depths
_CHANNEL_DICROTIC = np.array([1.0, 0.8, 1.3, 0.6])
_CHANNEL_NOISE = np.array([1.0, 1.25, 1.5, 1.75, 0.5])  # the dark slot has no shot noise of an LED
_WANDER = np.where(BIN_HZ[: 2 * CIRCLE_S] <= 0.3, 1.0 / (0.05 + BIN_HZ[: 2 * CIRCLE_S]), 0.0).astype(np.float32)
# Ambient light drifts with clouds and posture and flutters as shadows pass: falling power up to 3 Hz
_SHADOWS = (1.0 / (0.1 + BIN_HZ[: 3 * CIRCLE_S]) ** 1.5).astype(np.float32)


@dataclass(frozen=True)
class Optics:
    """The light that the optical front end receives in each recording, before noise."""

    spectrum: C64  # [recordings, CHANNELS + 1, BINS]; the dark slot is last
    offsets_s: tuple[float, ...]  # instants of those slots inside a frame
    noise_counts: F64  # [recordings, CHANNELS + 1]: rms at 64 Hz
    flicker_counts: F64  # [recordings]: mains flicker of the ambient light
    flicker_hz: F64
    flicker_turn: F64
    artefact_counts: F64  # [events, CHANNELS]: effect of a movement


def draw_optics(
    rng: np.random.Generator,
    traits: Traits,
    rhythm: Rhythm,
    movements: Movements,
    profile: Profile,
    offsets_s: tuple[float, ...],
) -> Optics:
    """One minute of light for each row of `traits`, with slots at `offsets_s` of every frame: LEDs, then dark."""
    n = len(traits.age_years)
    faster = (rhythm.heart_rate_bpm / 65.0) ** -0.25  # waves shorten with heart rate
    stiff = traits.pulse_wave_velocity_m_s - 7.5
    # The foot follows the R peak by the pre-ejection period and the path along the arm
    transit_s = (
        traits.pre_ejection_s
        + 0.42 * traits.height_m / (1.15 * traits.pulse_wave_velocity_m_s + 1.0)
        + 0.008 * rng.standard_normal(n)
    )
    peak_s = (0.155 + 0.004 * stiff) * faster
    reflected_s = peak_s + np.clip(traits.height_m / (0.95 * traits.pulse_wave_velocity_m_s), 0.14, 0.34) * faster
    dicrotic_s = peak_s + (traits.ejection_s - 0.065) * faster
    from_peak = KERNEL_S - _column(peak_s)
    fall_s = np.clip(traits.runoff_s + 0.006 * stiff, 0.06, 0.22) * faster
    width_s = np.where(from_peak < 0.0, _column(traits.upstroke_s * faster), _column(fall_s))
    systolic = _bell(from_peak, width_s)
    reflected = _bell(KERNEL_S - _column(reflected_s), _column(0.095 * faster))
    dicrotic = _bell(KERNEL_S - _column(dicrotic_s), _column(0.035 * faster))

    reflection = traits.reflection * np.exp(0.10 * rng.standard_normal(n))
    notch = np.clip(traits.dicrotic - 0.008 * stiff, 0.01, 0.35) * np.exp(0.15 * rng.standard_normal(n))
    perfusion = traits.perfusion * (1.0 - 0.35 * traits.melanin) * np.exp(0.20 * rng.standard_normal(n))
    gain = _CHANNEL_GAIN * np.exp(0.10 * rng.standard_normal((n, CHANNELS)))
    reflection_of = reflection[:, None] * (_CHANNEL_REFLECTION + 0.05 * rng.standard_normal((n, CHANNELS)))
    notch_of = notch[:, None] * (_CHANNEL_DICROTIC + 0.10 * rng.standard_normal((n, CHANNELS)))
    pulse_counts = _COUNTS_PER_PULSE * perfusion[:, None] * gain

    kernel = systolic[:, None] + _plane(reflection_of) * reflected[:, None] + _plane(notch_of) * dicrotic[:, None]
    kernel *= _plane(pulse_counts)
    foot_s = rhythm.beat_s + transit_s[:, None]
    pulses = train(foot_s, rhythm.strength * at_beats(rhythm.vascular_tone, foot_s))
    spectrum = np.zeros((n, CHANNELS + 1, len(BIN_HZ)), np.complex64)
    np.multiply(response(kernel), pulses[:, None], out=spectrum[:, :CHANNELS])

    # Baseline: breathing moves venous blood, and the skin's circulation wanders
    sway = traits.breathing_gain[:, None] * np.exp(
        0.30 * rng.standard_normal((n, 1)) + 0.10 * rng.standard_normal((n, CHANNELS))
    )
    breathing = slow_spectrum(rhythm.breathing)
    baseline = np.float32(0.5) * random_spectrum(rng, (n,), _WANDER)
    baseline[:, : breathing.shape[1]] += breathing
    spectrum[:, :CHANNELS, : baseline.shape[1]] += _plane(0.25 * sway * pulse_counts) * baseline[:, None]

    ambient = profile.ambient_counts * np.exp(0.8 * rng.standard_normal(n))
    ambient = np.minimum(ambient, 0.3 * FULL_SCALE)
    shadows = random_spectrum(rng, (n,), _SHADOWS) * _column(0.08 * ambient)
    spectrum[:, :, : shadows.shape[1]] += shadows[:, None]
    spectrum *= slot_phases(offsets_s)
    # A mean m is an amplitude of 2 m at 0 Hz
    spectrum[:, :, 0] = spectrum[:, :, 0].real + 2.0 * ambient[:, None]
    spectrum[:, :CHANNELS, 0] += 2.0 * _LEVEL * gain * (1.0 - 0.3 * traits.melanin)[:, None]

    noise = profile.ppg_noise * np.exp(0.35 * rng.standard_normal(n)) * (1.0 + 0.5 * traits.melanin)
    noise_counts = _COUNTS_PER_PULSE * (noise / np.sqrt(traits.strap))[:, None] * _CHANNEL_NOISE
    # The front end integrates over each slot, which leaves little of a lamp's flicker
    flicker_counts = np.where(rng.random(n) < 0.6, 0.002, 0.0) * ambient
    flicker_hz = np.where(rng.random(n) < 0.5, 100.0, 120.0) + 0.02 * rng.standard_normal(n)
    artefact_counts = (
        (profile.ppg_artefact / profile.movement_mg * movements.size_mg)[:, None]
        * (1.0 + 0.3 * np.arange(CHANNELS))
        * pulse_counts[movements.recording]
    )
    return Optics(
        spectrum=spectrum,
        offsets_s=offsets_s,
        noise_counts=noise_counts,
        flicker_counts=flicker_counts,
        flicker_hz=flicker_hz,
        flicker_turn=rng.random(n),
        artefact_counts=artefact_counts,
    )


def sample_optics(rng: np.random.Generator, optics: Optics, courses: Sequence[Course], rate_hz: int) -> F32:
    """Light at every slot, in counts but neither rounded nor clipped: `[recordings, CHANNELS + 1, samples]`."""
    light = samples(optics.spectrum, rate_hz)
    time_s = np.arange(SECONDS * rate_hz) / rate_hz
    for row in np.flatnonzero(optics.flicker_counts):
        turn = optics.flicker_hz[row] * time_s + optics.flicker_turn[row]
        angle = (2.0 * np.pi * (turn - np.floor(turn))).astype(np.float32)
        # At its own instant each slot sees sin(a + b) = cos(b) sin(a) + sin(b) cos(a)
        shift = 2.0 * np.pi * optics.flicker_hz[row] * np.array(optics.offsets_s)[:, None]
        light[row] += (optics.flicker_counts[row] * np.cos(shift)).astype(np.float32) * np.sin(angle)
        light[row] += (optics.flicker_counts[row] * np.sin(shift)).astype(np.float32) * np.cos(angle)
    for course, counts in zip(courses, optics.artefact_counts, strict=True):
        light[course.recording, :CHANNELS, course.samples] += counts.astype(np.float32)[:, None] * course.axes[0]
    noise = white_noise(rng, light.shape)
    noise *= _plane(optics.noise_counts * np.sqrt(rate_hz / 64.0))
    noise += light
    return noise


def _column(values: F64) -> F32:
    return values.astype(np.float32)[:, None]


def _plane(values: F64) -> F32:
    return values.astype(np.float32)[:, :, None]


def _bell(distance_s: F32, width_s: F32) -> F32:
    bell: F32 = np.exp(np.float32(-0.5) * np.square(distance_s / width_s))
    return bell
