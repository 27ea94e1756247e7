"""The split ledger: which participant is in training and which in test (section 4.1 of the paper: 80/20, stratified).

Participants are split, never segments. An assigned participant never moves, so an encoder trained today stays unseen
by tomorrow's test participants' past and future recordings. Only those leave who withdraw, and those whose batch does
not count any more and whom no checkpoint was trained on (accelkd.operations.split).
"""

from __future__ import annotations

import hashlib
import logging
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.home.columns import Column, Table
from accelkd.home.files import DamagedFileError, atomic_path, sha256_json

Side = Literal["train", "test"]

AGE_EDGES_YEARS = (30, 40, 50, 60, 70)
AGE_BANDS = ("under 30", "30 to 39", "40 to 49", "50 to 59", "60 to 69", "70 and over")
UNKNOWN = "unknown"
STRATA = ("device_id", "sex", "age_band")
_ROWS = b"rows_sha256"  # metadata of a file of version 0.1.0: hash of its rows as JSON
_COLUMNS = b"columns_sha256"  # metadata of the file: hash of its rows, column by column

_STRATUM = ("segments.participant_id", "segments.device_id", "demographics.sex", "demographics.age_years")
LEDGER = Table(
    "split",
    (
        Column(
            "participant_id",
            pa.string(),
            nullable=False,
            sources=("segments.participant_id",),
            meaning="Pseudonym",
        ),
        Column("split", pa.string(), nullable=False, sources=_STRATUM, meaning="train or test"),
        Column(
            "sex",
            pa.string(),
            nullable=False,
            sources=("demographics.sex",),
            meaning="Stratum: sex when assigned",
        ),
        Column(
            "age_band",
            pa.string(),
            nullable=False,
            sources=("demographics.age_years",),
            meaning="Stratum: ten-year band of the age when assigned",
        ),
        Column(
            "device_id",
            pa.string(),
            nullable=False,
            sources=("segments.device_id",),
            meaning="Stratum: device of the first recording",
        ),
        Column(
            "batch_id",
            pa.string(),
            nullable=False,
            sources=("segments.batch_id",),
            meaning="Batch that the participant first came with",
        ),
    ),
    key=("participant_id",),
    meaning="The split ledger: participants never change sides",
)


class SplitError(ValueError):
    """The split leaks, contradicts itself, or was requested with other settings than it was created with."""


@dataclass(frozen=True)
class SplitSummary:
    """What a split ledger holds."""

    participants: int
    added: int  # by this call
    train: int
    test: int
    strata: int
    largest_deviation: float  # of a stratum's test participants from its share, in participants; below 1
    split_version: str


def age_band(age_years: float | None) -> str:
    """Name of the ten-year band of an age; 'unknown' for None or NaN."""
    if age_years is None or math.isnan(age_years):
        return UNKNOWN
    return AGE_BANDS[bisect_right(AGE_EDGES_YEARS, age_years)]


