"""A code location with slow partitions: `python -m dagster ... -m tests.support.slow_location`.

The folder SLOW_FOLDER steers it. A file `<partition>.request` there asks for a run; the run's first step writes down
that it has `started`, and waits for the file `<partition>.go`; then this step and the next say that they are `done`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from orchestration.elsewhere import FILES_ALONE
from tests.support.processes import wait_until

FOLDER = Path(os.environ.get("SLOW_FOLDER", "."))
PARTITIONS = ("raylet", "driver", "daemon", "database")


def write_down(context: dg.AssetExecutionContext, what: str) -> None:
    """Append one line: the run, its process, and the node's cache folder."""
    line = {
        "run_id": context.run.run_id,
        "pid": os.getpid(),
        "what": what,
        "cache": os.environ.get("ACCELKD_HOME", ""),
    }
    with (FOLDER / f"{context.partition_key}.log").open("a") as log:
        log.write(json.dumps(line) + "\n")


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(list(PARTITIONS)))
def slow(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    write_down(context, "started")
    wait_until((FOLDER / f"{context.partition_key}.go").exists)
    write_down(context, "slow done")
    return dg.MaterializeResult()


@dg.asset(partitions_def=slow.partitions_def, deps=[slow])
def after(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    write_down(context, "after done")
    return dg.MaterializeResult()


job = dg.define_asset_job("both", [slow, after])


@dg.sensor(job=job, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def requests() -> Iterator[dg.RunRequest]:
    for path in sorted(FOLDER.glob("*.request")):
        yield dg.RunRequest(run_key=path.stem, partition_key=path.stem, tags={FILES_ALONE: "true"})


defs = dg.Definitions([slow, after], jobs=[job], sensors=[requests], executor=dg.in_process_executor)
