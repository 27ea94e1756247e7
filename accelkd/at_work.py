"""Who works on a home: any number of runs together, or a withdrawal alone."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from accelkd.lake import Lake


@contextmanager
def at_work(lake: Lake) -> Iterator[None]:
    """Work on the home beside others; waits while somebody has it alone. The kernel ends it when the process dies."""
    with _lock_file(lake) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(lake: Lake) -> Iterator[None]:
    """Have the home alone. Raises BlockingIOError that says what to do while anybody is at work on it."""
    with _lock_file(lake) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"runs are in progress in {lake.root}: stop Dagster (or let them end) and ask again"
            ) from None
        yield


def _lock_file(lake: Lake) -> IO[str]:
    lake.root.mkdir(parents=True, exist_ok=True)
    return (lake.root / ".at_work.lock").open("w")
