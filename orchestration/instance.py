"""The Dagster instance: its storage is made by one process, before others may open it.

Belongs here: opening the instance of a home. Does not belong here: anything that is done with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from accelkd.home.layout import Home
from accelkd.home.locks import file_lock
from accelkd.home.units import make_cache


def dagster_home(home: Home) -> Path:
    """The folder of the instance: DAGSTER_HOME, else the home's folder `dagster`."""
    return Path(os.environ.get("DAGSTER_HOME") or home.root / "dagster").resolve()


@contextmanager
def opened_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of a folder with a `dagster.yaml`.

    Who opens it first makes its tables. Two that do so at the same moment record the version of the tables twice, and
    nobody can open them again: so one waits for the other.
    """
    with file_lock(folder / ".storage.lock"):
        instance = dg.DagsterInstance.from_config(str(folder))
    with instance:
        yield instance


def main() -> None:
    """Prepare a home, before several processes start on it: `python -m orchestration.instance`.

    Makes Dagster's tables where there are none yet; with a store, marks the home's folder as its cache.
    """
    home = Home.from_environment()
    make_cache(home)
    with opened_instance(dagster_home(home)):
        pass


if __name__ == "__main__":
    main()
