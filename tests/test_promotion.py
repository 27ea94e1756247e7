"""Promotion and going back, on untrained encoders and a real warehouse."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.current import (
    Models,
    can_replace_what_is_in_use,
    current_models,
    decide,
    history,
    in_use_is_damaged,
    make_candidate,
    participants_when_trained,
    previous_models,
)
from accelkd.evaluation.embed import embed_batch
from accelkd.lake import Lake
from accelkd.promotion import consider, fill_tables, roll_back
from accelkd.training.checkpoint import WEIGHTS
from accelkd.warehouse.load import load_batch, load_model, load_split, models_in_use
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.lakes import checkpoint, land

BATCHES = ["b1", "b2"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    land(lake, "b1", [f"p{i}" for i in range(12)])
    land(lake, "b2", [f"q{i}" for i in range(8)])
    for batch_id in BATCHES:
        load_batch(lake, batch_id)
    extend_split(lake.split, segmented_participants(lake, BATCHES))
    load_split(lake)
    return lake


def train(lake: Lake, seed: int, *, scale: float = 1.0) -> Models:
    """An untrained pair as the candidate; with a `scale` of 0 it embeds everything alike."""
    teacher = checkpoint(lake, "ppg_teacher", seed=seed, scale=scale)
    student = checkpoint(lake, "accel_student", seed=seed, teacher=teacher, scale=scale)
    for encoder, model_id in (("ppg_teacher", teacher), ("accel_student", student)):
        load_model(lake, encoder, model_id, BATCHES)
        make_candidate(lake, encoder, model_id, 20)
    return {"ppg_teacher": teacher, "accel_student": student}


def tables(lake: Lake) -> dict[str, str]:
    with staging(lake) as connection:
        return models_in_use(connection)


def test_the_first_pair_promotes_itself_and_fills_the_tables(lake: Lake) -> None:
    pair = train(lake, 0)
    outcome = consider(lake)
    assert outcome.decision.action == "promoted"
    assert outcome.models == current_models(lake) == pair
    assert {row["check"] for row in outcome.decision.criteria} == {"finite", "not_collapsed", "probes", "retrieval"}
    fill_tables(lake)
    assert tables(lake) == pair
    assert participants_when_trained(lake) == 20


def test_a_decision_stands_however_often_it_is_asked_for(lake: Lake) -> None:
    train(lake, 0)
    assert consider(lake).decision == consider(lake).decision
    assert len(history(lake)) == 1


@pytest.mark.parametrize(("scale", "why"), [(0.0, "effective rank"), (float("nan"), "NaN or infinity")])
def test_a_collapsed_or_broken_pair_is_turned_down_with_the_reason(lake: Lake, scale: float, why: str) -> None:
    good = train(lake, 0)
    consider(lake)
    fill_tables(lake)
    bad = train(lake, 1, scale=scale)
    outcome = consider(lake)
    assert outcome.decision.action == "rejected"
    assert why in outcome.decision.reason
    assert outcome.decision.models == bad
    assert outcome.models == current_models(lake) == good
    fill_tables(lake)
    assert tables(lake) == good
    assert previous_models(lake) is None
    assert consider(lake).decision == outcome.decision


def test_a_worse_pair_is_turned_down_unless_forced(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    good = train(lake, 0)
    consider(lake)
    # The same encoders must count as worse: demand half of the error of the pair in use
    monkeypatch.setattr("accelkd.evaluation.compare.TOLERANCE", -0.5)
    other = train(lake, 1)
    outcome = consider(lake)
    assert outcome.decision.action == "rejected"
    assert "error of" in outcome.decision.reason
    assert outcome.models == good
    forced = consider(lake, force="a trial")
    assert forced.models == other
    assert forced.decision.reason == "forced: a trial"


def test_a_damaged_pair_in_use_gives_way_to_one_that_stands_alone(lake: Lake) -> None:
    good = train(lake, 0)
    consider(lake)
    (lake.checkpoint("ppg_teacher", good["ppg_teacher"]) / WEIGHTS).unlink()
    other = train(lake, 1)
    outcome = consider(lake)
    assert outcome.models == other
    assert "damaged" in outcome.decision.reason


def test_a_pair_that_was_turned_down_takes_the_place_of_a_damaged_one(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = train(lake, 0)
    consider(lake)
    with monkeypatch.context() as demanding:
        demanding.setattr("accelkd.evaluation.compare.TOLERANCE", -0.5)
        other = train(lake, 1)
        assert consider(lake).decision.action == "rejected"
    assert consider(lake).models == good
    assert not can_replace_what_is_in_use(lake)
    (lake.checkpoint("ppg_teacher", good["ppg_teacher"]) / WEIGHTS).unlink()
    assert can_replace_what_is_in_use(lake)
    assert consider(lake).models == other
    assert not can_replace_what_is_in_use(lake)


def test_without_a_trained_pair_a_damaged_one_is_only_told_of(lake: Lake) -> None:
    assert not can_replace_what_is_in_use(lake)
    decide(lake, "promoted", {"ppg_teacher": "lost", "accel_student": "lost"}, "test")
    assert in_use_is_damaged(lake)
    assert not can_replace_what_is_in_use(lake)


def test_teacher_and_student_are_swapped_together(lake: Lake) -> None:
    old = train(lake, 0)
    consider(lake)
    fill_tables(lake)
    new = train(lake, 1)
    consider(lake, force="test")
    for batch_id in BATCHES:
        assert embed_batch(lake, "ppg_teacher", batch_id, device="cpu").where == "waiting"
    assert embed_batch(lake, "accel_student", "b1", device="cpu").where == "waiting"
    assert tables(lake) == old  # the teacher waits for its student
    assert embed_batch(lake, "accel_student", "b2", device="cpu").where == "swapped in"
    assert tables(lake) == new
    names = publish(lake).rows
    assert not [name for name in names if "__" in name]  # what stands aside is not published


def test_going_back_is_at_once_and_stays(lake: Lake) -> None:
    old = train(lake, 0)
    consider(lake)
    fill_tables(lake)
    before = publish(lake).rows["embeddings.accel_student"]
    new = train(lake, 1)
    consider(lake, force="test")
    fill_tables(lake)
    assert tables(lake) == new
    land(lake, "b3", ["r1"])  # arrives while the new pair is in use
    load_batch(lake, "b3")
    fill_tables(lake)

    decision = roll_back(lake, "drifts")
    assert (decision.action, decision.reason, decision.models) == ("rolled back", "drifts", old)
    assert tables(lake) == current_models(lake) == old
    with duckdb.connect(str(lake.published), read_only=True) as connection:
        assert connection.execute(
            "SELECT count(*), count(DISTINCT model_id) FROM embeddings.accel_student"
        ).fetchall() == [(before + 3, 1)]
        assert connection.execute("SELECT action FROM promotions ORDER BY number, encoder").fetchall() == [
            ("promoted",),
            ("promoted",),
            ("promoted",),
            ("promoted",),
            ("rolled back",),
            ("rolled back",),
        ]
    assert consider(lake).models == old  # the same candidate again does not undo it
    with pytest.raises(ValueError, match="nothing to go back to"):
        roll_back(lake, "further")


def test_a_student_of_another_teacher_is_refused(lake: Lake) -> None:
    train(lake, 0)
    stranger = checkpoint(lake, "ppg_teacher", seed=5)
    make_candidate(lake, "ppg_teacher", stranger, 20)
    with pytest.raises(ValueError, match="learned from teacher"):
        consider(lake)


def test_without_a_trained_pair_it_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(FileNotFoundError, match="materialize `ppg_teacher`"):
        consider(lake)


def test_history_survives_two_steps_back(lake: Lake) -> None:
    for number in range(3):
        decide(lake, "promoted", {"ppg_teacher": f"m{number}"}, "test")
    decide(lake, "rolled back", {"ppg_teacher": "m1"}, "test")
    decide(lake, "rejected", {"ppg_teacher": "m9"}, "test")
    assert current_models(lake) == {"ppg_teacher": "m1"}
    assert previous_models(lake) == {"ppg_teacher": "m0"}
    assert [one.number for one in history(lake)] == [1, 2, 3, 4, 5]
