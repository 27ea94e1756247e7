"""The GPU kit as its user runs it, in miniature on the processor: killed, gone on with, and two seeds merged."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from accelkd.reproduction.packed import read_facts
from tests.support import REPOSITORY

BUDGET_MIN = 0.5
_CALLS = 8  # on a machine so slow that one call reaches nothing, the next goes on


def start(out: Path, scratch: Path, *options: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "OUT": str(out),
        "SCRATCH": str(scratch),
        "PYTHON": sys.executable,
        "BUDGET_MIN": str(BUDGET_MIN),
    }
    command = [str(REPOSITORY / "benches" / "gpu" / "run.sh"), "full", *options]
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)


def call(out: Path, scratch: Path, runs: set[str], *options: str) -> dict[str, object]:
    """Call until these runs are done; returns what the folder says of itself."""
    for _ in range(_CALLS):
        assert start(out, scratch, *options).wait(timeout=60 * BUDGET_MIN + 300) == 0
        facts = read_facts(out)
        if runs <= set(facts["runs_done"]):
            return facts
    raise AssertionError(f"{_CALLS} calls reached {facts['runs_done']}, not {runs}")


@pytest.mark.slow
def test_the_kit_from_a_kill_to_a_report_of_two_seeds(tmp_path: Path) -> None:
    process = start(tmp_path / "first", tmp_path / "scratch", "--seeds", "0")
    time.sleep(random.uniform(5, 25))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    first = call(tmp_path / "first", tmp_path / "scratch", {"ppg-mae-0", "accel-kd-mae-0"}, "--seeds", "0")
    assert first["runs_failed"] == {}
    files = list((tmp_path / "first").iterdir())
    assert len(files) <= 8
    assert all(file.stat().st_size < 16 * 2**20 for file in files)
    log = (tmp_path / "first" / "run.log").read_text(encoding="utf-8")
    assert "There is no GPU: the miniature is trained." in log
    document = (tmp_path / "first" / "REPRODUCTION.md").read_text(encoding="utf-8")
    tables = re.split(r"^### Table ", document, flags=re.MULTILINE)[1:]
    assert len(tables) == 17
    for table in tables:
        assert re.search(r"\| (not reached|\d+\.\d\d)", table), table[:80]

    # A later call on another machine
    options = ("--seeds", "1", "--weights", str(tmp_path / "first"))
    second = call(tmp_path / "second", tmp_path / "elsewhere", {"ppg-mae-1", "accel-kd-mae-1"}, *options)
    assert second["data_version"] == first["data_version"]
    merge = [sys.executable, "-m", "accelkd.cli", "reproduce", "--merge", "first", "second", "--out", "merged"]
    subprocess.run(merge, check=True, cwd=tmp_path, timeout=300)
    claims = {row["claim_id"]: row for row in pq.read_table(tmp_path / "merged" / "claims.parquet").to_pylist()}
    assert claims["teacher-beats-student"]["seeds"] == 2
