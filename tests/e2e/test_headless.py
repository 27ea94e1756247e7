"""Dagster's own command line materializes assets without a UI, and an analyst never notices."""

from __future__ import annotations

import subprocess
import sys

import duckdb

from tests.support import REPOSITORY
from tests.support.pipeline import Pipeline
from tests.support.processes import environment


def test_reader_never_waits_or_fails_while_the_command_line_materializes(pipeline: Pipeline) -> None:
    before = pipeline.home.published.stat().st_ino
    writer = subprocess.Popen(
        [sys.executable, "-m", "dagster", "job", "execute", "-m", "orchestration.definitions", "-j", "report"],
        cwd=REPOSITORY,
        env=environment(pipeline.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    counts = set()
    reads = 0
    while writer.poll() is None:
        with duckdb.connect(str(pipeline.home.published), read_only=True) as connection:
            counts.add(
                connection.execute(
                    "SELECT count(*) FROM embeddings.accel_student JOIN participants USING (participant_id)"
                ).fetchall()[0][0]
            )
        reads += 1
    log, _ = writer.communicate()
    assert writer.returncode == 0, log
    assert pipeline.home.published.stat().st_ino != before  # it was published again meanwhile
    assert reads > 10
    assert len(counts) == 1
