"""The device table and the identifiers."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelkd.home.identifiers import check_identifier
from accelkd.recordings.devices import DEVICES, Device


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_device_facts_are_consistent(device: Device) -> None:
    assert check_identifier("device_id", device.device_id)
    assert len(device.led_offsets_s) == device.ppg_channels
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


@given(st.text(max_size=140))
def test_an_identifier_is_safe_as_a_file_name_and_between_quotes(text: str) -> None:
    try:
        check_identifier("participant_id", text)
    except ValueError:
        return
    assert text.isascii()
    assert PurePosixPath(text).name == text
    assert 1 <= len(text) <= 128
    assert not set(text) & set("'\"`;\\/.$ \t\n\r\0")
    assert not text.startswith("-")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", fullmatch=True))
def test_every_plain_name_is_an_identifier(text: str) -> None:
    assert check_identifier("participant_id", text) == text
