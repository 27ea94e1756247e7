"""Settings: what may be stored, and what is said about the rest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import rust_dsp
from accelkd.home.layout import Home
from accelkd.home.settings import PresetName, Settings
from accelkd.training.presets import PRESETS
from assets.encoders import PresetChoice

STORED = """{
  "expected_arrival_days": 0,
  "hop_s": 30.0,
  "keep_runs_days": 90,
  "motion_gate": "loose",
  "preset": "demo",
  "retrain_after_participants": 0,
  "split_seed": 0,
  "test_fraction": 0.2
}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def written(home: Home, content: str) -> Home:
    (home.root / "settings.json").write_text(content, encoding="utf-8")
    return home


def whole_line(text: str) -> str:
    return rf"\A{re.escape(text)}\Z"


def test_a_home_without_a_file_has_the_defaults(home: Home) -> None:
    assert Settings.load(home) == Settings() == Settings("paper", "strict", 60.0, 0, 0.2, 0)
    assert list(home.root.iterdir()) == []


def test_what_is_saved_is_loaded_and_its_bytes_are_known(home: Home) -> None:
    settings = Settings(preset="demo", motion_gate="loose", hop_s=30.0)
    settings.save(home)
    assert (home.root / "settings.json").read_text(encoding="utf-8") == STORED
    assert Settings.load(home) == settings
    assert hash(Settings.load(home)) == hash(settings)


def test_settings_that_a_file_leaves_out_are_the_defaults(home: Home) -> None:
    assert Settings.load(written(home, '{"split_seed": 3, "hop_s": 60}')) == Settings(split_seed=3)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().hop_s = 30.0  # type: ignore[misc]  # what is tested


WRONG = [
    ("preset", "huge", "must be 'paper', 'demo', 'scratch', 'night' or 'smoke'"),
    ("motion_gate", None, "must be 'strict', 'loose' or 'off'"),
    ("hop_s", 0.0, "must be greater than or equal to 0.1"),
    ("hop_s", -60.0, "must be greater than or equal to 0.1"),
    ("hop_s", float("nan"), "must be a finite number"),
    ("hop_s", float("inf"), "must be a finite number"),
    ("hop_s", "60", "must be a valid number"),
    ("hop_s", True, "must be a valid number"),
    ("split_seed", -1, "must be greater than or equal to 0"),
    ("split_seed", False, "must be a valid integer"),
    ("split_seed", 1.0, "must be a valid integer"),
    ("test_fraction", 0.0, "must be greater than 0"),
    ("test_fraction", 1.0, "must be less than 1"),
    ("test_fraction", 1.5, "must be less than 1"),
    ("retrain_after_participants", -1, "must be greater than or equal to 0"),
]
wrong = pytest.mark.parametrize(("name", "value", "rule"), WRONG, ids=lambda value: str(value)[:20])


@wrong
@pytest.mark.parametrize("make", [Settings, lambda **given: replace(Settings(), **given)], ids=["new", "replace"])
def test_a_value_that_breaks_its_rule_is_named_with_the_rule(
    make: Callable[..., Settings], name: str, value: object, rule: str
) -> None:
    with pytest.raises(ValueError, match=whole_line(f"{name} = {value!r}: {rule}")):
        make(**{name: value})


@wrong
def test_a_wrong_value_in_the_file_is_named_with_the_file(home: Home, name: str, value: object, rule: str) -> None:
    written(home, json.dumps({name: value}))
    with pytest.raises(ValueError, match=whole_line(f"{home.root / 'settings.json'}: {name} = {value!r}: {rule}")):
        Settings.load(home)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"hop": 30}', f"there is no setting 'hop'; there are {', '.join(vars(Settings()))}"),
        ("[60]", "a JSON object is expected, not [60]"),
        ('{"hop_s": 60', "Expecting ',' delimiter: line 1 column 13 (char 12)"),
        ("", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_file_of_another_form_is_refused_with_one_line(home: Home, content: str, reason: str) -> None:
    written(home, content)
    with pytest.raises(ValueError, match=whole_line(f"{home.root / 'settings.json'}: {reason}")):
        Settings.load(home)


def test_the_shortest_hop_is_the_shortest_that_segmenting_takes() -> None:
    plan = rust_dsp.Plan(ppg_rate_hz=64, accel_rate_hz=64)
    ppg, accel = np.zeros((1, 64 * 61), np.float32), np.zeros((3, 64 * 61), np.float32)
    assert len(plan.windows(ppg, accel, hop_s=Settings(hop_s=0.1).hop_s).offset_s) == 13
    with pytest.raises(ValueError, match="hop_s"):
        plan.windows(ppg, accel, hop_s=0.099)
    with pytest.raises(ValueError, match="hop_s"):
        Settings(hop_s=0.099)


def test_the_defaults_need_no_pydantic() -> None:
    program = "import sys; sys.modules['pydantic'] = None; from accelkd.home.settings import Settings; Settings()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_preset_can_be_chosen_everywhere() -> None:
    names = {*get_args(PresetName)}
    assert names == {*PRESETS}
    assert {choice.value for choice in PresetChoice} == names | {"settings"}
