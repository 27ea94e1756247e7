"""Processes that work on a home: catch-ups and Dagster's daemon, to be started, killed and waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from accelkd.home.layout import Home
from orchestration.instance import opened_instance
from tests.support import REPOSITORY

LIMIT_S = 1800  # by itself nothing takes three minutes; a shared machine is slower


def environment(home: Home) -> dict[str, str]:
    """The variables that tell a process which home and which Dagster instance it works on."""
    return {
        **os.environ,
        "ACCELKD_HOME": str(home.root),
        "DAGSTER_HOME": str(home.root / "dagster"),
        "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",  # a busy machine starts runs slowly
    }


def start_catch_up(home: Home, *, changes: int = 0, delay_ms: int = 0, clock_shift_s: int = 0) -> subprocess.Popen[str]:
    """Start a catch-up, to be killed at a change if one is given (tests.support.victim)."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.victim", str(changes), str(delay_ms), str(clock_shift_s)],
        cwd=REPOSITORY,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_catch_up(home: Home, *, changes: int = 0, delay_ms: int = 0, clock_shift_s: int = 0) -> tuple[int, str]:
    """Run a catch-up to its end, or its death: exit status (negative: the signal) and what it printed."""
    with start_catch_up(home, changes=changes, delay_ms=delay_ms, clock_shift_s=clock_shift_s) as process:
        try:
            log, _ = process.communicate(timeout=2 * LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            log, _ = process.communicate()
            return 124, log + "\nHANGS"
    return process.returncode, log


def settle(home: Home, attempts: int = 3) -> str:
    """Catch up until a catch-up succeeds; returns all that was printed. Raises RuntimeError if none does."""
    logs = []
    for _ in range(attempts):
        status, log = run_catch_up(home)
        logs.append(log)
        if status == 0:
            return "\n".join(logs)
    raise RuntimeError("the home does not recover:\n" + "\n".join(logs))


@contextmanager
def daemon(
    home: Home, location: Sequence[str] = ("--workspace", "workspace.yaml")
) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon with its code server and runs; all that remains of them is killed when the block ends."""
    with opened_instance(home.root / "dagster"):
        pass  # makes its tables, before daemon and test open them side by side
    with (home.root / "dagster" / "daemon.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", *location],
            cwd=REPOSITORY,
            env=environment(home),
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


def wait_until(happened: Callable[[], object], *, every_s: float = 0.05, limit_s: float = LIMIT_S) -> None:
    """Return as soon as it has happened. Raises TimeoutError if it does not within the limit."""
    deadline = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{happened} did not happen within {limit_s} s")
        time.sleep(every_s)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for is dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def write_pid_and_sleep(path: Path) -> None:
    """What a process does that is to be killed: the file, once it is there, holds its number."""
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    time.sleep(600)


def load_torch(threads: int) -> tuple[int, bool]:
    """Number of the process, and whether torch is loaded in it: it is."""
    import torch

    torch.set_num_threads(threads)
    return os.getpid(), "torch" in sys.modules
