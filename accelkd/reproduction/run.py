"""All experiments of a preset, scheduled over worker processes, resumable, within a time budget; then the report."""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from accelkd.home.files import write_json, write_text
from accelkd.home.layout import Home
from accelkd.reproduction.cohort import Cohort, CohortPlan, Versions, cohort_home, describe, make_cohort, read_cohort
from accelkd.reproduction.evaluate import encode, evaluate, training_rows
from accelkd.reproduction.experiments import Preset, Run
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
class Outcome:
    """The outcome of the requested runs, by their names."""

    done: list[str] = field(default_factory=list)  # by this call or an earlier one
    failed: dict[str, str] = field(default_factory=dict)  # with the reason
    remaining: list[str] = field(default_factory=list)  # not started within the time budget
    report: Path = Path()


@dataclass(frozen=True)
class _Work:
    """What a worker process needs."""

    folder: Path  # <home>/reproduction
    nested_home: Home
    plan: CohortPlan
    versions: Versions
    label_fractions: tuple[float, ...]
    pools: int
    threads: int


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None
    since: float = 0.0


def reproduce(
    home: Home,
    preset: Preset,
    *,
    only: Iterable[str] = (),
    workers: int | None = None,
    budget_min: float | None = None,
    command: str = "accelkd reproduce",
) -> Outcome:
    """Run what is missing of a preset's experiments, gather the result files and write the report.

    A run whose configuration, teacher, data and code are unchanged is not repeated; an interrupted one continues.
    After `budget_min` minutes no new run starts. A run that fails is reported and recorded; only runs that need it fail
    with it. `only` names tables and figures to run for; the result files cover all finished runs. Raises ValueError for
    an unknown name or fewer than one worker, and BlockingIOError while another reproduction runs in the home.
    """
    wanted = {run.name for run in preset.runs(only)}
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    with reproduction_lock(home.root / "reproduction"):
        return _reproduce(home, preset, wanted, workers, budget_min, command)


def _reproduce(
    home: Home, preset: Preset, wanted: set[str], workers: int | None, budget_min: float | None, command: str
) -> Outcome:
    deadline = math.inf if budget_min is None else time.monotonic() + 60 * budget_min
    started = datetime.now(UTC)
    folder, nested_home = home.root / "reproduction", cohort_home(home, preset.cohort)
    cores = os.cpu_count() or 1
    workers = workers or (1 if torch.cuda.is_available() else cores)
    print_progress(
        f"cohort of {preset.cohort.participants} × {preset.cohort.segments} segments, profile {preset.cohort.profile}"
    )
    versions = make_cohort(nested_home, preset.cohort, cores)
    cohort = read_cohort(nested_home, preset.cohort, versions)
    tasks = _tasks(preset, preset.runs(), versions)
    threads = max(1, cores // workers)
    work = _Work(folder, nested_home, preset.cohort, versions, preset.label_fractions, preset.pools, threads)
    outcome = _run_all(work, [task for task in tasks if task.run.name in wanted], workers, deadline)
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


def _tasks(preset: Preset, runs: Sequence[Run], versions: Versions) -> list[Task]:
    """The task of each run."""
    names = frozenset(run.name for run in runs)
    tasks: dict[str, Task] = {}
    for run in runs:  # parents come first
        needs = {experiment: tasks[name] for experiment, name in parents(run, preset, names).items()}
        tasks[run.name] = make_task(run, needs, preset, versions)
    return list(tasks.values())


def _run_all(work: _Work, tasks: Sequence[Task], workers: int, deadline: float) -> Outcome:
    """Distribute the tasks, most important first, over worker processes until all are done or the time has ended."""
    outcome = Outcome(done=[task.run.name for task in tasks if is_done(work.folder, task)])
    waiting = [task for task in tasks if task.run.name not in outcome.done]
    total = len(tasks)
    workers = min(workers, len(waiting)) if time.monotonic() < deadline else 0
    print_progress(f"{total} runs, {len(outcome.done)} of them already done; {workers} processes")
    pool = [_start_worker(work) for _ in range(workers)]
    try:
        while True:
            for worker in pool:
                if worker.task is None and (task := _next(waiting, outcome, deadline)) is not None:
                    waiting.remove(task)
                    print_progress(f"{len(outcome.done):>3} of {total} done; running {task.run.name}")
                    worker.task, worker.since = task, time.monotonic()
                    with suppress(OSError):  # it has died: noticed when its answer is read
                        worker.connection.send(task)
            busy = [worker for worker in pool if worker.task is not None]
            if not busy:
                break
            for ready in wait([worker.connection for worker in busy]):
                worker = next(worker for worker in busy if worker.connection is ready)
                _collect(work, worker, outcome, pool)
    finally:
        for worker in pool:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()
    outcome.remaining = [task.run.name for task in waiting]
    if outcome.remaining:
        print_progress(f"the time has ended: {len(outcome.remaining)} runs left; the same command continues with them")
    return outcome


def _next(waiting: list[Task], outcome: Outcome, deadline: float) -> Task | None:
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


def _start_worker(work: _Work) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_worker, args=(work, theirs), daemon=True)
    with default_threads(work.threads):
        process.start()
    theirs.close()  # so that the death of the worker ends the stream
    return _Worker(process, ours)


@contextmanager
def default_threads(threads: int) -> Iterator[None]:
    """Set the number of threads of NumPy's linear algebra in processes that the block starts.

    It is read from the environment when the library is loaded.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _collect(work: _Work, worker: _Worker, outcome: Outcome, pool: list[_Worker]) -> None:
    """Receive a worker's answer; if the worker died, its task has failed and a new worker replaces it."""
    task = worker.task
    assert task is not None  # only busy workers are listened to
    name = task.run.name
    try:
        error, summary = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        error, summary = f"its process died with exit code {worker.process.exitcode}", ""
        pool[pool.index(worker)] = _start_worker(work)
    worker.task = None
    took = f"{time.monotonic() - worker.since:.0f} s"
    log = error_log(work.folder, name)
    if error is None:
        outcome.done.append(name)
        log.unlink(missing_ok=True)
        print_progress(f"done {name} in {took}: {summary}")
        return
    write_text(log, error + "\n")
    outcome.failed[name] = error.strip().splitlines()[-1]
    print_progress(f"FAILED {name} after {took}: {outcome.failed[name]} (more in {log})")


def _run_worker(work: _Work, connection: Connection) -> None:
    """The main loop of a worker process: execute tasks until the connection is closed."""
    torch.set_num_threads(work.threads)
    cohort = read_cohort(work.nested_home, work.plan, work.versions)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, _execute(work, task, cohort)))
        except Exception:
            connection.send((traceback.format_exc(), ""))


def _execute(work: _Work, task: Task, cohort: Cohort) -> str:
    """Train and evaluate one run; returns a summary in one line."""
    run = task.run
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
