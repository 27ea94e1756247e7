"""What is missing or stale: the one judgement that the headless runner and the nightly backfill share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import (
    SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD,
    CachingStaleStatusResolver,
    StaleStatus,
    extract_data_provenance_from_entry,
    extract_data_version_from_entry,
)
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.registry.history import can_replace_damaged, candidate_is_damaged

Step = tuple[dg.AssetKey, str | None]  # an asset, and its partition if it has partitions
TRAINING = frozenset(spec.name for spec in ENCODERS)  # has a schedule of its own


@dataclass(frozen=True)
class Freshness:
    """Looks at one state of a home and its instance; a new one is needed after every run, because it remembers."""

    home: Home
    instance: dg.DagsterInstance
    graph: BaseAssetGraph[Any]

    def due(self, batches: list[str], *, retrain: bool) -> Iterator[Step]:
        """Everything to materialize, upstream first; with `retrain` off, encoders that are whole stay as they are."""
        resolver = CachingStaleStatusResolver(self.instance, self.graph, LoadingContextForTest(self.instance))
        for key in self.graph.toposorted_asset_keys:
            for partition in batches if self.graph.get(key).is_partitioned else [None]:
                if self.is_due(key, partition, retrain=retrain, resolver=resolver):
                    yield key, partition

    def is_due(
        self,
        key: dg.AssetKey,
        partition: str | None,
        *,
        retrain: bool,
        resolver: CachingStaleStatusResolver | None = None,
    ) -> bool:
        """Whether an asset is missing, damaged or stale, or failed; what else happened in its run does not matter."""
        # Dagster's own notion of stale (code version or upstream data version changed), as its UI shows it; it has no
        # public door yet.
        if self.graph.get(key).tags.get("cadence") == "manual":
            return False
        resolver = resolver or CachingStaleStatusResolver(
            self.instance, self.graph, LoadingContextForTest(self.instance)
        )
        status = resolver.get_status(key, partition)
        if status is StaleStatus.MISSING:
            return True
        stale = status is StaleStatus.STALE or (partition is None and self._read_something_else(key))
        name = key.to_user_string()
        if name in TRAINING:
            damaged = {encoder for encoder in TRAINING if candidate_is_damaged(self.home, encoder)}
            if name in damaged:
                return True
            if not retrain:  # unless the other one will come back as another model
                return stale and bool(damaged)
        if name == "promoted_encoders" and can_replace_damaged(self.home):
            return True
        return stale or self._failed(key, partition)

    def _read_something_else(self, key: dg.AssetKey) -> bool:
        """Whether a partition that an asset without partitions read has changed since.

        Dagster does not look where there are a hundred partitions or more.
        """
        latest = self.instance.get_latest_data_version_record(key)
        provenance = extract_data_provenance_from_entry(latest.event_log_entry) if latest else None
        if provenance is None:
            return False
        for parent in self.graph.get(key).parent_keys:
            if not self.graph.get(parent).is_partitioned:
                continue
            count = len(self.instance.get_materialized_partitions(parent))
            if count < SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD:
                continue
            read = provenance.input_storage_ids.get(parent) or 0
            news = dg.AssetRecordsFilter(parent, after_storage_id=read)
            cursor: str | None = None
            while True:
                page = self.instance.fetch_materializations(news, limit=1000, cursor=cursor)
                for record in page.records:
                    before = self.instance.get_latest_data_version_record(
                        parent, partition_key=record.partition_key, before_cursor=read + 1
                    )
                    was = extract_data_version_from_entry(before.event_log_entry) if before else None
                    if was != extract_data_version_from_entry(record.event_log_entry):
                        return True
                if not page.has_more:
                    break
                cursor = page.cursor
        return False

    def _failed(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Whether the last run that was to make it failed before that, or a blocking check of what was made."""
        storage = self.instance.event_log_storage
        made = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=None if partition is None else [partition]), limit=1
        ).records
        planned = storage.get_latest_planned_materialization_info(key, partition)
        if planned and not (made and made[0].storage_id > planned.storage_id) and self._run_failed(planned.run_id):
            return True
        blocking = [one for one in self.graph.get_check_keys_for_assets({key}) if self.graph.get(one).blocking]
        latest = storage.get_latest_asset_check_execution_by_key(blocking, PartitionKeyFilter(key=partition))
        return any(
            record.status is AssetCheckExecutionRecordStatus.FAILED
            or (record.status is AssetCheckExecutionRecordStatus.PLANNED and self._run_failed(record.run_id))
            for record in latest.values()
        )

    def _run_failed(self, run_id: str) -> bool:
        run = self.instance.get_run_by_id(run_id)
        return run is not None and run.status is dg.DagsterRunStatus.FAILURE
