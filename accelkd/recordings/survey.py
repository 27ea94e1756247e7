"""The survey: its questions, and the binary health targets that its answers define.

Questions, choices and target definitions are those of the paper's tables 20 to 23 (Apple Heart and Movement Study;
drinking after AUDIT-C, smoking after All of Us). Three readings are ours:

- *46 targets*: tables 20, 21 and 23 define 45; table 12 also reports sleep apnea. It is asked like every other
  condition.
- *Active smoker, no*: table 23 reads "answer to Q2 is 'No', and answer to Q2b is 'Not at all'", but Q2b is asked only
  after 'Yes' or 'I don't know'. Either answer therefore means no, as the table says of drinking in so many words.
- *Yes* needs every answer that the table names, so somebody who does not know whether they ever smoked 100 cigarettes
  and now smokes daily is neither an active smoker nor not.

Whatever leads to neither yes nor no (other answers, 'I prefer not to answer', 'I don't know', nothing) excludes the
participant from that target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.recordings.schema import SURVEY_TARGET

YES = "Yes"
NO = "No"
UNKNOWN = "I don't know"
DECLINED = "I prefer not to answer"


@dataclass(frozen=True)
class Question:
    """One question. `only_after`: another question and the answers to it that lead here; None if everybody is asked."""

    question_id: str
    text: str
    choices: tuple[str, ...]
    only_after: tuple[str, tuple[str, ...]] | None = None


Rule = tuple[tuple[str, tuple[str, ...]], ...]  # every (question, answers that count) must hold


@dataclass(frozen=True)
class Target:
    """A binary target: True if one of `yes` holds, False if one of `no` holds, else the participant is excluded."""

    target_id: str
    label: str  # as the paper names it
    yes: tuple[Rule, ...]
    no: tuple[Rule, ...]
    paper_participants: int | None  # test participants in the paper's evaluation (tables 20, 21, 23)


# id, the paper's label, what is asked about, test participants
_CONDITIONS = (
    ("heart_attack", "Heart attack", "heart attack", 26_806),
    ("heart_disease", "Heart disease", "coronary heart disease or angina", 26_584),
    ("blood_pressure", "Blood pressure", "high blood pressure", 26_326),
    ("stroke_tia", "Stroke or TIA", "stroke or transient ischemic attack", 26_805),
    ("afib", "Afib", "atrial fibrillation", 26_342),
    ("heart_rhythm", "Heart rhythm", "heart rhythm problem other than atrial fibrillation", 26_068),
    ("pacemaker", "Pacemaker", "pacemaker", 26_916),
    ("artery_disease", "Artery disease", "peripheral artery disease", 26_429),
    ("heart_failure", "Heart failure", "heart failure", 26_843),
    ("diabetes", "Diabetes", "diabetes", 26_661),
    ("cholesterol", "Cholesterol", "high cholesterol", 26_238),
    ("arthritis", "Arthritis", "arthritis", 26_429),
    ("hip_knee", "Hip/Knee", "hip or knee replacement", 26_948),
    ("lower_back", "Lower back", "disorder of the lower back", 26_480),
    ("neck_disorder", "Neck disorder", "disorder of the neck", 26_628),
    ("osteoporosis", "Osteoporosis", "osteoporosis", 26_554),
    ("asthma", "Asthma", "asthma", 26_762),
    ("chronic_bronchitis", "Chronic bronchitis", "chronic bronchitis, COPD or emphysema", 26_707),
    ("allergy", "Allergy", "allergy other than allergic asthma", 26_626),
    ("kidney", "Kidney", "kidney problems", 26_640),
    ("thyroid", "Thyroid", "thyroid disease", 26_502),
    ("cancer", "Cancer", "cancer", 26_783),
    ("liver", "Liver", "cirrhosis of the liver", 26_784),
    ("urinary", "Urinary", "urinary incontinence", 26_728),
    ("neuropathy", "Neuropathy", "neuropathy", 26_370),
    ("depression", "Depression", "depression", 26_110),
    ("anxiety", "Anxiety", "anxiety disorder", 25_989),
    ("sleep_apnea", "Sleep apnea", "sleep apnea", None),
    ("hearing", "Hearing", "hearing loss", 25_633),
    ("vision", "Vision", "vision loss", 25_895),
)
_MEDICATIONS = (
    ("ace_inhibitors", "ACE-inhibitors", "ACE inhibitors or ARBs", 11_043),
    ("anti_anxiety", "Anti-anxiety", "anti-anxiety aids", 15_876),
    ("antipsychotics", "Anti-psychotics", "antipsychotics", 15_914),
    ("anticoagulants", "Anticoagulants", "anticoagulants", 15_906),
    ("antidepressants", "Antidepressants", "antidepressants", 15_919),
    ("antiplatelets", "Antiplatelets", "antiplatelets, such as aspirin", 15_891),
    ("beta_blockers", "Beta-blockers", "beta blockers", 15_868),
    ("blood_pressure_medication", "Blood pressure med.", "other medications for lowering blood pressure", 15_835),
    ("calcium_channel_blockers", "Calcium-channel blockers", "calcium-channel blockers", 15_812),
    ("chemotherapy", "Chemotherapy", "certain types of chemotherapy", 11_084),
    ("diuretics", "Diuretics", "diuretics", 15_929),
    ("opioid_painkillers", "Opioid painkillers", "opioid painkillers", 15_941),
    ("painkillers", "Painkillers", "non-steroidal anti-inflammatories", 15_919),
    ("sleep_medication", "Sleep medication", "sleeping aids", 15_892),
)

_FREQUENT_DRINKING = ("Two to three times a week", "Four or more times a week")
_RARE_DRINKING = ("Never", "Monthly or less", "Two to four times a month")

QUESTIONS: dict[str, Question] = {
    question.question_id: question
    for question in (
        *(
            Question(name, f"Ever diagnosed with: {what}?", (YES, NO, DECLINED, UNKNOWN))
            for name, _, what, _ in _CONDITIONS
        ),
        *(Question(name, f"Currently taking: {what}?", (YES, NO, DECLINED)) for name, _, what, _ in _MEDICATIONS),
        Question("q1", "Ever had an alcoholic drink?", (YES, NO, UNKNOWN, DECLINED)),
        Question(
            "q1b",
            "How often alcohol in the past year?",
            (*_RARE_DRINKING, *_FREQUENT_DRINKING, DECLINED),
            ("q1", (YES,)),
        ),
        Question(
            "q1c",
            "How many drinks on a typical day of drinking?",
            ("1 or 2", "3 or 4", "5 or 6", "7 to 9", "10 or more", DECLINED),
            ("q1", (YES,)),
        ),
        Question("q2", "Ever smoked at least 100 cigarettes?", (YES, NO, UNKNOWN, DECLINED)),
        Question(
            "q2b",
            "Smoking cigarettes now?",
            ("Every day", "Some days", "Not at all", DECLINED),
            ("q2", (YES, UNKNOWN)),
        ),
    )
}

TARGETS: dict[str, Target] = {
    target.target_id: target
    for target in (
        *(
            Target(name, label, yes=(((name, (YES,)),),), no=(((name, (NO,)),),), paper_participants=participants)
            for name, label, _, participants in (*_CONDITIONS, *_MEDICATIONS)
        ),
        Target(
            "active_alcohol",
            "Active alcohol user",
            yes=((("q1", (YES,)), ("q1b", _FREQUENT_DRINKING)),),
            no=((("q1", (NO,)),), (("q1b", _RARE_DRINKING),)),
            paper_participants=23_472,
        ),
        Target(
            "active_smoker",
            "Active smoker",
            yes=((("q2", (YES,)), ("q2b", ("Every day", "Some days"))),),
            no=((("q2", (NO,)),), (("q2b", ("Not at all",)),)),
            paper_participants=23_452,
        ),
    )
}


_CHOICES = tuple((name, choice) for name, question in QUESTIONS.items() for choice in question.choices)
_QUESTION = np.array([list(QUESTIONS).index(name) for name, _ in _CHOICES])  # position in QUESTIONS of each choice


def known_answers(survey: pa.Table) -> pa.ChunkedArray:
    """Which rows of a survey answer one of QUESTIONS with one of its choices: booleans, one per row."""
    return pc.is_valid(_choices(survey))


def survey_targets(survey: pa.Table) -> pa.Table:
    """The targets of everybody who answered anything: one row (SURVEY_TARGET) for each participant and target.

    `survey` has the columns of accelkd.recordings.schema.SURVEY, from any number of batches. Rows come sorted by
    participant, targets in the order of TARGETS. Raises ValueError that names the participant for an unknown question,
    for an answer that is not one of its choices, and for a question answered twice.
    """
    identifiers = survey.column("participant_id")
    participants = pc.unique(identifiers)
    participants = participants.take(pc.sort_indices(participants))
    choices = _choices(survey)
    if choices.null_count:
        raise _fault(survey)
    participant, choice = pc.index_in(identifiers, value_set=participants).to_numpy(), choices.to_numpy()
    answers = np.full((len(participants), len(QUESTIONS)), -1, np.int16)  # positions in _CHOICES; -1: not answered
    answers[participant, _QUESTION[choice]] = choice
    if np.count_nonzero(answers >= 0) < len(survey):
        raise _fault(survey)
    yes = np.stack([_holds(target.yes, answers) for target in TARGETS.values()], axis=1)
    no = np.stack([_holds(target.no, answers) for target in TARGETS.values()], axis=1)
    participant, target = np.divmod(np.arange(yes.size), len(TARGETS))
    return pa.table(
        {
            "participant_id": participants.take(pa.array(participant)),
            "target": pa.array(list(TARGETS)).take(pa.array(target)),
            "value": pa.array(yes.reshape(-1), mask=~(yes | no).reshape(-1)),
        },
        schema=SURVEY_TARGET.arrow(),
    )


def _choices(survey: pa.Table) -> pa.ChunkedArray:
    """Position in _CHOICES of each row's question and answer, null where they are none of them."""
    answered = pc.binary_join_element_wise(survey.column("question_id"), survey.column("answer"), "\0")
    return pc.index_in(answered, value_set=pa.array(["\0".join(choice) for choice in _CHOICES]))


