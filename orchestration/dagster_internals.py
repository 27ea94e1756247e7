"""What is used of Dagster beyond its public API, and for what: where the public API has no equivalent.

Belongs here: every import from a private module of Dagster, wrapped in what the other modules need of it. Does not
belong here: anything that the public API can do, and any decision about what to run.

- staleness as the UI shows it: `stale_status_resolver`, `UNTRACKED_PARTITIONS`, `data_version`, `input_storage_ids`
- data versions of events that no run reports: `DATA_VERSION_TAG`
- why the last attempt at an asset came to nothing: `last_planned`, `last_check_executions`, `unchecked_since`
- what a killed process left behind: `fail_run`
- what alerts are about: `check_states`, `freshness_states`, `WILL_RETRY_TAG`, `AUTO_RETRY_RUN_ID_TAG`
- retention: `delete_run`
- metrics: `last_evaluation`, `daemon_heartbeats`
- a backfill of chosen partitions of many assets: `request_backfill`, `requested_backfills`, `PARTITION_TAG`
- the health of a run's process: `runs_in_code_server`, `CheckRunHealthResult`, `WorkerStatus`
- runs of a part of the assets without a code server's help: `create_run`, `launch_run`, `run_events`
- runs on a Ray cluster: `execute_in_postgres`, `instance_and_run_of_command`
- the types of `Definitions.resolve_asset_graph` and of a job of assets: `AssetGraph`, `UnresolvedAssetJobDefinition`

A new release of Dagster may change any of it. tests/orchestration/test_dagster_internals.py says what was checked
against which release.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import (
    DATA_VERSION_TAG,
    CachingStaleStatusResolver,
    StaleStatus,
    extract_data_provenance_from_entry,
    extract_data_version_from_entry,
)
from dagster._core.definitions.data_version import (
    SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD as UNTRACKED_PARTITIONS,
)
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.loader import LoadingContext
from dagster._core.snap import snapshot_from_execution_plan
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as CheckStatus
from dagster._core.storage.event_log.base import PlannedMaterializationInfo
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from dagster._core.storage.tags import PARTITION_NAME_TAG as PARTITION_TAG
from dagster._core.utils import make_new_backfill_id
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult, ExecuteRunArgs

__all__ = [
    "AUTO_RETRY_RUN_ID_TAG",
    "DATA_VERSION_TAG",
    "PARTITION_TAG",
    "UNTRACKED_PARTITIONS",
    "WILL_RETRY_TAG",
    "AssetGraph",
    "CachingStaleStatusResolver",
    "CheckRunHealthResult",
    "CheckState",
    "CheckStatus",
    "PartitionBackfill",
    "StaleStatus",
    "UnresolvedAssetJobDefinition",
    "WorkerStatus",
    "check_states",
    "create_run",
    "daemon_heartbeats",
    "data_version",
    "delete_run",
    "execute_in_postgres",
    "fail_run",
    "freshness_states",
    "input_storage_ids",
    "instance_and_run_of_command",
    "last_check_executions",
    "last_evaluation",
    "last_planned",
    "launch_run",
    "request_backfill",
    "requested_backfills",
    "run_events",
    "runs_in_code_server",
    "stale_status_resolver",
    "unchecked_since",
]

AssetGraph: TypeAlias = BaseAssetGraph[Any]


class _Loading(LoadingContext):
    """What Dagster's loaders remember, for one resolver."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[type, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        return self._loaders


def stale_status_resolver(instance: dg.DagsterInstance, graph: AssetGraph) -> CachingStaleStatusResolver:
    """Dagster's own notion of stale: the code version, or the data version of an input, has changed.

    It remembers one state of the instance. Inputs with `UNTRACKED_PARTITIONS` partitions or more are left out.
    """
    return CachingStaleStatusResolver(instance, graph, _Loading(instance))


def data_version(record: dg.EventLogRecord) -> str | None:
    """The data version that a materialization has reported."""
    version = extract_data_version_from_entry(record.event_log_entry)
    return version.value if version else None


def input_storage_ids(record: dg.EventLogRecord) -> Mapping[dg.AssetKey, int | None] | None:
    """Storage ids of the events that a materialization took its inputs from; None for one reported without a run."""
    provenance = extract_data_provenance_from_entry(record.event_log_entry)
    return provenance.input_storage_ids if provenance else None


