"""Bring a home up to date in this process: materialize what is missing or stale, and end with one published state.

Run as `python -m orchestration.catch_up`; `make demo` and the daemon's job `catch_up` use it too. All of it happens in
one process, stage by stage: the batches, the split, the encoders, the embeddings, then the reports and the published
file. What arrives meanwhile waits for the next catch-up, so each one ends, and what it publishes is of one split. Its
runs stand on the instance in DAGSTER_HOME, one for each batch and stage, so the UI shows them like any other.

Belongs here: materializing in this process, in order, and what a killed catch-up left behind. Does not belong here:
deciding what is stale (freshness), and what requests a catch-up (sensors, jobs).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import dagster as dg

from accelkd.home.files import sweep
from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from accelkd.operations.checks import removed_from_landing_zone
from accelkd.operations.share import share_home, take_back, take_back_missing
from accelkd.recordings.arrivals import (
    arrived_batches,
    forget,
    refused,
    refused_unchanged,
    settled_arrivals,
    superseded,
)
from accelkd.registry.history import promoted_models
from accelkd.warehouse.staging import readable
from assets.partitions import arrival_batches
from assets.warehouse import published_warehouse
from orchestration.catch_up_lock import CATCH_UP, catch_up_lock
from orchestration.dagster_internals import (
    AssetGraph,
    CachingStaleStatusResolver,
    fail_run,
    stale_status_resolver,
    unchecked_since,
)
from orchestration.definitions import build_defs
from orchestration.elsewhere import run_elsewhere
from orchestration.freshness import Freshness
from orchestration.instance import dagster_home, opened_instance
from orchestration.outside import report_outside
from orchestration.statuses import UNFINISHED

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # a failure is printed in one line instead

# Groups of assets, in order. What of a stage is stale for one batch shares a run; of the last one, with all below it.
# Recordings come first, by themselves: a batch that is refused then leaves no check behind that was not executed.
STAGES = (("recordings",), ("segments",), ("cohort",), ("encoders",), ("embeddings",), ("reports", "warehouse"))
WITHOUT_ENCODERS = STAGES[:3]

Step = tuple[str, str | None]  # asset, and its batch if it has one
Encoders = Literal["train", "keep", "wait"]
_PARTITIONS = str(arrival_batches.name)


@dataclass
class CatchUpOutcome:
    """What a catch-up did, as (asset, partition or None)."""

    materialized: list[Step] = field(default_factory=list)
    failed: list[Step] = field(default_factory=list)
    skipped: list[Step] = field(default_factory=list)  # because something upstream failed, now or before


def catch_up(
    home: Home,
    instance: dg.DagsterInstance,
    *,
    encoders: Encoders = "train",
    retry_failed: bool = True,
    arrived: Collection[str] = (),
    parent: str | None = None,
) -> CatchUpOutcome:
    """Materialize everything missing or stale, upstream first; one failure never stops what does not depend on it.

    `encoders`: `train` what is missing or stale; `keep` those that exist; or also `wait` for the first ones, with all
    that needs encoders. The tables are published in any case. With `retry_failed` off, what failed is left alone until
    its inputs change; batches that have just `arrived` never are. A batch that was refused is left alone until its
    files change. `parent` is the run whose part the catch-up is. Waits for another catch-up of the same home; what one
    that was killed left unfinished is done again. After one that failed or was killed the whole staging file is read,
    and rebuilt if it is damaged.
    """
    with catch_up_lock(home):
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
            if CATCH_UP in run.tags:
                fail_run(instance, run, "its process was killed")
        sweep(home.root)
        unfinished = home.root / ".catch_up.unfinished"  # until an end without a failure
        if home.published.exists() and not (readable(home) if unfinished.exists() else home.staging.exists()):
            from accelkd.operations.rebuild import rebuild_warehouse  # imports torch

            print(f"  {home.staging.name} is damaged or gone: rebuilding the warehouse", flush=True)
            with shared_lock(home):
                rebuild_warehouse(home)
        unfinished.touch()
        # What is killed is done again by the next catch-up, so Dagster need not
        tags = {CATCH_UP: parent or "headless", "dagster/max_retries": "0"}
        outcome = _CatchUp(home, instance, encoders, retry_failed, frozenset(arrived), tags).run()
        if not outcome.failed:
            unfinished.unlink()
        return outcome


@dataclass
class _CatchUp:
    """One pass over all stages."""

    home: Home
    instance: dg.DagsterInstance
    encoders: Encoders
    retry_failed: bool
    arrived: frozenset[str]
    tags: dict[str, str]
    outcome: CatchUpOutcome = field(default_factory=CatchUpOutcome)
    left_alone: set[Step] = field(default_factory=set)  # because it failed before
    seen: CachingStaleStatusResolver | None = None  # what was read of the instance since the last run

    def __post_init__(self) -> None:
        defs = build_defs(self.home)
        self.graph: AssetGraph = defs.resolve_asset_graph()
        self.job = defs.resolve_implicit_global_asset_job_def()

    def run(self) -> CatchUpOutcome:
        settled = settled_arrivals(self.home)
        arrived = [batch_id for batch_id in arrived_batches(self.home) if batch_id not in settled]
        self.instance.add_dynamic_partitions(_PARTITIONS, arrived)
        report_outside(self.home, self.instance)
        for batch_id in sorted(refused_unchanged(self.home)):
            print(f"  refused  {batch_id}: {refused(self.home)[batch_id].reasons[0]}", flush=True)
        known = set(self.instance.get_dynamic_partitions(_PARTITIONS))
        removed = removed_from_landing_zone(self.home, known).forgotten
        for batch_id in removed:
            forget(self.home, batch_id)
        for batch_id in {*(superseded(self.home).keys() & known), *removed}:
            self.instance.delete_dynamic_partition(_PARTITIONS, batch_id)
        batches = [name for name in self.instance.get_dynamic_partitions(_PARTITIONS) if name not in settled]
        for groups in STAGES:
            self.seen = None
            keys = [key for key in self.graph.toposorted_asset_keys if self.graph.get(key).group_name in groups]
            without = WITHOUT_ENCODERS if self.encoders == "wait" else STAGES[:4]
            if groups not in without and not promoted_models(self.home):
                keys = [key for key in keys if key == published_warehouse.key]
            per_batch = any(self.graph.get(key).is_partitioned for key in keys)
            if per_batch and self.home.store is not None:
                keys = self._elsewhere(keys, batches)
            for partition in batches if per_batch else [None]:
                self._stage(keys, partition, together=groups is STAGES[-1])
        self._publish_anyway()
        return self.outcome

    def _publish_anyway(self) -> None:
        """Publish what is whole though a report, or something else above it, failed: an encoder costs no table."""
        key = published_warehouse.key
        step = (key.to_user_string(), None)
        if step in self.outcome.skipped and (self.outcome.materialized or self._is_due(key, None)):
            self.outcome.skipped.remove(step)
            self._materialize([key], None)

    def _stage(self, keys: list[dg.AssetKey], partition: str | None, *, together: bool) -> None:
        """Materialize what is stale of a stage, until nothing is: what was made may make more stale."""
        tried: set[dg.AssetKey] = set()
        while stale := [key for key in keys if key not in tried and self._is_due(key, partition)]:
            if together:
                stale = [key for key in keys if key not in tried and self._is_below(key, stale)]
            blocked = [key for key in stale if self._is_blocked(key, partition, stale)]
            self.outcome.skipped += [(key.to_user_string(), partition) for key in blocked]
            tried.update(stale)
            if selection := [key for key in stale if key not in blocked]:
                self._materialize(selection, partition)

    def _elsewhere(self, keys: list[dg.AssetKey], batches: Collection[str]) -> list[dg.AssetKey]:
        """Materialize on other machines what needs files alone, all batches side by side; returns the other assets.

        Their checks run here, since what they measure goes into the warehouse.
        """
        alone = [key for key in keys if not self.graph.get(key).pools]
        share_home(self.home)
        due: dict[str, list[dg.AssetKey]] = {}
        for batch_id in batches:
            stale = [key for key in alone if self._is_due(key, batch_id)]
            blocked = [key for key in stale if self._is_blocked(key, batch_id, stale)]
            self.outcome.skipped += [(key.to_user_string(), batch_id) for key in blocked]
            if selection := [key for key in stale if key not in blocked]:
                due[batch_id] = selection
        take_back_missing(self.home, [batch_id for batch_id in batches if batch_id not in due])
        self.seen = None
        for batch_id, events in run_elsewhere(self.instance, self.job, due, self.tags):
            take_back(self.home, batch_id)
            self._record_run(due[batch_id], batch_id, events)
        checks = [check for check in self.graph.asset_check_keys if check.asset_key in alone]
        of_batches = [check for check in checks if self.graph.get(check).partitions_def is not None]
        for batch_id in batches if of_batches else ():
            self._check(unchecked_since(self.instance, of_batches, batch_id), batch_id)
        if due:
            self._check([check for check in checks if check not in of_batches], None)
        return [key for key in keys if key not in alone]

    def _check(self, checks: Sequence[dg.AssetCheckKey], partition: str | None) -> None:
        """One run, in this process, of checks alone."""
        if not checks:
            return
        result = self.job.get_subset(asset_check_selection=set(checks)).execute_in_process(
            instance=self.instance, partition_key=partition, run_config=QUIET, tags=self.tags, raise_on_error=False
        )
        self._record_run(self._failures(result.all_events), partition, result.all_events)

    def _is_due(self, key: dg.AssetKey, partition: str | None) -> bool:
        if partition is not None and not self.instance.has_dynamic_partition(_PARTITIONS, partition):
            return False  # a correction has just replaced it
        freshness = Freshness(self.home, self.instance, self.graph)
        # Read again for each batch, it would take most of the time of a catch-up over many that are fresh
        self.seen = self.seen or stale_status_resolver(self.instance, self.graph)
        if not freshness.is_stale_or_missing(key, partition, retrain=self.encoders == "train", resolver=self.seen):
            return False
        if self.retry_failed or partition in self.arrived or not freshness.has_failed(key, partition):
            return True
        self.left_alone.add((key.to_user_string(), partition))
        return False

    def _is_below(self, key: dg.AssetKey, stale: Collection[dg.AssetKey]) -> bool:
        return key in stale or (
            self.graph.get(key).tags.get("cadence") != "manual"
            and any(self._is_below(parent, stale) for parent in self.graph.get(key).parent_keys)
        )

    def _is_blocked(self, key: dg.AssetKey, partition: str | None, stale: Collection[dg.AssetKey]) -> bool:
        """Whether something upstream failed, was skipped or left alone, also through an asset of the same run."""
        steps = [*self.outcome.failed, *self.outcome.skipped, *self.left_alone]
        broken = {asset for asset, batch_id in steps if batch_id in (None, partition)}
        parents = self.graph.get(key).parent_keys
        return any(
            parent.to_user_string() in broken or (parent in stale and self._is_blocked(parent, partition, stale))
            for parent in parents
        )

    def _materialize(self, keys: list[dg.AssetKey], partition: str | None) -> None:
        """One run in this process."""
        self.seen = None
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            partition_key=partition,
            run_config=QUIET,
            tags=self.tags,
            raise_on_error=False,
        )
        self._record_run(keys, partition, result.all_events)

    def _record_run(
        self, keys: Collection[dg.AssetKey], partition: str | None, events: Sequence[dg.DagsterEvent]
    ) -> None:
        """Which of a run's assets were made, failed or were skipped, read from its events."""
        reasons = self._failures(events)
        made = {event.asset_key for event in events if event.is_step_materialization}
        seconds = {
            event.step_key: event.step_success_data.duration_ms / 1000 for event in events if event.is_step_success
        }
        for key in keys:
            name = key.to_user_string()
            if key in reasons:
                verdict = f"FAILED: {reasons[key]}"
                self.outcome.failed.append((name, partition))
            elif key in made:
                verdict = "done"
                self.outcome.materialized.append((name, partition))
            else:
                verdict = "skipped"
                self.outcome.skipped.append((name, partition))
            print(f"  {name:<26} {partition or '':<20} {seconds.get(name, 0):6.1f} s  {verdict}", flush=True)

    def _failures(self, events: Sequence[dg.DagsterEvent]) -> dict[dg.AssetKey, str]:
        """Why assets of a run failed: their own step, one of their checks, or what a blocking check measured."""
        assets = {key.to_python_identifier(): key for key in self.graph.get_all_asset_keys()}
        for check in self.graph.asset_check_keys:
            assets[f"{check.asset_key.to_python_identifier()}_{check.name}"] = check.asset_key
        reasons: dict[dg.AssetKey, str] = {}
        for event in events:
            if event.is_step_failure:
                explained = event.step_failure_data.user_failure_data
                error = event.step_failure_data.error
                cause = error.cause if error and error.cause else error
                reason = (explained and explained.description) or (cause.message.strip() if cause else "unknown")
                reasons.setdefault(assets[str(event.step_key)], reason)
            elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                blocking = self.graph.get(evaluation.asset_check_key).blocking
                if blocking and not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR:
                    reasons[evaluation.asset_key] = f"the blocking check {evaluation.check_name} failed"
        return reasons


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestration.catch_up", description=__doc__)
    parser.add_argument("--keep-encoders", action="store_true", help="do not retrain encoders that exist")
    arguments = parser.parse_args()
    home = Home.from_environment()
    with opened_instance(dagster_home(home)) as instance:
        outcome = catch_up(home, instance, encoders="keep" if arguments.keep_encoders else "train")
    print(
        f"{len(outcome.materialized)} materialized, {len(outcome.failed)} failed, "
        f"{len(outcome.skipped)} skipped because something upstream failed"
    )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
