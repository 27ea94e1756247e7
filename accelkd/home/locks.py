"""Locks between processes. They are released when their process exits, however it ends.

Locks of files are the operating system's: POSIX systems lock by `flock`, Windows by `LockFileEx` (package portalocker),
which also knows shared locks. Locks of a home (`home_lock`) are locks of files in it, or advisory locks of PostgreSQL
where the home was opened with `locks`, because it is used by several machines (accelkd.home.advisory). What one machine
alone can see, as scratch folders and the files of its cache, is locked by files in any case.

PostgreSQL can lose a lock that it has given. What a step makes final, it makes final after `check_locks`; a block whose
lock was lost raises at its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from accelkd.home.layout import Home
from accelkd.home.version import check_layout, check_usable

try:
    import fcntl

    _HAS_FLOCK = True
except ImportError:  # Windows
    _HAS_FLOCK = False

_HOME = ".home.lock"


@contextmanager
def file_lock(path: Path, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    """Hold the lock of a file, which is created if it is missing, until the block ends.

    Waits for other holders (`shared` ones do not exclude each other); with `busy`, raises BlockingIOError with that
    text instead. Raises OSError on a system without file locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), shared=shared, busy=busy):
        yield


@contextmanager
def folder_lock(path: Path, *, busy: str | None = None) -> Iterator[None]:
    """The same for a folder. Raises FileNotFoundError if it does not exist."""
    if _HAS_FLOCK:
        with _locked(os.open(path, os.O_RDONLY | os.O_DIRECTORY), busy=busy):
            yield
        return
    if not path.is_dir():
        raise FileNotFoundError(path)
    beside = path.with_name(f"{path.name}.lock")  # Windows opens no folders
    try:
        with file_lock(beside, busy=busy):
            yield
    finally:
        with suppress(OSError):  # another process holds it
            beside.unlink()


@contextmanager
def _locked(descriptor: int, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    try:
        try:
            _lock(descriptor, shared=shared, wait=busy is None)
        except BlockingIOError:
            raise BlockingIOError(busy) from None
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool, wait: bool) -> None:
    """Lock a descriptor. Raises BlockingIOError if it cannot be had at once and is not to be waited for."""
    if _HAS_FLOCK:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        return
    try:
        from portalocker import LockFlags
        from portalocker.exceptions import AlreadyLocked
        from portalocker.portalocker import Win32Locker
    except ImportError as error:
        raise OSError(f"this system locks no files: a home needs POSIX, or portalocker[win32] ({error})") from None
    flags = (LockFlags.SHARED if shared else LockFlags.EXCLUSIVE) | (LockFlags(0) if wait else LockFlags.NON_BLOCKING)
    try:
        Win32Locker().lock(descriptor, flags)
    except AlreadyLocked:
        raise BlockingIOError from None


def home_lock(home: Home, name: str, *, shared: bool = False, busy: str | None = None) -> AbstractContextManager[None]:
    """Hold a lock of a home until the block ends, on whatever machines it is used.

    `name` is that of its file below the home. Waits for other holders (`shared` ones do not exclude each other); with
    `busy`, raises BlockingIOError with that text instead. Raises as accelkd.home.advisory.advisory_lock where the home
    keeps its locks in PostgreSQL, and OSError on a system without file locks otherwise.
    """
    if home.locks is None:
        return file_lock(home.root / name, shared=shared, busy=busy)
    from accelkd.home.advisory import advisory_lock  # needs the extra `cluster`

    return advisory_lock(home.locks, f"{name} of {home.store or home.root}", shared=shared, busy=busy)


def check_locks(home: Home) -> None:
    """Raise LockLostError (accelkd.home.advisory) if a lock of the home that this process has taken was lost."""
    if home.locks is not None:
        from accelkd.home.advisory import check_held  # needs the extra `cluster`

        check_held(home.locks)


@contextmanager
def shared_lock(home: Home) -> Iterator[None]:
    """Use the home alongside other runs; waits while a withdrawal holds it exclusively.

    Raises UnusableHomeError for a home of a newer version, or one whose restore was interrupted.
    """
    with home_lock(home, _HOME, shared=True):
        check_usable(home)
        yield


@contextmanager
def exclusive_lock(home: Home, *, any_layout: bool = False) -> Iterator[None]:
    """Use the home exclusively. Raises BlockingIOError, with advice, while any run uses it.

    Raises UnusableHomeError for a home of a newer version, unless `any_layout`.
    """
    busy = f"runs are in progress in {home.root}: stop Dagster (or let them finish) and retry"
    with home_lock(home, _HOME, busy=busy):
        if not any_layout:
            check_layout(home)
        yield


def batches_lock(home: Home) -> AbstractContextManager[None]:
    """Held for a moment, while the files of a batch are put in place, and while superseded batches lose theirs."""
    return home_lock(home, ".batches.lock")
