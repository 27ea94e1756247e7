"""Avoid oversubscription: many small linear-algebra calls lose far more time waiting for threads than they save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's and SciPy's linear algebra in one thread, in a block or a decorated function."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
