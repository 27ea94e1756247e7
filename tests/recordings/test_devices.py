"""The device table."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from accelkd.home.identifiers import check_identifier
from accelkd.recordings.devices import DEVICES, Device


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_device_facts_are_consistent(device: Device) -> None:
    assert check_identifier("device_id", device.device_id)
    assert len(device.led_offsets_s) in (0, device.ppg_channels)  # empty: all at the start of the frame
    assert device.ppg_full_scale[0] < device.ppg_full_scale[1]
    assert device.accel_range_g[0] < -1 < 1 < device.accel_range_g[1]
    assert device.polarity in (1, -1, None)


def test_simulated_leds_fire_one_after_the_other_inside_their_frame() -> None:
    assert DEVICES["sim-wrist-256"].led_offsets_s == tuple((slot + 1) / 1280 for slot in range(4))
    assert DEVICES["sim-wrist-64"].led_offsets_s == tuple((slot + 1) / 320 for slot in range(4))


def test_every_reader_of_the_table_exists() -> None:
    for device in DEVICES.values():
        if device.reader is not None:
            reader = import_module(f"accelkd.recordings.readers.{device.reader}")
            assert reader.find([]).sessions == ()


def test_the_table_imports_without_the_readers_and_their_libraries() -> None:
    code = (
        "import sys, accelkd.recordings.devices\n"
        "print(sorted({'edfio', 'scipy', 'pyarrow', 'torch', 'duckdb', 'dagster'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
