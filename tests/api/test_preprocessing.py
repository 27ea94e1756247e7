"""`accelkd.preprocess`: the numbers of the segment store for the same recording, and clear errors for what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import accelkd
from accelkd.home.layout import Home
from accelkd.home.settings import MotionGate
from accelkd.recordings.ingest import ingest
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from tests.support.recordings import Person, land_people

RATE_HZ = 50


def at_rest(seconds: int = 180, rate_hz: int = RATE_HZ) -> npt.NDArray[np.float64]:
    noise = np.random.default_rng(0).standard_normal((3, seconds * rate_hz))
    return np.array([[0.1], [0.2], [0.97]]) + 0.002 * noise


def pulse(channels: int = 2, seconds: int = 120, rate_hz: int = RATE_HZ) -> npt.NDArray[np.float64]:
    time_s = np.arange(seconds * rate_hz) / rate_hz
    noise = np.random.default_rng(1).standard_normal((channels, len(time_s)))
    return 1e5 + 1e3 * np.sin(2 * np.pi * 1.1 * time_s) + 30 * noise


def simulated(home: Home, _: Path) -> None:
    simulate_batch(home.landing, "b", participants=2, segments=3, seed=5, profile="hard", rate_hz=256)


def damaged(home: Home, _: Path) -> None:
    """Several minutes, streams that do not start together, and every kind of damage."""
    early, late = Person("early", 200.0), Person("late", 190.0)
    early.facts["accel_start_s"], late.facts["accel_start_s"] = -7.3, 11.7
    early.ppg[:, 4000:4100] = np.nan
    early.ppg[1:, 9000:9100] = np.nan
    early.accel[2, 7000:7100] = np.nan
    late.ppg[0] = 2.0**19
    late.accel[0, 5000:9000:2] += 0.4
    land_people(home, "b", [early, late])


def polar(home: Home, shared: Path) -> None:
    ingest("polar", shared / "data" / "polar-verity-sense", home.landing, "b")


def e4(home: Home, shared: Path) -> None:
    ingest("e4", shared / "data" / "stress-predict-e4" / "S01", home.landing, "b")


def recordings(home: Home) -> list[dict[str, Any]]:
    paths = sorted((home.landing / "b" / "recordings").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize(
    ("landed", "gate", "hop_s"),
    [(simulated, "strict", 60.0), (damaged, "strict", 0.7), (polar, "loose", 45.0), (e4, "loose", 60.0)],
)
def test_windows_are_those_of_the_segment_store(
    tmp_path: Path, request: pytest.FixtureRequest, landed: Callable[[Home, Path], None], gate: MotionGate, hop_s: float
) -> None:
    home = Home(tmp_path)
    landed(home, request.getfixturevalue("shared") if landed in (polar, e4) else tmp_path)
    segment_batch(home, "b", gate=gate, hop_s=hop_s)
    store = SegmentStore([home.segments("b")])
    metadata = store.metadata.select(["recording_id", "offset_s"]).to_pylist()
    quarantine = pq.read_table(home.quarantine("b")).to_pylist()
    seen = 0
    for row in recordings(home):
        late_s = row["accel_start_s"]
        accel = accelkd.preprocess(
            accel=np.array(row["accel"]),
            rate_hz=row["accel_rate_hz"],
            hop_s=hop_s,
            start_s=max(-late_s, 0.0),
            motion_gate=gate,
            device=row["device_id"],
        )
        dark = {} if row["dark"] is None else {name: row[name] for name in ("dark_rate_hz", "dark_offsets_s")}
        ppg = accelkd.preprocess(
            ppg=np.array(row["ppg"]),
            rate_hz=row["ppg_rate_hz"],
            hop_s=hop_s,
            start_s=max(late_s, 0.0),
            device=row["device_id"],
            dark=None if row["dark"] is None else np.array(row["dark"]),
            **dark,
        )
        both = min(len(accel), len(ppg))
        usable = np.flatnonzero(accel.usable[:both] & ppg.usable[:both])
        at = [i for i, segment in enumerate(metadata) if segment["recording_id"] == row["recording_id"]]
        assert [metadata[i]["offset_s"] for i in at] == ppg.offset_s[usable].tolist()
        np.testing.assert_allclose(accel.offset_s[:both], ppg.offset_s[:both] - late_s, rtol=0, atol=1e-9)
        for windows in (accel, ppg):
            np.testing.assert_array_equal(
                windows.signals[usable], store.signals(windows.modality, np.array(at, np.intp))
            )
            assert windows.signals.dtype == np.float32
        moved = [reason if reason in ("motion", "accel_missing") else None for reason in accel.reasons]
        reasons = [first or p or a for first, p, a in zip(moved, ppg.reasons, accel.reasons, strict=False)]
        expected = {
            gone["offset_s"]: gone["reason"] for gone in quarantine if gone["recording_id"] == row["recording_id"]
        }
        assert {offset: why for offset, why in zip(ppg.offset_s.tolist(), reasons, strict=False) if why} == expected
        seen += both
    assert len(store) > 3
    assert seen == len(store) + len(quarantine)


def test_every_window_has_a_row_and_a_reason_unless_it_is_usable() -> None:
    accel = at_rest(300)
    accel[0, 60 * RATE_HZ : 120 * RATE_HZ : 2] += 0.4  # the second minute moves
    accel[1, 130 * RATE_HZ : 131 * RATE_HZ] = np.nan
    accel[2, 180 * RATE_HZ : 240 * RATE_HZ] = 0.97  # one axis flat, as of a watch on a table
    windows = accelkd.preprocess(accel=accel, rate_hz=RATE_HZ)
    assert_type(windows, accelkd.Windows)
    assert windows.reasons == (None, "motion", "accel_gap", None, None)
    assert windows.usable.tolist() == [True, False, False, True, True]
    assert windows.offset_s.tolist() == [0, 60, 120, 180, 240]
    assert windows.signals.shape == (5, 3, 3840)
    assert windows.status.tolist() == [[0, 0, 0], [0, 0, 0], [0, 2, 0], [0, 0, 8], [0, 0, 0]]
    assert np.isnan(windows.signals[[1, 2]]).all()
    assert (windows.signals[3, 2] == 0).all()
    good = windows.signals[[0, 4]]
    np.testing.assert_allclose(good.mean(2), 0, atol=1e-3)
    np.testing.assert_allclose(good.std(2), 1, atol=1e-3)
    assert repr(windows) == "Windows(accel: 5 of 60 s, 3 usable, 1 motion, 1 accel_gap)"
    assert accelkd.preprocess(accel=accel, rate_hz=RATE_HZ, motion_gate="off").reasons[1] is None


def test_valid_range_makes_samples_missing() -> None:
    accel = at_rest()
    accel[0, 70 * RATE_HZ : 71 * RATE_HZ] = 2.0
    assert accelkd.preprocess(accel=accel, rate_hz=RATE_HZ, motion_gate="off").usable.all()
    clipped = accelkd.preprocess(accel=accel, rate_hz=RATE_HZ, motion_gate="off", valid_range=(-2, 2))
    assert clipped.reasons == (None, "accel_gap", None)


SAME: dict[str, Callable[[npt.NDArray[np.float64]], Any]] = {
    "float32": lambda accel: accel.astype(np.float32),
    "big-endian": lambda accel: accel.astype(">f8"),
    "not contiguous": lambda accel: np.ascontiguousarray(accel.T).T,
    "tensor": torch.from_numpy,
    "tensor with gradient": lambda accel: torch.from_numpy(accel).requires_grad_(),
    "list of columns": list,
    "Polars columns": lambda accel: [pl.Series(axis) for axis in accel],
    "PyArrow columns": lambda accel: tuple(pa.chunked_array([axis[:99], axis[99:]]) for axis in accel),
    "nothing masked": np.ma.masked_array,
}


@pytest.mark.parametrize("form", SAME)
def test_the_same_samples_in_another_form_give_the_same_numbers(form: str) -> None:
    accel = at_rest()
    expected = accelkd.preprocess(accel=accel, rate_hz=RATE_HZ)
    windows = accelkd.preprocess(accel=SAME[form](accel), rate_hz=RATE_HZ)
    np.testing.assert_array_equal(windows.signals, expected.signals)
    assert expected.usable.all()


def test_integers_are_counts_and_one_channel_needs_no_axis() -> None:
    counts = pulse(1).round()
    expected = accelkd.preprocess(ppg=counts, rate_hz=RATE_HZ)
    for ppg in (counts.astype(np.int32), counts[0].astype(np.int64), torch.from_numpy(counts[0]).int()):
        np.testing.assert_array_equal(accelkd.preprocess(ppg=ppg, rate_hz=RATE_HZ).signals, expected.signals)
    assert expected.usable.all()


@pytest.mark.parametrize("columns", [False, True])
def test_masked_samples_are_missing_samples(columns: bool) -> None:
    counts = pulse().round().astype(np.int64)
    mask = np.zeros(counts.shape, np.bool_)
    mask[:, 300:310] = True  # a fifth of a second, which is filled
    mask[:, 4000:4500] = True  # ten seconds
    counts[mask] = 2**31 - 1  # what some loggers write where there is no sample
    masked = np.ma.masked_array(counts, mask)
    windows = accelkd.preprocess(ppg=list(masked) if columns else masked, rate_hz=RATE_HZ)
    expected = accelkd.preprocess(ppg=np.where(mask, np.nan, counts), rate_hz=RATE_HZ)
    np.testing.assert_array_equal(windows.signals, expected.signals)
    assert windows.reasons == (None, "ppg_gap")


def test_dark_slots_are_subtracted() -> None:
    ppg = pulse(1)
    light = 500 * np.sin(2 * np.pi * 1.7 * np.arange(ppg.shape[1]) / RATE_HZ)
    dark: dict[str, Any] = {"dark": light + 600, "dark_rate_hz": RATE_HZ}
    clean, lit, freed = (
        accelkd.preprocess(ppg=ppg + added, rate_hz=RATE_HZ, **given).signals
        for added, given in ((0.0, {}), (light, {}), (light, dark))
    )
    assert np.abs(lit - clean).max() > 0.3
    np.testing.assert_allclose(freed, clean, atol=0.1)


ACCEL, PPG = at_rest(61), pulse(2, 61)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, ValueError, "either accel or ppg"),
    "both": ({"accel": ACCEL, "ppg": PPG}, ValueError, "either accel or ppg"),
    "transposed": ({"accel": ACCEL.T}, ValueError, r"accel must be \[channels, samples\].*`accel\.T`"),
    "transposed PPG": ({"ppg": PPG.T}, ValueError, r"`ppg\.T`"),
    "transposed frame": ({"accel": pl.DataFrame(ACCEL.T)}, ValueError, r"`accel\.T`"),
    "two axes": (
        {"accel": ACCEL[:2]},
        ValueError,
        r"accel must be \[3, samples\], the axes x, y and z, found \[2, 3050",
    ),
    "one axis": ({"accel": ACCEL[0]}, ValueError, r"accel must be \[3, samples\]"),
    "three dimensions": (
        {"ppg": PPG[None]},
        ValueError,
        r"ppg must be \[channels, samples\], found shape \[1, 2, 3050",
    ),
    "no samples": ({"ppg": np.zeros((2, 0))}, ValueError, r"found shape \[2, 0\]"),
    "columns that differ": (
        {"accel": [*ACCEL[:2], ACCEL[2, 1:]]},
        ValueError,
        r"one column .* \[\(3049,\), \(3050,\)\]",
    ),
    "a list of numbers": ({"ppg": PPG[0].tolist()}, ValueError, r"one column .* found shapes \[\(\)\]"),
    "text": ({"ppg": PPG.astype(str)}, TypeError, "ppg must hold real numbers, found dtype <U"),
    "objects": (
        {"accel": list(ACCEL.astype(object))},
        TypeError,
        r"accel\[0\] must hold real numbers, found dtype object",
    ),
    "complex": ({"ppg": PPG.astype(complex)}, TypeError, "found dtype complex128"),
    "truth values": ({"ppg": PPG > 0}, TypeError, "found dtype bool"),
    "large integers": ({"ppg": PPG.astype(np.int64) + 2**30}, ValueError, r"integers beyond 2\^24"),
    "m/s²": (
        {"accel": 9.81 * ACCEL},
        ValueError,
        r"in g, with gravity: median norm 9\.\d+ is not between 0.5 and 2.0 g",
    ),
    "without gravity": ({"accel": ACCEL - ACCEL.mean(1, keepdims=True)}, ValueError, "in g, with gravity"),
    "nothing but NaN": ({"accel": np.nan * ACCEL}, ValueError, "accel holds not a single sample"),
    "too short": ({"accel": ACCEL[:, :2900]}, ValueError, r"no whole window of 60 s.*accel lasts 58\.000 s"),
    "starts too late": ({"accel": ACCEL, "start_s": 2.0}, ValueError, r"from 2 s on: accel lasts 61\.000 s"),
    "starts before": ({"accel": ACCEL, "start_s": -1.0}, ValueError, "start_s must be 0 or more"),
    "starts nowhere": ({"accel": ACCEL, "start_s": np.nan}, ValueError, "start_s must be 0 or more"),
    "slow": ({"accel": ACCEL, "rate_hz": 19.0}, ValueError, "rate_hz must be 20 to 2048 Hz, found 19"),
    "no rate": ({"accel": ACCEL, "rate_hz": 0.0}, ValueError, "rate_hz must be 20 to 2048 Hz, found 0"),
    "no hop": ({"accel": ACCEL, "hop_s": 0.0}, ValueError, "hop_s must be"),
    "unknown gate": ({"accel": ACCEL, "motion_gate": "lax"}, ValueError, "gate must be 'strict', 'loose' or 'off'"),
    "gate of PPG": ({"ppg": PPG, "motion_gate": "strict"}, ValueError, "motion_gate is for accel"),
    "dark of acceleration": ({"accel": ACCEL, "dark": PPG[0]}, ValueError, "belong to ppg"),
    "LEDs of acceleration": ({"accel": ACCEL, "led_offsets_s": [0.0] * 3}, ValueError, "belong to ppg"),
    "dark rate alone": ({"ppg": PPG, "dark_rate_hz": 50.0}, ValueError, "describe dark, which is not given"),
    "dark offsets alone": ({"accel": ACCEL, "dark_offsets_s": [0.0]}, ValueError, "describe dark, which is not given"),
    "two dark slots": ({"ppg": PPG, "dark": PPG}, ValueError, "dark_offsets_s has 1 instants, dark has 2 slots"),
    "short dark": ({"ppg": PPG, "dark": PPG[0, :2900]}, ValueError, r"ppg lasts 61\.000 s and dark lasts 58\.000 s"),
    "dark too slow": (
        {"ppg": PPG, "dark": PPG[0], "dark_rate_hz": 1.0},
        ValueError,
        "dark_rate_hz must be 20 to 2048 Hz",
    ),
    "LEDs in ms": (
        {"ppg": PPG, "led_offsets_s": [0, 4]},
        ValueError,
        r"led_offsets_s \[0, 4\] are not all inside a frame",
    ),
    "three LEDs": (
        {"ppg": PPG, "led_offsets_s": [0, 0, 0]},
        ValueError,
        "led_offsets_s has 3 instants, ppg has 2 channels",
    ),
    "dark in ms": (
        {"ppg": PPG, "dark": PPG[0], "dark_offsets_s": [5]},
        ValueError,
        r"dark_offsets_s \[5.0\] are not all",
    ),
    "range upside down": ({"ppg": PPG, "valid_range": (1, 0)}, ValueError, r"valid_range must be \(low, high\)"),
    "unknown device": ({"accel": ACCEL, "device": "e5"}, ValueError, "'e5' is not in the device table: actigraph, "),
    "device and range": ({"accel": ACCEL, "device": "e4", "valid_range": (-2, 2)}, ValueError, "or the device"),
    "channels of a device": (
        {"ppg": PPG, "device": "e4"},
        ValueError,
        "e4 has 1 PPG channels and 0 dark slots, found 2 and 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name_and_rule(case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=f"(?s){message}"):
        accelkd.preprocess(**{"rate_hz": RATE_HZ, **arguments})
