"""Worker processes that evaluate on the CPU what the main process trains and encodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from accelkd.home.files import write_json
from accelkd.home.isolated import end_pool, end_with_parent
from accelkd.home.layout import Home
from accelkd.reproduction.cohort import Cohort, CohortPlan, Versions, read_cohort
from accelkd.reproduction.evaluate import Encoded, evaluate
from accelkd.reproduction.experiments import ExperimentPreset, Run
from accelkd.reproduction.packed import pack
from accelkd.reproduction.pools import default_threads
from accelkd.reproduction.records import COHORT, Task, Timing, gather, summarise, write_run

T = TypeVar("T")

_MAX_EVALUATORS = 12
CohortKey = tuple[Home, CohortPlan, Versions, int | None]


@lru_cache(maxsize=1)
def embedded_cohort(key: CohortKey) -> Cohort:
    """The cohort that is embedded; read once in each process."""
    nested_home, plan, versions, segments = key
    return read_cohort(nested_home, plan, versions).with_at_most(segments)


@contextmanager
def evaluators(key: CohortKey, cores: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that evaluate on the CPU with one thread each, for the duration of the block."""
    number = min(max(1, cores - 1), _MAX_EVALUATORS)
    pool = ProcessPoolExecutor(number, get_context("spawn"), initializer=_start, initargs=(key,))
    try:
        with default_threads(1):
            for _ in range(number):
                pool.submit(int)  # starts a process, which reads the cohort
        yield pool
    finally:
        end_pool(pool)


def _start(key: CohortKey) -> None:
    end_with_parent()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA is initialised
    torch.set_num_threads(1)
    embedded_cohort(key)


def submit(pool: ProcessPoolExecutor, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Call the function in the pool; if the pool is broken, because a process died, call it here."""
    try:
        return pool.submit(function, *arguments)
    except BrokenExecutor:
        future = Future[T]()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def evaluate_run(
    folder: Path,
    task: Task,
    nested_home: Home,
    checkpoint: Path,
    encoded: Encoded,
    timing: Timing,
    key: CohortKey,
    label_fractions: Sequence[float],
) -> str:
    """Probe an encoded run and write its results; returns a summary in one line."""
    began = time.monotonic()
    tables = evaluate(task.run, embedded_cohort(key), checkpoint, encoded, label_fractions)
    timing = replace(timing, evaluation_s=timing.evaluation_s + time.monotonic() - began)
    write_run(folder, task, nested_home, checkpoint, tables, encoded, timing)
    return summarise(tables, label_fractions[-1])


def write_results_in_worker(
    folder: Path, out: Path, preset: ExperimentPreset, key: CohortKey, runs: Sequence[Run], facts: Mapping[str, Any]
) -> None:
    """`write_results` in a process of the pool, with the cohort that it has read."""
    write_results(folder, out, preset, embedded_cohort(key), runs, facts)


def write_results(
    folder: Path, out: Path, preset: ExperimentPreset, cohort: Cohort, runs: Sequence[Run], facts: Mapping[str, Any]
) -> None:
    """Write the result files in `folder`, and the same packed in `out`."""
    gather(folder, preset, cohort, runs)
    write_json(folder / COHORT, dict(facts))
    pack(folder, out)
