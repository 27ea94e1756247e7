"""What a training says of the sensors that it learns from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.sensor_check import check_sensors
from accelkd.operations.train import train_candidate
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
