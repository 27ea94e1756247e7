"""What is missing or stale: the one judgement that the headless catch-up and the nightly backfill share.

Belongs here: whether an asset or a partition has to be materialized again. Does not belong here: materializing it
(catch_up, jobs), and when (sensors, jobs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.train import nothing_to_train_on
from accelkd.recordings.arrivals import landed_versions
from accelkd.registry.history import can_replace_damaged, candidate_is_damaged, promoted_models
from accelkd.registry.trained_on import is_adopted
from orchestration.dagster_internals import (
    UNTRACKED_PARTITIONS,
    AssetGraph,
    CachingStaleStatusResolver,
    CheckStatus,
    StaleStatus,
    data_version,
    input_storage_ids,
    last_check_executions,
    last_planned,
    stale_status_resolver,
)

Target = tuple[dg.AssetKey, str | None]  # an asset, and its partition if it has partitions
TRAINING = frozenset(spec.name for spec in ENCODERS)  # has a schedule of its own


@dataclass(frozen=True)
class Freshness:
    """Looks at one state of a home and its instance; a new one is needed after every run, because it remembers."""

    home: Home
    instance: dg.DagsterInstance
    graph: AssetGraph

    def stale_or_missing(self, batches: list[str], *, retrain: bool) -> Iterator[Target]:
        """Everything to materialize, upstream first; with `retrain` off, encoders that are whole stay as they are."""
        resolver = stale_status_resolver(self.instance, self.graph)
        for key in self.graph.toposorted_asset_keys:
            for partition in batches if self.graph.get(key).is_partitioned else [None]:
                if self.is_stale_or_missing(key, partition, retrain=retrain, resolver=resolver):
                    yield key, partition

    def is_stale_or_missing(
        self,
        key: dg.AssetKey,
        partition: str | None,
        *,
        retrain: bool,
        resolver: CachingStaleStatusResolver | None = None,
    ) -> bool:
        """Whether an asset is missing, damaged or stale, or failed; what else happened in its run does not matter."""
        if self.graph.get(key).tags.get("cadence") == "manual" or not self.graph.get(key).is_materializable:
            return False
        resolver = resolver or stale_status_resolver(self.instance, self.graph)
        status = resolver.get_status(key, partition)
        name = key.to_user_string()
        if status is StaleStatus.MISSING and (retrain or not self._is_adopted(name) or self._trains_nothing()):
            return True
        stale = status is StaleStatus.STALE or (partition is None and self._inputs_changed(key))
        if name in TRAINING:
            damaged = {encoder for encoder in TRAINING if candidate_is_damaged(self.home, encoder)}
            if name in damaged:
                return True
            if not retrain:  # unless the other one will come back as another model
                return stale and bool(damaged)
        if name == "promoted_encoders" and can_replace_damaged(self.home):
            return True
        if name == "raw_recordings" and partition is not None and self._landed_again(key, partition):
            return True
        return stale or self._failed(key, partition)

    def _is_adopted(self, name: str) -> bool:
        """Whether an asset is an encoder of which a checkpoint from elsewhere is promoted."""
        models = promoted_models(self.home) if name in TRAINING else {}
        return name in models and is_adopted(self.home, name, models[name])

    def _trains_nothing(self) -> bool:
        """Whether materializing the encoders would find segments, and none to train on."""
        try:
            return nothing_to_train_on(self.home) is not None
        except FileNotFoundError:
            return False

    def _landed_again(self, key: dg.AssetKey, partition: str) -> bool:
        """Whether a landed batch has changed since it was read: it landed again, or a withdrawal rewrote it."""
        now = landed_versions(self.home).get(partition)
        if now is None:
            return False
        latest = self._latest(dg.AssetRecordsFilter(key, asset_partitions=[partition]))
        return latest is not None and data_version(latest) != now

    def has_failed(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Whether a step or a blocking check failed at the last attempt, and no input was made since.

        A run that was killed has not failed: nothing says that it would fail again. Nor has an encoder that was
        adopted, perhaps since.
        """
        if self._is_adopted(key.to_user_string()):
            return False
        planned = last_planned(self.instance, key, partition)
        if not planned or not self._failed(key, partition):
            return False
        failures = self.instance.get_records_for_run(planned.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1)
        if not failures.records:
            return False
        for parent in self.graph.get(key).parent_keys:
            partitions = [partition] if partition and self.graph.get(parent).is_partitioned else None
            news = dg.AssetRecordsFilter(parent, asset_partitions=partitions, after_storage_id=planned.storage_id)
            observed = self.graph.get(parent).is_observable
            fetch = self.instance.fetch_observations if observed else self.instance.fetch_materializations
            # What the same run made, it made before it failed
            if any(record.run_id != planned.run_id for record in fetch(news, limit=10).records):
                return False
        return True

    def _inputs_changed(self, key: dg.AssetKey) -> bool:
        """Whether a partition that an asset without partitions read has changed since.

        Dagster does not look where there are a hundred partitions or more.
        """
        latest = self._latest(dg.AssetRecordsFilter(key))
        inputs = input_storage_ids(latest) if latest else None
        if inputs is None:
            return False
        for parent in self.graph.get(key).parent_keys:
            if not self.graph.get(parent).is_partitioned:
                continue
            if len(self.instance.get_materialized_partitions(parent)) < UNTRACKED_PARTITIONS:
                continue
            read_until = inputs.get(parent) or 0
            news = dg.AssetRecordsFilter(parent, after_storage_id=read_until)
            cursor: str | None = None
            while True:
                page = self.instance.fetch_materializations(news, limit=1000, cursor=cursor)
                for record in page.records:
                    partitions = None if record.partition_key is None else [record.partition_key]
                    before = self._latest(
                        dg.AssetRecordsFilter(parent, asset_partitions=partitions, before_storage_id=read_until + 1)
                    )
                    if (data_version(before) if before else None) != data_version(record):
                        return True
                if not page.has_more:
                    break
                cursor = page.cursor
        return False

    def _failed(self, key: dg.AssetKey, partition: str | None) -> bool:
        """Whether the last run that was to make it failed before that, or a blocking check of what was made."""
        partitions = None if partition is None else [partition]
        latest = self._latest(dg.AssetRecordsFilter(key, asset_partitions=partitions))
        planned = last_planned(self.instance, key, partition)
        if planned and not (latest and latest.storage_id > planned.storage_id) and self._run_failed(planned.run_id):
            return True
        checks = [check for check in self.graph.get_check_keys_for_assets({key}) if self.graph.get(check).blocking]
        return any(
            execution.status is CheckStatus.FAILED
            or (execution.status is CheckStatus.PLANNED and self._run_failed(execution.run_id))
            for execution in last_check_executions(self.instance, checks, partition)
        )

    def _latest(self, materializations: dg.AssetRecordsFilter) -> dg.EventLogRecord | None:
        records = self.instance.fetch_materializations(materializations, limit=1).records
        return records[0] if records else None

    def _run_failed(self, run_id: str) -> bool:
        run = self.instance.get_run_by_id(run_id)
        return run is not None and run.status is dg.DagsterRunStatus.FAILURE
