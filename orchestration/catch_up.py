"""Bring a home up to date without a daemon: register what has arrived, materialize what is missing or stale.

Run as `python -m orchestration.catch_up`; `make demo` uses it too. Runs happen in this process, one asset and
one partition at a time, on the instance in DAGSTER_HOME, so the UI shows them like any other run.

Belongs here: materializing in this process, in order, and what a killed catch-up left behind. Does not belong here:
deciding what is stale (freshness), and the nightly backfill, which the daemon carries out (jobs).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import dagster as dg

from accelkd.home.files import sweep
from accelkd.home.layout import Home
from accelkd.home.locks import file_lock, shared_lock
from accelkd.recordings.arrivals import arrived_batches, refused, refused_unchanged
from accelkd.warehouse.staging import readable
from assets.partitions import arrival_batches
from orchestration.dagster_internals import fail_run
from orchestration.definitions import build_defs
from orchestration.freshness import Freshness
from orchestration.promotions import report_promotions

CATCH_UP = {"accelkd/catch_up": "true"}  # tag of its runs
FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # a failure is printed in one line instead


@dataclass
class CatchUpOutcome:
    """What a catch-up did, as (asset, partition or None)."""

    materialized: list[tuple[str, str | None]] = field(default_factory=list)
    failed: list[tuple[str, str | None]] = field(default_factory=list)
    skipped: list[tuple[str, str | None]] = field(default_factory=list)  # because something upstream failed


def catch_up(home: Home, instance: dg.DagsterInstance, *, retrain: bool = True) -> CatchUpOutcome:
    """Materialize everything missing or stale, upstream first; one failure never stops what does not depend on it.

    With `retrain` off, encoders that exist stay as they are: an arriving batch is embedded by the promoted ones. A
    batch that was refused is left alone until its files change. Waits for another catch-up of the same home; what one
    that was killed left unfinished is done again. After one that failed or was killed the whole staging file is read,
    and rebuilt if it is damaged.
    """
    with _catch_up_lock(home):
        _fail_orphaned_runs(instance)
        sweep(home.root)
        unfinished = home.root / ".catch_up.unfinished"  # until an end without a failure
        if home.published.exists() and not (readable(home) if unfinished.exists() else home.staging.exists()):
            from accelkd.operations.rebuild import rebuild_warehouse  # imports torch

            print(f"  {home.staging.name} is damaged or gone: rebuilding the warehouse", flush=True)
            with shared_lock(home):
                rebuild_warehouse(home)
        unfinished.touch()
        outcome = _catch_up(home, instance, retrain)
        if not outcome.failed:
            unfinished.unlink()
        return outcome


def _catch_up(home: Home, instance: dg.DagsterInstance, retrain: bool) -> CatchUpOutcome:
    defs = build_defs(home)
    graph = defs.resolve_asset_graph()
    job = defs.resolve_implicit_global_asset_job_def()
    name = str(arrival_batches.name)
    instance.add_dynamic_partitions(name, arrived_batches(home))
    report_promotions(home, instance)
    refused_batches = refused_unchanged(home)
    for batch_id in sorted(refused_batches):
        print(f"  refused  {batch_id}: {refused(home)[batch_id].reasons[0]}", flush=True)
    batches = [batch_id for batch_id in instance.get_dynamic_partitions(name) if batch_id not in refused_batches]
    outcome = CatchUpOutcome()
    for key in graph.toposorted_asset_keys:
        asset = graph.get(key)
        for partition in batches if asset.is_partitioned else [None]:
            if partition is not None and not instance.has_dynamic_partition(name, partition):
                continue  # a correction has just replaced it
            if not Freshness(home, instance, graph).is_stale_or_missing(key, partition, retrain=retrain):
                continue
            step = (key.to_user_string(), partition)
            broken = {upstream for upstream, batch_id in _broken(outcome) if batch_id in (None, partition)}
            if {parent.to_user_string() for parent in asset.parent_keys} & broken:
                outcome.skipped.append(step)
                continue
            started = time.monotonic()
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[key],
                partition_key=partition,
                run_config=QUIET,
                tags=CATCH_UP,
                raise_on_error=False,
            )
            (outcome.materialized if result.success else outcome.failed).append(step)
            verdict = "done" if result.success else f"FAILED: {_reason(result)}"
            print(f"  {step[0]:<26} {partition or '':<20} {time.monotonic() - started:6.1f} s  {verdict}", flush=True)
    return outcome


@contextmanager
def opened_instance(home: Home) -> Iterator[dg.DagsterInstance]:
    """The instance in DAGSTER_HOME. Who opens it first makes its tables, which two at the same moment cannot."""
    with _catch_up_lock(home):
        instance = dg.DagsterInstance.get()
    with instance:
        yield instance


def _catch_up_lock(home: Home) -> AbstractContextManager[None]:
    return file_lock(home.root / ".catch_up.lock")


def _fail_orphaned_runs(instance: dg.DagsterInstance) -> None:
    """Fail the runs of a catch-up that was killed, so that they are done again."""
    for run in instance.get_runs(dg.RunsFilter(tags=CATCH_UP, statuses=UNFINISHED)):
        fail_run(instance, run, "its process was killed")


def _broken(outcome: CatchUpOutcome) -> Iterator[tuple[str, str | None]]:
    yield from outcome.failed
    yield from outcome.skipped


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            return cause.message.strip() if cause else "unknown"
    return "a blocking check failed"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestration.catch_up", description=__doc__)
    parser.add_argument("--keep-encoders", action="store_true", help="do not retrain encoders that exist")
    arguments = parser.parse_args()
    home = Home.from_environment()
    with opened_instance(home) as instance:
        outcome = catch_up(home, instance, retrain=not arguments.keep_encoders)
    print(
        f"{len(outcome.materialized)} materialized, {len(outcome.failed)} failed, "
        f"{len(outcome.skipped)} skipped because something upstream failed"
    )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
