"""Progress bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# The terminal at the start of the program: an orchestrator redirects stderr into its log while a step runs
_TERMINAL = os.fdopen(os.dup(2), "w") if os.isatty(2) else None


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` with a bar on the terminal; without a terminal, or without tqdm installed, just iterate."""
    if _TERMINAL is None:
        return iter(items)
    try:
        from tqdm import tqdm
    except ImportError:  # installed without extras
        return iter(items)
    return iter(tqdm(items, desc=label, total=total, file=_TERMINAL, leave=False, dynamic_ncols=True))
