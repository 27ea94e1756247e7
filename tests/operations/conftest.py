"""Machines that share one store, which is a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from accelkd.home.layout import Home
from accelkd.home.units import make_cache


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Home]:
    """A machine of a name: with an empty folder, and the store of all of them."""

    def open_home(name: str) -> Home:
        home = Home(tmp_path / name, run_id=name, store=(tmp_path / "store").as_uri(), head=name.startswith("head"))
        make_cache(home)
        return home

    return open_home
