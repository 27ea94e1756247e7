"""Heart rate from acceleration alone: the band-pass against SciPy, rates of known beats, real recordings, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import butter, sosfiltfilt

import rust_dsp

Floats = npt.NDArray[np.float64]


def shaken(hr_bpm: float, rate_hz: float, duration_s: float = 60.0, noise_g: float = 1e-4) -> Floats:
    """Acceleration [3, samples] in g that each beat shakes by 1 mg for a tenth of a second."""
    rng = np.random.default_rng(0)
    since_s = (np.arange(round(duration_s * rate_hz)) / rate_hz) % (60 / hr_bpm)
    burst = np.exp(-since_s / 0.08) * np.sin(2 * np.pi * 7 * since_s)
    return np.array([[0.1], [0.9], [0.4]]) * (1 + 1e-3 * burst) + noise_g * rng.standard_normal((3, since_s.size))


@pytest.mark.parametrize(("rate_hz", "band_hz"), [(64.0, (4.0, 11.0)), (100.0, (18.0, 44.0)), (256.0, (4.0, 11.0))])
def test_band_pass_is_that_of_scipy(rate_hz: float, band_hz: tuple[float, float]) -> None:
    accel = shaken(70, rate_hz)
    expected = sosfiltfilt(butter(2, band_hz, "bandpass", fs=rate_hz, output="sos"), accel)
    inside = slice(round(2 * rate_hz), -round(2 * rate_hz))  # the ends are mirrored in another way
    np.testing.assert_allclose(rust_dsp.band_pass(accel, rate_hz, band_hz)[:, inside], expected[:, inside], atol=1e-10)


@pytest.mark.parametrize("hr_bpm", [42.0, 63.5, 88.0, 131.0])
@pytest.mark.parametrize("rate_hz", [32.0, 64.0, 100.2, 256.0])
def test_the_rate_of_beats_is_recovered(hr_bpm: float, rate_hz: float) -> None:
    estimate, peak = rust_dsp.recoil_rate(shaken(hr_bpm, rate_hz), rate_hz)
    assert estimate == pytest.approx(hr_bpm, abs=1)
    assert peak > 0.5


def test_noise_and_what_is_flat_have_no_high_peak() -> None:
    noise = np.random.default_rng(1).standard_normal((20, 3, 3840))
    rates, peaks = rust_dsp.recoil_rates(noise)
    assert rates.shape == peaks.shape == (20,)
    assert (peaks < 0.3).all()
    assert np.isnan(rust_dsp.recoil_rates(np.ones((1, 3, 3840)))).all()


def test_a_scale_undoes_the_z_scores_and_threads_change_nothing() -> None:
    segments = np.stack([rust_dsp.band_pass(shaken(hr_bpm, 64), 64, (1, 20)) for hr_bpm in (50, 70, 90)])
    scale = segments.std(axis=2)
    z = segments / scale[:, :, None]
    rates, peaks = rust_dsp.recoil_rates(z, scale=scale, threads=1)
    np.testing.assert_allclose(rates, [50, 70, 90], atol=1)
    for row, segment in enumerate(segments):
        assert (rates[row], peaks[row]) == pytest.approx(rust_dsp.recoil_rate(segment, 64))
    for dtype in (np.float16, np.float32):
        np.testing.assert_allclose(rust_dsp.recoil_rates(z.astype(dtype), scale=scale)[0], rates, atol=0.2)
    np.testing.assert_array_equal(rust_dsp.recoil_rates(z, scale=scale, threads=3), (rates, peaks))
    assert rust_dsp.recoil_rates(z[:0], scale=scale[:0])[0].shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rust_dsp.recoil_rate(np.zeros((3, 9)), 19.0), ValueError, "rate_hz must be from 20 to 2048, found 19"),
        (
            lambda: rust_dsp.band_pass(np.zeros((3, 9)), 64.0, (18.0, 44.0)),
            ValueError,
            "below half of the rate of 64 Hz, found 18 to 44",
        ),
        (lambda: rust_dsp.recoil_rate(np.zeros(9), 64.0), ValueError, "accel must have 2 dimensions"),
        (lambda: rust_dsp.recoil_rates(np.zeros((2, 3840))), ValueError, r"z must have the shape \[N, axes, 3840\]"),
        (lambda: rust_dsp.recoil_rates(np.zeros((2, 0, 3840))), ValueError, r"z must have the shape \[N, axes, 3840\]"),
        (
            lambda: rust_dsp.recoil_rates(np.zeros((2, 3, 3840)), scale=np.ones((3, 2))),
            ValueError,
            r"scale must have the shape \[2, 3\], found \[3, 2\]",
        ),
        (
            lambda: rust_dsp.recoil_rates(np.zeros((2, 3, 3840)), scale=np.ones((2, 3), np.float32)),
            TypeError,
            "scale must be a NumPy array of float64, found dtype float32",
        ),
    ],
)
def test_bad_arguments_are_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
