"""The progress bar reaches the person who watches, and nobody else."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios

PROGRAM = """
import os
from accelkd.home.progress import progress
log = os.open(os.devnull, os.O_WRONLY)
os.dup2(log, 2)  # what an orchestrator does while a step runs
assert list(progress(range(3), "counting to three")) == [0, 1, 2]
"""


def test_bar_shows_on_the_terminal_although_stderr_is_redirected() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=theirs, check=True, timeout=60)
    assert select.select([ours], [], [], 5)[0], "nothing reached the terminal"
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "counting to three" in shown


def test_nothing_shows_where_there_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    assert done.stderr == b""
