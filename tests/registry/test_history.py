"""The history of promotions, from which follows what is promoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelkd.home.layout import Home
from accelkd.registry.history import (
    can_replace_damaged,
    decide,
    history,
    previous_models,
    promoted_are_damaged,
    promoted_models,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_without_a_trained_pair_a_damaged_one_is_only_reported(home: Home) -> None:
    assert not can_replace_damaged(home)
    decide(home, "promoted", {"ppg_teacher": "lost", "accel_student": "lost"}, "test")
    assert promoted_are_damaged(home)
    assert not can_replace_damaged(home)


def test_history_survives_two_steps_back(home: Home) -> None:
    for number in range(3):
        decide(home, "promoted", {"ppg_teacher": f"m{number}"}, "test")
    decide(home, "rolled back", {"ppg_teacher": "m1"}, "test")
    decide(home, "rejected", {"ppg_teacher": "m9"}, "test")
    assert promoted_models(home) == {"ppg_teacher": "m1"}
    assert previous_models(home) == {"ppg_teacher": "m0"}
    assert [decision.number for decision in history(home)] == [1, 2, 3, 4, 5]
