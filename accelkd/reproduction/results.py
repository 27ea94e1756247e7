"""The result files of a reproduction, indexed for tables, claims and figures.

A missing file reads as empty, so experiments without results show as not run. All files but `cohort.json` are Parquet.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.columns import Table
from accelkd.warehouse.schema import REPRODUCTION_RESULTS, REPRODUCTION_RETRIEVAL

Row = dict[str, Any]
# Pseudo-experiments, which train nothing
CONSTANT = "constant"  # the best constant of the training labels
CLASSICAL = "classical"  # the heart rate from acceleration without a model
UNTRAINED = (CLASSICAL, CONSTANT)


def file_schema(table: Table) -> pa.Schema:
    """A table of the warehouse as the file that it is loaded from: every value may be null there."""
    return pa.schema([(column.name, column.type) for column in table.columns])


_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
SCHEMAS = {
    "results": file_schema(REPRODUCTION_RESULTS),
    "scores": pa.schema(
        {
            "experiment": _TEXT,
            "seed": _INT,
            "target": _TEXT,
            "participant_id": _TEXT,
            "label": pa.bool_(),
            "score": _FLOAT,
        }
    ),
    "errors": pa.schema(
        {
            "experiment": _TEXT,
            "seed": _INT,
            "target": _TEXT,
            "label_fraction": _FLOAT,
            "participant_id": _TEXT,
            "n": _INT,
            "absolute_error_sum": _FLOAT,
        }
    ),
    "retrieval": file_schema(REPRODUCTION_RETRIEVAL),
    "models": pa.schema(
        {
            "experiment": _TEXT,
            "seed": _INT,
            "model_id": _TEXT,
            "teacher_model_id": _TEXT,
            "method": _TEXT,
            "modality": _TEXT,
            "architecture": _TEXT,
            "parameters": _INT,
            "width": _INT,
            "steps": _INT,
            "batch_size": _INT,
            "loss": _FLOAT,
            "chance_loss": _FLOAT,
            "wall_s": _FLOAT,
            "segments_per_s": _FLOAT,
            "mfu": _FLOAT,
            "device": _TEXT,
            "precision": _TEXT,
            "effective_rank": _FLOAT,
            "code_version": _TEXT,
        }
    ),
    "curves": pa.schema({"experiment": _TEXT, "seed": _INT, "step": _INT, "loss": _FLOAT, "learning_rate": _FLOAT}),
    "map": pa.schema({"experiment": _TEXT, "participant": _INT, "x": _FLOAT, "y": _FLOAT}),
}


@dataclass(frozen=True)
class Scores:
    """One encoder's scores of one binary target on the test participants, sorted by participant."""

    participants: npt.NDArray[np.object_]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Errors:
    """One probe's absolute errors, summed for each test participant, sorted by participant."""

    participants: npt.NDArray[np.object_]
    n: npt.NDArray[np.float64]
    absolute_error_sum: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Results:
    """The contents of all result files of a folder."""

    cohort: Mapping[str, Any]
    rows: Mapping[tuple[str, str, str, float], Mapping[int, Row]]  # experiment, target, metric, label fraction; seed
    scores: Mapping[tuple[str, str], Mapping[int, Scores]]  # experiment, target; seed
    errors: Mapping[tuple[str, str, float], Mapping[int, Errors]]  # experiment, target, label fraction; seed
    retrieval: tuple[Row, ...]
    models: tuple[Row, ...]
    curves: pa.Table
    map: pa.Table

    @cached_property
    def experiments(self) -> frozenset[str]:
        """The names that have any result."""
        return frozenset(key[0] for key in self.rows)

    @cached_property
    def experiments_by_target(self) -> Mapping[str, tuple[str, ...]]:
        """The names that have any result of a target, sorted, without the pseudo-experiments."""
        names: dict[str, set[str]] = defaultdict(set)
        for experiment, target, _, _ in self.rows:
            names[target].add(experiment)
        return {target: tuple(sorted(experiments.difference(UNTRAINED))) for target, experiments in names.items()}

    def values(
        self, experiment: str, target: str, metric: str = "mae", label_fraction: float = 1.0
    ) -> dict[int, float]:
        """The value of each seed; empty if the experiment was not run or the value is undefined."""
        by_seed = self.rows.get((experiment, target, metric, _rounded(label_fraction)), {})
        return {seed: row["value"] for seed, row in sorted(by_seed.items()) if row["value"] is not None}

    def row(self, experiment: str, target: str, metric: str = "mae", label_fraction: float = 1.0) -> Row | None:
        """The row of the first seed, None if the experiment was not run."""
        by_seed = self.rows.get((experiment, target, metric, _rounded(label_fraction)))
        return by_seed[min(by_seed)] if by_seed else None

    def retrieval_rows(self, experiment: str, space: str, direction: str) -> list[Row]:
        """The rows of an experiment's retrieval, one for each seed; empty if it was not run."""
        wanted = experiment, space, direction
        return [row for row in self.retrieval if (row["experiment"], row["space"], row["direction"]) == wanted]

    def constant(self, target: str, metric: str = "mae") -> float | None:
        """The constant predictor's value, None if it was not measured."""
        values = list(self.values(CONSTANT, target, metric).values())
        return float(np.mean(values)) if values else None


