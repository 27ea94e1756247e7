"""The Dagster instance of a new home, opened by several processes at the same moment, as containers start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from accelkd.home.layout import Home
from accelkd.home.units import claim, commit
from accelkd.operations.share import landing_unit
from tests.support import REPOSITORY
from tests.support.homes import new_home
from tests.support.pipeline import opened_instance
from tests.support.processes import environment


def test_processes_that_start_together_make_one_storage(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "orchestration.instance"],
            cwd=REPOSITORY,
            env=environment(home),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0], errors
    with opened_instance(home) as instance:
        assert instance.get_runs_count() == 0


def test_a_home_with_a_store_takes_deliveries_before_its_first_run(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    store = f"file://{tmp_path / 'store'}"
    prepared = subprocess.run(
        [sys.executable, "-m", "orchestration.instance"],
        cwd=REPOSITORY,
        env={**environment(home), "ACCELKD_STORE": store},
        capture_output=True,
        text=True,
        check=False,
    )
    assert prepared.returncode == 0, prepared.stderr
    (home.batch("b1")).mkdir(parents=True)
    (home.batch("b1") / "manifest.json").write_text("{}", encoding="utf-8")
    commit(claim(Home(home.root, store=store, head=True), landing_unit("b1")))
