"""What a training starts from, and what it says of the sensors that it learns from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.bundled import STUDENT, TEACHER, bundled_folder
from accelkd.operations.sensor_check import check_sensors
from accelkd.operations.train import train_candidate
from accelkd.training.checkpoint import read_config, read_weights
from accelkd.warehouse.sensors import load_sensor_checks
from tests.support.homes import land, load_and_split


def test_a_sensor_that_carries_nothing_is_named_before_an_encoder_of_acceleration_learns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    Settings(preset="smoke").save(home)
    land(home, "b1", [f"p{number}" for number in range(8)], minutes=4)  # noise, in which beats are seen
    load_and_split(home, ["b1"])
    load_sensor_checks(home, "b1", check_sensors(home, "b1"))
    with caplog.at_level(logging.WARNING):
        assert train_candidate(home, "ppg_teacher", steps=1, device="cpu").warnings == ()
        assert not caplog.messages
        (warning,) = train_candidate(home, "accel_student", steps=1, device="cpu").warnings
    assert warning.startswith("the accelerometer of sim-wrist-64 carries nothing of the heart: ")
    assert warning.endswith(" by chance; distilling from it would distil noise")
    assert caplog.messages == [warning]
    home.staging.write_bytes(b"damaged")  # which no training waits for
    assert train_candidate(home, "accel_student", steps=1, device="cpu").warnings == ()


def demo_home(root: Path, *, ppg_channels: int) -> Home:
    home = Home(root)
    Settings(preset="demo").save(home)
    land(home, "b1", [f"p{number}" for number in range(8)], minutes=4, ppg_channels=ppg_channels)
    load_and_split(home, ["b1"])
    return home


def test_the_demo_goes_on_from_the_bundled_pair(tmp_path: Path) -> None:
    home = demo_home(tmp_path, ppg_channels=4)
    for encoder, start in (("ppg_teacher", TEACHER), ("accel_student", STUDENT)):
        trained = train_candidate(home, encoder, steps=1, learning_rate=1e-9, device="cpu")
        assert trained.warnings == ()
        assert read_config(trained.folder)["config"]["start"].startswith(f"{start}@")
        after, before = read_weights(trained.folder), read_weights(bundled_folder(start))
        assert after.keys() == before.keys()
        for name, tensor in before.items():
            if "running_" not in name and "num_batches" not in name:
                torch.testing.assert_close(after[name], tensor.to(after[name].dtype), atol=1e-6, rtol=0)


def test_what_does_not_fit_the_bundled_pair_is_trained_from_nothing(tmp_path: Path) -> None:
    home = demo_home(tmp_path, ppg_channels=1)
    teacher = train_candidate(home, "ppg_teacher", steps=1, device="cpu")
    assert teacher.warnings == (
        "ppg-teacher-xs takes 4 ppg channels, the segments have 1 of ppg: ppg_teacher is trained by the preset scratch",
    )
    assert read_config(teacher.folder)["config"]["start"] is None
    student = train_candidate(home, "accel_student", steps=1, device="cpu")
    assert student.warnings == (
        f"accel-kd-xs learned from ppg-teacher-xs, and {teacher.folder.name} did not go on from that: "
        "accel_student is trained by the preset scratch",
    )
    assert read_config(student.folder)["config"]["start"] is None
