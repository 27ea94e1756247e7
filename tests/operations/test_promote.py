"""Promotion and rollback, on untrained encoders and a real warehouse."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.operations.promote import evaluate_candidate, fill_tables, roll_back
from accelkd.registry.history import (
    Models,
    can_replace_damaged,
    history,
    make_candidate,
    participants_when_trained,
    previous_models,
    promoted_models,
)
from accelkd.training.checkpoint import WEIGHTS
from accelkd.warehouse.embeddings import loaded_models
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support.homes import checkpoint, land, load_and_split, loaded_pair

BATCHES = ["b1", "b2"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land(home, "b1", [f"p{i}" for i in range(12)])
    land(home, "b2", [f"q{i}" for i in range(8)])
    load_and_split(home, BATCHES)
    return home


def train(home: Home, seed: int, *, scale: float = 1.0) -> Models:
    """An untrained pair as the candidate; with a `scale` of 0 it embeds everything alike."""
    pair = loaded_pair(home, BATCHES, seed=seed, scale=scale)
    for encoder, model_id in pair.items():
        make_candidate(home, encoder, model_id, 20)
    return pair


def tables(home: Home) -> dict[str, str]:
    with staging(home) as connection:
        return loaded_models(connection)


def test_the_first_pair_promotes_itself_and_fills_the_tables(home: Home) -> None:
    pair = train(home, 0)
    outcome = evaluate_candidate(home)
    assert outcome.decision.action == "promoted"
    assert outcome.models == promoted_models(home) == pair
    assert {row["check"] for row in outcome.decision.criteria} == {"finite", "not_collapsed", "probes", "retrieval"}
    fill_tables(home)
    assert tables(home) == pair
    assert participants_when_trained(home) == 20


def test_a_decision_stands_however_often_it_is_asked_for(home: Home) -> None:
    train(home, 0)
    assert evaluate_candidate(home).decision == evaluate_candidate(home).decision
    assert len(history(home)) == 1


@pytest.mark.parametrize(("scale", "why"), [(0.0, "effective rank"), (float("nan"), "NaN or infinity")])
def test_a_collapsed_or_broken_pair_is_rejected_with_the_reason(home: Home, scale: float, why: str) -> None:
    good = train(home, 0)
    evaluate_candidate(home)
    fill_tables(home)
    bad = train(home, 1, scale=scale)
    outcome = evaluate_candidate(home)
    assert outcome.decision.action == "rejected"
    assert why in outcome.decision.reason
    assert outcome.decision.models == bad
    assert outcome.models == promoted_models(home) == good
    fill_tables(home)
    assert tables(home) == good
    assert previous_models(home) is None
    assert evaluate_candidate(home).decision == outcome.decision


def test_a_worse_pair_is_rejected_unless_forced(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    good = train(home, 0)
    evaluate_candidate(home)
    # The same encoders must count as worse: demand half of the error of the promoted pair
    monkeypatch.setattr("accelkd.operations.compare.TOLERANCE", -0.5)
    other = train(home, 1)
    outcome = evaluate_candidate(home)
    assert outcome.decision.action == "rejected"
    assert "error of" in outcome.decision.reason
    assert outcome.models == good
    forced = evaluate_candidate(home, force="a trial")
    assert forced.models == other
    assert forced.decision.reason == "forced: a trial"


def test_a_damaged_promoted_pair_gives_way_to_one_that_stands_alone(home: Home) -> None:
    good = train(home, 0)
    evaluate_candidate(home)
    (home.checkpoint("ppg_teacher", good["ppg_teacher"]) / WEIGHTS).unlink()
    other = train(home, 1)
    outcome = evaluate_candidate(home)
    assert outcome.models == other
    assert "damaged" in outcome.decision.reason


def test_a_rejected_pair_takes_the_place_of_a_damaged_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    good = train(home, 0)
    evaluate_candidate(home)
    with monkeypatch.context() as demanding:
        demanding.setattr("accelkd.operations.compare.TOLERANCE", -0.5)
        other = train(home, 1)
        assert evaluate_candidate(home).decision.action == "rejected"
    assert evaluate_candidate(home).models == good
    assert not can_replace_damaged(home)
    (home.checkpoint("ppg_teacher", good["ppg_teacher"]) / WEIGHTS).unlink()
    assert can_replace_damaged(home)
    assert evaluate_candidate(home).models == other
    assert not can_replace_damaged(home)


def test_teacher_and_student_are_swapped_together(home: Home) -> None:
    old = train(home, 0)
    evaluate_candidate(home)
    fill_tables(home)
    new = train(home, 1)
    evaluate_candidate(home, force="test")
    for batch_id in BATCHES:
        assert embed_batch(home, "ppg_teacher", batch_id, device="cpu").status == "staged"
    assert embed_batch(home, "accel_student", "b1", device="cpu").status == "staged"
    assert tables(home) == old  # the teacher waits for its student
    assert embed_batch(home, "accel_student", "b2", device="cpu").status == "swapped in"
    assert tables(home) == new
    names = publish(home).rows
    assert not [name for name in names if "__" in name]  # what is staged is not published


def test_a_rollback_is_immediate_and_stays(home: Home) -> None:
    old = train(home, 0)
    evaluate_candidate(home)
    fill_tables(home)
    before = publish(home).rows["embeddings.accel_student"]
    new = train(home, 1)
    evaluate_candidate(home, force="test")
    fill_tables(home)
    assert tables(home) == new
    land(home, "b3", ["r1"])  # arrives while the new pair is promoted
    load_batch(home, "b3")
    fill_tables(home)

    decision = roll_back(home, "drifts")
    assert (decision.action, decision.reason, decision.models) == ("rolled back", "drifts", old)
    assert tables(home) == promoted_models(home) == old
    with duckdb.connect(str(home.published), read_only=True) as connection:
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
    assert evaluate_candidate(home).models == old  # the same candidate again does not undo it
    with pytest.raises(ValueError, match="nothing to go back to"):
        roll_back(home, "further")


def test_a_student_of_another_teacher_is_refused(home: Home) -> None:
    train(home, 0)
    stranger = checkpoint(home, "ppg_teacher", seed=5)
    make_candidate(home, "ppg_teacher", stranger, 20)
    with pytest.raises(ValueError, match="learned from teacher"):
        evaluate_candidate(home)


def test_without_a_trained_pair_it_says_what_to_do(home: Home) -> None:
    with pytest.raises(FileNotFoundError, match="materialize `ppg_teacher`"):
        evaluate_candidate(home)