def read_results(folder: Path) -> Results:
    """Read the result files of `folder`. Raises ValueError that names the file and column if a column is missing."""
    cohort = folder / "cohort.json"
    tables = {name: read_table(folder / f"{name}.parquet", schema) for name, schema in SCHEMAS.items()}
    rows: dict[tuple[str, str, str, float], dict[int, Row]] = defaultdict(dict)
    for row in tables["results"].to_pylist():
        key = row["experiment"], row["target"], row["metric"], _rounded(row["label_fraction"])
        rows[key][row["seed"]] = row
    scores: dict[tuple[str, str], dict[int, Scores]] = defaultdict(dict)
    for (experiment, target, seed), part in _groups(tables["scores"], "experiment", "target", "seed"):
        scores[experiment, target][seed] = Scores(
            part["participant_id"], part["label"].astype(bool), part["score"].astype(np.float64)
        )
    errors: dict[tuple[str, str, float], dict[int, Errors]] = defaultdict(dict)
    for (experiment, target, fraction, seed), part in _groups(
        tables["errors"], "experiment", "target", "label_fraction", "seed"
    ):
        errors[experiment, target, _rounded(fraction)][seed] = Errors(
            part["participant_id"], part["n"].astype(np.float64), part["absolute_error_sum"]
        )
    return Results(
        cohort=json.loads(cohort.read_text(encoding="utf-8")) if cohort.is_file() else {},
        rows=rows,
        scores=scores,
        errors=errors,
        retrieval=tuple(tables["retrieval"].to_pylist()),
        models=tuple(tables["models"].sort_by([("experiment", "ascending"), ("seed", "ascending")]).to_pylist()),
        curves=tables["curves"],
        map=tables["map"],
    )


def read_table(source: Path | BinaryIO, schema: pa.Schema) -> pa.Table:
    """One result file with the columns of `schema`, empty if it does not exist.

    Raises ValueError that names the source and its missing columns.
    """
    if isinstance(source, Path) and not source.is_file():
        return schema.empty_table()
    table = pq.read_table(source)
    missing = set(schema.names) - set(table.column_names)
    if missing:
        raise ValueError(f"{source}: no column {', '.join(sorted(missing))}")
    return table.select(schema.names).cast(schema)


def _groups(table: pa.Table, *keys: str) -> list[tuple[tuple[Any, ...], dict[str, npt.NDArray[Any]]]]:
    """For each combination of `keys`: its values, and the columns of its rows sorted by participant."""
    if not table.num_rows:
        return []
    table = table.sort_by([*((key, "ascending") for key in keys), ("participant_id", "ascending")])
    columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    new = np.zeros(table.num_rows, bool)
    for key in keys:
        new[1:] |= columns[key][1:] != columns[key][:-1]
    starts = [0, *np.flatnonzero(new), table.num_rows]
    return [
        (tuple(columns[key][start] for key in keys), {name: column[start:end] for name, column in columns.items()})
        for start, end in pairwise(starts)
    ]


def _rounded(label_fraction: float) -> float:
    """A fraction without floating-point noise, so that it can be part of a key."""
    return round(float(label_fraction), 9)
