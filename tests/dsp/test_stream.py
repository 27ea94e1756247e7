"""Streaming: the segments of the batch form, bit for bit, in chunks of any size, and errors that take nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rust_dsp
from accelkd.segments.windows import motion_reason, preprocess_windows, window_samples
from tests.support.instruction_sets import InstructionSet

Raw = npt.NDArray[np.float32]


def recording(rates_hz: dict[str, float], rows: dict[str, int], duration_s: float, seed: int) -> dict[str, Raw]:
    """Signals with a pulse, some lost samples, a hole of 0.4 s, and a minute of movement."""
    rng = np.random.default_rng(seed)
    signals = {}
    for name, rate_hz in rates_hz.items():
        time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
        noise = rng.standard_normal((rows[name], time_s.size)) * np.where((time_s > 60) & (time_s < 120), 40.0, 1.0)
        samples = (0.4 + 0.004 * (np.sin(2 * np.pi * 7 * time_s) + noise)).astype(np.float32)
        samples[:, rng.random(time_s.size) < 0.003] = np.nan
        samples[:, round(170 * rate_hz) : round(170.4 * rate_hz)] = np.nan
        signals[name] = samples
    return signals


def chunks(signals: dict[str, Raw], rates_hz: dict[str, float], seed: int) -> Iterator[dict[str, Raw]]:
    """The same samples in pieces of 0 to 3 s, some signals earlier than others."""
    rng = np.random.default_rng(seed)
    at = dict.fromkeys(signals, 0)
    time_s = 0.0
    while any(at[name] < samples.shape[1] for name, samples in signals.items()):
        time_s += 3 * rng.random()
        piece = {}
        for name, samples in signals.items():
            to = max(at[name], int((time_s - rng.random()) * rates_hz[name]))
            piece[name] = np.ascontiguousarray(samples[:, at[name] : to])
            at[name] = min(to, samples.shape[1])
        yield piece


@pytest.mark.parametrize(
    ("rates_hz", "hop_s", "accel_start_s"),
    [
        ({"accel": 31.25}, 1.0, 0.0),
        ({"accel": 2048.0}, 60.0, 0.0),
        ({"accel": 49.97, "ppg": 25.0}, 7.5, 0.4),
        ({"accel": 100.0, "ppg": 100.0, "dark": 100.0}, 60.0, -0.7),
        ({"ppg": 64.0, "dark": 12.5}, 20.0, 0.0),
    ],
)
def test_segments_are_those_of_the_batch_form(
    rates_hz: dict[str, float], hop_s: float, accel_start_s: float, instruction_set: InstructionSet
) -> None:
    rows = {"accel": 3, "ppg": 2, "dark": 1}
    plan = rust_dsp.Plan(
        ppg_rate_hz=rates_hz.get("ppg"),
        accel_rate_hz=rates_hz.get("accel"),
        dark_rate_hz=rates_hz.get("dark"),
        accel_range=(-8, 8),
        instruction_set=instruction_set,
    )
    signals = recording(rates_hz, rows, 250.1, seed=1)
    windows = plan.windows(
        signals.get("ppg"), signals.get("accel"), dark=signals.get("dark"), hop_s=hop_s, accel_start_s=accel_start_s
    )
    cut = {
        name: [window_samples(samples, start, rates_hz[name]) for start in getattr(windows, f"{name}_start").tolist()]
        for name, samples in signals.items()
    }
    batch, unfit = preprocess_windows(plan, **cut)

    stream = rust_dsp.Stream(
        plan,
        hop_s=hop_s,
        ppg_channels=2 if "ppg" in rates_hz else None,
        dark="dark" in rates_hz,
        accel_start_s=accel_start_s,
    )
    segments = [segment for piece in chunks(signals, rates_hz, seed=2) for segment in stream.push(**piece)]
    segments += stream.end()

    assert len(segments) == len(windows.offset_s) > 3
    for number, segment in enumerate(segments):
        assert segment.number == number
        for name in ("offset_s", "accel_start", "ppg_start", "dark_start", "lies_still", "kept"):
            assert getattr(segment, name) == getattr(windows, name)[number]
        for name in ("motion_median_g", "motion_p95_g"):
            np.testing.assert_equal(getattr(segment, name), getattr(windows, name)[number])
        for signal in ("accel", "ppg"):
            for name in (signal, f"{signal}_status", f"{signal}_level", f"{signal}_ac_level", f"{signal}_missing"):
                np.testing.assert_array_equal(getattr(segment, name), getattr(batch, name)[number])
        motion = motion_reason(bool(windows.kept[number]), windows.motion_p95_g[number])
        assert segment.reason == (motion or unfit[number])
    if "accel" in rates_hz:
        rates, peaks = rust_dsp.recoil_rates(batch.accel, scale=batch.accel_ac_level)
        np.testing.assert_array_equal([segment.hr_bpm for segment in segments], rates)
        np.testing.assert_array_equal([segment.hr_peak for segment in segments], peaks)


def test_one_push_of_everything_is_the_same_as_many() -> None:
    plan = rust_dsp.Plan(accel_rate_hz=50)
    signals = recording({"accel": 50}, {"accel": 3}, 600, seed=3)
    stream = rust_dsp.Stream(plan, hop_s=10)
    memory = stream.memory_bytes
    segments = stream.push(**signals)
    assert len(segments) == 55
    assert stream.memory_bytes == memory < 1_000_000
    pieces = rust_dsp.Stream(plan, hop_s=10)
    again = [segment for piece in chunks(signals, {"accel": 50}, seed=4) for segment in pieces.push(**piece)]
    for segment, same in zip(segments, again, strict=True):
        np.testing.assert_array_equal(segment.accel, same.accel)


def test_a_gap_is_the_same_as_lost_samples() -> None:
    accel = recording({"accel": 50}, {"accel": 3}, 90, seed=5)["accel"]
    marked, counted = (rust_dsp.Stream(rust_dsp.Plan(accel_rate_hz=50), hop_s=5) for _ in range(2))
    accel[:, 4400:] = np.nan
    expected = marked.push(accel=accel)
    segments = counted.push(accel=accel[:, :4400].copy()) + counted.gap(accel=100)
    assert [segment.reason for segment in segments] == [segment.reason for segment in expected]
    np.testing.assert_array_equal(segments[-1].accel_missing, expected[-1].accel_missing)
    assert segments[-1].reason in ("accel_gap", "motion")


def test_what_does_not_fit_is_an_error_and_nothing_is_taken() -> None:
    plan = rust_dsp.Plan(accel_rate_hz=50, ppg_rate_hz=50, led_offsets_s=(0, 0.001))
    stream = rust_dsp.Stream(plan)
    accel, ppg = np.zeros((3, 3500), np.float32), np.zeros((2, 3500), np.float32)
    calls: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"accel": accel}, ValueError, "accel would be 10.0 s ahead of another signal"),
        ({"accel": accel[:2]}, ValueError, "accel has 2 rows, expected 3"),
        ({"accel": accel[0]}, ValueError, "accel must have 2 dimensions"),
        ({"accel": accel.astype(np.float64)}, TypeError, "accel must be a NumPy array of float32, found dtype float64"),
        ({"accel": accel[:, ::2]}, ValueError, "accel has rows that are not contiguous"),
        ({"dark": ppg[:1]}, ValueError, "dark has 1 rows, expected 0"),
    ]
    for arrays, error, message in calls:
        with pytest.raises(error, match=message):
            stream.push(**arrays)
    with pytest.raises(ValueError, match="the stream has no dark"):
        stream.gap(dark=3)
    (segment,) = stream.push(accel=accel, ppg=ppg)
    assert (segment.accel_start, segment.ppg_start, segment.reason) == (0, 0, "ppg_flat")
    assert stream.end() == []
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.push(accel=accel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop_s": 0.0}, "hop_s must be finite and at least 0.1"),
        ({"gate": "open"}, "gate must be 'strict', 'loose' or 'off'"),
        ({"slack_s": 0.0}, "slack_s must be from 1 to 3600"),
        ({"accel_start_s": np.nan}, "accel_start_s must be finite"),
        ({"ppg_channels": 3}, "ppg_channels is 3, the plan has 2"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    plan = rust_dsp.Plan(accel_rate_hz=50, ppg_rate_hz=50, led_offsets_s=(0, 0.001))
    with pytest.raises(ValueError, match=message):
        rust_dsp.Stream(plan, **settings)


def test_other_threads_run_meanwhile() -> None:
    """Streams of several threads, each with its own device, do not disturb each other."""
    accel = recording({"accel": 100}, {"accel": 3}, 300, seed=6)["accel"]
    plan = rust_dsp.Plan(accel_rate_hz=100)
    expected = [segment.hr_bpm for segment in rust_dsp.Stream(plan, hop_s=5).push(accel=accel)]
    results: list[list[float]] = []

    def run() -> None:
        results.append([segment.hr_bpm for segment in rust_dsp.Stream(plan, hop_s=5).push(accel=accel)])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)
    assert len(results) == 4
