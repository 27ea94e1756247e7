"""Small homes to break, how to run a catch-up on them, and what two homes must agree on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.recordings.simulator import simulate_batch

REPOSITORY = Path(__file__).parents[2]
PARTICIPANTS, SEGMENTS = 12, 4  # of a delivery
# What differs when the same is made again: who made it and when, and how long the training took
LEFT_OUT = ("provenance.runs",)
WITHOUT_TIMES = {
    "main.models": """REPLACE (json_merge_patch(metrics, '{"wall_s": null, "segments_per_s": null}') AS metrics)""",
}


def land(home: Home, number: int) -> str:
    """Simulate the `number`-th delivery of one cohort; returns its batch id."""
    batch_id = f"sim-{'abcdefgh'[number]}"
    simulate_batch(
        home.landing,
        batch_id,
        participants=PARTICIPANTS,
        segments=SEGMENTS,
        seed=3,
        profile="easy",
        first_participant=number * PARTICIPANTS,
    )
    return batch_id


def new_home(root: Path, deliveries: int = 1) -> Home:
    """A home with settings, a Dagster instance and some deliveries, on which nothing has run."""
    home = Home(root)
    (root / "dagster").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster.yaml", root / "dagster")
    Settings(preset="smoke").save(home)
    for number in range(deliveries):
        land(home, number)
    return home


def copy_home(home: Home, root: Path) -> Home:
    """A copy of a home, with its history. Dagster keeps absolute paths nowhere that matters to a catch-up."""
    shutil.copytree(home.root, root)
    return Home(root)


def environment(home: Home) -> dict[str, str]:
    return {**os.environ, "ACCELKD_HOME": str(home.root), "DAGSTER_HOME": str(home.root / "dagster")}


def start(home: Home, *, changes: int = 0, delay_ms: int = 0, clock_shift_s: int = 0) -> subprocess.Popen[str]:
    """Start a catch-up, to be killed at a change if one is given (tests.reliability.victim)."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.victim", str(changes), str(delay_ms), str(clock_shift_s)],
        cwd=REPOSITORY,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(home: Home, *, changes: int = 0, delay_ms: int = 0, clock_shift_s: int = 0) -> tuple[int, str]:
    """Run a catch-up to its end, or its death: exit status (negative: the signal) and what it printed."""
    with start(home, changes=changes, delay_ms=delay_ms, clock_shift_s=clock_shift_s) as process:
        try:
            log, _ = process.communicate(timeout=3600)
        except subprocess.TimeoutExpired:
            process.kill()
            log, _ = process.communicate()
            return 124, log + "\nHANGS"
    return process.returncode, log


def settle(home: Home, attempts: int = 3) -> str:
    """Catch up until a catch-up succeeds; returns all that was printed. Raises RuntimeError if none does."""
    logs = []
    for _ in range(attempts):
        status, log = run(home)
        logs.append(log)
        if status == 0:
            return "\n".join(logs)
    raise RuntimeError("the home does not recover:\n" + "\n".join(logs))


def contents(home: Home) -> dict[str, str]:
    """What a home must have in common with one that nothing happened to.

    Rows and an ordered hash of every published table (but LEFT_OUT and times), and the bytes of segments,
    quarantine, split, weights and the written report.
    """
    found = {}
    with duckdb.connect(str(home.published), read_only=True) as connection:
        tables = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            if table in LEFT_OUT:
                continue
            rows, digest = connection.execute(
                f"SELECT count(*), md5(string_agg(t::VARCHAR, chr(10) ORDER BY t::VARCHAR)) "
                f"FROM (SELECT * {WITHOUT_TIMES.get(table, '')} FROM {table}) t"
            ).fetchall()[0]
            found[table] = f"{rows} rows {digest}"
    files = [home.split, home.reports / "report.md"]
    for pattern in ("segments/*.arrow", "quarantine/*.parquet", "checkpoints/*/*/model.safetensors"):
        files += sorted(path for path in home.root.glob(pattern) if not path.name.startswith("."))
    for path in files:
        found[str(path.relative_to(home.root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Where two homes differ, one line each."""
    return [
        f"{name}: {expected.get(name, 'absent')} expected, {found.get(name, 'absent')} found"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
