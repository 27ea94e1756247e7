"""Survey targets: the paper's definitions, clear errors, and the simulated cohort's answers."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelkd.recordings.schema import SURVEY, SURVEY_TARGET
from accelkd.recordings.simulator.answers import survey_answers
from accelkd.recordings.simulator.participants import draw_traits
from accelkd.recordings.survey import QUESTIONS, TARGETS, Target, known_answers, survey_targets


def answers(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SURVEY.names, row, strict=True)) for row in rows], SURVEY.arrow())


def target(name: str, **given: str) -> bool | None:
    """The target `name` of somebody who gave these answers."""
    table = survey_targets(answers(*(("p", question, answer) for question, answer in given.items())))
    return {row["target"]: row["value"] for row in table.to_pylist()}[name]


def test_there_are_the_papers_46_targets() -> None:
    assert len(TARGETS) == 46
    assert len({target.label for target in TARGETS.values()}) == 46
    assert len(QUESTIONS) == 30 + 14 + 5
    for target in TARGETS.values():
        for rule in itertools.chain(target.yes, target.no):
            for question, accepted in rule:
                assert set(accepted) <= set(QUESTIONS[question].choices)


@pytest.mark.parametrize(
    ("answer", "value"),
    [("Yes", True), ("No", False), ("I prefer not to answer", None), ("I don't know", None)],
)
def test_conditions(answer: str, value: bool | None) -> None:
    assert target("heart_failure", heart_failure=answer) is value
    assert target("asthma", heart_failure=answer) is None  # not answered


def test_medications_have_no_unknown() -> None:
    assert target("diuretics", diuretics="Yes") is True
    with pytest.raises(ValueError, match="participant p: answer is not a choice of question 'diuretics'"):
        target("diuretics", diuretics="I don't know")


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"q1": "No"}, False),
        ({"q1": "Yes", "q1b": "Never"}, False),
        ({"q1": "Yes", "q1b": "Two to four times a month"}, False),
        ({"q1": "Yes", "q1b": "Two to three times a week"}, True),
        ({"q1": "Yes", "q1b": "Four or more times a week"}, True),
        ({"q1b": "Four or more times a week"}, None),
        ({"q1": "Yes"}, None),
        ({"q1": "Yes", "q1b": "I prefer not to answer"}, None),
        ({"q1": "I don't know"}, None),
        ({"q1c": "3 or 4"}, None),
    ],
)
def test_active_alcohol_user(given: dict[str, str], value: bool | None) -> None:
    assert target("active_alcohol", **given) is value


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"q2": "No"}, False),
        ({"q2": "Yes", "q2b": "Not at all"}, False),
        ({"q2": "I don't know", "q2b": "Not at all"}, False),
        ({"q2": "Yes", "q2b": "Every day"}, True),
        ({"q2": "Yes", "q2b": "Some days"}, True),
        ({"q2": "I don't know", "q2b": "Every day"}, None),
        ({"q2": "Yes"}, None),
        ({"q2": "Yes", "q2b": "I prefer not to answer"}, None),
        ({"q2": "I prefer not to answer"}, None),
    ],
)
def test_active_smoker(given: dict[str, str], value: bool | None) -> None:
    assert target("active_smoker", **given) is value


def test_no_answers_lead_to_both_yes_and_no() -> None:
    for ever, now in itertools.product(QUESTIONS["q2"].choices, QUESTIONS["q2b"].choices):
        yes, no = (
            any(all({"q2": ever, "q2b": now}[question] in accepted for question, accepted in rule) for rule in rules)
            for rules in (TARGETS["active_smoker"].yes, TARGETS["active_smoker"].no)
        )
        assert not (yes and no)


def test_everybody_who_answered_has_a_row_for_every_target() -> None:
    table = survey_targets(answers(("b", "asthma", "Yes"), ("a", "q1", "No")))
    assert table.schema == SURVEY_TARGET.arrow()
    assert table["participant_id"].to_pylist() == ["a"] * 46 + ["b"] * 46
    assert table["target"].to_pylist() == 2 * list(TARGETS)
    assert table["value"].null_count == 90
    assert survey_targets(SURVEY.arrow().empty_table()).num_rows == 0


def naive_targets(survey: pa.Table) -> list[dict[str, object]]:
    """The rows of `survey_targets`, computed row by row from the definitions."""
    people: dict[str, dict[str, str]] = {}
    for row in survey.to_pylist():
        people.setdefault(row["participant_id"], {})[row["question_id"]] = row["answer"]

    def value(definition: Target, person: dict[str, str]) -> bool | None:
        for rules, outcome in ((definition.yes, True), (definition.no, False)):
            if any(all(person.get(question) in accepted for question, accepted in rule) for rule in rules):
                return outcome
        return None

    return [
        {"participant_id": participant, "target": name, "value": value(definition, people[participant])}
        for participant in sorted(people)
        for name, definition in TARGETS.items()
    ]


_choices = [(name, choice) for name, question in QUESTIONS.items() for choice in question.choices]
_with_several = [choice for choice in _choices if choice[0] in ("q1", "q1b", "q2", "q2b")]  # what the joint rules read
_rows = st.tuples(st.text("aé𝒳10", min_size=1, max_size=2), st.one_of(*map(st.sampled_from, (_choices, _with_several))))


@settings(max_examples=200)
@given(rows=st.lists(_rows, max_size=40, unique_by=lambda row: (row[0], row[1][0])), cut=st.integers(0, 40))
def test_targets_are_those_of_their_definitions(rows: list[tuple[str, tuple[str, str]]], cut: int) -> None:
    survey = answers(*((participant, question, answer) for participant, (question, answer) in rows))
    survey = pa.concat_tables([survey.slice(0, cut), survey.slice(min(cut, len(survey)))])  # as of two batches
    assert known_answers(survey).to_pylist() == [True] * len(rows)
    assert survey_targets(survey).to_pylist() == naive_targets(survey)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((("p", "asthma", "Yes"), ("q", "gout", "Yes")), "participant q: there is no such question .*'gout'"),
        ((("p", "asthma", "Maybe"),), "participant p: answer is not a choice of question 'asthma'"),
        ((("p", "asthma", "Yes"), ("p", "asthma", "No")), "participant p: question 'asthma' is answered twice"),
        ((("p", "asthma", "No"), ("q", "q1", "No"), ("q", "q1", "No")), "participant q: question 'q1' .* 1 such rows"),
        (
            (("p", "gout", "No"), ("q", "q1", "No"), ("q", "q1", "Yes")),
            "participant q: question 'q1' is answered twice",
        ),
    ],
)
def test_bad_answers_are_named(rows: tuple[tuple[str, str, str], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        survey_targets(answers(*rows))


def test_only_choices_of_known_questions_are_known_answers() -> None:
    survey = answers(("p", "asthma", "Yes"), ("p", "asthma", "Maybe"), ("p", "gout", "Yes"), ("q", "q1c", "1 or 2"))
    assert known_answers(survey).to_pylist() == [True, False, False, True]


def test_the_simulated_cohort_has_every_target() -> None:
    n = 10_000
    people = draw_traits(1, 0, n)
    table = survey_targets(survey_answers(1, 0, [f"p{i:05d}" for i in range(n)], people))
    value = table["value"]
    known = dict(zip(TARGETS, pc.is_valid(value).to_numpy().reshape(n, 46).mean(axis=0), strict=True))
    yes = dict(zip(TARGETS, pc.fill_null(value, False).to_numpy().reshape(n, 46).sum(axis=0), strict=True))
    assert min(yes.values()) >= 10
    for name, participants in (("asthma", 26_762), ("diuretics", 15_929), ("chemotherapy", 11_084)):
        assert known[name] == pytest.approx(participants / 27_000, abs=0.02)
    assert known["active_smoker"] == pytest.approx(23_452 / 27_000, abs=0.02)
    assert yes["active_alcohol"] / (n * known["active_alcohol"]) == pytest.approx(0.33, abs=0.03)
    assert yes["active_smoker"] / (n * known["active_smoker"]) == pytest.approx(0.13, abs=0.02)
    has = people.health["asthma"] > 0
    answered = table.filter(pc.equal(table["target"], "asthma"))["value"].to_pylist()
    assert all(answer is None or answer == truth for answer, truth in zip(answered, has, strict=True))


def test_follow_up_questions_come_only_after_the_answers_that_lead_there() -> None:
    table = survey_answers(1, 0, [f"p{i:05d}" for i in range(500)], draw_traits(1, 0, 500))
    given: dict[str, dict[str, str]] = {}
    for row in table.to_pylist():
        given.setdefault(row["participant_id"], {})[row["question_id"]] = row["answer"]
    for person in given.values():
        for name, question in QUESTIONS.items():
            if question.only_after and name in person:
                before, leading = question.only_after
                assert person[before] in leading
