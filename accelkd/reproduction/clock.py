"""A time budget and how it is divided."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_TRAINING_SHARE, _EVALUATION_SHARE = 0.87, 0.92  # of the budget, after which each ends; the rest is for the report


@dataclass(frozen=True)
class Clock:
    """When training, evaluation and the report must end, as times of `time.monotonic()`."""

    train_until: float
    evaluate_until: float
    finish_until: float

    @classmethod
    def start(cls, budget_min: float, began: float) -> Clock:
        """The clock of a budget in minutes that counts from `began` (`time.monotonic()`).

        Raises ValueError for a budget that is not positive or not finite.
        """
        if not 0 < budget_min < math.inf:
            raise ValueError(f"the time must be more than 0 minutes, not {budget_min}")
        return cls(*(began + share * 60 * budget_min for share in (_TRAINING_SHARE, _EVALUATION_SHARE, 1.0)))

    @property
    def training_left_s(self) -> float:
        """Seconds until training must end; negative afterwards."""
        return self.train_until - time.monotonic()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds. No effect outside the main thread, or on Windows."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"not finished after {seconds:.1f} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
