"""Whether accelerometers carry the heart: simulated people, sensors that only hiss, real watches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from accelkd.evaluation.beat_locked import SensorCheck
from accelkd.home.layout import Home
from accelkd.operations.sensor_check import check_sensors
from accelkd.recordings.ingest import ingest
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from tests.support.recordings import Person, land_people


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def only_sensor(home: Home, batch_id: str = "b1") -> SensorCheck:
    (sensor,) = check_sensors(home, batch_id)
    return sensor


def beats(rng: np.random.Generator, duration_s: float) -> npt.NDArray[np.float64]:
    instants = np.cumsum(rng.uniform(0.6, 1.0) * (1 + 0.03 * rng.standard_normal(int(2 * duration_s))))
    return np.asarray(instants[instants < duration_s])


def shaken(
    rng: np.random.Generator, beat_s: npt.NDArray[np.float64], duration_s: float, rate_hz: float
) -> npt.NDArray[np.float32]:
    """Acceleration in g, still but for bursts of 7 Hz and of 30 Hz after each beat."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    since_s = time_s - beat_s[np.maximum(np.searchsorted(beat_s, time_s, "right") - 1, 0)]
    burst = np.exp(-np.abs(since_s) / 0.08) * (np.sin(2 * np.pi * 7 * since_s) + 0.5 * np.sin(2 * np.pi * 30 * since_s))
    gravity = np.array([[0.1], [0.2], [0.97]])
    return (gravity + 5e-3 * gravity * burst + 5e-4 * rng.standard_normal((3, len(time_s)))).astype(np.float32)


def without_pulse(name: str, minutes: int, shake: Callable[[Person, np.random.Generator], None]) -> Person:
    person = Person(name, duration_s=60.0 * minutes)
    rng = np.random.default_rng(len(name))
    person.ppg = (1e5 + 1e3 * rng.standard_normal(person.ppg.shape)).astype(np.float32)
    shake(person, rng)
    return person


def test_simulated_people_shake_their_watch(home: Home) -> None:
    simulate_batch(home.landing, "b1", participants=8, segments=3, seed=1, profile="easy")
    segment_batch(home, "b1")
    sensor = only_sensor(home)
    assert (sensor.device_id, sensor.verdict) == ("sim-wrist-64", "carries")
    assert sensor.still_minutes >= sensor.tested_minutes > 15
    assert sensor.locked_share is not None
    assert sensor.locked_share > 0.9
    assert sensor.locked_rms_mg is not None
    assert 0.3 < sensor.locked_rms_mg < 5
    assert sensor.false_alarm_tests == 4 * sensor.tested_minutes
    assert sensor.false_alarm_share is not None
    assert sensor.false_alarm_share < 0.05
    assert check_sensors(home, "b1") == [sensor]  # nothing is drawn


def test_a_sensor_that_only_hisses_carries_nothing(home: Home) -> None:
    land_people(home, "b1", [Person(f"p{number}", duration_s=480.0) for number in range(3)])
    segment_batch(home, "b1")
    sensor = only_sensor(home)
    assert sensor.verdict == "carries nothing"
    assert sensor.tested_minutes == 24
    assert sensor.locked_minutes <= 1
    assert sensor.bands.segments == 0  # 64 Hz does not hold the heart sounds


def test_few_minutes_decide_nothing(home: Home) -> None:
    land_people(home, "b1", [Person("p1", duration_s=180.0)])
    segment_batch(home, "b1")
    sensor = only_sensor(home)
    assert (sensor.verdict, sensor.tested_minutes) == ("not decidable", 3)
    assert sensor.reason == "too few minutes with beats: 3, 20 are needed"


def test_reference_beats_count_where_the_pulse_is_not_usable(home: Home) -> None:
    def shake(person: Person, rng: np.random.Generator) -> None:
        beat_s = beats(rng, person.duration_s)
        person.accel = shaken(rng, beat_s, person.duration_s, 64.0)
        person.facts |= {"reference_beat_s": list(beat_s), "reference_source": "ecg"}

    land_people(home, "b1", [without_pulse("p1", 6, shake), Person("pulse", duration_s=120.0)])
    segment_batch(home, "b1")
    sensor = only_sensor(home)
    assert (sensor.tested_minutes, sensor.reference_minutes) == (8, 6)
    assert (sensor.locked_minutes, sensor.verdict) == (6, "carries")


def test_without_beats_the_two_bands_decide(home: Home) -> None:
    def shake(person: Person, rng: np.random.Generator) -> None:
        parts = [shaken(rng, beats(rng, 60.0), 60.0, 100.0) for _ in range(24)]  # a rate for each minute
        person.accel = np.concatenate(parts, axis=1)
        person.facts |= {"accel_rate_hz": 100.0}

    land_people(home, "b1", [without_pulse("p1", 24, shake)])
    segment_batch(home, "b1")
    sensor = only_sensor(home)
    assert (sensor.tested_minutes, sensor.bands.segments) == (0, 24)
    assert sensor.bands.share == 1.0
    assert sensor.bands.by_chance is not None
    assert sensor.bands.by_chance < 0.4
    assert sensor.verdict == "carries"
    assert sensor.peak is not None
    assert sensor.peak > 0.5


def test_minutes_that_move_are_not_tested(home: Home) -> None:
    person = Person("p1", duration_s=240.0)
    person.accel[0, :3840:2] += 0.4
    land_people(home, "b1", [person])
    segment_batch(home, "b1", gate="off")
    sensor = only_sensor(home)
    assert (sensor.still_minutes, sensor.tested_minutes) == (3, 3)


def test_a_batch_without_segments_and_one_that_was_not_segmented(home: Home) -> None:
    land_people(home, "b1", [Person("p1", duration_s=20.0)])
    with pytest.raises(FileNotFoundError, match="b1 was not segmented"):
        check_sensors(home, "b1")
    segment_batch(home, "b1")
    assert check_sensors(home, "b1") == []


def test_real_watches(home: Home, shared: Path, tmp_path: Path) -> None:
    """The upper arm of a Polar shows every beat; the steps of an E4 are coarser than the recoil of a wrist."""
    sessions = tmp_path / "sessions"
    for name in ("S06", "S24"):
        shutil.copytree(shared / "data" / "stress-predict-e4" / name, sessions / name)
    ingest("e4", sessions, home.landing, "e4")
    ingest("polar", shared / "data" / "polar-verity-sense", home.landing, "polar")
    for batch_id in ("e4", "polar"):
        segment_batch(home, batch_id)
    arm = only_sensor(home, "polar")
    assert (arm.verdict, arm.locked_minutes, arm.tested_minutes) == ("carries", 7, 7)
    assert arm.locked_rms_mg == pytest.approx(0.55, abs=0.05)
    wrist = only_sensor(home, "e4")
    assert (wrist.verdict, wrist.locked_minutes) == ("carries nothing", 0)
    assert wrist.tested_minutes > 30
