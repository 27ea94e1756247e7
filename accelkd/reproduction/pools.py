"""Where tasks are executed: in worker processes of this machine, or as tasks of a Ray cluster.

Both take tasks one by one and tell what came of each. Belongs here: processes, and what becomes of a task whose process
dies. Does not belong here: which task is next (run), and what a task does.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, Protocol

import torch

from accelkd.home.cluster import connected_to_cluster
from accelkd.reproduction.records import Task

Place = Literal["processes", "ray"]
Execute = Callable[[Task], str]  # returns a summary in one line


@dataclass(frozen=True)
class Finished:
    """What came of a task."""

    task: Task
    summary: str = ""
    error: str | None = None  # with its traceback; None if it succeeded


class Pool(Protocol):
    """Executes as many tasks at once as its size says."""

    size: int

    def start(self, task: Task) -> None:
        """Start one more task."""

    def finished(self) -> list[Finished]:
        """Wait until at least one of the tasks has ended."""


@contextmanager
def process_pool(execute: Execute, size: int, threads: int) -> Iterator[Pool]:
    """Worker processes of this machine, each with so many threads. A task whose process dies has failed."""
    pool = _Processes(partial(_serve, execute, threads), size, threads)
    try:
        pool.workers = [pool.new_worker() for _ in range(size)]
        yield pool
    finally:
        for worker in pool.workers:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()


@contextmanager
def ray_pool(execute: Execute, size: int | None) -> Iterator[Pool]:
    """Tasks of a Ray cluster, each with a GPU where there are any, else a core; by default as many as it has of them.

    A task whose process or machine dies is executed again elsewhere, up to three times.
    """
    import ray

    with connected_to_cluster() as has_gpus:
        kind = "GPU" if has_gpus else "CPU"
        remote = ray.remote(_attempt).options(num_cpus=1, num_gpus=int(has_gpus), max_retries=3)
        yield _RayTasks(partial(remote.remote, execute), size or int(ray.cluster_resources()[kind]))


def _attempt(execute: Execute, task: Task) -> Finished:
    try:
        return Finished(task, execute(task))
    except Exception:
        return Finished(task, error=traceback.format_exc())


@dataclass
class _RayTasks:
    submit: Callable[[Task], Any]
    size: int
    references: dict[Any, Task] = field(default_factory=dict)

    def start(self, task: Task) -> None:
        self.references[self.submit(task)] = task

    def finished(self) -> list[Finished]:
        import ray

        [ready], _ = ray.wait(list(self.references))
        task = self.references.pop(ready)
        try:
            return [ray.get(ready)]
        except ray.exceptions.RayError as error:  # it has died too often
            return [Finished(task, error=str(error))]


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None


@dataclass
class _Processes:
    serve: Callable[[Connection], None]
    size: int
    threads: int
    workers: list[_Worker] = field(default_factory=list)

    def new_worker(self) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self.serve, args=(theirs,), daemon=True)
        with default_threads(self.threads):
            process.start()
        theirs.close()  # so that the death of the worker ends the stream
        return _Worker(process, ours)

    def start(self, task: Task) -> None:
        worker = next(worker for worker in self.workers if worker.task is None)
        worker.task = task
        with suppress(OSError):  # it has died: noticed when its answer is read
            worker.connection.send(task)

    def finished(self) -> list[Finished]:
        busy = {worker.connection: worker for worker in self.workers if worker.task is not None}
        return [self._answer(busy[connection]) for connection in wait(list(busy)) if isinstance(connection, Connection)]

    def _answer(self, worker: _Worker) -> Finished:
        """Receive a worker's answer; if the worker died, its task has failed and a new worker replaces it."""
        task = worker.task
        assert task is not None  # only busy workers are listened to
        worker.task = None
        try:
            answer: Finished = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            self.workers[self.workers.index(worker)] = self.new_worker()
            return Finished(task, error=f"its process died with exit code {worker.process.exitcode}")
        return answer


def _serve(execute: Execute, threads: int, connection: Connection) -> None:
    """The main loop of a worker process: execute tasks until the connection is closed."""
    torch.set_num_threads(threads)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(execute, task))


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
