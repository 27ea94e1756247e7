"""The beat detector on electrocardiograms whose beats are known."""

from __future__ import annotations

from pathlib import Path

import edfio
import numpy as np
import numpy.typing as npt
import pytest
from scipy.io import loadmat

from accelkd.recordings.readers.ecg import beats

Floats = npt.NDArray[np.float64]


def ecg_of(beat_s: Floats, duration_s: float, rate_hz: float, seed: int = 0) -> Floats:
    """Narrow complexes, wide T waves of a third of their height, wandering baseline and noise."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave = 0.05 * np.random.default_rng(seed).standard_normal(len(t)) + 2 * np.sin(2 * np.pi * 0.2 * t)
    for beat in beat_s:
        wave += np.exp(-0.5 * ((t - beat) / 0.012) ** 2) + 0.3 * np.exp(-0.5 * ((t - beat - 0.25) / 0.05) ** 2)
    return wave


def matched(detected: Floats, reference: Floats, within_s: float) -> tuple[float, float]:
    """Shares of the reference beats that were detected, and of the detected ones that are reference beats."""
    near = np.abs(detected[None, :] - reference[:, None]) < within_s
    return float(near.any(axis=1).mean()), float(near.any(axis=0).mean())


@pytest.mark.parametrize(("rate_hz", "sign", "unit"), [(125.0, 1, 1.0), (256.0, -1, 1e-3), (1000.0, 1, 5e4)])
def test_beats_are_placed_between_samples(rate_hz: float, sign: int, unit: float) -> None:
    rng = np.random.default_rng(1)
    beat_s = 0.5 + np.cumsum(rng.uniform(0.5, 1.1, 60))
    beat_s = beat_s[beat_s < 39]
    detected = beats(sign * unit * ecg_of(beat_s, 40, rate_hz), rate_hz)
    assert len(detected) == len(beat_s)
    np.testing.assert_allclose(detected, beat_s, atol=0.004)


def test_nothing_is_detected_in_gaps_and_flat_lines() -> None:
    beat_s = np.arange(0.5, 60, 0.8)
    ecg = ecg_of(beat_s, 60, 256)
    ecg[20 * 256 : 30 * 256] = np.nan
    detected = beats(ecg, 256)
    assert not ((detected > 20) & (detected < 30)).any()
    assert matched(detected, beat_s[(beat_s < 19.9) | (beat_s > 30.1)], 0.01)[0] == 1.0
    for silent in (np.zeros(5000), np.full(5000, np.nan), np.full(5000, 7.3), np.zeros(10)):
        assert len(beats(silent, 256)) == 0
    assert len(beats(ecg[:1000], 20)) == 0


def test_noise_has_no_beats() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(256 * 600)
    assert len(beats(noise, 256)) < 10  # of 800 at a usual rate
    assert len(beats(np.cumsum(noise), 256)) < 20
    assert len(beats(np.sin(2 * np.pi * 50 / 256 * np.arange(256 * 60)), 256)) == 0


def test_long_signals_are_searched_in_chunks() -> None:
    beat_s = np.arange(0.5, 3700, 0.9)
    np.testing.assert_allclose(beats(_impulses(beat_s, 3700, 128), 128), beat_s, atol=0.01)


def _impulses(beat_s: Floats, duration_s: float, rate_hz: float) -> Floats:
    impulses = np.zeros(round(duration_s * rate_hz))
    impulses[np.round(beat_s * rate_hz).astype(int)] = 1.0
    return np.convolve(impulses, np.exp(-0.5 * (np.arange(-8, 9) / rate_hz / 0.015) ** 2), "same")


@pytest.mark.parametrize("number", [1, 4, 5, 9, 12])
def test_the_rate_agrees_with_the_trace_of_the_signal_processing_cup(shared: Path, number: int) -> None:
    (path,) = (shared / "data/troika-spc2015").glob(f"DATA_{number:02}_TYPE0?.mat")
    trace = loadmat(path.with_name(f"{path.stem}_BPMtrace.mat"))["BPM0"][:, 0]
    detected = beats(loadmat(path)["sig"][0], 125.0)
    rates = []
    for window in range(len(trace)):
        inside = detected[(detected >= 2 * window) & (detected < 2 * window + 8)]
        rates.append(60 * (len(inside) - 1) / (inside[-1] - inside[0]))
    assert np.mean(np.abs(rates - trace) < 5) > 0.95
    assert np.median(np.abs(rates - trace)) < 0.3


@pytest.mark.parametrize("name", ["s2_low_resistance_bike", "s3_run", "s6_walk"])
def test_beats_are_those_of_the_published_list(shared: Path, name: str) -> None:
    path = shared / f"data/wrist-ppg-exercise/{name}.edf"
    rows = (line.split() for line in path.with_suffix(".atr.txt").read_text().splitlines()[2:])
    reference = np.array([int(row[1]) for row in rows if row[2] == "N"]) / 256
    sensitivity, precision = matched(beats(edfio.read_edf(path).signals[0].data, 256.0), reference, 0.1)
    assert sensitivity > 0.99
    assert precision > 0.95
