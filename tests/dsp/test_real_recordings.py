"""Real recordings: heart rates of still windows against what was recorded beside them, and against the reference.

The windows and thresholds are those of docs/signal-processing.md, which has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rust_dsp
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.readers import Delivery, Recording, Session, bami, e4, polar, troika

STILL_G = 0.05
Floats = npt.NDArray[np.float64]


def recordings(
    folder: Path, find: Callable[[Any], Delivery], read: Callable[[Session], list[Recording]]
) -> list[Recording]:
    sessions = find(path for path in folder.rglob("*") if path.is_file()).sessions
    return [recording for session in sessions for recording in read(session)]


def plan_for(recording: Recording, device_id: str) -> rust_dsp.Plan:
    device = DEVICES[device_id]
    return rust_dsp.Plan(
        ppg_rate_hz=recording.ppg_rate_hz,
        accel_rate_hz=recording.accel_rate_hz,
        led_offsets_s=device.led_offsets_s,
        ppg_range=device.ppg_full_scale,
        accel_range=device.accel_range_g,
    )


def still_windows(
    recording: Recording, plan: rust_dsp.Plan, motion: str, spacing_s: float = 60
) -> tuple[Floats, npt.NDArray[Any]]:
    """Offsets (s) and z-scored PPG `[windows, channels, 3840]` of the still windows, at least `spacing_s` apart.

    Greedily from the start, on a grid of 5 s, which finds the most.
    """
    assert recording.ppg is not None
    assert recording.ppg_rate_hz is not None
    windows = plan.windows(
        np.ascontiguousarray(recording.ppg),
        np.ascontiguousarray(recording.accel),
        hop_s=5,
        accel_start_s=recording.accel_start_s,
        gate="off",
    )
    chosen: list[int] = []
    free_from_s = -np.inf
    for index in np.flatnonzero(getattr(windows, motion) < STILL_G):
        if windows.offset_s[index] >= free_from_s:
            chosen.append(int(index))
            free_from_s = windows.offset_s[index] + spacing_s
    length = round(60 * recording.ppg_rate_hz)
    ppg = [recording.ppg[:, start : start + length].copy() for start in windows.ppg_start[chosen]]
    dark = None
    if recording.dark is not None:
        dark = [recording.dark[:, start : start + length].copy() for start in windows.dark_start[chosen]]
    return windows.offset_s[chosen], plan.preprocess(ppg, dark).ppg


def agrees_with_reference(labels: rust_dsp.Labels, z: npt.NDArray[Any], polarity: int | None, reference: Any) -> None:
    for row, segment in enumerate(z):
        expected = reference.label(segment, polarity)
        np.testing.assert_array_equal(labels.beat_index[row], expected["beats"])
        np.testing.assert_allclose(labels.beat_s[row], expected["times"], rtol=0, atol=1e-9)
        assert labels.good[row] == expected["good"]


def test_e4_against_its_own_intervals(shared: Path, labels_reference: ModuleType) -> None:
    errors_bpm, windows, still = [], 0, 0
    for recording in recordings(shared / "data" / "stress-predict-e4", e4.find, e4.read):
        offset_s, z = still_windows(recording, plan_for(recording, "e4"), "motion_p95_g")
        still += len(offset_s)
        assert recording.reference_ibi_s is not None
        assert recording.reference_ibi_end_s is not None
        labels = rust_dsp.label(z[:, 0], polarity=1)
        agrees_with_reference(labels, z[:20, 0], 1, labels_reference)
        for row, start_s in enumerate(offset_s):
            inside = (recording.reference_ibi_end_s - recording.reference_ibi_s >= start_s) & (
                recording.reference_ibi_end_s <= start_s + 60
            )
            ibi_s = recording.reference_ibi_s[inside]
            if ibi_s.sum() >= 0.8 * 60:  # the device was sure of nearly all of the window
                windows += 1
                if labels.good[row]:
                    errors_bpm.append(labels.hr_bpm[row] - 60 / ibi_s.mean())
    assert still == 385
    assert len(errors_bpm) / windows == pytest.approx(0.685, abs=0.01)
    assert np.abs(errors_bpm).mean() == pytest.approx(0.34, abs=0.01)


def test_bami_best_channel_against_ecg(shared: Path, labels_reference: ModuleType) -> None:
    errors_bpm, windows = [], 0
    for recording in recordings(shared / "data" / "bami1-watch", bami.find, bami.read):
        offset_s, z = still_windows(recording, plan_for(recording, "bami"), "motion_median_g")
        labels = rust_dsp.label(z.reshape(-1, 3840))
        agrees_with_reference(labels, z.reshape(-1, 3840), None, labels_reference)
        trust = (labels.good * (labels.agreement + labels.template_correlation)).reshape(-1, 3)
        assert recording.reference_hr_s is not None
        assert recording.reference_hr_bpm is not None
        for row, start_s in enumerate(offset_s):
            windows += 1
            best = int(trust[row].argmax())
            if trust[row, best] > 0:
                inside = (recording.reference_hr_s >= start_s) & (recording.reference_hr_s < start_s + 60)
                expected = recording.reference_hr_bpm[inside].mean()
                errors_bpm.append(labels.hr_bpm.reshape(-1, 3)[row, best] - expected)
    assert windows == 29
    assert len(errors_bpm) / windows == pytest.approx(0.655, abs=0.01)
    assert np.abs(errors_bpm).mean() < 2.0


def test_troika_at_rest_against_ecg(shared: Path, labels_reference: ModuleType) -> None:
    errors_bpm, channels = [], 0
    for recording in recordings(shared / "data" / "troika-spc2015", troika.find, troika.read):
        assert recording.ppg is not None
        # Rest lasts 30 s: mirrored to a window, of which the label then sees the first 28 s
        rest = recording.ppg[:, : 28 * 125]
        mirrored = np.concatenate([rest, rest[:, -2::-1], rest[:, 1:]], axis=1)[:, : 60 * 125]
        z = plan_for(recording, "troika").preprocess(np.ascontiguousarray(mirrored)[None]).ppg[0]
        z[:, 28 * 64 :] = 0
        labels = rust_dsp.label(z)
        agrees_with_reference(labels, z, None, labels_reference)
        assert recording.reference_hr_s is not None
        assert recording.reference_hr_bpm is not None
        expected = recording.reference_hr_bpm[recording.reference_hr_s <= 24].mean()
        good = (labels.agreement >= 0.9) & (labels.template_correlation >= 0.8) & (labels.coverage * 60 / 28 >= 0.8)
        channels += len(good)
        errors_bpm += list(labels.hr_bpm[good] - expected)
    assert channels == 26
    assert len(errors_bpm) / channels == pytest.approx(0.46, abs=0.01)
    assert np.abs(errors_bpm).mean() == pytest.approx(0.70, abs=0.01)


def test_polar_against_the_device(shared: Path, labels_reference: ModuleType) -> None:
    (recording,) = recordings(shared / "data" / "polar-verity-sense", polar.find, polar.read)
    offset_s, z = still_windows(recording, plan_for(recording, "polar"), "motion_p95_g", spacing_s=30)
    labels = rust_dsp.label(z.reshape(-1, 3840), polarity=-1)
    agrees_with_reference(labels, z.reshape(-1, 3840), -1, labels_reference)
    assert recording.reference_hr_s is not None
    assert recording.reference_hr_bpm is not None
    assert labels.good.all()
    errors_bpm = []
    for start_s, hr_bpm in zip(offset_s, labels.hr_bpm.reshape(-1, 3), strict=True):
        inside = (recording.reference_hr_s >= start_s) & (recording.reference_hr_s < start_s + 60)
        if inside.sum() >= 30:
            errors_bpm.append(np.median(hr_bpm) - recording.reference_hr_bpm[inside].mean())
    assert len(errors_bpm) == 15
    assert np.abs(errors_bpm).mean() < 1
