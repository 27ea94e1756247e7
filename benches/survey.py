"""Milliseconds from survey answers to targets, of simulated participants: ours, a Polars pivot, and plain Python rows.

    python benches/survey.py [--participants 1000]

All three give the same table; only ours also refuses faulty answers. Prints a Markdown table, best of five.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import polars as pl
import pyarrow as pa

from accelkd.recordings.schema import SURVEY_TARGET
from accelkd.recordings.simulator.answers import survey_answers
from accelkd.recordings.simulator.participants import draw_traits
from accelkd.recordings.survey import QUESTIONS, TARGETS, Rule, survey_targets


def pivot(survey: pa.Table) -> pa.Table:
    """A row for each participant and a column for each question, then an expression for each target."""

    def holds(rules: tuple[Rule, ...]) -> pl.Expr:
        return pl.any_horizontal(
            pl.all_horizontal(pl.col(question).is_in(accepted) for question, accepted in rule) for rule in rules
        )

    answers = pl.DataFrame(survey).pivot("question_id", on_columns=list(QUESTIONS), index="participant_id")
    targets = answers.sort("participant_id").select(
        "participant_id",
        *(
            pl.when(holds(target.yes)).then(True).when(holds(target.no)).then(False).alias(name)
            for name, target in TARGETS.items()
        ),
    )
    rows = targets.unpivot(index="participant_id", variable_name="target").sort("participant_id", maintain_order=True)
    return rows.to_arrow().cast(SURVEY_TARGET.arrow())


def naive(survey: pa.Table) -> pa.Table:
    """Row by row."""
    people: dict[str, dict[str, str]] = {}
    for row in survey.to_pylist():
        people.setdefault(row["participant_id"], {})[row["question_id"]] = row["answer"]

    def holds(rules: tuple[Rule, ...], answers: dict[str, str]) -> bool:
        return any(all(answers.get(question) in accepted for question, accepted in rule) for rule in rules)

    rows = [
        {
            "participant_id": name,
            "target": target_id,
            "value": True if holds(target.yes, people[name]) else False if holds(target.no, people[name]) else None,
        }
        for name in sorted(people)
        for target_id, target in TARGETS.items()
    ]
    return pa.Table.from_pylist(rows, SURVEY_TARGET.arrow())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=1_000)
    participants = parser.parse_args().participants
    names = [f"p{number:06d}" for number in range(participants)]
    survey = survey_answers(1, 0, names, draw_traits(1, 0, participants))
    expected = survey_targets(survey)
    ways: dict[str, Callable[[pa.Table], pa.Table]] = {
        "survey_targets (Arrow, NumPy)": survey_targets,
        "pivot (Polars)": pivot,
        "naive (Python)": naive,
    }
    print(f"{len(survey):,} answers of {participants:,} participants\n")
    print("| how | milliseconds | × ours |\n| --- | --- | --- |")
    ours = None
    for how, compute in ways.items():
        if not compute(survey).equals(expected):
            raise AssertionError(f"{how} computes other targets")
        best = min(_seconds(compute, survey) for _ in range(5))
        ours = ours or best
        print(f"| {how} | {1e3 * best:.1f} | {best / ours:.1f} |", flush=True)


def _seconds(compute: Callable[[pa.Table], pa.Table], survey: pa.Table) -> float:
    started = time.perf_counter()
    compute(survey)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
