"""No pseudonym and no signal in what Dagster stores or prints, after a run with good, bad and refused deliveries."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from accelkd.cohort.split import read_split
from accelkd.home.layout import Home
from accelkd.operations.remnants import find_remnants
from orchestration.catch_up import catch_up
from tests.e2e.conftest import Pipeline, simulate_small


def test_dagster_stores_and_prints_nobody(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(pipeline.home.root, home.root)
    dagster_home = home.root / pipeline.dagster_home.relative_to(pipeline.home.root)
    simulate_small(home, "twice", 0, participants=1)  # the recordings of somebody who is there already
    simulate_small(home, "cut", 50, participants=1)
    survey = home.batch("cut") / "survey.parquet"
    survey.write_bytes(survey.read_bytes()[:-9])
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        outcome = catch_up(home, instance, retrain=False)
    assert {name for name, _ in outcome.failed} == {"raw_recordings", "segment_tables"}
    people = [*read_split(home.split).column("participant_id").to_pylist(), "sim3-000050"]
    recordings = [f"{who}-{number:04d}" for who in people for number in range(4)]
    assert len(people) > 20
    assert find_remnants(dagster_home, {*people, *recordings}, []) == []
    printed = capfd.readouterr()
    for text in (printed.out, printed.err, caplog.text):
        assert [who for who in people if who in text] == []
