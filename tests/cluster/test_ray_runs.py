"""Runs as jobs of a Ray cluster of two nodes, with Dagster's storage in PostgreSQL, while parts of it die."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from accelkd.home.layout import Home
from tests.support import REPOSITORY
from tests.support.cluster_instance import cluster_instance
from tests.support.pipeline import opened_instance
from tests.support.processes import daemon, is_alive, wait_until
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.services import Postgres

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
WHOLE = ["started", "slow done", "after done"]  # what one run of tests.support.slow_location writes down


@dataclass
class Platform:
    """A cluster, Dagster on it, and the folder that steers the slow partitions."""

    home: Home
    folder: Path
    cluster: RayCluster
    instance: dg.DagsterInstance
    daemon: ExitStack = field(default_factory=ExitStack)

    def start_daemon(self) -> None:
        self.daemon.enter_context(daemon(self.home, ("-m", "tests.support.slow_location")))

    def request(self, *partitions: str) -> None:
        for partition in partitions:
            (self.folder / f"{partition}.request").touch()
        wait_until(lambda: all(self.lines(partition) for partition in partitions), limit_s=120)

    def go(self, partition: str) -> None:
        (self.folder / f"{partition}.go").touch()

    def lines(self, partition: str) -> list[dict[str, Any]]:
        path = self.folder / f"{partition}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def runs(self, partition: str) -> Sequence[dg.DagsterRun]:
        """Those of a partition, the first one first."""
        return self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": partition}), ascending=True)

    def statuses(self, partition: str) -> list[dg.DagsterRunStatus]:
        return [run.status for run in self.runs(partition)]

    def wait_for(self, partition: str, statuses: list[dg.DagsterRunStatus]) -> None:
        wait_until(lambda: self.statuses(partition) == statuses, limit_s=120)

    def written(self, partition: str, run: dg.DagsterRun) -> list[str]:
        return [line["what"] for line in self.lines(partition) if line["run_id"] == run.run_id]

    def reported(self, run: dg.DagsterRun) -> list[str]:
        """The assets that a run has reported as materialized."""
        logs = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        return [str(entry.get_dagster_event().step_key) for entry in logs]


@pytest.fixture(scope="module")
def platform(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("steering")
    home = Home(tmp_path_factory.mktemp("platform") / "home")
    variables = {
        **cluster_instance(home, postgres),
        "SLOW_FOLDER": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1",
    }
    with ray_cluster(variables) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, **cluster.client_environment}.items():
            patch.setenv(name, value)
        with opened_instance(home) as instance:
            platform = Platform(home, folder, cluster, instance)
            with platform.daemon:
                platform.start_daemon()
                yield platform


def test_a_run_goes_on_without_the_daemon_and_after_a_pause_of_the_database(
    platform: Platform, postgres: Postgres
) -> None:
    platform.request("daemon", "database")
    platform.daemon.close()
    platform.go("daemon")
    platform.wait_for("daemon", [SUCCESS])
    platform.start_daemon()

    postgres.kill()
    platform.go("database")
    wait_until(lambda: len(platform.lines("database")) > 1, limit_s=60)
    postgres.start()
    wait_until(lambda: SUCCESS in platform.statuses("database"), limit_s=120)
    *failed, last = platform.runs("database")
    assert [run.status for run in failed] == [FAILURE] * len(failed)
    assert platform.reported(last) == ["slow", "after"]


def test_a_run_whose_node_or_process_dies_starts_again_and_what_is_left_of_it_changes_nothing(
    platform: Platform,
) -> None:
    platform.request("raylet", "driver")
    on_head, on_worker = sorted(("raylet", "driver"), key=lambda name: str(platform.lines(name)[0]["cache"]))
    orphan = platform.lines(on_worker)[0]
    platform.cluster.nodes[1].kill_raylet()
    os.kill(platform.lines(on_head)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: platform.statuses(on_worker)[0] is FAILURE, limit_s=60)
    assert is_alive(orphan["pid"])  # Ray has left it behind
    wait_until(lambda: not is_alive(orphan["pid"]), limit_s=60)

    for name in (on_head, on_worker):
        platform.go(name)
    for name in (on_head, on_worker):
        platform.wait_for(name, [FAILURE, SUCCESS])
        first, second = platform.runs(name)
        assert (platform.written(name, first), platform.reported(first)) == (["started"], [])
        assert (platform.written(name, second), platform.reported(second)) == (WHOLE, ["slow", "after"])
