"""Devices and recordings that nobody thought of: the same as the reference, which is written for clarity."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rust_dsp

RATES_HZ = [20.0, 25.0, 32.0, 50.0, 51.2, 51.705, 54.75, 64.0, 100.0, 125.0, 128.0, 250.0, 256.0, 512.0]
BAD = [np.nan, np.inf, -np.inf, 1e7, -1e7]
RANGE = (-5e6, 5e6)

reference_settings = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def spoil(samples: npt.NDArray[Any], rate_hz: float, rng: np.random.Generator) -> None:
    """Make some stretches of some rows invalid, in place: short, at the limit of 0.25 s, and beyond it."""
    for row in samples:
        for _ in range(rng.integers(0, 4)):
            start = rng.integers(max(len(row), 1))
            length = rng.choice([1, 2, 5, int(0.25 * rate_hz), int(0.25 * rate_hz) + 1])
            row[start : start + length] = rng.choice(BAD)


@reference_settings
@given(
    ppg_rate_hz=st.sampled_from(RATES_HZ) | st.floats(20, 300),
    accel_rate_hz=st.sampled_from(RATES_HZ) | st.none(),
    dark_rate=st.sampled_from([1.0, 1.0, 0.5, 0.25, 1.3]) | st.just(None),
    dark_slots=st.integers(0, 3),
    lacking_s=st.sampled_from([0.0, 0.0, -1.0, 0.1, 0.24, 0.26, 30.0]),
    spoiled=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_preprocessing(
    preprocessing_reference: ModuleType,
    ppg_rate_hz: float,
    accel_rate_hz: float | None,
    dark_rate: float | None,
    dark_slots: int,
    lacking_s: float,
    spoiled: bool,
    seed: int,
) -> None:
    try:
        preprocessing_reference.ratio(ppg_rate_hz)
    except ValueError:
        return  # what is refused is tested in test_interface
    rng = np.random.default_rng(seed)
    accel_rate_hz = accel_rate_hz or ppg_rate_hz
    dark_rate_hz = ppg_rate_hz * dark_rate if dark_rate else 7.3
    samples = round((60 - lacking_s) * ppg_rate_hz)
    ppg = 300 * rng.standard_normal((2, samples)) + rng.choice([0.0, 1e5])
    dark = None
    if dark_slots:
        frames = round((60 - rng.choice([0.0, 0.1, lacking_s])) * dark_rate_hz)
        dark = 500 * np.sin(np.arange(frames) / dark_rate_hz) + rng.standard_normal((dark_slots, frames))
    accel = 0.01 * rng.standard_normal((3, round(60 * accel_rate_hz))) + 0.4
    if spoiled:
        spoil(ppg, ppg_rate_hz, rng)
        spoil(accel, accel_rate_hz, rng)
        if dark is not None:
            spoil(dark, dark_rate_hz, rng)
    led_offsets_s = rng.uniform(-0.5, 1.5, 2) / ppg_rate_hz
    dark_offsets_s = np.sort(rng.uniform(0, 1, max(dark_slots, 1))) / dark_rate_hz

    device = preprocessing_reference.Device(
        fs_ppg=ppg_rate_hz,
        fs_acc=accel_rate_hz,
        fs_dark=dark_rate_hz,
        led_offsets=tuple(led_offsets_s),
        dark_offsets=tuple(dark_offsets_s),
        ppg_range=RANGE,
        acc_range=(-16, 16),
    )
    with np.errstate(invalid="ignore"):
        expected_ppg, expected_accel = preprocessing_reference.process_recording(device, ppg, dark, accel)
    plan = rust_dsp.Plan(
        ppg_rate_hz=ppg_rate_hz,
        accel_rate_hz=accel_rate_hz,
        dark_rate_hz=dark_rate_hz,
        led_offsets_s=tuple(led_offsets_s),
        dark_offsets_s=tuple(dark_offsets_s),
        ppg_range=RANGE,
        accel_range=(-16, 16),
    )
    segments = plan.preprocess([ppg], None if dark is None else [dark], [accel])

    for expected, z, status, level, ac_level, missing in (
        (
            expected_ppg,
            segments.ppg[0],
            segments.ppg_status[0],
            segments.ppg_level[0],
            segments.ppg_ac_level[0],
            segments.ppg_missing[0],
        ),
        (
            expected_accel,
            segments.accel[0],
            segments.accel_status[0],
            segments.accel_level[0],
            segments.accel_ac_level[0],
            segments.accel_missing[0],
        ),
    ):
        assert status.tolist() == [row.status for row in expected]
        np.testing.assert_allclose(z, np.stack([row.z for row in expected]), rtol=0, atol=2e-6)
        np.testing.assert_allclose(level, [row.mean for row in expected], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ac_level, [row.std for row in expected], rtol=1e-9)
        np.testing.assert_allclose(missing, [row.missing for row in expected], rtol=1e-12)


def pulse(seed: int) -> tuple[npt.NDArray[Any], Literal[1, -1] | None]:
    """A segment with a wandering heart rate and noise, of any scale and type; and the polarity to be given, if any."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(3840) / 64
    rate_hz = rng.uniform(0.6, 3) * (1 + rng.uniform(0, 0.1) * np.sin(2 * np.pi * 0.1 * time_s))
    phase = 2 * np.pi * np.cumsum(rate_hz) / 64
    wave = np.cos(phase) + 0.5 * np.cos(2 * phase + 0.8) + 0.25 * np.cos(3 * phase + 1.7)
    noise = rng.uniform(0, 1.5) ** 2 * np.convolve(rng.standard_normal(3840), np.ones(5) / 5, "same")
    z = (rng.choice([1, -1]) * wave + noise) * 10 ** rng.uniform(-2, 3)
    polarities: tuple[Literal[1, -1] | None, ...] = (None, 1, -1)
    return z.astype(("f2", "f4", "f8")[rng.integers(3)]), polarities[rng.integers(3)]


@reference_settings
@given(seed=st.integers(0, 2**32))
def test_labels(labels_reference: ModuleType, seed: int) -> None:
    z, polarity = pulse(seed)
    expected = labels_reference.label(z, polarity)
    labels = rust_dsp.label(z[None], polarity=polarity)
    np.testing.assert_array_equal(labels.beat_index[0], expected["beats"])
    np.testing.assert_allclose(labels.beat_s[0], expected["times"], rtol=0, atol=1e-9)
    for name, key in {
        "polarity": "polarity",
        "hr_bpm": "hr",
        "sdnn_ms": "sdnn",
        "rmssd_ms": "rmssd",
        "agreement": "agree",
        "template_correlation": "template",
        "coverage": "coverage",
        "intervals": "n",
        "pairs": "pairs",
        "good": "good",
    }.items():
        np.testing.assert_allclose(getattr(labels, name)[0], expected[key], rtol=1e-9, atol=1e-12, err_msg=name)


@reference_settings
@given(rate_hz=st.sampled_from(RATES_HZ), duration_s=st.floats(1.1, 70), seed=st.integers(0, 2**32))
def test_motion(labels_reference: ModuleType, rate_hz: float, duration_s: float, seed: int) -> None:
    accel = 0.05 * np.random.default_rng(seed).standard_normal((3, round(duration_s * rate_hz)))
    np.testing.assert_allclose(rust_dsp.motion(accel, rate_hz), labels_reference.motion(accel, rate_hz), rtol=1e-12)
