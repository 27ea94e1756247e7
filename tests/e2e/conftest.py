"""A small home on which the whole pipeline has run, shared by the end-to-end tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from accelkd.lake import Lake
from accelkd.recordings.simulator import simulate_batch
from accelkd.settings import Settings
from orchestration.catch_up import Outcome, catch_up

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Home:
    lake: Lake
    dagster_home: Path
    outcome: Outcome  # of the first catch-up


def simulate_small(lake: Lake, batch_id: str, first_participant: int, participants: int = 12) -> None:
    simulate_batch(
        lake.landing,
        batch_id,
        participants=participants,
        segments=4,
        seed=3,
        profile="easy",
        first_participant=first_participant,
    )


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two simulated batches, every asset materialized with the smoke preset, on an instance that the UI can open."""
    root = tmp_path_factory.mktemp("home")
    lake, dagster_home = Lake(root), root / "dagster"
    dagster_home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", dagster_home)
    Settings(preset="smoke").save(lake)
    simulate_small(lake, "sim-a", 0)
    simulate_small(lake, "sim-b", 12)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        outcome = catch_up(lake, instance)
    return Home(lake, dagster_home, outcome)


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home.dagster_home)) as opened:
        yield opened
