"""A very small simulated cohort, made once."""

from __future__ import annotations

import pytest

from accelkd.lake import Lake
from accelkd.reproduction.cohort import Cohort, CohortPlan, cohort_lake, make_cohort, read_cohort

PLAN = CohortPlan("easy", participants=14, segments=5, participants_per_batch=8)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A home with the cohort of PLAN."""
    home = Lake(tmp_path_factory.mktemp("home"))
    make_cohort(cohort_lake(home, PLAN), PLAN, processes=1)
    return home


@pytest.fixture(scope="session")
def cohort(home: Lake) -> Cohort:
    lake = cohort_lake(home, PLAN)
    return read_cohort(lake, PLAN, make_cohort(lake, PLAN, processes=1))
