"""Retention: old runs leave Dagster's storage, except those that say what is up to date.

Deleting a run deletes its materializations too, and with them the data versions that staleness is judged by. So the
runs stay whose events are the latest of an asset, a partition or a check, or what something downstream was made from.

Belongs here: which runs are no longer needed. Does not belong here: the job that deletes them (jobs), and the age at
which ticks are deleted, which Dagster does itself (dagster.yaml).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.partitions import arrival_batches
from orchestration.dagster_internals import (
    AssetGraph,
    delete_run,
    input_storage_ids,
    last_check_executions,
    last_planned,
)
from orchestration.statuses import FINISHED

_ASSET_EVENTS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
}
Target = tuple[dg.AssetKey, str | None]


@dataclass(frozen=True)
class Tidied:
    """What became of the runs that were old enough."""

    deleted: int
    kept: int  # needed
    freed_bytes: int  # of their own files; the shared SQLite files use the space again


def delete_old_runs(instance: dg.DagsterInstance, graph: AssetGraph, keep: timedelta) -> Tidied:
    """Delete the runs that ended longer ago than `keep` and are not needed."""
    old = dg.RunsFilter(statuses=FINISHED, updated_before=datetime.now(UTC) - keep)
    run_ids = [record.dagster_run.run_id for record in instance.get_run_records(old)]
    partitions = set(instance.get_dynamic_partitions(str(arrival_batches.name)))
    deleted = freed = 0
    for run_id in run_ids:
        if not is_needed(instance, graph, run_id, partitions):
            freed += delete_run(instance, run_id)
            deleted += 1
    return Tidied(deleted, len(run_ids) - deleted, freed)


def is_needed(instance: dg.DagsterInstance, graph: AssetGraph, run_id: str, partitions: set[str]) -> bool:
    """Whether staleness, or a check's verdict, rests on a run."""
    return any(
        _latest_attempt(instance, graph, run_id, target) or _read_by_a_child(instance, graph, run_id, target)
        for target in _targets(instance, run_id)
        if graph.has(target[0]) and (target[1] is None or target[1] in partitions)
    )


def _targets(instance: dg.DagsterInstance, run_id: str) -> Iterator[Target]:
    """The assets and partitions that a run made, was to make, or checked."""
    entries = (entry.dagster_event for entry in instance.all_logs(run_id, of_type=_ASSET_EVENTS))
    targets = {(event.asset_key, event.partition) for event in entries if event is not None}
    yield from ((key, partition) for key, partition in targets if key is not None)


def _latest_attempt(instance: dg.DagsterInstance, graph: AssetGraph, run_id: str, target: Target) -> bool:
    """Whether the last materialization or observation, attempt at one, or execution of a check is of this run."""
    if graph.get(target[0]).is_observable:
        observed = instance.fetch_observations(target[0], limit=1).records
        return bool(observed) and observed[0].run_id == run_id
    latest, planned = _latest(instance, target), last_planned(instance, *target)
    checks = list(graph.get_check_keys_for_assets({target[0]}))
    executions = last_check_executions(instance, checks, target[1]) if checks else ()
    return (
        (latest is not None and latest.run_id == run_id)
        or (planned is not None and planned.run_id == run_id)
        or any(execution.run_id == run_id for execution in executions)
    )


def _read_by_a_child(instance: dg.DagsterInstance, graph: AssetGraph, run_id: str, target: Target) -> bool:
    """Whether something downstream was made from what this run made: its version is compared with the latest."""
    key, partition = target
    for child in graph.get(key).child_keys:
        made = _latest(instance, (child, partition if graph.get(child).is_partitioned else None))
        read_until = (input_storage_ids(made) or {}).get(key) if made else None
        if read_until is None:
            continue
        read = _latest(instance, target, before_storage_id=read_until + 1)
        if read is not None and read.run_id == run_id:
            return True
    return False


def _latest(
    instance: dg.DagsterInstance, target: Target, *, before_storage_id: int | None = None
) -> dg.EventLogRecord | None:
    key, partition = target
    wanted = dg.AssetRecordsFilter(
        key,
        asset_partitions=None if partition is None else [partition],
        before_storage_id=before_storage_id,
    )
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0] if records else None
