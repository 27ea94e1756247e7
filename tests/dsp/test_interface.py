"""What Python sees: shapes, types, errors that say what is wrong, and arrays that are read in place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import rust_dsp

RATE_HZ = 64


def batch(recordings: int = 3, rate_hz: float = RATE_HZ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    samples = round(60 * rate_hz)
    pulse = np.sin(2 * np.pi * 1.2 * np.arange(samples) / rate_hz)
    ppg = (1e5 + 500 * pulse + 50 * rng.standard_normal((recordings, 2, samples))).astype(np.int32)
    dark = (2e3 + 20 * rng.standard_normal((recordings, 1, samples))).astype(np.int32)
    accel = (0.3 + 0.002 * pulse + 0.001 * rng.standard_normal((recordings, 3, samples))).astype(np.float32)
    return ppg, dark, accel


@pytest.fixture
def plan() -> rust_dsp.Plan:
    return rust_dsp.Plan(ppg_rate_hz=RATE_HZ, accel_rate_hz=RATE_HZ, led_offsets_s=(0.0, 0.005))


def test_shapes_and_types(plan: rust_dsp.Plan) -> None:
    segments = plan.preprocess(*batch())
    assert segments.ppg.shape == (3, 2, 3840)
    assert segments.ppg.dtype == np.float32
    assert segments.accel.shape == (3, 3, 3840)
    assert segments.accel.dtype == np.float32
    assert segments.ppg_status.shape == (3, 2)
    assert segments.ppg_status.dtype == np.uint8
    for name in ("level", "ac_level", "missing"):
        assert getattr(segments, f"ppg_{name}").shape == (3, 2)
        assert getattr(segments, f"accel_{name}").shape == (3, 3)
    np.testing.assert_allclose(segments.ppg.astype(np.float64).std(axis=-1), 1, atol=1e-6)


def test_a_stream_that_is_not_given_has_no_rows(plan: rust_dsp.Plan) -> None:
    ppg, dark, accel = batch()
    assert plan.preprocess(ppg, dark).accel.shape == (3, 0, 3840)
    assert plan.preprocess(None, None, accel).ppg.shape == (3, 0, 3840)
    assert plan.preprocess(ppg[:0], dark[:0], accel[:0]).ppg.shape == (0, 2, 3840)
    assert plan.preprocess([], None, []).accel.shape == (0, 3, 3840)


def test_a_list_of_views_is_the_same_as_one_array(plan: rust_dsp.Plan) -> None:
    ppg, dark, accel = batch()
    stacked = plan.preprocess(ppg, dark, accel)
    # Views into one long recording of which every window is a part
    long = [np.concatenate(list(stream), axis=1) for stream in (ppg, dark, accel)]
    views = [[stream[:, start : start + 3840] for start in (0, 3840, 7680)] for stream in long]
    listed = plan.preprocess(*views)
    np.testing.assert_array_equal(listed.ppg, stacked.ppg)
    np.testing.assert_array_equal(listed.accel, stacked.accel)


def test_threads_change_nothing() -> None:
    plan = rust_dsp.Plan(ppg_rate_hz=256, accel_rate_hz=256)
    streams = batch(9, 256)
    serial = plan.preprocess(*streams, threads=1)
    for threads in (0, 2, 5):
        parallel = plan.preprocess(*streams, threads=threads)
        np.testing.assert_array_equal(parallel.ppg, serial.ppg)
        np.testing.assert_array_equal(parallel.accel, serial.accel)
    with ThreadPoolExecutor(4) as pool:  # one plan, many callers
        for parallel in pool.map(lambda _: plan.preprocess(*streams, threads=2), range(8)):
            np.testing.assert_array_equal(parallel.ppg, serial.ppg)


def test_half_precision_and_places_given_by_the_caller(plan: rust_dsp.Plan) -> None:
    streams = batch()
    single = plan.preprocess(*streams)
    half = plan.preprocess(*streams, dtype="float16")
    assert half.ppg.dtype == np.float16
    np.testing.assert_array_equal(half.ppg, single.ppg.astype(np.float16))
    ppg_out, accel_out = np.full((3, 2, 3840), 9, np.float16), np.full((3, 3, 3840), 9, np.float16)
    segments = plan.preprocess(*streams, dtype="float16", ppg_out=ppg_out, accel_out=accel_out)
    assert segments.ppg is ppg_out
    np.testing.assert_array_equal(ppg_out, half.ppg)
    np.testing.assert_array_equal(accel_out, half.accel)


def test_arrow_lists_are_read_in_place(plan: rust_dsp.Plan) -> None:
    ppg, _, accel = batch()
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(stream.reshape(-1)), stream[0].size) for stream in (ppg, accel)
    ]
    views = [
        column.flatten().to_numpy(zero_copy_only=True).reshape(stream.shape)
        for column, stream in zip(columns, (ppg, accel), strict=True)
    ]
    assert not views[0].flags.owndata
    np.testing.assert_array_equal(plan.preprocess(views[0], None, views[1]).ppg, plan.preprocess(ppg, None, accel).ppg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ppg, dark, accel: (ppg[:, :1], dark, accel), "recording 0: ppg has 1 rows, expected 2"),
        (lambda ppg, dark, accel: ([*ppg[:2], ppg[2][:1]], dark, accel), "recording 2: ppg has 1 rows, expected 2"),
        (lambda ppg, dark, accel: (ppg, np.repeat(dark, 2, 1), accel), "recording 0: dark has 2 rows, expected 1"),
        (lambda ppg, dark, accel: (ppg, dark, list(accel[:, :2])), "recording 0: accel has 2 rows, expected 3"),
        (lambda ppg, dark, accel: (ppg, dark[:2], accel), "dark has 2 recordings, the batch has 3"),
        (lambda ppg, dark, accel: (ppg[..., ::2], dark, accel), "recording 0: ppg has rows that are not contiguous"),
        (lambda ppg, dark, accel: (ppg, dark, accel[..., ::-1]), "recording 0: accel has rows that are not contiguous"),
        (lambda ppg, dark, accel: (ppg[0], dark, accel), "ppg must have 3 dimensions"),
        (lambda ppg, dark, accel: ([*ppg[:2], ppg[0, 0]], dark, accel), "recording 2: ppg must have 2 dimensions"),
        (lambda ppg, dark, accel: (ppg.astype(np.uint16), dark, accel), "ppg must be a NumPy array of int16.*uint16"),
        (lambda ppg, dark, accel: (ppg.astype(">i4"), dark, accel), "ppg must be a NumPy array of int16.*>i4"),
        (lambda _, dark, accel: (7, dark, accel), "ppg must be a 3-D array or a list of 2-D arrays"),
        (lambda *_: (None, None, None), "neither ppg nor accel"),
    ],
)
def test_a_bad_input_is_named(plan: rust_dsp.Plan, change: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        plan.preprocess(*change(*batch()))


def test_bad_places_for_the_output_are_refused(plan: rust_dsp.Plan) -> None:
    ppg, dark, accel = batch()
    wrong: list[Any] = [
        np.zeros((3, 2, 3840)),
        np.zeros((3, 2, 3841), np.float32),
        np.zeros((2, 3, 3840), np.float32).T,
    ]
    for bad in wrong:
        with pytest.raises(ValueError, match="ppg_out must be a C-contiguous array"):
            plan.preprocess(ppg, dark, accel, ppg_out=bad)
    itself = np.zeros((3, 2, 3840), np.float32)
    with pytest.raises(ValueError, match="ppg_out overlaps an input"):
        plan.preprocess(itself, dark, accel, ppg_out=itself)
    itself.flags.writeable = False
    with pytest.raises(ValueError, match="ppg_out"):
        plan.preprocess(ppg, dark, accel, ppg_out=itself)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({}, "ppg_rate_hz, accel_rate_hz or both"),
        ({"ppg_rate_hz": 19.0}, "ppg rate 19 Hz is not supported"),
        ({"accel_rate_hz": 2049.0}, "accel rate 2049 Hz is not supported"),
        ({"ppg_rate_hz": 64, "dark_rate_hz": 0.0}, "dark rate 0 Hz"),
        ({"ppg_rate_hz": 64, "led_offsets_s": (np.nan,)}, "led_offsets_s must be finite"),
        ({"ppg_rate_hz": 64, "dark_offsets_s": ()}, "at least one slot"),
        ({"ppg_rate_hz": 64, "dark_offsets_s": (0.0, 0.0)}, "different instants"),
        ({"ppg_rate_hz": 64, "ppg_range": (1.0, 1.0)}, "low < high"),
        ({"accel_rate_hz": 64, "accel_range": (np.nan, 1.0)}, "low < high"),
        ({"ppg_rate_hz": 64, "instruction_set": "mmx"}, "instruction_set must be one of"),
    ],
)
def test_a_bad_device_is_named(device: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rust_dsp.Plan(**device)


def test_a_plan_knows_its_streams() -> None:
    ppg, _, accel = batch()
    with pytest.raises(ValueError, match="no ppg_rate_hz"):
        rust_dsp.Plan(accel_rate_hz=64).preprocess(ppg, None, accel)
    with pytest.raises(ValueError, match="no accel_rate_hz"):
        rust_dsp.Plan(ppg_rate_hz=64).preprocess(ppg, None, accel)


def test_windows_are_aligned_by_time() -> None:
    plan = rust_dsp.Plan(ppg_rate_hz=64, accel_rate_hz=32)
    ppg, accel = np.zeros((1, 64 * 200)), np.zeros((3, 32 * 200))
    windows = plan.windows(ppg, accel, hop_s=30, accel_start_s=1.5)
    assert windows.offset_s.tolist() == [1.5, 31.5, 61.5, 91.5, 121.5]
    assert windows.ppg_start.tolist() == [96, 2016, 3936, 5856, 7776]
    assert windows.accel_start.tolist() == [0, 960, 1920, 2880, 3840]
    assert windows.kept.all()
    early = plan.windows(ppg, accel, hop_s=60, accel_start_s=-2)
    assert (early.offset_s[0], early.ppg_start[0], early.accel_start[0]) == (0, 0, 64)


def test_a_recording_may_lack_a_modality() -> None:
    plan = rust_dsp.Plan(ppg_rate_hz=64, accel_rate_hz=32)
    ppg, accel = np.zeros((1, 64 * 200)), np.zeros((3, 32 * 200))
    ppg_only, accel_only = plan.windows(ppg), plan.windows(None, accel)
    assert ppg_only.offset_s.tolist() == accel_only.offset_s.tolist() == [0, 60, 120]
    assert np.isnan(ppg_only.motion_p95_g).all()
    assert ppg_only.kept.all()
    assert not ppg_only.lies_still.any()
    assert accel_only.accel_start.tolist() == [0, 1920, 3840]
    assert accel_only.ppg_start.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="ppg, accel or both"):
        plan.windows(None)
    with pytest.raises(ValueError, match="accel_rate_hz"):
        rust_dsp.Plan(ppg_rate_hz=64).windows(None, accel)


@pytest.mark.parametrize(("noise_g", "rate_hz"), [(0.0, 32), (0.002, 64), (0.005, 32)])
def test_a_thing_at_rest_lies_still_and_a_breathing_person_does_not(noise_g: float, rate_hz: int) -> None:
    rng = np.random.default_rng(1)
    t = np.arange(60 * rate_hz) / rate_hz
    table = np.array([[0.0], [0.6], [0.8]]) + noise_g * rng.standard_normal((3, len(t)))
    table[:, 100:110] = np.nan
    worn = table + 0.006 * np.sin(2 * np.pi * 0.25 * t) * np.array([[0.0], [0.0], [1.0]])
    plan = rust_dsp.Plan(accel_rate_hz=rate_hz)
    assert plan.windows(None, table).lies_still.tolist() == [True]
    assert plan.windows(None, worn).lies_still.tolist() == [False]


@pytest.mark.parametrize("rate_hz", [99.544, 20.0001, 63.99991, 2047.9])
def test_any_measured_rate_is_planned_for(rate_hz: float) -> None:
    samples = round(60 * rate_hz)
    x = np.sin(2 * np.pi * 2 * np.arange(samples) / rate_hz)
    done = rust_dsp.Plan(ppg_rate_hz=rate_hz).preprocess(x[None, None])
    expected = np.sin(2 * np.pi * 2 * np.arange(3840) / 64)
    assert done.ppg_status.tolist() == [[0]]
    assert np.corrcoef(done.ppg[0, 0, 640:-640], expected[640:-640])[0, 1] > 0.999


def test_a_masked_array_is_refused() -> None:
    masked = np.ma.masked_array(np.zeros((1, 1, 3840)), mask=np.arange(3840)[None, None] < 640)
    with pytest.raises(TypeError, match="masked array, whose mask would be lost"):
        rust_dsp.Plan(ppg_rate_hz=64).preprocess(masked)


@pytest.mark.parametrize(("lacking", "windows"), [(0, 1), (16, 1), (17, 0)])
def test_a_window_may_lack_what_the_gap_rule_fills(lacking: int, windows: int) -> None:
    plan = rust_dsp.Plan(ppg_rate_hz=64, accel_rate_hz=64)
    kept = plan.windows(np.zeros((1, 3840 - lacking)), np.zeros((3, 3840))).kept
    assert len(kept) == windows


def test_gates() -> None:
    plan = rust_dsp.Plan(ppg_rate_hz=64, accel_rate_hz=64)
    accel = np.zeros((3, 3 * 3840))
    accel[0, 3840 : 3840 + 640 : 2] = 0.5  # ten seconds of movement in the second window
    accel[0, 7680::2] = 0.5  # the third moves all the time
    ppg = np.zeros((1, 3 * 3840))
    kept = {gate: plan.windows(ppg, accel, gate=gate).kept.tolist() for gate in ("strict", "loose", "off")}
    assert kept == {"strict": [True, False, False], "loose": [True, True, False], "off": [True, True, True]}
    median_g, p95_g = rust_dsp.motion(accel[:, 3840:7680], 64)
    assert median_g == 0
    assert p95_g == pytest.approx(0.25)


def test_motion_leaves_missing_samples_out() -> None:
    accel = np.random.default_rng(0).standard_normal((3, 3840))
    with_gap = accel.copy()
    with_gap[1, 100] = np.nan
    assert rust_dsp.motion(with_gap, 64) == pytest.approx(rust_dsp.motion(accel, 64), rel=0.01)
    assert np.isnan(rust_dsp.motion(np.full((3, 3840), np.nan), 64)).all()
    assert np.isnan(rust_dsp.motion(accel[:, :63], 64)).all()


def test_labels_of_nothing() -> None:
    z = np.zeros((3, 3840), np.float32)
    z[1, 7] = np.nan
    labels = rust_dsp.label(z)
    assert np.isnan(labels.hr_bpm).all()
    assert not labels.good.any()
    assert [len(beats) for beats in labels.beat_s] == [0, 0, 0]
    assert len(rust_dsp.label(z[:0]).good) == 0


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        (np.zeros((2, 100), np.float32), {}, "shape"),
        (np.zeros(3840, np.float32), {}, "shape"),
        (np.zeros((2, 3840), np.int32), {}, "float16, float32 or float64"),
        (np.zeros((3840, 2), np.float32).T, {}, "not contiguous"),
        (np.zeros((2, 3840), np.float32), {"polarity": 0}, "polarity must be 1, -1 or None"),
    ],
)
def test_bad_segments_are_refused(z: npt.NDArray[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        rust_dsp.label(z, **options)


def test_labels_do_not_depend_on_threads() -> None:
    z = rust_dsp.Plan(ppg_rate_hz=RATE_HZ).preprocess(batch(8)[0]).ppg.reshape(-1, 3840)
    serial = rust_dsp.label(z, threads=1)
    for threads in (0, 2, 3):
        labels = rust_dsp.label(z, threads=threads)
        np.testing.assert_array_equal(labels.hr_bpm, serial.hr_bpm)
        for times, expected in zip(labels.beat_s, serial.beat_s, strict=True):
            np.testing.assert_array_equal(times, expected)
    np.testing.assert_allclose(serial.hr_bpm, 72, atol=0.6)
