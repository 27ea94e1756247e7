"""A run's identity and its files: its key, its folder, its part of the result files."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from accelkd.home.behaviour import code_version
from accelkd.home.files import atomic_path, sha256_json, write_json
from accelkd.home.layout import Home
from accelkd.home.locks import file_lock
from accelkd.reproduction.cohort import Cohort, Versions
from accelkd.reproduction.evaluate import Encoded, classical_rows, constant_rows
from accelkd.reproduction.experiments import ExperimentPreset, Run, as_data
from accelkd.reproduction.results import SCHEMAS
from accelkd.training.checkpoint import training_version

COHORT = "cohort.json"
_RECORD, _EMBEDDINGS = "run.json", "embeddings.npy"
# A change of what these do makes every evaluation stale, but no training
_EVALUATION_CODE = (
    *(
        f"accelkd.evaluation.{name}"
        for name in (
            "collapse",
            "extract",
            "matrix",
            "participant_probes",
            "probes",
            "procrustes",
            "projection",
            "retrieval",
            "significance",
        )
    ),
    "accelkd.reproduction.evaluate",
)


@dataclass(frozen=True)
class Task:
    """A run with the key of its results, and the runs that it needs by the names of their experiments."""

    run: Run
    key: str
    needs: Mapping[str, str]


@dataclass(frozen=True)
class Timing:
    """Seconds that a run took."""

    training_s: float
    evaluation_s: float


def make_task(run: Run, needs: Mapping[str, Task], preset: ExperimentPreset, versions: Versions) -> Task:
    """The task of a run; `needs` are the tasks of its parents by the names of their experiments."""
    key = sha256_json(
        [
            run.experiment.name,
            as_data(run.config),
            run.experiment.label_fraction,
            [needs[name].key for name in run.experiment.needs],
            [versions.data, versions.split],
            [list(preset.label_fractions), preset.pools, preset.embedded_segments],
            [training_version(), evaluation_version()],
        ]
    )
    return Task(run, key, {experiment: task.run.name for experiment, task in needs.items()})


def parents(run: Run, preset: ExperimentPreset, names: frozenset[str]) -> dict[str, str]:
    """The run of each needed experiment, by the experiment's name: of the run's own seed, else of the first."""
    needed = {}
    for experiment in run.experiment.needs:
        same = Run(preset.experiments[experiment], run.seed).name
        needed[experiment] = same if same in names else Run(preset.experiments[experiment], preset.seeds[0]).name
    return needed


def evaluation_version() -> str:
    """Code version of the evaluation of a trained encoder."""
    return code_version(*_EVALUATION_CODE)


def folder_of(folder: Path, name: str) -> Path:
    """The folder of a run's results; `folder` is <home>/reproduction."""
    return folder / "experiments" / name


def error_log(folder: Path, name: str) -> Path:
    """The file with the traceback of a failed run; `folder` is <home>/reproduction."""
    return folder / "experiments" / f"{name}.error.txt"


def is_done(folder: Path, task: Task) -> bool:
    """Whether the run has results of the same configuration, data and code."""
    record = folder_of(folder, task.run.name) / _RECORD
    return record.exists() and json.loads(record.read_text(encoding="utf-8"))["key"] == task.key


def write_run(
    folder: Path,
    task: Task,
    nested_home: Home,
    checkpoint: Path,
    tables: Mapping[str, pa.Table],
    encoded: Encoded,
    timing: Timing,
) -> None:
    """Write a run's results; its folder appears atomically."""
    with atomic_path(folder_of(folder, task.run.name)) as part:
        part.mkdir()
        for name, table in tables.items():
            pq.write_table(table, part / f"{name}.parquet", compression="zstd")
        np.save(part / _EMBEDDINGS, encoded.embeddings)
        record = {
            "key": task.key,
            "checkpoint": checkpoint.relative_to(nested_home.root).as_posix(),
            "training_s": timing.training_s,
            "evaluation_s": timing.evaluation_s,
        }
        write_json(part / _RECORD, record)


def checkpoint_of(folder: Path, nested_home: Home, name: str) -> Path:
    """The checkpoint of a finished run."""
    record: dict[str, Any] = json.loads((folder_of(folder, name) / _RECORD).read_text(encoding="utf-8"))
    return nested_home.root / str(record["checkpoint"])


def embeddings_of(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """The embeddings [segments, width] of the cohort by a finished run."""
    embeddings: npt.NDArray[np.float32] = np.load(folder_of(folder, name) / _EMBEDDINGS)
    return embeddings


def summarise(tables: Mapping[str, pa.Table], label_fraction: float) -> str:
    """One line on a trained run: its loss, and its errors with this share of the labels."""
    loss = tables["models"].column("loss")[0].as_py()
    errors = [
        f"{row['target']} {row['value']:.2f}"
        for row in tables["results"].to_pylist()
        if row["level"] == "segment" and row["metric"] == "mae" and row["label_fraction"] == label_fraction
    ]
    return ", ".join([f"loss {loss:.3f}", *errors])


def gather(folder: Path, preset: ExperimentPreset, cohort: Cohort, runs: Sequence[Run]) -> None:
    """Concatenate the runs' tables into the result files in `folder`, with what a constant and no model measure."""
    for name, schema in SCHEMAS.items():
        parts = [
            pq.read_table(folder_of(folder, run.name) / f"{name}.parquet", schema=schema)
            for run in runs
            if name != "map" or run.seed == preset.seeds[0]
        ]
        if name == "results":
            parts.append(constant_rows(cohort, preset.label_fractions, preset.seeds[0]))
            parts.append(classical_rows(cohort, preset.seeds[0]))
        with atomic_path(folder / f"{name}.parquet") as part:
            pq.write_table(pa.concat_tables(parts or [schema.empty_table()]), part, compression="zstd")


def reproduction_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder's lock. Raises BlockingIOError if another reproduction holds it."""
    return file_lock(folder / ".lock", busy=f"another reproduction runs in {folder}")


def machine() -> str:
    """Name of the GPU if there is one, else of the CPU."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_progress(text: str) -> None:
    """Print a line of progress with the time of day."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stdout, flush=True)
