"""Dagster's daemon on a home, without a webserver: how its processes are killed, and what comes of it.

A second delivery lands in a home that is settled; while its run is under way something dies, and the daemon alone has
to bring the home to where an undisturbed one is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dagster as dg

from accelkd.home.layout import Home
from tests.reliability.homes import REPOSITORY, contents, copy_home, differences, environment, land

LIMIT_S = 1800  # by itself it takes two minutes; a shared machine is slower
BATCH_ASSETS = ("raw_recordings", "segments", "segment_tables", "ppg_teacher_embeddings", "accel_student_embeddings")


def land_second(settled: Home, root: Path) -> tuple[Home, str]:
    """A copy of a settled home in which a second delivery has landed, and the delivery's name."""
    home = copy_home(settled, root)
    return home, land(home, 1)


def undisturbed(settled: Home, root: Path) -> dict[str, str]:
    """Contents of a home in which nothing happened to the second delivery."""
    home, _ = land_second(settled, root)
    return caught_up(home)


def caught_up(home: Home) -> dict[str, str]:
    """Contents of a home after a catch-up that trains nothing."""
    command = [sys.executable, "-m", "orchestration.catch_up", "--keep-encoders"]
    subprocess.run(command, cwd=REPOSITORY, env=environment(home), check=True, capture_output=True)
    return contents(home)


@contextmanager
def daemon(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon with its code server and runs; all that is left of them is killed when the block ends."""
    with (home.root / "dagster" / "daemon.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "--workspace", "workspace.yaml"],
            cwd=REPOSITORY,
            env={**environment(home), "DAGSTER_GRPC_TIMEOUT_SECONDS": "300"},
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def kill_run(home: Home, batch_id: str, after: str, expected: dict[str, str]) -> list[str]:
    """Kill the process of the batch's run once an asset of the batch is there; the daemon starts it again.

    Returns what differs in the end, as do the others.
    """
    with opened(home) as instance, daemon(home):
        os.kill(process_of(instance, batch_id, after), signal.SIGKILL)
        return differences_in_the_end(home, expected)


def kill_daemon(home: Home, batch_id: str, after: str, expected: dict[str, str]) -> list[str]:
    """Kill the daemon, and nothing else, while the run is at work; then start another one."""
    with opened(home) as instance, ExitStack() as stack:
        first = stack.enter_context(daemon(home))
        process_of(instance, batch_id, after)
        first.kill()
        first.wait()
        stack.enter_context(daemon(home))
        return differences_in_the_end(home, expected)


def kill_all(home: Home, batch_id: str, after: str, expected: dict[str, str]) -> list[str]:
    """Kill daemon, code server and run at once, as when the power fails; then start another daemon."""
    with opened(home) as instance, daemon(home):
        process_of(instance, batch_id, after)
    with daemon(home):
        return differences_in_the_end(home, expected)


def run_twice(home: Home, batch_id: str) -> list[int]:
    """Two processes that make all assets of the batch at once; their exit statuses."""
    with opened(home) as instance:
        instance.add_dynamic_partitions("arrival_batch", [batch_id])
    command = ["dagster", "asset", "materialize", "--select", ",".join(BATCH_ASSETS), "--partition", batch_id]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", *command, "-m", "orchestration.definitions"],
            cwd=REPOSITORY,
            env=environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    return [process.wait(LIMIT_S) for process in both]


def differences_in_the_end(home: Home, expected: dict[str, str]) -> list[str]:
    """Wait until the home is as expected; what differs if it never is."""
    deadline = time.monotonic() + LIMIT_S
    while (found := differences(expected, contents(home))) and time.monotonic() < deadline:
        time.sleep(5)
    return found


@contextmanager
def opened(home: Home) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home.root / "dagster")) as instance:
        yield instance


def statuses(instance: dg.DagsterInstance, batch_id: str) -> list[str]:
    """Of the runs of a batch, the latest first."""
    return [run.status.value for run in runs(instance, batch_id)]


def runs(instance: dg.DagsterInstance, batch_id: str) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(job_name="per_batch", tags={"dagster/partition": batch_id})))


def process_of(instance: dg.DagsterInstance, batch_id: str, after: str) -> int:
    """The process of a batch's run, as soon as the batch's asset `after` is there."""
    until(lambda: batch_id in instance.get_materialized_partitions(dg.AssetKey(after)))
    (run,) = runs(instance, batch_id)
    (found,) = re.findall(
        r"Started process for run \(pid: (\d+)\)",
        "\n".join(record.message for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)),
    )
    return int(found)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.2)
