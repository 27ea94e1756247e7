"""A call in a process of its own: what comes back, and what becomes of the process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from accelkd.home.files import DamagedFileError
from accelkd.home.isolated import end_pool, end_with_parent, run_in_kept_process, run_in_subprocess
from tests.support import REPOSITORY
from tests.support.processes import is_alive, wait_until, write_pid_and_sleep


def refuse(name: str) -> None:
    raise DamagedFileError(f"{name} is damaged")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_is_loaded_stays_in_the_other_process() -> None:
    program = (
        "import os, sys; from accelkd.home.isolated import run_in_subprocess\n"
        "from tests.support.processes import load_torch\n"
        "pid, loaded = run_in_subprocess(load_torch, threads=1)\n"
        "sys.exit(pid == os.getpid() or not loaded or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=300)


def test_an_error_is_raised_with_its_type_and_place() -> None:
    with pytest.raises(RuntimeError, match=r"^DamagedFileError: model\.safetensors is damaged") as caught:
        run_in_subprocess(refuse, "model.safetensors")
    assert "in refuse" in caught.value.__notes__[0]


def test_a_dead_process_is_reported() -> None:
    with pytest.raises(ChildProcessError, match="exit code -9"):
        run_in_subprocess(die)


def test_a_kept_process_serves_again_and_another_takes_its_place_when_it_dies() -> None:
    first = run_in_kept_process(os.getpid)
    assert first not in (os.getpid(), None)
    assert run_in_kept_process(os.getpid) == first
    with pytest.raises(DamagedFileError, match="model is damaged"):
        run_in_kept_process(refuse, "model")
    with pytest.raises(ChildProcessError, match="died"):
        run_in_kept_process(die)
    second = run_in_kept_process(os.getpid)
    assert second not in (first, os.getpid())
    os.kill(second, signal.SIGKILL)  # by somebody else: no fault of the next call
    assert run_in_kept_process(os.getpid) not in (second, os.getpid())


def test_the_process_dies_with_the_one_that_called(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    program = (
        "import sys, pathlib; from accelkd.home.isolated import run_in_subprocess\n"
        "from tests.support.processes import write_pid_and_sleep\n"
        "run_in_subprocess(write_pid_and_sleep, pathlib.Path(sys.argv[1]))"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, str(written)], cwd=REPOSITORY)
    wait_until(written.exists)
    child = int(written.read_text())
    assert is_alive(child)
    caller.kill()
    caller.wait()
    wait_until(lambda: not is_alive(child))


def test_a_pool_that_is_ended_leaves_no_process_at_work(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_with_parent)
    futures = [pool.submit(write_pid_and_sleep, tmp_path / name) for name in ("a", "b", "c")]
    files = [tmp_path / "a", tmp_path / "b"]
    wait_until(lambda: all(file.exists() for file in files))
    end_pool(pool)
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text(encoding="utf-8")), 0)
    assert not any(future.done() and not future.cancelled() and future.exception() is None for future in futures)
