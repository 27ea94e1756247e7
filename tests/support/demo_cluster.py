"""`make demo-cluster`: the demo on PostgreSQL, an S3 server and two Ray nodes, all of this machine and all temporary.

Ends with the demo's table; where `make demo` has been run, with a comparison of what both have made.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import dagster as dg

from accelkd.home.layout import Home
from orchestration import demo
from orchestration.elsewhere import FILES_ALONE
from orchestration.instance import dagster_home, opened_instance
from tests.support.cluster_home import cluster_home, data_versions, published_contents
from tests.support.services import postgres, s3_server


def main() -> int:
    alone = Home.from_environment()
    with (
        tempfile.TemporaryDirectory(prefix="accelkd-cluster-") as folder,
        postgres() as database,
        s3_server() as bucket,
    ):
        print("Starting PostgreSQL, an S3 server and two Ray nodes", flush=True)
        with cluster_home(Path(folder) / "home", database, bucket) as cluster:
            if status := demo.main():
                return status
            with opened_instance(dagster_home(cluster.home)) as instance:
                made = {**data_versions(instance), **published_contents(cluster.home)}
                elsewhere = len(instance.get_runs(dg.RunsFilter(tags={FILES_ALONE: "true"})))
    print(f"{elsewhere} runs were Ray jobs; {len(made)} assets, partitions and tables")
    if not (dagster_home(alone) / "dagster.yaml").exists() or not alone.published.exists():
        print("`make demo` makes the same on this machine alone")
        return 0
    with opened_instance(dagster_home(alone)) as instance:
        expected = {**data_versions(instance), **published_contents(alone)}
    differing = sorted(name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name))
    print(f"other than `make demo` made them: {', '.join(differing) or 'none'}")
    return 1 if differing else 0


if __name__ == "__main__":
    os.environ.pop("DAGSTER_HOME", None)  # of this machine alone
    sys.exit(main())
