"""The services of tests: their data outlive a kill, and they do not outlive the test process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support import REPOSITORY
from tests.support.processes import is_alive, wait_until
from tests.support.services import Postgres

_PROGRAM = """
import sys, time
from tests.support import services
with getattr(services, sys.argv[1])() as server:
    print(server.service.process.pid, server.service.folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux what runs")
@pytest.mark.parametrize("service", ["postgres", "s3_server"])
def test_a_service_ends_with_the_process_that_started_it(service: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, service], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        assert is_alive(int(pid))
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not is_alive(int(pid)) and not Path(folder).exists(), limit_s=60)


def test_data_outlive_a_kill(postgres: Postgres) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.dsn)
    postgres.start()
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
        connection.execute("DROP TABLE kept")
