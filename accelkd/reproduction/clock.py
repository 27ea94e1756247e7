"""A given time and what it is divided into."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_TRAINING_SHARE, _EVALUATION_SHARE = 0.87, 0.92  # of the time until these end; the rest is for the report


@dataclass(frozen=True)
class Clock:
    """Until when (`time.monotonic()`) is trained, evaluated, and written."""

    train_until: float
    evaluate_until: float
    finish_until: float

    @classmethod
    def start(cls, budget_min: float, began: float) -> Clock:
        """Of so many minutes from `began` on. Raises ValueError for a number that is none."""
        if not 0 < budget_min < math.inf:
            raise ValueError(f"the time must be more than 0 minutes, not {budget_min}")
        return cls(*(began + share * 60 * budget_min for share in (_TRAINING_SHARE, _EVALUATION_SHARE, 1.0)))

    @property
    def training_left_s(self) -> float:
        return self.train_until - time.monotonic()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds. Without effect outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"not finished after {seconds:.1f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
