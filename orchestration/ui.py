"""`make ui`: Dagster's webserver, daemon and code server on one home, until this process ends, however it ends.

Belongs here: starting these processes, once for a home, and leaving none of them behind. Does not belong here: what
Dagster loads (definitions), and how a server is deployed (docs/operations.md).

This process only waits. A keeper, its child, starts Dagster and holds the other end of a pipe: when the pipe closes,
because this process was stopped or killed, the keeper stops Dagster. Should the keeper be killed, this process stops
what it left. Both adopt orphaned descendants (on Linux), so that nothing escapes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from accelkd.home.layout import Home
from accelkd.home.locks import file_lock

HOST = "127.0.0.1"  # Dagster has no login: docs/security.md
PORT = 3000
GRACE_S = 10.0  # for Dagster to end by itself; its code server would wait for its heartbeat up to 45 s
_WORKSPACE = Path(__file__).resolve().parents[1] / "workspace.yaml"
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_CHILD_SUBREAPER, _PR_SET_PDEATHSIG = 36, 1  # of linux/prctl.h


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestration.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"on {HOST}, by default {PORT}")
    parser.add_argument("--end-with-parent", action="store_true", help="stop when the process that started this ends")
    arguments = parser.parse_args()
    if arguments.end_with_parent:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    home = Home.from_environment()
    try:
        with _only_ui(home, arguments.port):
            return _run(home, arguments.port)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def _run(home: Home, port: int) -> int:
    """Run Dagster on a home until it is stopped; returns the exit status.

    Raises OSError with advice where the port is taken, and FileNotFoundError where the home has no `dagster.yaml`.
    """
    dagster_home = Path(os.environ.get("DAGSTER_HOME") or home.root / "dagster").resolve()
    if not (dagster_home / "dagster.yaml").exists():
        raise FileNotFoundError(f"{dagster_home / 'dagster.yaml'} is missing: `make setup` writes it")
    _refuse_taken_port(port)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    print(f"Dagster on {home.root}: http://{HOST}:{port}, in half a minute. Ctrl-C stops it.", flush=True)
    stopped, stop = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(stop)
        os._exit(_keep(home, dagster_home, port, stopped))
    os.close(stopped)
    return _wait_for(keeper, stop)


def _wait_for(keeper: int, stop: int) -> int:
    """Wait until the keeper has ended, and kill what it left; a signal closes the pipe, which makes the keeper end."""
    opened = [stop]

    def close(_signal: int, _frame: FrameType | None) -> None:
        while opened:
            os.close(opened.pop())

    for number in _STOPPING:
        signal.signal(number, close)
    _, status = os.waitpid(keeper, 0)
    _kill_descendants()
    return os.waitstatus_to_exitcode(status)


def _keep(home: Home, dagster_home: Path, port: int, stopped: int) -> int:
    """Run Dagster until the pipe closes or Dagster ends; all that it started has ended when this returns."""
    os.setsid()  # Ctrl-C is for the waiting process alone
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in _STOPPING:  # what is ignored here, as in a script's background job, Dagster would ignore too
        signal.signal(number, signal.SIG_DFL)
    dagster = subprocess.Popen(
        [
            *(sys.executable, "-m", "dagster", "dev", "--workspace", str(_WORKSPACE)),
            *("--host", HOST, "--port", str(port)),
        ],
        env={**os.environ, "ACCELKD_HOME": str(home.root), "DAGSTER_HOME": str(dagster_home)},
    )
    while dagster.poll() is None and not select.select([stopped], [], [], 0.2)[0]:
        pass
    failed = dagster.poll()
    if failed is None:
        dagster.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            dagster.wait(GRACE_S)
    _kill_descendants()
    return 0 if failed is None else 1


@contextmanager
def _only_ui(home: Home, port: int) -> Iterator[None]:
    """Hold the home's lock of the UI, in whose file its process and port stand.

    Raises BlockingIOError, which names them, where another UI holds it.
    """
    path = home.root / ".ui.lock"
    try:
        running = json.loads(path.read_text(encoding="utf-8"))
        where = (
            f"process {running['process']} on http://{HOST}:{running['port']}; to stop it: kill {running['process']}"
        )
    except (FileNotFoundError, ValueError):
        where = "a process that has just started"
    with file_lock(path, busy=f"{home.root} has its UI already: {where}"):
        path.write_text(json.dumps({"process": os.getpid(), "port": port}), encoding="utf-8")
        yield


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just closed is free
        try:
            listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "no such port"
            raise OSError(
                f"port {port} of {HOST} cannot be used ({reason}): choose another, make ui PORT=..."
            ) from None


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where it is Linux that knows it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill all that descends from this process, orphans that it has adopted included, and wait for their end."""
    deadline = time.monotonic() + GRACE_S
    while (descendants := _descendants()) and time.monotonic() < deadline:
        for process in descendants:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):  # there are no more
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def _descendants() -> set[int]:
    """Process ids below this process; nothing on systems without /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    below: set[int] = set()
    generation = {os.getpid()}
    while generation := {process for process, parent in parents.items() if parent in generation}:
        below |= generation
    return below


if __name__ == "__main__":
    sys.exit(main())
