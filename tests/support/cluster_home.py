"""A home on a cluster of this machine: PostgreSQL, an S3 server, and Ray nodes of which each has a folder of its own.

The calling process is the head: it has the home's folder, and the first node shares it. The other nodes are workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import duckdb

from accelkd.home.layout import Home
from accelkd.home.units import make_cache
from accelkd.warehouse.publish import NO_CONTENT
from accelkd.warehouse.staging import contents
from assets.warehouse import published_warehouse
from orchestration.dagster_internals import DATA_VERSION_TAG
from tests.support import REPOSITORY
from tests.support.cluster_instance import cluster_instance
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.services import Postgres, S3Server


@dataclass
class ClusterHome:
    """The head's home and what it runs on."""

    home: Home
    cluster: RayCluster
    postgres: Postgres
    s3: S3Server
    environment: Mapping[str, str]  # of the head's processes


@contextmanager
def cluster_home(
    root: Path, postgres: Postgres, s3: S3Server, *, cpus: tuple[int, ...] = (1, 1)
) -> Iterator[ClusterHome]:
    """An empty home in `root`, on nodes with so many cores, the head's first; this process becomes the head's."""
    home = Home(root, store=f"s3://{s3.bucket}/{uuid4().hex}", locks=postgres.dsn, head=True)
    instance = cluster_instance(home, postgres)
    shared = {
        **s3.environment,
        **instance,
        "ACCELKD_STORE": str(home.store),
        "ACCELKD_LOCKS": postgres.dsn,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    head = {"ACCELKD_HOME": str(root), "ACCELKD_HEAD": "1", "DAGSTER_HOME": str(root / "dagster")}
    with ray_cluster(shared, cpus=cpus, head=head) as cluster:
        environment = {**shared, **head, **cluster.client_environment}
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            make_cache(home)
            yield ClusterHome(home, cluster, postgres, s3, environment)
        finally:
            os.environ.clear()
            os.environ.update(before)


def data_versions(instance: dg.DagsterInstance) -> dict[str, str]:
    """The data version of the last materialization of each asset and partition, by both names.

    Without that of the published file, which holds how long trainings took (`published_contents`).
    """
    versions = {}
    for key in set(instance.all_asset_keys()) - {published_warehouse.key}:
        for record in instance.fetch_materializations(key, limit=1000, ascending=True).records:
            tags = record.event_log_entry.asset_materialization.tags  # type: ignore[union-attr]  # it is one
            versions[f"{key.to_user_string()} {record.partition_key or ''}".strip()] = (tags or {})[DATA_VERSION_TAG]
    return versions


def published_contents(home: Home) -> dict[str, object]:
    """Number and hash of the rows of each published table but the histories; of models, without their metrics."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        rows = {name: of for name, of in contents(connection).items() if name not in NO_CONTENT}
        models = connection.execute("SELECT encoder, model_id, config FROM models ORDER BY ALL").fetchall()
    return {**rows, "models": models}
