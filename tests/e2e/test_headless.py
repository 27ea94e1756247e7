"""Dagster's own command line materializes assets without a UI, and an analyst never notices."""

from __future__ import annotations

import os
import subprocess
import sys

import duckdb

from tests.e2e.conftest import REPOSITORY, Home


def test_reader_never_waits_or_fails_while_the_command_line_materializes(home: Home) -> None:
    environment = {**os.environ, "ACCELKD_HOME": str(home.lake.root), "DAGSTER_HOME": str(home.dagster_home)}
    before = home.lake.published.stat().st_ino
    writer = subprocess.Popen(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", "orchestration.definitions", "-j", "report"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts = set()
    reads = 0
    while writer.poll() is None:
        with duckdb.connect(str(home.lake.published), read_only=True) as connection:
            counts.add(
                connection.execute(
                    "SELECT count(*) FROM embeddings.accel_student JOIN participants USING (participant_id)"
                ).fetchall()[0][0]
            )
        reads += 1
    log, _ = writer.communicate()
    assert writer.returncode == 0, log
    assert home.lake.published.stat().st_ino != before  # it was published anew meanwhile
    assert reads > 10
    assert len(counts) == 1
