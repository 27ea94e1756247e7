"""No pseudonym and no signal in what Dagster stores or prints, after a run with good, bad and refused deliveries."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelkd.cohort.split import read_split
from accelkd.operations.remnants import find_remnants
from orchestration.catch_up import catch_up
from tests.support.homes import copy_home, simulate
from tests.support.pipeline import Pipeline, opened_instance


def test_dagster_stores_and_prints_nobody(
    pipeline: Pipeline, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    home = copy_home(pipeline.home, tmp_path / "home")
    simulate(home, "twice", 0, participants=1)  # the recordings of somebody who is there already
    simulate(home, "cut", 50, participants=1)
    survey = home.batch("cut") / "survey.parquet"
    survey.write_bytes(survey.read_bytes()[:-9])
    with opened_instance(home) as instance:
        outcome = catch_up(home, instance, encoders="keep")
    assert {name for name, _ in outcome.failed} == {"raw_recordings", "segment_tables"}
    people = [*read_split(home.split).column("participant_id").to_pylist(), "sim3-000050"]
    recordings = [f"{person}-{number:04d}" for person in people for number in range(4)]
    assert len(people) > 20
    assert find_remnants(home.root / "dagster", {*people, *recordings}, []) == []
    printed = capfd.readouterr()
    for text in (printed.out, printed.err, caplog.text):
        assert [person for person in people if person in text] == []
