"""How the failure of an asset or a check reads in the UI: it begins with the sentence that says what to do."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import dagster as dg

from accelkd.home.explained import is_explained

P = ParamSpec("P")
R = TypeVar("R")


class Failed(dg.Failure):
    """A failure whose text is all that a person needs; nothing is tried again, because nothing would be different."""

    def __init__(self, description: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(description, metadata=metadata, allow_retries=False)


Failed.__module__ = "builtins"  # Dagster puts the module of an exception before its text, except this one's


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Raise what accelkd or the operating system explains as `Failed`; anything else as it is, with its traceback."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except dg.Failure:
            raise
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            raise Failed(sentence, {"kind": type(error).__name__}) from error

    return wrapper


def _sentence(error: Exception) -> str | None:
    """What an exception says to a person; None where only its traceback does."""
    if is_explained(error):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename or error}: missing; put it back, or materialize the asset that makes it first"
    return str(error) if isinstance(error, OSError) and error.errno else None  # the disk is full, no permission
