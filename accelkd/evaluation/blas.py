"""Linear algebra of small matrices, many times: threads that wait for each other cost far more than they save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """NumPy's and SciPy's linear algebra in one thread, inside the block or the function that this decorates."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
