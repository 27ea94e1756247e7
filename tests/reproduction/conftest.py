"""A very small simulated cohort, made once, and homes that have it and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelkd.home.layout import Home
from accelkd.reproduction import timed
from accelkd.reproduction.cohort import Cohort, cohort_home, make_cohort, read_cohort
from tests.support.homes import copy_home
from tests.support.reproduction import PLAN, as_if_slow


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the cohort of PLAN."""
    home = Home(tmp_path_factory.mktemp("home"))
    make_cohort(cohort_home(home, PLAN), PLAN, processes=1)
    return home


@pytest.fixture(scope="session")
def cohort(home: Home) -> Cohort:
    nested_home = cohort_home(home, PLAN)
    return read_cohort(nested_home, PLAN, make_cohort(nested_home, PLAN, processes=1))


@pytest.fixture
def fresh(home: Home, tmp_path: Path) -> Home:
    """A home that has the cohort, and nothing else."""
    return copy_home(home, tmp_path / "home")


@pytest.fixture
def slow_machine() -> Iterator[None]:
    """Every speed that is measured is that of a slow machine; no alarm remains set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed, "measure_speed", as_if_slow)
        yield
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
