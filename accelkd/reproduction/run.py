"""All experiments of a preset, as many at once as there is room, resumable, in a given time; then the report."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

import torch

from accelkd.home.files import write_json, write_text
from accelkd.home.layout import Home
from accelkd.reproduction.cohort import Cohort, CohortPlan, Versions, cohort_home, describe, make_cohort, read_cohort
from accelkd.reproduction.evaluate import encode, evaluate, training_rows
from accelkd.reproduction.experiments import ExperimentPreset, Run
from accelkd.reproduction.pools import Finished, Place, Pool, process_pool, ray_pool
from accelkd.reproduction.records import (
    COHORT,
    Task,
    Timing,
    checkpoint_of,
    embeddings_of,
    error_log,
    gather,
    is_done,
    machine,
    make_task,
    parents,
    print_progress,
    reproduction_lock,
    summarise,
    write_run,
)
from accelkd.reproduction.report import write_reproduction
from accelkd.training.runs import train_encoder


@dataclass
class ReproductionOutcome:
    """The outcome of the requested runs, by their names."""

    done: list[str] = field(default_factory=list)  # by this call or an earlier one
    failed: dict[str, str] = field(default_factory=dict)  # with the reason
    remaining: list[str] = field(default_factory=list)  # not started within the time budget
    report: Path = Path()


@dataclass(frozen=True)
class _Work:
    """What whoever executes a task needs."""

    folder: Path  # <home>/reproduction
    nested_home: Home
    plan: CohortPlan
    versions: Versions
    label_fractions: tuple[float, ...]
    pools: int


def reproduce(
    home: Home,
    preset: ExperimentPreset,
    *,
    only: Iterable[str] = (),
    on: Place = "processes",
    workers: int | None = None,
    budget_min: float | None = None,
    command: str = "accelkd reproduce",
) -> ReproductionOutcome:
    """Run what is missing of a preset's experiments, gather the result files and write the report.

    A run whose configuration, teacher, data and code are unchanged is not repeated; an interrupted one continues.
    After `budget_min` minutes no new run starts. A run that fails is reported and recorded; only runs that need it fail
    with it. `only` names tables and figures to run for; the result files cover all finished runs. Runs are distributed
    over worker processes, or `on` a Ray cluster, all of whose nodes see the home. Raises ValueError for an unknown name
    or fewer than one worker, and BlockingIOError while another reproduction runs in the home.
    """
    wanted = {run.name for run in preset.runs(only)}
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    with reproduction_lock(home.root / "reproduction"):
        return _reproduce(home, preset, wanted, on, workers, budget_min, command)


def _reproduce(
    home: Home,
    preset: ExperimentPreset,
    wanted: set[str],
    on: Place,
    workers: int | None,
    budget_min: float | None,
    command: str,
) -> ReproductionOutcome:
    deadline = math.inf if budget_min is None else time.monotonic() + 60 * budget_min
    started = datetime.now(UTC)
    folder, nested_home = home.root / "reproduction", cohort_home(home, preset.cohort)
    cores = os.cpu_count() or 1
    print_progress(
        f"cohort of {preset.cohort.participants} × {preset.cohort.segments} segments, profile {preset.cohort.profile}"
    )
    versions = make_cohort(nested_home, preset.cohort, cores)
    cohort = read_cohort(nested_home, preset.cohort, versions)
    tasks = _tasks(preset, preset.runs(), versions)
    work = _Work(folder, nested_home, preset.cohort, versions, preset.label_fractions, preset.pools)
    outcome = _run_all(folder, _pool(work, on, workers), [task for task in tasks if task.run.name in wanted], deadline)
    facts = {
        "preset": preset.name,
        "profile": preset.cohort.profile,
        **describe(cohort),
        "seeds": list(preset.seeds),
        "command": command,
        "machine": machine(),
        "cores": cores,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs_done": len(outcome.done),
        "runs_failed": outcome.failed,
        "runs_left": outcome.remaining,
    }
    gather(folder, preset, cohort, [task.run for task in tasks if is_done(folder, task)])
    write_json(folder / COHORT, facts)
    outcome.report = write_reproduction(folder)
    return outcome


def _tasks(preset: ExperimentPreset, runs: Sequence[Run], versions: Versions) -> list[Task]:
    """The task of each run."""
    names = frozenset(run.name for run in runs)
    tasks: dict[str, Task] = {}
    for run in runs:  # parents come first
        needs = {experiment: tasks[name] for experiment, name in parents(run, preset, names).items()}
        tasks[run.name] = make_task(run, needs, preset, versions)
    return list(tasks.values())


def _pool(work: _Work, on: Place, workers: int | None) -> AbstractContextManager[Pool]:
    """What executes the tasks, once it is entered."""
    execute = partial(_execute, work)
    if on == "ray":
        return ray_pool(execute, workers)
    cores = os.cpu_count() or 1
    workers = workers or (1 if torch.cuda.is_available() else cores)
    return process_pool(execute, workers, max(1, cores // workers))


def _run_all(
    folder: Path, pool_of: AbstractContextManager[Pool], tasks: Sequence[Task], deadline: float
) -> ReproductionOutcome:
    """Distribute the tasks, most important first, until all are done or the time has ended."""
    outcome = ReproductionOutcome(done=[task.run.name for task in tasks if is_done(folder, task)])
    waiting = [task for task in tasks if task.run.name not in outcome.done]
    print_progress(f"{len(tasks)} runs, {len(outcome.done)} of them already done")
    if waiting and time.monotonic() < deadline:
        with pool_of as pool:
            running: dict[str, float] = {}  # since when
            while True:
                while len(running) < pool.size and (task := _next(waiting, outcome, deadline)) is not None:
                    waiting.remove(task)
                    print_progress(f"{len(outcome.done):>3} of {len(tasks)} done; running {task.run.name}")
                    running[task.run.name] = time.monotonic()
                    pool.start(task)
                if not running:
                    break
                for finished in pool.finished():
                    _record(folder, finished, time.monotonic() - running.pop(finished.task.run.name), outcome)
    outcome.remaining = [task.run.name for task in waiting]
    if outcome.remaining:
        print_progress(f"the time has ended: {len(outcome.remaining)} runs left; the same command continues with them")
    return outcome


def _next(waiting: list[Task], outcome: ReproductionOutcome, deadline: float) -> Task | None:
    """The first task whose parents are done; tasks whose parent failed fail with it."""
    for task in list(waiting):
        broken = [name for name in task.needs.values() if name in outcome.failed]
        if broken:
            waiting.remove(task)
            outcome.failed[task.run.name] = f"needs {broken[0]}, which failed"
            print_progress(f"FAILED {task.run.name}: {outcome.failed[task.run.name]}")
    if time.monotonic() >= deadline:
        return None
    return next((task for task in waiting if set(task.needs.values()) <= set(outcome.done)), None)


def _record(folder: Path, finished: Finished, seconds: float, outcome: ReproductionOutcome) -> None:
    """Note what came of a task, in the outcome, in its log of errors and on the screen."""
    name = finished.task.run.name
    log = error_log(folder, name)
    if finished.error is None:
        outcome.done.append(name)
        log.unlink(missing_ok=True)
        print_progress(f"done {name} in {seconds:.0f} s: {finished.summary}")
        return
    write_text(log, finished.error + "\n")
    outcome.failed[name] = finished.error.strip().splitlines()[-1]
    print_progress(f"FAILED {name} after {seconds:.0f} s: {outcome.failed[name]} (more in {log})")


@lru_cache(maxsize=1)
def _cohort(work: _Work) -> Cohort:
    """The cohort, read once by each process."""
    return read_cohort(work.nested_home, work.plan, work.versions)


def _execute(work: _Work, task: Task) -> str:
    """Train and evaluate one run; returns a summary in one line."""
    run, cohort = task.run, _cohort(work)
    started = time.monotonic()
    teacher = run.experiment.teacher
    checkpoint = train_encoder(
        cohort.store,
        training_rows(run, cohort),
        run.config,
        work.nested_home.root / "checkpoints" / run.experiment.name,
        name=run.experiment.name,
        data_version=work.versions.data,
        split_version=work.versions.split,
        teacher=None if teacher is None else checkpoint_of(work.folder, work.nested_home, task.needs[teacher]),
    )
    trained = time.monotonic()
    partners = {experiment: embeddings_of(work.folder, name) for experiment, name in task.needs.items()}
    encoded = encode(run, cohort, checkpoint, partners, work.pools)
    tables = evaluate(run, cohort, checkpoint, encoded, work.label_fractions)
    timing = Timing(trained - started, time.monotonic() - trained)
    write_run(work.folder, task, work.nested_home, checkpoint, tables, encoded, timing)
    return summarise(tables, work.label_fractions[-1])
