"""What marks a catch-up: the lock that it holds while it runs, and the tag of the runs that are part of it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from accelkd.home.layout import Home
from accelkd.home.locks import home_lock

CATCH_UP = "accelkd/catch_up"  # tag of its runs: the run that it is part of, or `headless`


def catch_up_lock(home: Home, busy: str | None = None) -> AbstractContextManager[None]:
    """Held while a catch-up runs. With `busy`, raises BlockingIOError with that text instead of waiting."""
    return home_lock(home, ".catch_up.lock", busy=busy)
