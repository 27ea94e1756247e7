"""`make ui` as processes: one for each home, on the port asked for, and nothing left behind however it ends."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from accelkd.home.layout import Home
from tests.support import REPOSITORY
from tests.support.homes import new_home
from tests.support.processes import environment, is_alive, wait_until
from tests.support.ui import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PROCESSES = 5  # that are there before anything is stopped: the two of ours, dagster dev, and two of what it starts


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = new_home(tmp_path / "home")
    yield home
    for process in processes(home):  # of a test that failed
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@contextmanager
def ui(home: Home, port: int) -> Iterator[subprocess.Popen[str]]:
    """The command that `make ui` runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "orchestration.ui", "--port", str(port)],
        cwd=REPOSITORY,
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def processes(home: Home) -> set[int]:
    """All that run on the home, by the variable that each inherits."""
    variable = f"DAGSTER_HOME={home.root / 'dagster'}".encode()
    running = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is the kernel's
            if variable in environ.read_bytes().split(b"\0") and is_alive(int(environ.parent.name)):
                running.add(int(environ.parent.name))
    return running


def refusal(home: Home, port: int) -> str:
    """What is printed where it does not start."""
    with ui(home, port) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    return errors.strip()


def test_a_home_has_one_ui_which_a_signal_stops(home: Home) -> None:
    port = free_port()
    with ui(home, port) as first:
        wait_until(lambda: len(processes(home)) >= PROCESSES)
        assert refusal(home, free_port()) == (
            f"{home.root} has its UI already: process {first.pid} on http://127.0.0.1:{port}; "
            f"to stop it: kill {first.pid}"
        )
        first.terminate()
        assert first.wait(timeout=60) == 0
    assert not processes(home)


def test_nothing_is_left_behind_when_it_is_killed(home: Home) -> None:
    with ui(home, free_port()) as process:
        wait_until(lambda: len(processes(home)) >= PROCESSES)
        process.kill()
        wait_until(lambda: not processes(home), limit_s=60)


def test_nothing_is_left_behind_of_a_killed_keeper(home: Home) -> None:
    with ui(home, free_port()) as process:
        wait_until(lambda: len(processes(home)) >= PROCESSES)
        (keeper,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(keeper, signal.SIGKILL)
        process.wait(timeout=60)
        assert process.returncode != 0
    assert not processes(home)


def test_signals_that_a_script_ignores_stop_it_too(home: Home) -> None:
    """A shell without job control starts what is in the background with SIGINT ignored."""
    command = f"trap '' INT; exec '{sys.executable}' -m orchestration.ui --port {free_port()}"
    with subprocess.Popen(["sh", "-c", command], cwd=REPOSITORY, env=environment(home)) as process:
        wait_until(lambda: len(processes(home)) >= PROCESSES)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert not processes(home)


def test_it_ends_with_the_make_that_started_it(home: Home) -> None:
    command = [sys.executable, "-m", "orchestration.ui", "--port", str(free_port()), "--end-with-parent"]
    program = f"import subprocess; subprocess.run({command!r})"
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, env=environment(home)) as parent:
        wait_until(lambda: len(processes(home)) > PROCESSES)
        parent.kill()
        wait_until(lambda: not processes(home), limit_s=60)


def test_a_port_that_is_taken_is_named(home: Home) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        errors = refusal(home, port)
    reason = os.strerror(errno.EADDRINUSE).lower()
    assert errors == f"port {port} of 127.0.0.1 cannot be used ({reason}): choose another, make ui PORT=..."


def test_what_is_no_port_is_refused(home: Home) -> None:
    assert refusal(home, 70_000).startswith("port 70000 of 127.0.0.1 cannot be used")


def test_a_home_without_an_instance_is_refused(home: Home) -> None:
    (home.root / "dagster" / "dagster.yaml").unlink()
    assert refusal(home, free_port()).endswith("dagster.yaml is missing: `make setup` writes it")
