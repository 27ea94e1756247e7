"""The process of a run on a Ray cluster: Dagster's own, which is ended once Dagster has given the run up.

`python -m orchestration.ray_run api execute_run ...` is `python -m dagster api execute_run ...`. When a node's raylet
dies, Ray reports the job as failed, but its process lives on, and would go on working beside the one that replaces it.
Dagster's storage alone says which of them counts.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

from orchestration.dagster_internals import instance_and_run_of_command
from orchestration.fence import was_given_up

POLL_S = 1.0
GRACE_S = 5.0  # in which a run that failed by itself ends in order


def main() -> None:
    threading.Thread(target=_end_when_given_up, args=[sys.argv[-1]], daemon=True).start()
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


def _end_when_given_up(command: str) -> None:
    """End this process and all that it has started once its run counts as failed or canceled."""
    while not _given_up(command):
        time.sleep(POLL_S)
    time.sleep(GRACE_S)
    print("this run was given up: its process ends", file=sys.stderr, flush=True)
    os.killpg(0, signal.SIGKILL)


def _given_up(command: str) -> bool:
    """Wait until the run is given up; False if the database does not answer: meanwhile nobody can give it up."""
    try:
        with instance_and_run_of_command(command) as (instance, run_id):
            while not was_given_up(instance, run_id):
                time.sleep(POLL_S)
            return True
    except Exception:
        return False


if __name__ == "__main__":
    main()
