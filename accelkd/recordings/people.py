"""Who an arrival batch describes: what cannot be right about a person is dropped by itself and costs nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from accelkd.recordings.batches import read_small_table
from accelkd.recordings.listing import printable
from accelkd.recordings.schema import PARTICIPANT, SURVEY

PLAUSIBLE = {"age_years": (0.0, 125.0), "height_m": (0.4, 2.6), "bmi_kg_m2": (8.0, 120.0), "skin_tone": (1.0, 10.0)}
SEXES = ("female", "male")


@dataclass(frozen=True)
class Dropped:
    """A value or an answer that was left out."""

    row: int
    participant_id: str
    rule: str
    detail: str


def batch_participants(folder: Path) -> pa.Table:
    """The participants of an arrived batch, without values that cannot be right. Raises like `read_small_table`."""
    return clean_participants(read_small_table(folder, "participants"))[0]


def batch_survey(folder: Path) -> pa.Table:
    """The answers of an arrived batch's participants, one to a question. Raises like `read_small_table`."""
    people = read_small_table(folder, "participants").column("participant_id").to_pylist()
    return clean_survey(read_small_table(folder, "survey"), set(people))[0]


def clean_participants(table: pa.Table) -> tuple[pa.Table, list[Dropped]]:
    """A table of participants with every column of PARTICIPANT, implausible values null, and what was dropped."""
    dropped = []
    names = table.column("participant_id").to_pylist()
    columns = {"participant_id": pa.array(names, pa.string())}
    for field in PARTICIPANT.arrow():
        if field.name in columns:
            continue
        values = table.column(field.name).to_pylist() if field.name in table.column_names else [None] * len(table)
        for row, value in enumerate(values):
            if value is not None and (why := _implausible(field.name, value)):
                dropped.append(Dropped(row, names[row], field.name, why))
                values[row] = None
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=PARTICIPANT.arrow()), dropped


def _implausible(name: str, value: object) -> str | None:
    if name == "sex":
        return None if value in SEXES else f"{value!r} is neither 'female' nor 'male'"
    low, high = PLAUSIBLE[name]
    return None if isinstance(value, float) and low <= value <= high else f"{value} is not in {low:g} to {high:g}"


def clean_survey(table: pa.Table, participants: Collection[str]) -> tuple[pa.Table, list[Dropped]]:
    """Answers of `participants` alone, one to a question, and what was dropped: all of answers that contradict."""
    rows = table.select(SURVEY.names).cast(SURVEY.arrow()).append_column("row", pa.array(range(len(table)), pa.int64()))
    asked = rows.group_by(["participant_id", "question_id"], use_threads=False).aggregate(
        [("row", "min"), ("answer", "count_distinct")]
    )
    agreed = asked.filter(pc.equal(asked.column("answer_count_distinct"), 1)).column("row_min")
    known = pc.is_in(rows.column("participant_id"), value_set=pa.array(sorted(participants), pa.string()))
    kept = pc.and_(known, pc.is_in(rows.column("row"), value_set=agreed.combine_chunks()))
    dropped = []
    for row in rows.filter(pc.invert(kept)).to_pylist():
        rule, detail = "duplicate_answer", f"question {printable(row['question_id'], 100)!r}"
        if row["participant_id"] not in participants:
            rule, detail = "participant_unknown", "not in participants.parquet"
        dropped.append(Dropped(row["row"], row["participant_id"], rule, detail))
    return table.filter(kept) if dropped else table, dropped
