"""A small home on which the whole pipeline has run, shared by the end-to-end tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.recordings.simulator import simulate_batch
from orchestration.catch_up import Outcome, catch_up

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Pipeline:
    home: Home
    dagster_home: Path
    outcome: Outcome  # of the first catch-up


def simulate_small(home: Home, batch_id: str, first_participant: int, participants: int = 12) -> None:
    simulate_batch(
        home.landing,
        batch_id,
        participants=participants,
        segments=4,
        seed=3,
        profile="easy",
        first_participant=first_participant,
    )


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Two simulated batches, every asset materialized with the smoke preset, on an instance that the UI can open."""
    root = tmp_path_factory.mktemp("home")
    home, dagster_home = Home(root), root / "dagster"
    dagster_home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", dagster_home)
    Settings(preset="smoke").save(home)
    simulate_small(home, "sim-a", 0)
    simulate_small(home, "sim-b", 12)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        outcome = catch_up(home, instance)
    return Pipeline(home, dagster_home, outcome)


@pytest.fixture
def instance(pipeline: Pipeline) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(pipeline.dagster_home)) as opened:
        yield opened