def last_planned(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None
) -> PlannedMaterializationInfo | None:
    """Storage id and run of the event that planned the last attempt to materialize an asset."""
    return instance.event_log_storage.get_latest_planned_materialization_info(key, partition)


def last_check_executions(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], partition: str | None
) -> Collection[AssetCheckExecutionRecord]:
    """The last execution of each of these checks that was ever planned, with its `CheckStatus` and run."""
    storage = instance.event_log_storage
    return storage.get_latest_asset_check_execution_by_key(checks, PartitionKeyFilter(key=partition)).values()


def unchecked_since(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], partition: str
) -> list[dg.AssetCheckKey]:
    """The checks, of a partition that has been materialized, that have not measured its last materialization."""
    last: dict[dg.AssetKey, int] = {}
    for key in {check.asset_key for check in checks}:
        of_partition = dg.AssetRecordsFilter(key, asset_partitions=[partition])
        records = instance.fetch_materializations(of_partition, limit=1).records
        if records:
            last[key] = records[0].storage_id
    storage, unmeasured = instance.event_log_storage, []
    executions = storage.get_latest_asset_check_execution_by_key(checks, PartitionKeyFilter(key=partition))
    for check in checks:
        evaluation = executions[check].evaluation if check in executions else None
        target = evaluation.target_materialization_data if evaluation else None
        if check.asset_key in last and (target is None or target.storage_id != last[check.asset_key]):
            unmeasured.append(check)
    return unmeasured


def fail_run(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Report that a run has failed, and free its places in the pools: Dagster would wait for them for ever."""
    instance.report_run_failed(run, reason)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def create_run(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    keys: Sequence[dg.AssetKey],
    partition: str,
    tags: Mapping[str, str],
) -> dg.DagsterRun:
    """A run of some assets of the implicit job, without their checks, for one partition; not launched yet.

    Its code is that of `orchestration.definitions`, which the process that executes it loads for itself.
    """
    selection = frozenset(keys)
    tags = {**tags, PARTITION_TAG: partition}
    subset = job.get_subset(asset_selection=selection, asset_check_selection=frozenset())
    plan = create_execution_plan(job=subset, run_config={}, instance_ref=instance.get_ref(), tags=tags)
    repository = ReconstructableRepository.for_module("orchestration.definitions", "defs", str(Path.cwd()))
    return instance.create_run(
        job_name=subset.name,
        run_id=None,
        run_config={},
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags=tags,
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=plan.step_keys_to_execute,
        execution_plan_snapshot=snapshot_from_execution_plan(plan, subset.get_job_snapshot_id()),
        job_snapshot=subset.get_job_snapshot(),
        parent_job_snapshot=subset.get_parent_job_snapshot(),
        asset_selection=selection,
        asset_check_selection=frozenset(),
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=None,
        job_code_origin=repository.get_reconstructable_job(subset.name).get_python_origin(),
        asset_graph=subset.asset_layer.asset_graph,
    )


def launch_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Start a run by the instance's launcher, at once: without the queue, and without a code server."""
    instance.launch_run(run_id, workspace=None)  # type: ignore[arg-type]  # launchers of clusters need none


def run_events(instance: dg.DagsterInstance, run_id: str) -> list[dg.DagsterEvent]:
    """What Dagster has recorded of a run, in order."""
    return [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event is not None]


def requested_backfills(instance: dg.DagsterInstance) -> Sequence[PartitionBackfill]:
    """Backfills that have not ended, the newest first."""
    return instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))


def request_backfill(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    targets: Iterable[tuple[dg.AssetKey, str | None]],
    *,
    title: str,
    description: str,
    tags: Mapping[str, str],
) -> str:
    """Request one backfill of these assets and partitions, which the daemon carries out; returns its id."""
    backfill_id: str = make_new_backfill_id()
    subset = AssetGraphSubset.from_asset_partition_set({AssetKeyPartitionKey(*target) for target in targets}, graph)
    backfill = PartitionBackfill.from_asset_graph_subset(
        backfill_id=backfill_id,
        backfill_timestamp=time.time(),
        tags=tags,
        dynamic_partitions_store=instance,
        asset_graph_subset=subset,
        title=title,
        description=description,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill_id


def runs_in_code_server(launcher: dg.DefaultRunLauncher, run_id: str) -> bool:
    """Whether the code server that started a run still runs its process.

    Raises LookupError where no code server is on record for the run, ConnectionError where it does not answer.
    """
    client = launcher._get_grpc_client_for_termination(run_id)  # type: ignore[no-untyped-call]  # Dagster's, untyped
    if client is None:
        raise LookupError(run_id)
    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=10)
    except DagsterUserCodeUnreachableError as error:
        raise ConnectionError(run_id) from error
    return dg.deserialize_value(answer, CanCancelExecutionResult).can_cancel


