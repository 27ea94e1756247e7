"""Heart-rate variability of inter-beat intervals: the rule of the labels, compared with plain NumPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rust_dsp

Floats = npt.NDArray[np.float64]
NAMES = ("hr_bpm", "sdnn_ms", "rmssd_ms", "intervals", "pairs", "coverage")

many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def expected_variability(start_s: Floats, end_s: Floats) -> dict[str, float]:
    interval = end_s - start_s
    plausible = (interval >= 0.3) & (interval <= 2.0)
    kept = plausible.copy()
    for i in np.flatnonzero(plausible):
        around = slice(max(0, i - 2), i + 3)
        median = np.median(interval[around][plausible[around]])
        kept[i] = abs(interval[i] - median) <= 0.2 * median
    pair = kept[1:] & kept[:-1] & (np.abs(start_s[1:] - end_s[:-1]) < 0.02)
    coverage = interval[kept].sum() / 60
    variable = kept.sum() >= 20 and pair.sum() >= 15 and coverage >= 0.7
    return {
        "hr_bpm": 60 / interval[kept].mean() if kept.sum() >= 5 else np.nan,
        "sdnn_ms": 1e3 * interval[kept].std(ddof=1) if variable else np.nan,
        "rmssd_ms": 1e3 * np.sqrt(np.mean(np.diff(interval)[pair] ** 2)) if variable else np.nan,
        "intervals": kept.sum(),
        "pairs": pair.sum(),
        "coverage": coverage,
    }


def intervals(seed: int) -> tuple[Floats, Floats]:
    """Starts and ends of a minute's intervals as devices report them: rounded, with artefacts and with holes."""
    rng = np.random.default_rng(seed)
    interval = rng.uniform(0.35, 1.6) * (1 + rng.choice([0.01, 0.05, 0.15]) * rng.standard_normal(rng.integers(0, 160)))
    artefact = rng.random(interval.size) < rng.choice([0, 0.02, 0.2])
    interval[artefact] *= rng.choice([0.3, 0.5, 0.79, 1.2, 1.21, 2, 3], artefact.sum())
    hole = rng.choice([0.0, 0.019, 0.021, 3.0], interval.size, p=[0.94, 0.02, 0.02, 0.02])
    end_s = np.cumsum(interval + hole)
    resolution_s = rng.choice([1 / 64, 1e-3, 1e-9])
    interval, end_s = (np.round(values / resolution_s) * resolution_s for values in (interval, end_s))
    inside = end_s <= 60
    return (end_s - interval)[inside], end_s[inside]


@many
@given(seed=st.integers(0, 2**32))
def test_intervals(seed: int) -> None:
    start_s, end_s = intervals(seed)
    variability = rust_dsp.variability(start_s, end_s)
    for name, value in expected_variability(start_s, end_s).items():
        np.testing.assert_allclose(getattr(variability, name), value, rtol=1e-12, atol=1e-12, err_msg=name)


@many
@given(seed=st.integers(0, 2**32))
def test_intervals_between_beats(labels_reference: ModuleType, seed: int) -> None:
    start_s, end_s = intervals(seed)
    beat_s = np.concatenate([start_s[:1], end_s])
    expected = labels_reference.hrv(beat_s)
    variability = rust_dsp.variability(beat_s[:-1], beat_s[1:])
    for name, key in zip(NAMES, ("hr", "sdnn", "rmssd", "n", "pairs", "coverage"), strict=True):
        np.testing.assert_allclose(getattr(variability, name), expected[key], rtol=1e-12, atol=1e-12, err_msg=name)


def test_labels_follow_the_same_rule() -> None:
    rng = np.random.default_rng(0)
    phase = 2 * np.pi * np.cumsum(1.1 + 0.1 * np.sin(2 * np.pi * np.arange(3840) / 640)) / 64
    z = np.cos(phase) + 0.5 * np.cos(2 * phase + 0.8) + 0.1 * rng.standard_normal((4, 3840))
    labels = rust_dsp.label(z)
    for row, beat_s in enumerate(labels.beat_s):
        defined = beat_s[np.isfinite(beat_s)]
        assert np.isfinite(beat_s[1:]).all()  # else the hole would become one interval
        variability = rust_dsp.variability(defined[:-1], defined[1:])
        for name in NAMES:
            assert getattr(variability, name) == getattr(labels, name)[row], name
    assert np.isfinite(labels.sdnn_ms).all()


def test_views_and_threads() -> None:
    start_s, end_s = intervals(1)
    both = np.stack([start_s, end_s], axis=1)
    expected = rust_dsp.variability(start_s, end_s).rmssd_ms
    assert np.isfinite(expected)
    assert rust_dsp.variability(both[:, 0], both[:, 1]).rmssd_ms == expected
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: rust_dsp.variability(start_s, end_s).rmssd_ms, range(32)))
    assert results == [expected] * 32


@pytest.mark.parametrize(
    ("start_s", "end_s", "error", "message"),
    [
        (np.zeros(3), np.ones(2), ValueError, "start_s has 3 values, end_s has 2"),
        (np.zeros((2, 2)), np.ones((2, 2)), ValueError, r"start_s must have 1 dimension, found shape \[2, 2\]"),
        (np.array([0.0, np.nan]), np.ones(2), ValueError, "start_s must be finite, found NaN at index 1"),
        (np.zeros(2), np.array([-np.inf, 1.0]), ValueError, "end_s must be finite, found -inf at index 0"),
        (np.zeros(2, np.float32), np.ones(2), TypeError, "start_s must be a NumPy array of float64, found dtype"),
        (np.zeros(2), [1.0, 1.0], TypeError, "end_s must be a NumPy array of float64, found <class 'list'>"),
    ],
)
def test_bad_intervals_are_errors(start_s: Any, end_s: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rust_dsp.variability(start_s, end_s)
