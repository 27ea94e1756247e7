"""Dagster's own processes are killed while a run is under way; the daemon brings everything back by itself.

A second delivery lands in a home that is settled; while its run is under way something dies, and the daemon alone has
to bring the home to where an undisturbed one is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.layout import Home
from orchestration.catch_up_lock import CATCH_UP
from tests.support import REPOSITORY
from tests.support.comparison import contents, differences
from tests.support.homes import copy_home, new_home, simulate
from tests.support.pipeline import opened_instance
from tests.support.processes import LIMIT_S, daemon, environment, settle, wait_until

pytestmark = pytest.mark.slow

SECOND = "sim-b"  # the delivery
BATCH_ASSETS = (
    *("raw_recordings", "segments", "segment_tables"),
    *("ppg_teacher_embedding_files", "accel_student_embedding_files"),
    *("ppg_teacher_embeddings", "accel_student_embeddings"),
)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = new_home(tmp_path_factory.mktemp("settled") / "home")
    simulate(home, "sim-a")
    settle(home)
    return home


@pytest.fixture(scope="module")
def expected(settled: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Contents of a home in which nothing happened to the second delivery."""
    return caught_up(with_second_delivery(settled, tmp_path_factory.mktemp("undisturbed") / "home"))


def with_second_delivery(settled: Home, root: Path) -> Home:
    """A copy of a settled home in which a second delivery has landed."""
    home = copy_home(settled, root)
    simulate(home, SECOND, first_participant=12)
    return home


def caught_up(home: Home) -> dict[str, str]:
    """Contents of a home after a catch-up that trains nothing."""
    command = [sys.executable, "-m", "orchestration.catch_up", "--keep-encoders"]
    subprocess.run(command, cwd=REPOSITORY, env=environment(home), check=True, capture_output=True)
    return contents(home)


# Each kills something once an asset of the delivery is there, and leaves a daemon running


@contextmanager
def run_killed(home: Home, instance: dg.DagsterInstance, after: str) -> Iterator[None]:
    """The process of the delivery's run; the daemon starts it again."""
    with daemon(home):
        os.kill(process_of_run(instance, after), signal.SIGKILL)
        yield


@contextmanager
def daemon_killed(home: Home, instance: dg.DagsterInstance, after: str) -> Iterator[None]:
    """The daemon, and nothing else, while the run goes on; then there is another one."""
    with ExitStack() as stack:
        first = stack.enter_context(daemon(home))
        process_of_run(instance, after)
        first.kill()
        first.wait()
        stack.enter_context(daemon(home))
        yield


@contextmanager
def all_killed(home: Home, instance: dg.DagsterInstance, after: str) -> Iterator[None]:
    """Daemon, code server and run at once, as when the power fails; then there is another daemon."""
    with daemon(home):
        process_of_run(instance, after)
    with daemon(home):
        yield


@pytest.mark.parametrize(
    ("killed", "after", "failures"),
    [
        (run_killed, "segments", 1),
        (daemon_killed, "raw_recordings", 0),  # the run does not need it
        (all_killed, "segment_tables", 1),
    ],
)
def test_what_is_killed_comes_back(
    settled: Home,
    expected: dict[str, str],
    tmp_path: Path,
    killed: Callable[[Home, dg.DagsterInstance, str], AbstractContextManager[None]],
    after: str,
    failures: int,
) -> None:
    home = with_second_delivery(settled, tmp_path / "home")
    with opened_instance(home) as instance:
        with killed(home, instance, after), suppress(TimeoutError):  # the next line says what differs
            wait_until(lambda: differences(expected, contents(home)) == [], every_s=5)
        assert differences(expected, contents(home)) == []
        statuses = [run.status for run in instance.get_runs(dg.RunsFilter(job_name="catch_up"))]
        assert statuses.count(dg.DagsterRunStatus.FAILURE) == failures


def test_two_runs_for_one_batch_make_it_once(settled: Home, expected: dict[str, str], tmp_path: Path) -> None:
    home = with_second_delivery(settled, tmp_path / "home")
    with opened_instance(home) as instance:
        instance.add_dynamic_partitions("arrival_batch", [SECOND])
    command = ["dagster", "asset", "materialize", "--select", ",".join(BATCH_ASSETS), "--partition", SECOND]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command, "-m", "orchestration.definitions"],
            cwd=REPOSITORY,
            env=environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [process.wait(LIMIT_S) for process in processes] == [0, 0]
    assert differences(expected, caught_up(home)) == []


def process_of_run(instance: dg.DagsterInstance, after: str) -> int:
    """The process of the catch-up that works on the delivery, as soon as its asset `after` is there."""
    made = dg.AssetRecordsFilter(dg.AssetKey(after), asset_partitions=[SECOND])
    wait_until(lambda: instance.fetch_materializations(made, limit=1).records, every_s=0.2)
    run = instance.get_run_by_id(instance.fetch_materializations(made, limit=1).records[0].run_id)
    assert run is not None
    events = instance.all_logs(run.tags[CATCH_UP], of_type=dg.DagsterEventType.ENGINE_EVENT)
    (pid,) = re.findall(r"Started process for run \(pid: (\d+)\)", "\n".join(record.message for record in events))
    return int(pid)