@dataclass(frozen=True)
class CheckState:
    """The last execution of a check on one partition that has ended."""

    check: dg.AssetCheckKey
    partition: str | None
    evaluation: dg.AssetCheckEvaluation | None  # None: it passed
    storage_id: int


def check_states(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey], *, after_storage_id: int | None = None
) -> Iterator[CheckState]:
    """The last executions of checks, on each partition, with the evaluation of those that failed.

    With `after_storage_id` only those that have changed since.
    """
    storage = instance.event_log_storage
    for info in storage.get_asset_check_partition_info(checks, after_storage_id=after_storage_id):
        evaluation = None
        if info.latest_execution_status is CheckStatus.FAILED:
            of_partition = PartitionKeyFilter(key=info.partition_key)
            records = storage.get_latest_asset_check_execution_by_key([info.check_key], of_partition)
            evaluation = records[info.check_key].evaluation if info.check_key in records else None
            if evaluation is None:  # another execution has just been planned
                continue
        elif info.latest_execution_status is not CheckStatus.SUCCEEDED:
            continue
        yield CheckState(info.check_key, info.partition_key, evaluation, info.latest_check_event_storage_id)


def freshness_states(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> dict[dg.AssetKey, str]:
    """PASS, WARN, FAIL, UNKNOWN or NOT_APPLICABLE of each asset, as the daemon judged its freshness policy last."""
    records = instance.get_freshness_state_records(assets)
    return {key: state.freshness_state.value for key, state in records.items()}


def delete_run(instance: dg.DagsterInstance, run_id: str) -> int:
    """Delete a run, its events and what its steps printed; returns the bytes that its own files took.

    Dagster itself leaves the run's files: its SQLite file of events, and its folder of compute logs.
    """
    storage, logs = instance.event_log_storage, instance.compute_log_manager
    files = []
    if isinstance(storage, SqliteEventLogStorage):
        shard = Path(storage.path_for_shard(run_id))
        files = [shard.with_name(shard.name + suffix) for suffix in ("", "-wal", "-shm")]
    printed: list[Path] = []
    if isinstance(logs, LocalComputeLogManager):
        folder = Path(logs.get_captured_local_path([run_id, "compute_logs", "step"], "out")).parent.parent
        printed = list(folder.rglob("*")) if folder.name == run_id else []
    size = sum(path.stat().st_size for path in (*files, *printed) if path.is_file())
    instance.delete_run(run_id)
    logs.delete_logs(prefix=[run_id])
    for path in files:
        path.unlink(missing_ok=True)
    return size


def last_evaluation(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """What a check measured last, on whichever partition."""
    measured = {CheckStatus.SUCCEEDED, CheckStatus.FAILED}
    history = instance.event_log_storage.get_asset_check_execution_history(check, limit=1, status=measured)
    return history[0].evaluation if history else None


def daemon_heartbeats(instance: dg.DagsterInstance) -> dict[str, float]:
    """When each of Dagster's daemons was last alive, in seconds since the epoch."""
    return {kind: heartbeat.timestamp for kind, heartbeat in instance.get_daemon_heartbeats().items()}


def execute_in_postgres(instance: dg.DagsterInstance, statements: Iterable[str]) -> None:
    """Execute statements in the database of Dagster's storage. Raises ValueError if that is not PostgreSQL."""
    from dagster_postgres import PostgresRunStorage  # of the extra `cluster`, as sqlalchemy's driver
    from sqlalchemy import text

    storage = instance.run_storage
    if not isinstance(storage, PostgresRunStorage):
        raise ValueError("runs of several machines need Dagster's storage in PostgreSQL: see deploy/ray/dagster.yaml")
    with storage.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@contextmanager
def instance_and_run_of_command(command: str) -> Iterator[tuple[dg.DagsterInstance, str]]:
    """The instance and the id of the run that the last argument of `dagster api execute_run` names."""
    arguments = dg.deserialize_value(command, ExecuteRunArgs)
    assert arguments.instance_ref is not None  # launchers give it
    with dg.DagsterInstance.from_ref(arguments.instance_ref) as instance:
        yield instance, arguments.run_id
