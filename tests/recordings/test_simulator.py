"""Simulated arrival batches: determinism, units, and what the pipeline makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rust_dsp
from accelkd.recordings.batches import read_manifest
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.simulator import PROFILES, simulate_batch
from accelkd.recordings.simulator.faults import FAULTS, damage, draw_faults
from accelkd.recordings.validate import validate_batch

FULL_SCALE = 2**19


def table(folder: Path, name: str) -> pa.Table:
    """A whole table of a batch."""
    return pa.concat_tables([pq.read_table(folder / f.path) for f in read_manifest(folder).files if f.table == name])


def simulated(landing: Path, batch_id: str, **arguments: Any) -> Path:
    defaults = {"participants": 3, "segments": 2, "seed": 5}
    simulate_batch(landing, batch_id, **(defaults | arguments))
    return landing / batch_id


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("easy"), "easy", participants=20, seed=1, profile="easy")


@pytest.fixture(scope="module")
def minutes(easy: Path) -> dict[str, Any]:
    """The whole recordings of the easy batch as arrays, preprocessed and labelled, beside their truth."""
    return _minutes(easy)


def _minutes(folder: Path) -> dict[str, Any]:
    recordings, truth = table(folder, "recordings").to_pylist(), table(folder, "truth").to_pylist()
    rate_hz = int(recordings[0]["ppg_rate_hz"])
    whole = [i for i, r in enumerate(recordings) if np.isfinite(r["ppg"]).all() and len(r["ppg"][0]) == 60 * rate_hz]
    arrays = {name: np.array([recordings[i][name] for i in whole], np.float32) for name in ("ppg", "dark", "accel")}
    device = DEVICES[f"sim-wrist-{rate_hz}"]
    plan = rust_dsp.Plan(
        ppg_rate_hz=rate_hz,
        accel_rate_hz=rate_hz,
        dark_rate_hz=rate_hz,
        led_offsets_s=device.led_offsets_s,
        dark_offsets_s=(0.0,),
        ppg_range=device.ppg_full_scale,
        accel_range=device.accel_range_g,
    )
    clean = plan.preprocess(arrays["ppg"], dark=arrays["dark"], accel=arrays["accel"])
    labels = rust_dsp.label(clean.ppg[:, 0], polarity=device.polarity)
    return {**arrays, "clean": clean, "labels": labels, "truth": [truth[i] for i in whole]}


def accel_heart_rate_bpm(accel: np.ndarray) -> float:
    """Heart rate from the strongest repetition of the acceleration `[3, 3840]` at 0.45 to 1.5 s."""
    spectrum = np.square(np.abs(np.fft.rfft(accel, 2 * 3840))).sum(axis=0)
    repetition = np.fft.irfft(spectrum)[:96]
    lags = np.arange(29, 96)
    return 60.0 * 64.0 / float(lags[np.argmax(repetition[29:96])])


def test_same_bytes_for_every_number_of_processes(tmp_path: Path) -> None:
    alone, divided = (
        simulated(tmp_path / str(processes), "b", participants=3, segments=128, processes=processes)
        for processes in (1, 2)
    )
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert len([f for f in files if f.parts[0] == "recordings"]) == 2
    for file in files:
        assert (alone / file).read_bytes() == (divided / file).read_bytes(), file


def test_simulating_again_changes_nothing_and_other_content_is_refused(tmp_path: Path) -> None:
    folder = simulated(tmp_path, "b")
    before = read_manifest(folder)
    assert read_manifest(simulated(tmp_path, "b")) == before
    with pytest.raises(FileExistsError, match="other content"):
        simulated(tmp_path, "b", seed=6)


@pytest.mark.parametrize("name", ["recordings", "participants", "survey", "truth"])
def test_people_are_the_same_in_every_cohort(tmp_path: Path, name: str) -> None:
    five, two, later = (
        table(folder, name).to_pylist()
        for folder in (
            simulated(tmp_path, "five", participants=5),
            simulated(tmp_path, "two", participants=2),
            simulated(tmp_path, "later", participants=2, first_participant=3),
        )
    )
    assert repr(two) == repr(five[: len(two)])
    assert repr(later) == repr(five[-len(later) :])


def test_other_seeds_are_other_people(tmp_path: Path) -> None:
    first, second = (table(simulated(tmp_path, f"s{seed}", seed=seed), "participants") for seed in (1, 2))
    assert not set(first["participant_id"].to_pylist()) & set(second["participant_id"].to_pylist())
    assert not set(first["age_years"].to_pylist()) & set(second["age_years"].to_pylist())


def test_both_rates_see_the_same_minutes(tmp_path: Path) -> None:
    slow, fast = (simulated(tmp_path, f"hz{rate}", rate_hz=rate) for rate in (64, 256))
    assert table(slow, "truth") == table(fast, "truth")
    recordings = table(fast, "recordings")
    assert set(recordings["device_id"].to_pylist()) == {"sim-wrist-256"}
    assert len(recordings["ppg"][0][0]) == 256 * 60
    assert read_manifest(fast).devices == ("sim-wrist-256",)
    assert np.corrcoef(_minutes(slow)["clean"].ppg[0, 0], _minutes(fast)["clean"].ppg[0, 0])[0, 1] > 0.99


@pytest.mark.parametrize("profile", PROFILES)
def test_batches_are_valid(tmp_path: Path, profile: str) -> None:
    assert validate_batch(simulated(tmp_path, "b", profile=profile, participants=6, segments=6)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "trivial"}, "unknown profile 'trivial'"),
        ({"rate_hz": 100}, "100 Hz"),
        ({"participants": 0}, "participants must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"batch_id": "../b"}, "batch_id"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulated(tmp_path, **({"batch_id": "b"} | arguments))
    assert not list(tmp_path.glob("**/manifest.json"))


def test_signals_have_a_devices_units(minutes: dict[str, Any]) -> None:
    light = np.concatenate([minutes["ppg"], minutes["dark"]], axis=1)
    assert (light == np.rint(light)).all()
    assert light.min() > 0
    assert light.max() <= FULL_SCALE
    level, pulse = minutes["ppg"].mean(axis=-1), 2.0 * np.sqrt(2.0) * minutes["clean"].ppg_ac_level
    perfusion = (pulse / level)[:, 0]
    assert 0.002 < np.quantile(perfusion, 0.1) < np.quantile(perfusion, 0.9) < 0.03
    assert np.median(minutes["dark"]) < 0.2 * np.median(light)
    gravity = np.linalg.norm(minutes["accel"].mean(axis=-1), axis=1)
    np.testing.assert_allclose(gravity, 1.0, atol=0.02)


def test_recordings_start_at_all_hours_of_different_days(easy: Path) -> None:
    recordings = table(easy, "recordings")
    starts = recordings["started_at"].to_numpy()
    hours = starts.astype("datetime64[h]").astype(int) % 24
    assert len(np.unique(hours // 6)) == 4
    days = starts.astype("datetime64[D]").reshape(20, 2)
    assert (days[:, 0] != days[:, 1]).all()


def test_labels_from_the_light_agree_with_the_truth(minutes: dict[str, Any]) -> None:
    labels, truth = minutes["labels"], minutes["truth"]
    assert labels.good.mean() > 0.9
    for name, most in (("hr_bpm", 0.3), ("sdnn_ms", 4.0), ("rmssd_ms", 8.0)):
        error = np.abs(getattr(labels, name) - np.array([t[name] for t in truth]))[labels.good]
        assert np.mean(error) < most, name


def test_the_pulse_arrives_after_a_plausible_transit(minutes: dict[str, Any]) -> None:
    for beat_s, truth in zip(minutes["labels"].beat_s, minutes["truth"], strict=True):
        r_s = np.array(truth["beat_s"])
        pulse_s = np.array(beat_s)[np.isfinite(beat_s)]
        pulse_s = pulse_s[pulse_s > r_s[0] + 0.5]
        delay = pulse_s - r_s[np.searchsorted(r_s, pulse_s) - 1]
        assert 0.15 < np.median(delay) < 0.45
        assert np.median(np.abs(delay - np.median(delay))) < 0.02


def test_the_easy_recoil_carries_the_heart_rate(minutes: dict[str, Any], tmp_path: Path) -> None:
    def error_bpm(some: dict[str, Any]) -> float:
        truth = np.array([t["hr_bpm"] for t in some["truth"]])
        estimated = np.array([accel_heart_rate_bpm(accel) for accel in some["clean"].accel])
        return float(np.mean(np.abs(estimated - truth)))

    hard = _minutes(simulated(tmp_path, "hard", participants=20, seed=1, profile="hard"))
    rates = np.array([t["hr_bpm"] for t in minutes["truth"]])
    constant = float(np.mean(np.abs(rates - np.median(rates))))
    assert constant > 6.0
    assert error_bpm(minutes) < 0.5 * constant
    assert error_bpm(minutes) < 0.5 * error_bpm(hard)


def test_reference_travels_with_the_recording(easy: Path) -> None:
    columns = ["recording_id", "participant_id", "hr_bpm", "sdnn_ms", "rmssd_ms"]
    recordings, truth = table(easy, "recordings"), table(easy, "truth")
    assert recordings.select(columns).to_pylist() == truth.select(columns).to_pylist()
    assert recordings["reference_beat_s"].to_pylist() == truth["beat_s"].to_pylist()
    assert set(recordings["reference_source"].to_pylist()) == {"simulation"}


def test_faults_are_rare_and_of_every_kind() -> None:
    drawn = draw_faults(np.random.default_rng(0), 20_000, PROFILES["realistic"].fault_share)
    for fault in FAULTS:
        assert 0.002 < drawn.count(fault) / len(drawn) < 0.01
    assert all(0.01 <= profile.fault_share <= 0.03 for profile in PROFILES.values())


@pytest.mark.parametrize("fault", [None, "saturated", "dropped", "restless"])
def test_faults_fail_what_they_should(minutes: dict[str, Any], fault: Any) -> None:
    """Light floods, packets get lost, the arm moves: channels are rejected, or the still gate of 0.05 g is passed."""
    light = np.concatenate([minutes["ppg"][0], minutes["dark"][0]])
    accel = minutes["accel"][0].copy()
    damage(np.random.default_rng(1), fault, light, accel, 64)
    light = np.clip(light, 0, FULL_SCALE)
    device = DEVICES["sim-wrist-64"]
    plan = rust_dsp.Plan(
        ppg_rate_hz=64,
        accel_rate_hz=64,
        led_offsets_s=device.led_offsets_s,
        ppg_range=device.ppg_full_scale,
        accel_range=device.accel_range_g,
    )
    clean = plan.preprocess(light[None, :4], accel=accel[None])
    assert bool(clean.ppg_status[0].any()) == (fault in ("saturated", "dropped"))
    assert bool(clean.accel_status[0].any()) == (fault == "dropped")
    if fault != "dropped":
        assert (rust_dsp.motion(accel, 64)[1] > 0.05) == (fault == "restless")


def test_a_recording_can_be_cut_short(tmp_path: Path) -> None:
    folder = simulated(tmp_path, "b", participants=20, segments=20, profile="hard")
    for recording, truth in zip(
        table(folder, "recordings").to_pylist(), table(folder, "truth").to_pylist(), strict=True
    ):
        samples = {len(channel) for stream in ("ppg", "dark", "accel") for channel in recording[stream]}
        assert len(samples) == 1
        assert max(truth["beat_s"]) < samples.pop() / 64
    lengths = [len(accel[0]) for accel in table(folder, "recordings")["accel"]]
    assert 0 < np.mean(np.array(lengths) < 60 * 64) < 0.03
