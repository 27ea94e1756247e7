"""The whole pipeline on PostgreSQL, a bucket and two Ray nodes: the same content as on one machine."""

from __future__ import annotations

import dagster as dg
import pytest

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.home.units import stored_units
from orchestration.catch_up import catch_up
from orchestration.elsewhere import FILES_ALONE
from tests.support.cluster_home import cluster_home, data_versions, published_contents
from tests.support.homes import simulate
from tests.support.pipeline import opened_instance
from tests.support.services import Postgres, S3Server

BATCHES = ("b1", "b2")


def deliver(home: Home) -> None:
    Settings(preset="smoke").save(home)
    for number, batch_id in enumerate(BATCHES):
        simulate(home, batch_id, 6 * number, participants=6)


@pytest.mark.slow
def test_a_cluster_makes_what_one_machine_makes(
    postgres: Postgres, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone = Home(tmp_path_factory.mktemp("alone") / "home")
    deliver(alone)
    with opened_instance(alone) as instance:
        assert catch_up(alone, instance).failed == []
        expected = data_versions(instance)

    with cluster_home(tmp_path_factory.mktemp("cluster") / "home", postgres, s3_server) as cluster:
        deliver(cluster.home)
        with opened_instance(cluster.home) as instance:
            outcome = catch_up(cluster.home, instance)
            assert (outcome.failed, outcome.skipped) == ([], [])
            assert data_versions(instance) == expected
            elsewhere = instance.get_runs(dg.RunsFilter(tags={FILES_ALONE: "true"}))
            assert len(elsewhere) == 3 * len(BATCHES)
        units = stored_units(cluster.home)
        assert {f"segments/{batch_id}" for batch_id in BATCHES} <= units.keys()
        for batch_id in BATCHES:
            for name in ("landing", "segments"):
                assert all((cluster.home.root / path).exists() for path in units[f"{name}/{batch_id}"])
        assert published_contents(cluster.home) == published_contents(alone)
