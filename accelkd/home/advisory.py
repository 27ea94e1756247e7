"""Locks between machines: advisory locks of sessions of PostgreSQL, which releases them when a session ends.

Each lock that is held has a connection of its own, so that no work in one can end the other. A session ends with its
process; of a machine that is gone, PostgreSQL learns within `_SILENCE_S` seconds by keepalives. The other way round, a
connection may be lost while its lock is held, as when PostgreSQL is started again, and someone else may have the lock
by then: `check_held` says so before anything is made final, and a block whose lock was lost raises at its end.

A pooler between here and PostgreSQL (pgbouncer and the like) gives a session to one client after the other, and with
it the session's locks. It is recognised by the number of the server process, which it cannot know, and refused.

PostgreSQL serves who waits in order: behind an exclusive lock that is waited for, new shared ones wait too. So an
exclusive lock of a name that processes also take shared, twice in one process, is tried (`busy`), not waited for.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    import psycopg

PATIENCE_S = 60.0  # for a server that is being started again, while no lock is held
_SILENCE_S = 30  # after which a connection that does not answer is lost, on either side
_CLIENT = {  # libpq's parameters
    "connect_timeout": 10,
    "keepalives_idle": _SILENCE_S // 3,
    "keepalives_interval": _SILENCE_S // 6,
    "keepalives_count": 4,
    "tcp_user_timeout": _SILENCE_S * 1000,
}
_SESSION: LiteralString = f"""
    SET tcp_keepalives_idle = {_SILENCE_S // 3}; SET tcp_keepalives_interval = {_SILENCE_S // 6};
    SET tcp_keepalives_count = 4; SET tcp_user_timeout = '{_SILENCE_S}s';
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0;
    SET application_name = 'accelkd lock'
"""
_REFUSED = re.compile("authentication failed|does not exist|no pg_hba.conf entry")  # and so the next time
_held: dict[psycopg.Connection, tuple[str, str]] = {}  # database and name of the locks that this process holds
_changing = threading.Lock()


class LockLostError(RuntimeError):
    """A lock ended before its block did: others may have had it meanwhile."""


@contextmanager
def advisory_lock(dsn: str, name: str, *, shared: bool = False, busy: str | None = None) -> Iterator[None]:
    """Hold a lock of the database until the block ends; `name` is unique in it.

    Waits for other holders (`shared` ones do not exclude each other); with `busy`, raises BlockingIOError with that
    text instead. Raises LockLostError at the end of a block during which the lock was lost, ConnectionError where
    PostgreSQL cannot be used, and ValueError for a DSN that is none or leads to a pooler.
    """
    connection = _acquired(dsn, name, shared=shared, busy=busy)
    try:
        with _changing:
            _held[connection] = (dsn, name)
        yield
        _ask(connection, name)
    finally:
        with _changing:
            del _held[connection]
        connection.close()  # which releases it


def check_held(dsn: str) -> None:
    """Raise LockLostError unless every lock of a database that this process has taken is still held."""
    with _changing:
        held = [(connection, name) for connection, (database, name) in _held.items() if database == dsn]
    for connection, name in held:
        try:
            _ask(connection, name)
        except LockLostError:
            if connection in _held:  # otherwise another thread has just released it
                raise


def _ask(connection: psycopg.Connection, name: str) -> None:
    """Raise LockLostError if a lock's session does not answer: it is held for as long as the session lives."""
    import psycopg

    # Keepalives are answered by the other machine's kernel, also where PostgreSQL itself hangs
    limit = threading.Timer(_SILENCE_S, _cut, [connection])
    limit.start()
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        raise LockLostError(f"the connection to PostgreSQL, and with it the lock {name}, was lost") from None
    finally:
        limit.cancel()


def _cut(connection: psycopg.Connection) -> None:
    """End a connection whatever another thread waits for in it."""
    with suppress(OSError, ValueError), socket.socket(fileno=os.dup(connection.fileno())) as end:  # it is closed
        end.shutdown(socket.SHUT_RDWR)


def _acquired(dsn: str, name: str, *, shared: bool, busy: str | None) -> psycopg.Connection:
    """A connection whose session holds the lock."""
    import psycopg

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    query: LiteralString = "SELECT pg_advisory_lock(%s)" if busy is None else "SELECT pg_try_advisory_lock(%s)"
    if shared:
        query = query.replace("_lock", "_lock_shared")
    while True:
        connection = _connected(dsn)
        try:
            granted = connection.execute(query, [key]).fetchone()
        except psycopg.OperationalError as error:
            if connection.broken:  # the server was ended while this waited: nothing was held
                continue
            connection.close()
            raise ConnectionError(f"PostgreSQL did not give the lock {name}: {error}") from None
        except BaseException:
            connection.close()
            raise
        if busy is not None and granted == (False,):
            connection.close()
            raise BlockingIOError(busy)
        return connection


def _connected(dsn: str) -> psycopg.Connection:
    """A session of the server. Waits for one that is being started again."""
    try:
        import psycopg
    except ImportError as error:
        raise ImportError(f"locks in PostgreSQL need the extra `cluster`: {error}") from None

    delay_s, deadline = 0.1, time.monotonic() + PATIENCE_S
    while True:
        try:
            connection = psycopg.connect(dsn, autocommit=True, **_CLIENT)  # type: ignore[arg-type]  # libpq's
            break
        except psycopg.ProgrammingError:  # its text repeats the DSN, with the password
            raise ValueError("ACCELKD_LOCKS is no address of PostgreSQL: postgresql://user@host/database") from None
        except psycopg.OperationalError as error:
            if time.monotonic() + delay_s > deadline or _REFUSED.search(str(error)):
                raise ConnectionError(f"PostgreSQL, which keeps the locks, cannot be reached: {error}") from None
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, 2)
    try:
        process = connection.execute("SELECT pg_backend_pid()").fetchone()
        if process != (connection.info.backend_pid,):
            raise ValueError("ACCELKD_LOCKS leads to a pooler (such as pgbouncer): locks need PostgreSQL itself")
        connection.execute(_SESSION)
    except BaseException:
        with suppress(psycopg.Error):
            connection.close()
        raise
    return connection
