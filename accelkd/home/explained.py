"""Which exceptions explain themselves: those that accelkd raises on purpose, with a text that says what to do."""

from __future__ import annotations

import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parents[1])
_EXPLAINED = "accelkd_explained"


def is_explained(error: BaseException) -> bool:
    """Whether accelkd raised an exception on purpose: the last line that was executed is one of its `raise`.

    What a library raises, or Python itself on a mistake in accelkd, needs its traceback.
    """
    if hasattr(error, _EXPLAINED):
        return bool(getattr(error, _EXPLAINED))
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE) and (frames[-1].line or "").startswith("raise ")


def mark_explained(error: BaseException, explained: bool) -> None:
    """Say it of an exception that is raised again, far from where it was raised first."""
    setattr(error, _EXPLAINED, explained)
