"""A catch-up that dies by itself: `python -m tests.support.victim CHANGES DELAY_MS CLOCK_SHIFT_S`.

It kills its own process with SIGKILL some milliseconds after its CHANGES-th change to a file of the home, so that the
same numbers die at the same place; 0 lets it live and prints how many changes there were. The clock of its process can
be put forward or back.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Death:
    """An audit hook that counts changes below a folder and kills the process at the given one."""

    def __init__(self, root: str, changes: int, delay_s: float) -> None:
        self.root, self.left, self.delay_s, self.seen = root, changes, delay_s, 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        # SQLite and DuckDB change files without being seen; a connection is where they start to
        connects = event == "sqlite3.connect"
        if not (writes or connects or event in _CHANGES) or not str(arguments[0]).startswith(self.root):
            return
        self.seen += 1
        if self.seen == self.left:
            threading.Timer(self.delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()


def main() -> int:
    changes, delay_ms, clock_shift_s = (int(argument) for argument in sys.argv[1:4])
    sys.argv[1:] = []
    if clock_shift_s:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + clock_shift_s
        time.time_ns = lambda: now_ns() + clock_shift_s * 1_000_000_000
    from orchestration.catch_up import main as catch_up

    death = Death(os.environ["ACCELKD_HOME"], changes, delay_ms / 1000)
    sys.addaudithook(death)
    status = catch_up()
    print(f"changes: {death.seen}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
