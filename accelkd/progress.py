"""A progress bar where a person watches, silence where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` with a bar on stderr; without tqdm installed, or without a terminal, just iterate."""
    try:
        from tqdm import tqdm
    except ImportError:  # a bare GPU machine
        return iter(items)
    return iter(tqdm(items, desc=what, total=total, disable=None, file=sys.stderr, leave=True, dynamic_ncols=True))
