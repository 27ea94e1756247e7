"""What accelkd uses of Dagster beyond its public API is what it was in the release that was read."""

from __future__ import annotations

import ast
import inspect
import re
from functools import reduce
from importlib import import_module
from importlib.metadata import version

import pytest

from tests.support import REPOSITORY

RELEASE = "1.13.27"
MODULE = REPOSITORY / "orchestration" / "dagster_internals.py"

# Parameters of what is called
SIGNATURES = {
    "dagster._core.definitions.data_version:CachingStaleStatusResolver": "instance asset_graph loading_context "
    "instance_queryer",
    "dagster._core.definitions.data_version:CachingStaleStatusResolver.get_status": "self key partition_key",
    "dagster._core.definitions.data_version:extract_data_version_from_entry": "entry",
    "dagster._core.definitions.data_version:extract_data_provenance_from_entry": "entry",
    "dagster._core.definitions.assets.graph.asset_graph_subset:AssetGraphSubset.from_asset_partition_set": ""
    "asset_partitions_set asset_graph validate_time_range",
    "dagster._core.definitions.events:AssetKeyPartitionKey": "asset_key partition_key",
    "dagster._core.definitions.assets.graph.base_asset_graph:BaseAssetGraph.get": "self key",
    "dagster._core.definitions.assets.graph.base_asset_graph:BaseAssetGraph.get_check_keys_for_assets": ""
    "self asset_keys",
    "dagster._core.execution.backfill:PartitionBackfill.from_asset_graph_subset": "backfill_id backfill_timestamp tags "
    "dynamic_partitions_store asset_graph_subset title description run_config",
    "dagster._core.utils:make_new_backfill_id": "",
    "dagster._core.launcher.base:CheckRunHealthResult": "status msg transient run_worker_id",
    "dagster._core.launcher.base:RunLauncher.check_run_worker_health": "self run",
    "dagster._grpc.client:DagsterGrpcClient.can_cancel_execution": "self can_cancel_execution_request timeout",
    "dagster:DefaultRunLauncher._get_grpc_client_for_termination": "self run_id",
    "dagster:DagsterInstance.get_backfills": "self filters cursor limit status",
    "dagster:DagsterInstance.add_backfill": "self partition_backfill",
    "dagster:DagsterInstance.report_run_failed": "self dagster_run message job_failure_data",
    "dagster:DagsterInstance.get_materialized_partitions": "self asset_key before_cursor after_cursor",
    "dagster._core.storage.event_log.base:EventLogStorage.get_latest_planned_materialization_info": ""
    "self asset_key partition",
    "dagster._core.storage.event_log.base:EventLogStorage.get_latest_asset_check_execution_by_key": ""
    "self check_keys partition_filter",
    "dagster._core.storage.event_log.base:EventLogStorage.free_concurrency_slots_for_run": "self run_id",
    "dagster._core.storage.event_log.base:EventLogStorage.get_asset_check_partition_info": ""
    "self keys after_storage_id partition_keys",
    "dagster._core.storage.event_log.base:EventLogStorage.get_asset_check_execution_history": ""
    "self check_key limit cursor status partition_filter",
    "dagster:DagsterInstance.get_freshness_state_records": "self keys",
    "dagster:DagsterInstance.get_daemon_heartbeats": "self",
    "dagster:DagsterInstance.delete_run": "self run_id",
    "dagster._core.storage.event_log.sqlite.sqlite_event_log:SqliteEventLogStorage.path_for_shard": "self run_id",
    "dagster._core.storage.local_compute_log_manager:LocalComputeLogManager.get_captured_local_path": ""
    "self log_key extension partial",
    "dagster._core.storage.local_compute_log_manager:LocalComputeLogManager.delete_logs": "self log_key prefix",
    "dagster_postgres:PostgresRunStorage.connect": "self",
    "dagster_ray:RayRunLauncher._launch_ray_job": "self submission_id entrypoint run",
}
# What is read, overridden or, of a record, given
ATTRIBUTES = {
    "dagster._core.definitions.data_version:DataProvenance": "input_storage_ids",
    "dagster._core.definitions.data_version:StaleStatus": "MISSING STALE",
    "dagster._core.event_api:PartitionKeyFilter": "key",
    "dagster._core.execution.backfill:BulkActionsFilter": "statuses",
    "dagster._core.execution.backfill:BulkActionStatus": "REQUESTED",
    "dagster._core.execution.backfill:PartitionBackfill": "tags backfill_id",
    "dagster._core.launcher.base:RunLauncher": "supports_check_run_worker_health",
    "dagster._core.launcher.base:WorkerStatus": "NOT_FOUND RUNNING",
    "dagster._core.loader:LoadingContext": "instance loaders",
    "dagster._core.storage.asset_check_execution_record:AssetCheckExecutionRecord": "run_id status evaluation",
    "dagster._core.storage.asset_check_execution_record:AssetCheckExecutionRecordStatus": "FAILED PLANNED SUCCEEDED",
    "dagster._core.storage.event_log.base:PlannedMaterializationInfo": "run_id storage_id",
    "dagster._grpc.types:CanCancelExecutionRequest": "run_id",
    "dagster._grpc.types:ExecuteRunArgs": "instance_ref run_id",
    "dagster._grpc.types:CanCancelExecutionResult": "can_cancel",
    "dagster._core.definitions.assets.graph.base_asset_graph:BaseAssetGraph": "toposorted_asset_keys asset_check_keys "
    "materializable_asset_keys",
    "dagster._core.definitions.freshness:FreshnessState": "FAIL PASS WARN UNKNOWN NOT_APPLICABLE",
    "dagster._core.definitions.freshness:FreshnessStateRecord": "freshness_state",
    "dagster._core.storage.asset_check_execution_record:AssetCheckPartitionInfo": "check_key partition_key "
    "latest_execution_status latest_check_event_storage_id",
    "dagster:DagsterInstance": "event_log_storage compute_log_manager",
}
# Names that are written to the instance and compared with
VALUES = {
    "dagster._core.definitions.data_version:DATA_VERSION_TAG": "dagster/data_version",
    "dagster._core.definitions.data_version:SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD": 100,
    "dagster._core.storage.tags:PARTITION_NAME_TAG": "dagster/partition",
    "dagster._core.storage.tags:WILL_RETRY_TAG": "dagster/will_retry",
    "dagster._core.storage.tags:AUTO_RETRY_RUN_ID_TAG": "dagster/auto_retry_run_id",
}


