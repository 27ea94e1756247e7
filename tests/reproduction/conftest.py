"""A very small simulated cohort, made once."""

from __future__ import annotations

import pytest

from accelkd.home.layout import Home
from accelkd.reproduction.cohort import Cohort, CohortPlan, cohort_home, make_cohort, read_cohort

PLAN = CohortPlan("easy", participants=14, segments=5, participants_per_batch=8)


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
