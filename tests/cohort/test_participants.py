"""Participants who have segments, over several batches."""

from __future__ import annotations

from pathlib import Path

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.home.layout import Home
from tests.support.homes import land


def test_everybody_with_a_segment_is_there_once_per_batch(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b2", ["p3", "p1"])
    land(home, "b1", ["p2", "p3"], minutes=5)
    people = segmented_participants(home, ["b2", "b1"])
    assert people.column_names == ["participant_id", "sex", "age_years", "device_id", "batch_id"]
    assert [(row["batch_id"], row["participant_id"], row["sex"]) for row in people.to_pylist()] == [
        ("b1", "p2", "female"),
        ("b1", "p3", "male"),
        ("b2", "p1", "male"),
        ("b2", "p3", "female"),
    ]
    assert all(18 <= row["age_years"] <= 90 for row in people.to_pylist())
    summary = extend_split(home.split, people)
    assert summary.participants == 3


def test_participants_without_a_segment_and_homes_without_a_batch_give_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"], minutes=0)
    assert segmented_participants(home, ["b1"]).num_rows == 0
    assert segmented_participants(home, []).num_rows == 0
    assert extend_split(home.split, segmented_participants(home, [])).participants == 0