def private_imports() -> list[str]:
    tree = ast.parse(MODULE.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [
        f"{node.module}:{alias.name}"
        for node in imports
        for alias in node.names
        if node.module and node.module.startswith("dagster.")
    ]


def look_up(path: str) -> object:
    module, name = path.split(":")
    try:
        return reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{error}. {advice(path)}")


def advice(path: str) -> str:
    return (
        f"orchestration/dagster_internals.py was checked against Dagster {RELEASE}, and {path} has changed in the "
        f"installed {version('dagster')}: install the pinned release, or adapt the module and this test to the new one"
    )


def test_the_pinned_release_is_the_one_that_was_checked() -> None:
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^dagster==(.+)$", pins, re.MULTILINE)
    assert pinned == [RELEASE], "another Dagster is pinned: run these tests with it, then name it in RELEASE"


@pytest.mark.parametrize("path", private_imports())
def test_what_is_imported_is_there(path: str) -> None:
    look_up(path)


@pytest.mark.parametrize("path", SIGNATURES)
def test_what_is_called_takes_the_same_parameters(path: str) -> None:
    called = look_up(path)
    assert callable(called)
    assert list(inspect.signature(called).parameters) == SIGNATURES[path].split(), advice(path)


@pytest.mark.parametrize("path", ATTRIBUTES)
def test_what_is_read_is_there(path: str) -> None:
    owner = look_up(path)
    annotated = getattr(owner, "__annotations__", {})
    missing = [name for name in ATTRIBUTES[path].split() if not hasattr(owner, name) and name not in annotated]
    assert not missing, advice(path)


@pytest.mark.parametrize("path", VALUES)
def test_names_that_are_stored_are_the_same(path: str) -> None:
    assert look_up(path) == VALUES[path], advice(path)
