"""Dagster's own processes are killed while a run is under way; the daemon brings everything back by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from accelkd.home.layout import Home
from tests.reliability.daemon import (
    caught_up,
    kill_all,
    kill_daemon,
    kill_run,
    land_second,
    opened,
    run_twice,
    statuses,
    undisturbed,
)
from tests.reliability.homes import differences, new_home, settle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = new_home(tmp_path_factory.mktemp("settled") / "home")
    settle(home)
    return home


@pytest.fixture(scope="module")
def expected(settled: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return undisturbed(settled, tmp_path_factory.mktemp("undisturbed") / "home")


@pytest.mark.parametrize(
    ("kill", "after", "ended"),
    [
        (kill_run, "segments", ["SUCCESS", "FAILURE"]),
        (kill_daemon, "raw_recordings", ["SUCCESS"]),  # the run does not need it
        (kill_all, "segment_tables", ["SUCCESS", "FAILURE"]),
    ],
)
def test_what_is_killed_comes_back(
    settled: Home,
    expected: dict[str, str],
    tmp_path: Path,
    kill: Callable[[Home, str, str, dict[str, str]], list[str]],
    after: str,
    ended: list[str],
) -> None:
    home, batch_id = land_second(settled, tmp_path / "home")
    assert kill(home, batch_id, after, expected) == []
    with opened(home) as instance:
        assert statuses(instance, batch_id) == ended


def test_two_runs_for_one_batch_make_it_once(settled: Home, expected: dict[str, str], tmp_path: Path) -> None:
    home, batch_id = land_second(settled, tmp_path / "home")
    assert run_twice(home, batch_id) == [0, 0]
    assert differences(expected, caught_up(home)) == []
