"""Survey answers of simulated participants, and the questions that they leave unanswered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from accelkd.recordings.schema import SURVEY
from accelkd.recordings.simulator.health import CONDITIONS, MEDICATIONS
from accelkd.recordings.simulator.participants import Traits
from accelkd.recordings.simulator.streams import F64, uniform_rows
from accelkd.recordings.survey import DECLINED, NO, QUESTIONS, TARGETS, UNKNOWN, YES

# Shares of participants who filled in a questionnaire at all, and of those who gave no usable answer to one of its
# questions, after the test participants of the paper's tables 20, 21 and 23 out of about 27,000
_ASKED = 27_000.0
_MEDICATIONS_FILLED_IN = 15_950 / _ASKED
_HABITS_FILLED_IN = 23_700 / _ASKED
_HABITS_DECLINED = 0.004
_LATER_QUESTION = 0.7  # two medications were asked about only later: their N is 11 K of the others' 16 K

_ANSWER_COLUMNS = (*QUESTIONS, "medications", "habits")
_WIDTH = 64
_ANSWER_STREAM = 2**32  # rows far beyond those of the traits


def survey_answers(seed: int, first: int, ids: Sequence[str], traits: Traits) -> pa.Table:
    """The answers (schema SURVEY) of participants `first`, `first + 1`, ... whose pseudonyms are `ids`."""
    draws = dict(zip(_ANSWER_COLUMNS, uniform_rows(seed, _ANSWER_STREAM + first, len(ids), _WIDTH).T, strict=False))
    answers = {name: _yes_or_no(draws[name], traits.health[name], name, unsure=True) for name in CONDITIONS}
    filled_in = draws["medications"] < _MEDICATIONS_FILLED_IN
    for name in MEDICATIONS:
        answer = _yes_or_no(draws[name], traits.health[name], name, unsure=False)
        answers[name] = np.where(filled_in, answer, "")
    filled_in = draws["habits"] < _HABITS_FILLED_IN
    for name, answer in _habits(draws, traits).items():
        answers[name] = np.where(filled_in, answer, "")

    table = np.stack([answers[name] for name in QUESTIONS], axis=1)
    participant, question = np.nonzero(table != "")
    return pa.table(
        {
            "participant_id": pa.array(np.array(ids, object)[participant], pa.string()),
            "question_id": pa.array(np.array(list(QUESTIONS), object)[question], pa.string()),
            "answer": pa.array(table[participant, question].astype(object), pa.string()),
        },
        schema=SURVEY.arrow(),
    )


def _yes_or_no(draw: F64, has: F64, name: str, *, unsure: bool) -> np.ndarray:
    """'Yes' and 'No', and at the top of `draw` those who prefer not to answer, do not know (`unsure`) or skip it."""
    counted = TARGETS[name].paper_participants
    if unsure:
        lost = 0.02 if counted is None else 1.0 - counted / _ASKED
    else:
        lost = 0.005 if counted is None or counted > 15_000 else 1.0 - _LATER_QUESTION
    answer = np.where(has > 0, YES, NO).astype("U32")
    answer[draw >= 1.0 - lost] = ""
    answer[draw >= 1.0 - (0.6 * lost if unsure else 0.004)] = DECLINED
    if unsure:
        answer[draw >= 1.0 - 0.4 * lost] = UNKNOWN
    return answer


def _habits(draws: dict[str, F64], traits: Traits) -> dict[str, np.ndarray]:
    """Drinking and smoking; questions that follow only on some answers are empty for the others."""
    u = draws["q1b"]
    frequency = QUESTIONS["q1b"].choices
    frequent = np.where(u < 0.55, frequency[3], frequency[4])
    rare = np.select([u < 0.30, u < 0.65], [frequency[0], frequency[1]], frequency[2])
    q1b = np.where(traits.drinks_weekly > 0, frequent, rare).astype("U32")
    ever = (traits.drinks_weekly > 0) | (draws["q1"] < 0.85)
    q1 = np.where(ever, YES, NO).astype("U32")
    drinks = QUESTIONS["q1c"].choices
    u = draws["q1c"]
    q1c = np.select([u < 0.62, u < 0.87, u < 0.95, u < 0.98], list(drinks[:4]), drinks[4]).astype("U32")
    smoked = (traits.smoker > 0) | (traits.former_smoker > 0)
    q2 = np.where(smoked, YES, NO).astype("U32")
    smoking = QUESTIONS["q2b"].choices
    q2b = np.where(traits.smoker > 0, np.where(draws["q2b"] < 0.75, smoking[0], smoking[1]), smoking[2]).astype("U32")
    for name, answer in (("q1", q1), ("q1b", q1b), ("q1c", q1c), ("q2", q2), ("q2b", q2b)):
        answer[draws[name] >= 1.0 - _HABITS_DECLINED] = DECLINED
    q1[draws["q1"] >= 1.0 - 0.25 * _HABITS_DECLINED] = UNKNOWN
    q2[draws["q2"] >= 1.0 - 0.5 * _HABITS_DECLINED] = UNKNOWN
    answers = {"q1": q1, "q1b": q1b, "q1c": q1c, "q2": q2, "q2b": q2b}
    for name in ("q1b", "q1c", "q2b"):
        condition = QUESTIONS[name].only_after
        assert condition is not None
        answers[name] = np.where(np.isin(answers[condition[0]], condition[1]), answers[name], "")
    return answers
