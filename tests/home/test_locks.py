"""Locks of a home: by files, and in a real PostgreSQL, with processes that are killed and a server that is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from accelkd.home import advisory
from accelkd.home.advisory import LockLostError
from accelkd.home.layout import Home
from accelkd.home.locks import batches_lock, check_locks, exclusive_lock, home_lock, shared_lock
from tests.support import REPOSITORY
from tests.support.services import HOST, Postgres

# Takes the lock of its arguments, says so, and holds it until its standard input closes
_HOLDER = """
import sys
from pathlib import Path
from accelkd.home.layout import Home
from accelkd.home.locks import home_lock
root, locks, name, shared = sys.argv[1:]
with home_lock(Home(Path(root), locks=locks or None), name, shared=shared == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["files", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    if request.param == "files":
        return Home(tmp_path)
    return Home(tmp_path, locks=request.getfixturevalue("postgres").dsn)


@pytest.fixture
def cluster_home(postgres: Postgres, tmp_path: Path) -> Home:
    return Home(tmp_path, locks=postgres.dsn)


@contextmanager
def holder(home: Home, name: str, *, shared: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    arguments = [str(home.root), home.locks or "", name, "shared" if shared else "exclusive"]
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def is_free(home: Home, name: str, *, shared: bool = False) -> bool:
    try:
        with home_lock(home, name, shared=shared, busy="held"):
            return True
    except BlockingIOError:
        return False


def test_a_lock_excludes_other_processes_until_it_is_released(home: Home) -> None:
    with holder(home, ".a.lock") as process:
        assert not is_free(home, ".a.lock")
        assert not is_free(home, ".a.lock", shared=True)
        assert is_free(home, ".b.lock")
        process.communicate("")
        assert is_free(home, ".a.lock")


def test_shared_locks_exclude_exclusive_ones_alone(home: Home) -> None:
    with holder(home, ".a.lock", shared=True):
        assert is_free(home, ".a.lock", shared=True)
        assert not is_free(home, ".a.lock")


def test_a_lock_is_waited_for(home: Home) -> None:
    taken: list[float] = []

    def wait() -> None:
        with home_lock(home, ".a.lock"):
            taken.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    with home_lock(home, ".a.lock"):
        waiting.start()
        time.sleep(0.3)
        assert not taken
        released = time.monotonic()
    waiting.join(60)
    assert taken[0] >= released


def test_a_killed_process_releases_its_locks(home: Home) -> None:
    with holder(home, ".a.lock") as process:
        assert not is_free(home, ".a.lock")
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 30
        while not is_free(home, ".a.lock"):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_locks_of_a_home_are_separate_and_say_who_uses_it(home: Home) -> None:
    busy = pytest.raises(BlockingIOError, match="runs are in progress")
    with shared_lock(home), shared_lock(home), batches_lock(home), busy, exclusive_lock(home):
        pass
    with exclusive_lock(home), batches_lock(home):
        pass


def test_homes_have_locks_of_their_own(cluster_home: Home, tmp_path: Path) -> None:
    locks = cluster_home.locks
    first, second = (Home(tmp_path / node, store="s3://bucket/home", locks=locks) for node in ("node1", "node2"))
    with home_lock(first, ".a.lock"):
        assert not is_free(second, ".a.lock")
        assert is_free(Home(tmp_path / "node1", store="s3://bucket/other", locks=locks), ".a.lock")
        assert is_free(cluster_home, ".a.lock")


def test_a_lock_that_is_lost_is_noticed(cluster_home: Home, postgres: Postgres) -> None:
    def lose() -> None:
        with home_lock(cluster_home, ".a.lock"):
            check_locks(cluster_home)
            with psycopg.connect(postgres.dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accelkd lock'"
                )
            with pytest.raises(LockLostError):
                check_locks(cluster_home)

    with pytest.raises(LockLostError, match=r"the lock \.a\.lock of .* was lost"):
        lose()
    check_locks(cluster_home)
    assert is_free(cluster_home, ".a.lock")


def test_a_block_that_fails_says_why_and_not_that_its_lock_was_lost(cluster_home: Home, postgres: Postgres) -> None:
    def fail() -> None:
        with home_lock(cluster_home, ".a.lock"):
            postgres.kill()
            postgres.start()
            raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        fail()


def test_a_server_that_is_started_again_is_waited_for_and_has_released_all(
    cluster_home: Home, postgres: Postgres
) -> None:
    with holder(cluster_home, ".a.lock") as process, ExitStack() as waiting:
        taken = threading.Event()
        leave = threading.Event()
        lost: list[BaseException] = []

        def wait() -> None:
            try:
                with home_lock(cluster_home, ".a.lock"):
                    taken.set()
                    leave.wait(60)
            except LockLostError as error:
                lost.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.callback(thread.join)
        waiting.callback(leave.set)
        time.sleep(0.3)
        assert not taken.is_set()
        postgres.kill()
        time.sleep(0.3)
        postgres.start()
        assert taken.wait(60), "whoever waits asks the new server"
        check_locks(cluster_home)
        process.communicate("")
        assert process.returncode == 1, "whoever held it learns that it was lost"
    assert not lost


def test_a_server_that_stays_away_is_an_error(cluster_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelkd.home.advisory.PATIENCE_S", 0.3)
    away = Home(cluster_home.root, locks=f"postgresql://user:secret@{HOST}:1/x")
    with pytest.raises(ConnectionError, match="cannot be reached") as error, batches_lock(away):
        pass
    assert "secret" not in str(error.value)


def test_a_wrong_password_is_refused_at_once(cluster_home: Home, postgres: Postgres) -> None:
    start = time.monotonic()
    wrong = Home(cluster_home.root, locks=f"postgresql://accelkd:secret@{HOST}:{postgres.port}/postgres")
    with pytest.raises(ConnectionError, match="authentication failed") as error, batches_lock(wrong):
        pass
    assert "secret" not in str(error.value)
    assert time.monotonic() - start < 10


def test_what_is_no_address_is_refused_without_its_password(tmp_path: Path) -> None:
    home = Home(tmp_path, locks="postgresql+psycopg2://user:secret@host/x")
    with pytest.raises(ValueError, match="is no address of PostgreSQL") as error, batches_lock(home):
        pass
    assert "secret" not in str(error.value)


def test_postgresql_asks_whether_a_machine_that_holds_a_lock_is_there(cluster_home: Home) -> None:
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    with home_lock(cluster_home, ".a.lock"):
        (session,) = advisory._held  # no other session sees its settings
        settings = [session.execute(f"SHOW {name}").fetchone() for name in names]
    assert settings == [("10",), ("5",), ("4",), ("30000",)]


def test_a_lock_whose_server_hangs_counts_as_lost(
    cluster_home: Home, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advisory, "_SILENCE_S", 0.5)
    with suppress(LockLostError), home_lock(cluster_home, ".a.lock"):
        with psycopg.connect(postgres.dsn) as connection:
            (process,) = connection.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory'").fetchall()
        os.kill(process[0], signal.SIGSTOP)
        try:
            with pytest.raises(LockLostError):
                check_locks(cluster_home)
        finally:
            os.kill(process[0], signal.SIGCONT)


def test_a_pooler_is_refused(cluster_home: Home, postgres: Postgres) -> None:
    """As pgbouncer does, the server between says a number of its own instead of that of PostgreSQL's process."""

    def forward(source: socket.socket, target: socket.socket) -> None:
        while content := source.recv(65536):
            start = content.find(b"K\0\0\0\x0c")  # the message BackendKeyData
            if source is server and start >= 0:
                content = content[: start + 5] + b"\0\0\0\x01" + content[start + 9 :]
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)

    with socket.create_server((HOST, 0)) as listener, socket.create_connection((HOST, postgres.port)) as server:
        between = Home(
            cluster_home.root, locks=postgres.dsn.replace(str(postgres.port), str(listener.getsockname()[1]))
        )
        with ThreadPoolExecutor(3) as pool:

            def use() -> None:
                with batches_lock(between):
                    pass

            using = pool.submit(use)
            client, _ = listener.accept()
            with client:
                forwarding = [pool.submit(forward, client, server), pool.submit(forward, server, client)]
                with pytest.raises(ValueError, match="pooler"):
                    using.result(60)
                for direction in forwarding:
                    direction.result(60)


def test_a_home_of_its_own_needs_no_service() -> None:
    program = """
import sys
from pathlib import Path
for name in ("obstore", "psycopg"):
    sys.modules[name] = None
from accelkd.home.layout import Home
from accelkd.home.locks import batches_lock, check_locks
import accelkd.home.store, accelkd.home.units
home = Home.from_environment()
with batches_lock(home):
    check_locks(home)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELKD_")}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=60, env=environment)
