"""The cohort of a reproduction: what it holds, and that making it again makes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from accelkd.home.layout import Home
from accelkd.recordings.labels import LABELS
from accelkd.recordings.survey import TARGETS
from accelkd.reproduction.cohort import Cohort, cohort_home, describe, make_cohort, read_cohort
from tests.support.reproduction import PLAN


def test_nobody_is_on_both_sides_and_every_segment_is_on_one(cohort: Cohort) -> None:
    train, test = set(cohort.participants[cohort.training_rows]), set(cohort.participants[cohort.test_rows])
    assert not train & test
    assert train | test == set(cohort.people.tolist())
    assert len(cohort.training_rows) + len(cohort.test_rows) == len(cohort.store)
    assert abs(len(test) - 0.2 * PLAN.participants) < 1


def test_labels_and_traits_are_those_of_the_segments_and_people(cohort: Cohort) -> None:
    assert set(cohort.labels) == set(LABELS)
    assert set(cohort.traits) == {"age", "bmi", "sex", *TARGETS}
    heart_rate = cohort.labels["hr_bpm"]
    assert np.isfinite(heart_rate).mean() > 0.5
    assert ((heart_rate > 30) & (heart_rate < 200))[np.isfinite(heart_rate)].all()
    assert np.isfinite(cohort.traits["age"]).all()
    assert set(cohort.traits["sex"].tolist()) == {0.0, 1.0}
    assert all(len(values) == len(cohort.people) for values in cohort.traits.values())


def test_making_it_again_leaves_the_files_alone(home: Home, cohort: Cohort) -> None:
    nested_home = cohort_home(home, PLAN)
    before = written_at(nested_home)
    assert make_cohort(nested_home, PLAN, processes=1) == cohort.versions
    assert written_at(nested_home) == before


def written_at(home: Home) -> dict[str, int]:
    """Time of each file's last change, without what this machine notes of the files that it has verified."""
    files = {home.relative(path): path.stat().st_mtime_ns for path in home.root.rglob("*") if path.is_file()}
    return {name: time for name, time in files.items() if not name.startswith(".verified/")}


def test_a_batch_that_was_cut_off_is_made_again(home: Home, cohort: Cohort) -> None:
    nested_home = cohort_home(home, PLAN)
    nested_home.quarantine("sim-0001").unlink()
    assert make_cohort(nested_home, PLAN, processes=1) == cohort.versions
    assert len(read_cohort(nested_home, PLAN, cohort.versions).store) == len(cohort.store)


def test_another_plan_lies_elsewhere_and_nothing_touches_the_homes_own_recordings(home: Home) -> None:
    assert cohort_home(home, PLAN).root != cohort_home(home, replace(PLAN, participants=15)).root
    assert not home.landing.exists()
    assert not home.split.exists()


def test_the_description_counts_people_segments_and_days(cohort: Cohort) -> None:
    facts = describe(cohort)
    assert facts["train"]["participants"] + facts["test"]["participants"] == PLAN.participants
    assert facts["train"]["segments"] + facts["test"]["segments"] == len(cohort.store)
    assert 1 <= facts["segments_per_participant"] <= PLAN.segments
    # The simulator records one minute a day
    assert facts["calendar_days_per_participant"] == facts["segments_per_participant"]
    assert facts["time_span_days"] >= facts["calendar_days_per_participant"]


def test_recordings_may_go_once_they_are_segments(cohort: Cohort, tmp_path: Path) -> None:
    plan = replace(PLAN, keep_recordings=False)
    nested_home = Home(tmp_path)
    versions = make_cohort(nested_home, plan, processes=2)
    assert versions == cohort.versions  # made by two processes, and in another home
    assert not list(nested_home.landing.rglob("part-*.parquet"))
    assert [path.parent.name for path in nested_home.landing.rglob("survey.parquet")]
    made = {path: path.stat().st_mtime_ns for path in nested_home.root.rglob("*.arrow")}
    assert make_cohort(nested_home, plan, processes=2) == versions
    assert {path: path.stat().st_mtime_ns for path in nested_home.root.rglob("*.arrow")} == made
    nested_home.quarantine("sim-0000").unlink()
    assert make_cohort(nested_home, plan, processes=2) == versions


def test_no_more_than_so_many_segments_of_a_training_participant_are_embedded(cohort: Cohort) -> None:
    few = cohort.with_at_most(2)
    assert set(few.rows[few.test_rows]) == set(cohort.test_rows)
    people, counts = np.unique(few.participants[few.training_rows], return_counts=True)
    assert set(people) == set(cohort.participants[cohort.training_rows])
    assert set(counts) == {2}
    for name, values in few.labels.items():
        np.testing.assert_array_equal(values, cohort.labels[name][few.rows])
    np.testing.assert_array_equal(few.participants, cohort.participants[few.rows])
    assert cohort.with_at_most(None) is cohort
