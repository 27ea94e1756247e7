"""A pipeline that is killed in the middle, started again, and what it published in the end.

`python -m tests.reliability.faults` does the same at thirty points.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.comparison import contents, differences
from tests.support.homes import copy_home, new_home, simulate
from tests.support.processes import run_catch_up, settle


@pytest.mark.slow
def test_a_killed_catch_up_is_finished_by_the_next_one(tmp_path: Path) -> None:
    undisturbed = new_home(tmp_path / "undisturbed")
    simulate(undisturbed, "sim-a")
    killed = copy_home(undisturbed, tmp_path / "killed")
    settle(undisturbed)
    for changes in (150, 700):
        status, _ = run_catch_up(killed, changes=changes, delay_ms=20)
        assert status == -9
    settle(killed)
    assert differences(contents(undisturbed), contents(killed)) == []
