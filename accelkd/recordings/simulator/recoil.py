"""Accelerometer: gravity, the heart's recoil (ballistocardiogram), and what masks it.

The recoil has the waves H, I, J, K, L and M after each R peak (Starr et al., Am J Physiol 1939, 127:1; Inan et al.,
IEEE J Biomed Health Inform 2015, 19:1414; Kim et al., Sci Rep 2016, 6:31297), of a personal shape that also changes
from minute to minute with posture and strap, along a random direction and across it. Its size follows stroke volume,
weight and age. Tremor: 5 to 12 Hz (Elble & Koller, Tremor, 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelkd.recordings.simulator.beats import Rhythm
from accelkd.recordings.simulator.circle import (
    BIN_HZ,
    C64,
    CIRCLE_S,
    KERNEL_S,
    random_spectrum,
    response,
    samples,
    slow_spectrum,
    train,
)
from accelkd.recordings.simulator.movements import Course, Movements
from accelkd.recordings.simulator.participants import RECOIL_WAVES, Traits
from accelkd.recordings.simulator.profiles import Profile
from accelkd.recordings.simulator.streams import F32, F64, white_noise

AXES = 3
_ACROSS_GAIN = 0.7
_SHAKING = slice(3 * CIRCLE_S, 26 * CIRCLE_S)  # bins of tremor and vibration
_SHAKING_HZ = BIN_HZ[_SHAKING].astype(np.float32)
_TREMOR_WIDTH_HZ = 0.8
_VIBRATION_WIDTH_HZ = 0.1
_DRIFT_MG = 1.5
_DRIFT = np.where(BIN_HZ[:CIRCLE_S] <= 0.15, 1.0 / (0.02 + BIN_HZ[:CIRCLE_S]), 0.0).astype(np.float32)


@dataclass(frozen=True)
class Recoil:
    """The acceleration at the sensor in each recording, before noise, in g."""

    spectrum: C64  # [recordings, AXES, BINS]
    noise_g: F64  # [recordings]: rms at 64 Hz
    movement_g: F64  # [events]
    j_wave_mg: F64  # [recordings]: size of the recoil
    coupling_lost: npt.NDArray[np.bool_]


def draw_recoil(
    rng: np.random.Generator, traits: Traits, rhythm: Rhythm, movements: Movements, profile: Profile
) -> Recoil:
    """One minute of acceleration where the profile's sensor sits, for each row of `traits`."""
    n = len(traits.age_years)
    placement = profile.placement
    stiff = traits.pulse_wave_velocity_m_s - 7.5
    delay_s = traits.pre_ejection_s - 0.095
    # Stiff arteries bring J and what follows forward; so does a fast heart
    pace = (1.0 - 0.012 * stiff) * traits.recoil_time * (rhythm.heart_rate_bpm / 65.0) ** -0.125
    wave_s = delay_s[:, None] + np.where(placement.paced, pace[:, None], 1.0) * np.array(placement.wave_s)
    width_s = np.array(placement.width_s) * traits.recoil_time[:, None]
    personal = np.exp(0.22 * traits.recoil_shape)
    along = np.array(placement.along) * personal * np.exp(profile.wave_jitter * rng.standard_normal((n, RECOIL_WAVES)))
    if placement.arterial:
        along[:, 1] *= np.clip(1.0 - 0.10 * (traits.age_years - 45.0) / 10.0, 0.3, 1.6)  # I shrinks with age
        along[:, 3] *= 1.0 + 0.06 * stiff  # K deepens with stiffness
    across = (
        np.array(placement.across)
        * personal[:, ::-1]
        * np.exp(profile.wave_jitter * rng.standard_normal((n, RECOIL_WAVES)))
    )
    lost = rng.random(n) < profile.coupling_lost_share
    j_wave_mg = (
        profile.j_wave_mg
        * traits.recoil_gain
        * traits.strap
        * np.exp(profile.coupling_spread * rng.standard_normal(n))
        * np.where(lost, profile.coupling_lost_gain, 1.0)
    )
    gravity, u_along, u_across, u_tilt, u_tremor, u_vibration = _directions(rng, 6, n)
    weights = u_along[:, :, None] * along[:, None] + _ACROSS_GAIN * u_across[:, :, None] * across[:, None]
    weights *= j_wave_mg[:, None, None] / 1000.0
    from_wave = KERNEL_S - wave_s.astype(np.float32)[:, :, None]
    waves = np.exp(np.float32(-0.5) * np.square(from_wave / width_s.astype(np.float32)[:, :, None]))
    kernel: F32 = np.einsum("naw,nwt->nat", weights.astype(np.float32), waves)
    spectrum = response(kernel)
    spectrum *= train(rhythm.beat_s, rhythm.strength)[:, None]

    tremor_g = profile.tremor_mg / 1000.0 * traits.tremor_gain * np.exp(0.45 * rng.standard_normal(n))
    vibration_hz = 4.0 + 20.0 * rng.random(n)
    vibrating = rng.random(n) < profile.vibration_share
    vibration_g = profile.vibration_mg / 1000.0 * np.exp(0.6 * rng.standard_normal(n)) * vibrating
    for direction, size_g, centre_hz, spread_hz in (
        (u_tremor, tremor_g, traits.tremor_hz, _TREMOR_WIDTH_HZ),
        (u_vibration, vibration_g, vibration_hz, _VIBRATION_WIDTH_HZ),
    ):
        shaken = np.flatnonzero(size_g)
        line = np.exp(-np.square((_SHAKING_HZ - centre_hz[shaken, None].astype(np.float32)) / np.float32(spread_hz)))
        shaking = random_spectrum(rng, (len(shaken),), line) * size_g[shaken, None].astype(np.float32)
        spectrum[shaken, :, _SHAKING] += direction[shaken, :, None] * shaking[:, None]

    # Breathing tilts the arm in the field of gravity; posture drifts
    tilt_g = profile.breathing_tilt_mg / 1000.0 * np.exp(0.6 * rng.standard_normal(n))
    tilt = np.cross(u_tilt, gravity) * tilt_g[:, None].astype(np.float32)
    breathing = slow_spectrum(rhythm.breathing)
    spectrum[:, :, : breathing.shape[1]] += tilt[:, :, None] * breathing[:, None]
    spectrum[:, :, : len(_DRIFT)] += random_spectrum(rng, (n, AXES), _DRIFT) * np.float32(_DRIFT_MG / 1000.0)
    spectrum[:, :, 0] = spectrum[:, :, 0].real + 2.0 * gravity  # a mean m is an amplitude of 2 m at 0 Hz
    return Recoil(
        spectrum=spectrum,
        noise_g=profile.sensor_noise_mg / 1000.0 * np.exp(0.15 * rng.standard_normal(n)),
        movement_g=movements.size_mg / 1000.0,
        j_wave_mg=j_wave_mg,
        coupling_lost=lost,
    )


def sample_recoil(rng: np.random.Generator, recoil: Recoil, courses: Sequence[Course], rate_hz: int) -> F32:
    """Acceleration in g, neither rounded nor clipped: `[recordings, AXES, samples]`."""
    accel = samples(recoil.spectrum, rate_hz)
    for course, size_g in zip(courses, recoil.movement_g, strict=True):
        accel[course.recording, :, course.samples] += np.float32(size_g) * course.axes
    noise = white_noise(rng, accel.shape)
    noise *= (recoil.noise_g * np.sqrt(rate_hz / 64.0)).astype(np.float32)[:, None, None]
    noise += accel
    return noise


def _directions(rng: np.random.Generator, count: int, n: int) -> F32:
    """Random unit vectors `[count, n, 3]`."""
    vector = rng.standard_normal((count, n, AXES))
    unit: F32 = (vector / np.linalg.norm(vector, axis=-1, keepdims=True)).astype(np.float32)
    return unit