def _holds(rules: tuple[Rule, ...], answers: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Whether one of the rules holds for each participant, given `answers` [participants, questions]."""
    holds = np.zeros(len(answers), bool)
    for rule in rules:
        every = np.ones(len(answers), bool)
        for question, accepted in rule:
            codes = [_CHOICES.index((question, answer)) for answer in accepted]
            every &= np.isin(answers[:, _QUESTION[codes[0]]], codes)
        holds |= every
    return holds


def _fault(survey: pa.Table) -> ValueError:
    """The error of a survey with faulty rows: the first fault in the order of QUESTIONS, unknown questions last."""
    faults: dict[tuple[int, bool, str], list[dict[str, str]]] = {}
    order = {name: number for number, name in enumerate(QUESTIONS)}
    seen = set()
    for row in survey.to_pylist():
        participant, name = row["participant_id"], row["question_id"]
        repeated = (participant, name) in seen
        seen.add((participant, name))
        if name not in QUESTIONS:
            fault = len(order), False, "there is no such question"
        elif row["answer"] not in QUESTIONS[name].choices:
            fault = order[name], False, f"answer is not a choice of question {name!r}"
        elif repeated:
            fault = order[name], True, f"question {name!r} is answered twice"
        else:
            continue
        faults.setdefault(fault, []).append(row)
    (_, _, rule), rows = min(faults.items(), key=lambda item: item[0])
    return ValueError(
        f"survey of participant {rows[0]['participant_id']}: {rule} "
        f"(question {rows[0]['question_id']!r}; {len(rows)} such rows)"
    )
