"""Upgrade: a home that an older version wrote becomes one of this version, step by step, and keeps what it holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock
from accelkd.home.version import LAYOUT, UnusableHomeError, layout_version, restore_journal, write_layout
from accelkd.recordings.arrivals import superseded


def _name_superseded(home: Home) -> None:
    superseded(home)  # renames retired.json, its name in version 0.1.0


# The layout that each step leads to, what it does, and how; none is ever changed, because homes keep their number
STEPS: tuple[tuple[int, str, Callable[[Home], object]], ...] = (
    (2, "superseded batches are listed in superseded.json", _name_superseded),
)


def upgrade(home: Home) -> list[str]:
    """Bring layout, warehouse and Dagster's databases of a home to this version; returns what was done.

    The same again does nothing. Each step is finished before its number is recorded, so that an interrupted upgrade
    goes on where it was. Going back is a restore of a backup from before.

    Raises UnusableHomeError for a home of a newer version or with an unfinished restore, and for a
    warehouse that no migration leads to this version; BlockingIOError while runs are in progress; ChildProcessError
    where Dagster cannot migrate its databases.
    """
    if not home.root.is_dir():
        raise FileNotFoundError(f"there is no home {home.root}")
    done = []
    with exclusive_lock(home):
        if restore_journal(home).exists():
            raise UnusableHomeError(f"{restore_journal(home)} says that a restore was interrupted: finish it first")
        before = layout_version(home)
        for number, title, step in STEPS:
            if number > before:
                step(home)
                write_layout(home, number)
                done.append(f"layout {number}: {title}")
        if home.staging.exists():
            from accelkd.warehouse.publish import publish
            from accelkd.warehouse.staging import schema_is_current

            if not schema_is_current(home):
                publish(home)
                done.append("warehouse: brought to the schema of this version, and published")
        _migrate_dagster(home)
    return done


def _migrate_dagster(home: Home) -> None:
    """Let Dagster bring its databases to its own version, where it is installed; without news it does nothing."""
    folder = home.root / "dagster"
    if not (folder / "dagster.yaml").exists() or find_spec("dagster") is None:
        return
    result = subprocess.run(
        [sys.executable, "-m", "dagster", "instance", "migrate"],
        env={**os.environ, "DAGSTER_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ChildProcessError(f"dagster instance migrate failed: {(result.stderr or result.stdout).strip()[-500:]}")


assert STEPS[-1][0] == LAYOUT
