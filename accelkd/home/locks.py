"""Locks between processes. The operating system releases them when their process exits, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelkd.home.layout import Home


@contextmanager
def file_lock(path: Path, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    """Hold the lock of a file, which is created if it is missing, until the block ends.

    Waits for other holders (`shared` ones do not exclude each other); with `busy`, raises BlockingIOError with that
    text instead.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), shared=shared, busy=busy):
        yield


@contextmanager
def folder_lock(path: Path, *, busy: str | None = None) -> Iterator[None]:
    """The same for a folder. Raises FileNotFoundError if it does not exist."""
    with _locked(os.open(path, os.O_RDONLY | os.O_DIRECTORY), busy=busy):
        yield


@contextmanager
def _locked(descriptor: int, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise BlockingIOError(busy) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared_lock(home: Home) -> Iterator[None]:
    """Use the home alongside other runs; waits while a withdrawal holds it exclusively."""
    with file_lock(_lock_file(home), shared=True):
        yield


@contextmanager
def exclusive_lock(home: Home) -> Iterator[None]:
    """Use the home exclusively. Raises BlockingIOError, with advice, while any run uses it."""
    busy = f"runs are in progress in {home.root}: stop Dagster (or let them finish) and retry"
    with file_lock(_lock_file(home), busy=busy):
        yield


@contextmanager
def batches_lock(home: Home) -> Iterator[None]:
    """Held for a moment, while the files of a batch are put in place, and while superseded batches lose theirs."""
    with file_lock(home.root / ".batches.lock"):
        yield


def _lock_file(home: Home) -> Path:
    return home.root / ".home.lock"