def extend_split(
    ledger: Path,
    participants: pa.Table,
    *,
    seed: int = 0,
    test_fraction: float = 0.2,
    trained_on: Collection[str] = (),
) -> SplitSummary:
    """Assign every participant who is not in `ledger` yet, and replace the file if any was added.

    `participants` has participant_id, sex, age_years, device_id and batch_id; a participant of several batches is taken
    with the first by batch_id, then device_id. New participants are placed batch after batch, inside a batch by a hash
    of seed and identifier, so neither the order of rows nor the grouping of batches into calls matters as long as
    batches come in order of their identifiers. Each is placed so that the number of test participants stays within one
    of its share, first of the stratum (device × sex × age band), then of the device, then of the whole cohort: strata
    of one participant each still add up to the right share. Whomever a checkpoint was `trained_on` goes to training.

    Raises SplitError if the ledger was created with another seed or fraction or is damaged, ValueError for a fraction
    outside (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, not {test_fraction}")
    settings = {b"seed": str(seed).encode(), b"test_fraction": repr(float(test_fraction)).encode()}
    rows: list[dict[str, str]] = []
    if ledger.exists() or _copy(ledger).exists():
        old = read_split(ledger)
        created_with = {key: (old.schema.metadata or {}).get(key) for key in settings}
        if created_with != settings:
            raise SplitError(
                f"{ledger}: created with {created_with}, requested with {settings}; it keeps its seed and fraction"
            )
        rows = old.to_pylist()

    known = {row["participant_id"] for row in rows}
    totals, tests = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row in rows:
        _count(row, totals, tests)
    arrivals = _first_rows(participants, known)
    arrivals.sort(key=lambda row: (row["batch_id"], _hash(seed, row["participant_id"])))
    for row in arrivals:
        was_trained_on = row["participant_id"] in trained_on
        row["split"] = "train" if was_trained_on else _place(row, totals, tests, test_fraction)
        _count(row, totals, tests)
    rows += arrivals

    table = pa.Table.from_pylist(rows, LEDGER.arrow().with_metadata(settings))
    if arrivals or not ledger.exists():
        write_split(ledger, table)
    strata = {_levels(row)[0] for row in rows}
    return SplitSummary(
        participants=len(rows),
        added=len(arrivals),
        train=len(rows) - tests[()],
        test=tests[()],
        strata=len(strata),
        largest_deviation=max((abs(tests[s] - test_fraction * totals[s]) for s in strata), default=0.0),
        split_version=split_version(table),
    )


def write_split(ledger: Path, table: pa.Table) -> None:
    """Replace the ledger by the rows of `table`, whose metadata are its settings.

    The order of assignment is recorded nowhere else, so a copy is written first: one of the two is always intact.
    """
    settings = {key: value for key, value in (table.schema.metadata or {}).items() if key != _ROWS}
    table = table.replace_schema_metadata({**settings, _COLUMNS: _columns_sha256(table)})
    for path in (_copy(ledger), ledger):
        with atomic_path(path) as part:
            pq.write_table(table, part)


def read_split(ledger: Path) -> pa.Table:
    """The ledger (schema LEDGER); if its file is damaged or missing, it is restored from its copy.

    Raises FileNotFoundError if there is neither, DamagedFileError if both are damaged, SplitError for a participant
    with two rows or an unknown side.
    """
    if not ledger.exists() and not _copy(ledger).exists():
        raise FileNotFoundError(f"no split ledger at {ledger}: materialize `participant_split` first")
    try:
        table = _read_verified(ledger)
    except DamagedFileError as error:
        try:
            table = _read_verified(_copy(ledger))
        except DamagedFileError as copy_error:
            raise DamagedFileError(
                f"{error}; {copy_error}; restore one of them from a backup: it is not rebuilt, because no participant "
                "may change sides"
            ) from None
        logging.getLogger(__name__).warning("%s; it is restored from %s", error, _copy(ledger).name)
        write_split(ledger, table)
    if not table.schema.equals(LEDGER.arrow()):
        raise SplitError(f"{ledger}: columns {table.schema.names}, expected {LEDGER.names}")
    sides = set(pc.unique(table.column("split")).to_pylist())
    if not sides <= {"train", "test"}:
        raise SplitError(f"{ledger}: unknown side {sorted(sides - {'train', 'test'})}")
    duplicates = int(
        pc.sum(pc.greater(pc.value_counts(table.column("participant_id")).field("counts"), 1)).as_py() or 0
    )
    if duplicates:
        raise SplitError(f"{ledger}: {duplicates} participants have more than one row")
    return table


def _copy(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.stem}.copy{ledger.suffix}")


def _read_verified(path: Path) -> pa.Table:
    """A ledger's file, its rows verified against their hash. Raises DamagedFileError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DamagedFileError(f"{path} cannot be read: {error}") from None
    recorded = table.schema.metadata or {}
    if _COLUMNS in recorded:
        intact = recorded[_COLUMNS] == _columns_sha256(table)
    else:
        intact = recorded.get(_ROWS) == sha256_json(table.to_pylist()).encode()
    if not intact:
        raise DamagedFileError(f"{path} is damaged: its rows are not those that were written")
    return table


