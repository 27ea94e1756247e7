"""The golden vectors of the specification, on every instruction path of this processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import rust_dsp
from tests.support.instruction_sets import InstructionSet

TOLERANCE = 2e-6  # of the z-scored samples
FLAT = 8


def plan_for(device: dict[str, Any], instruction_set: InstructionSet) -> rust_dsp.Plan:
    unlimited = (-np.inf, np.inf)
    return rust_dsp.Plan(
        ppg_rate_hz=device.get("fs_ppg", 256.0),
        accel_rate_hz=device.get("fs_acc", 256.0),
        dark_rate_hz=device.get("fs_dark"),
        led_offsets_s=device["led_offsets"],
        dark_offsets_s=device.get("dark_offsets", (0.0,)),
        ppg_range=device.get("ppg_range", unlimited),
        accel_range=device.get("acc_range", unlimited),
        instruction_set=instruction_set,
    )


def test_every_case_within_the_tolerance(shared: Path, instruction_set: InstructionSet) -> None:
    cases = sorted((shared / "reference" / "golden").glob("*.npz"))
    checked = 0
    for path in cases:
        if path.stem == "labels":
            continue
        case = np.load(path)
        batch = [case[name][None] if name in case.files else None for name in ("ppg", "dark", "acc")]
        segments = plan_for(json.loads(str(case["device"])), instruction_set).preprocess(*batch)

        status = np.concatenate([segments.ppg_status[0], segments.accel_status[0]])
        assert status.tolist() == case["status"].tolist(), path.stem
        z = np.concatenate([segments.ppg[0], segments.accel[0]])
        assert np.abs(z.astype(np.float64) - case["z"]).max() <= TOLERANCE, path.stem
        level = np.concatenate([segments.ppg_level[0], segments.accel_level[0]])
        np.testing.assert_allclose(level, case["mean"], rtol=1e-9, err_msg=path.stem)
        ac_level = np.concatenate([segments.ppg_ac_level[0], segments.accel_ac_level[0]])
        not_flat = status != FLAT  # of a flat row the AC level is rounding
        np.testing.assert_allclose(ac_level[not_flat], case["std"][not_flat], rtol=1e-9, err_msg=path.stem)
        missing = np.concatenate([segments.ppg_missing[0], segments.accel_missing[0]])
        np.testing.assert_allclose(missing, case["missing"], rtol=1e-12, err_msg=path.stem)
        checked += 1
    assert checked >= 16


def test_labels(shared: Path) -> None:
    case = np.load(shared / "reference" / "golden" / "labels.npz")
    labels = rust_dsp.label(case["z"])
    for row in range(len(case["z"])):
        beats = case["beats"][row]
        count = int((beats >= 0).sum())
        np.testing.assert_array_equal(labels.beat_index[row], beats[:count])
        np.testing.assert_allclose(labels.beat_s[row], case["times"][row][:count], rtol=0, atol=1e-9)
    for name, golden in {"hr_bpm": "hr", "sdnn_ms": "sdnn", "rmssd_ms": "rmssd", "coverage": "coverage"}.items():
        np.testing.assert_allclose(getattr(labels, name), case[golden], rtol=1e-9)
    np.testing.assert_allclose(labels.agreement, case["agree"], rtol=1e-12)
    np.testing.assert_allclose(labels.template_correlation, case["template"], rtol=1e-9)
    for name, golden in {"polarity": "polarity", "intervals": "n", "pairs": "pairs", "good": "good"}.items():
        np.testing.assert_array_equal(getattr(labels, name), case[golden])