def _columns_sha256(table: pa.Table) -> bytes:
    """Hash of the names, lengths and bytes of all columns, which are text; the same however Arrow holds them."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name} {len(column)}\n".encode())
        digest.update(pc.fill_null(pc.binary_length(column), -1).to_numpy().astype("<i4"))
        for chunk in pc.fill_null(column, "").chunks:
            _, offsets, values = chunk.buffers()
            if values is not None:  # as it is where all are empty
                edges = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
                digest.update(memoryview(values)[edges[0] : edges[-1]])
    return digest.hexdigest().encode()


def participants_on(ledger: Path, side: Side) -> frozenset[str]:
    """The participants of one side."""
    table = read_split(ledger)
    return frozenset(table.column("participant_id").filter(pc.equal(table.column("split"), side)).to_pylist())


def strata_table(ledger: pa.Table, strata: Sequence[str] = STRATA) -> pa.Table:
    """Participants of a ledger by stratum and side, sorted: the columns `strata`, `split` and `participants`.

    `strata` names columns of LEDGER that make up a stratum, by default those that the split is stratified by.
    """
    counts = ledger.group_by([*strata, "split"]).aggregate([([], "count_all")])
    counts = counts.rename_columns([*strata, "split", "participants"])
    return counts.sort_by([(name, "ascending") for name in (*strata, "split")])


def split_version(table: pa.Table) -> str:
    """Identity of an assignment: 16 hex digits over participants and sides, whatever the order of the rows."""
    pairs = table.select(["participant_id", "split"]).sort_by([("participant_id", "ascending"), ("split", "ascending")])
    lines = pc.binary_join_element_wise(*pairs.columns, " ").combine_chunks()
    text = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0]
    return hashlib.sha256(text.as_buffer()).hexdigest()[:16]


def assert_disjoint(train: Iterable[str], test: Iterable[str]) -> None:
    """Raise SplitError if a participant is on both sides."""
    both = set(train) & set(test)
    if both:
        raise SplitError(f"{len(both)} participants are in training and in test")


def _place(row: dict[str, str], totals: Counter[tuple[str, ...]], tests: Counter[tuple[str, ...]], f: float) -> Side:
    """The side that keeps each level's test count at its share, up to rounding; the widest level decides the rest."""
    for level in _levels(row):
        share, count = f * (totals[level] + 1), tests[level]
        if count < math.floor(share + 1e-9):
            return "test"
        if count + 1 > math.ceil(share - 1e-9):
            return "train"
    share, count = f * (totals[()] + 1), tests[()]
    return "test" if abs(count + 1 - share) < abs(count - share) else "train"


def _levels(row: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """From the stratum to the whole cohort."""
    return (row["device_id"], row["sex"], row["age_band"]), (row["device_id"],), ()


def _count(row: dict[str, str], totals: Counter[tuple[str, ...]], tests: Counter[tuple[str, ...]]) -> None:
    for level in _levels(row):
        totals[level] += 1
        tests[level] += row["split"] == "test"


def _first_rows(participants: pa.Table, known: set[str]) -> list[dict[str, str]]:
    """One ledger row, still without a side, per participant who is not known yet."""
    columns = participants.select(["participant_id", "sex", "age_years", "device_id", "batch_id"]).to_pylist()
    columns.sort(key=lambda row: (row["participant_id"], row["batch_id"], row["device_id"]))
    first: dict[str, dict[str, str]] = {}
    for row in columns:
        participant = row["participant_id"]
        if participant not in known and participant not in first:
            first[participant] = {
                "participant_id": participant,
                "sex": row["sex"] or UNKNOWN,
                "age_band": age_band(row["age_years"]),
                "device_id": row["device_id"],
                "batch_id": row["batch_id"],
            }
    return list(first.values())


def _hash(seed: int, participant_id: str) -> bytes:
    return hashlib.sha256(f"{seed} {participant_id}".encode()).digest()
