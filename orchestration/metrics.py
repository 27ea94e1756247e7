"""What Dagster adds to `accelkd metrics`: runs, checks, drift and the daemon's heartbeats.

pyproject.toml names `instance_metrics` as an entry point, so that accelkd need not know of Dagster.

Belongs here: numbers that only Dagster's storage knows. Does not belong here: what the home's files say
(accelkd.operations.metrics).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import dagster as dg
from prometheus_client.core import Metric

from accelkd.home.layout import Home
from accelkd.operations.metrics import gauge, labelled, single
from orchestration.dagster_internals import AssetGraph, check_states, daemon_heartbeats, last_evaluation
from orchestration.definitions import build_defs
from orchestration.instance import dagster_home, opened_instance

DRIFT = "_resemble_training"  # end of the names of checks that measure drift
THRESHOLD = "_threshold"


def instance_metrics(home: Home) -> Iterator[Metric]:
    """Metrics of the instance in DAGSTER_HOME, else in the home's folder `dagster`; none where there is none."""
    folder = dagster_home(home)
    if not (folder / "dagster.yaml").exists():
        return
    with opened_instance(folder) as instance:
        yield from _runs(instance)
        yield from _checks(instance, _graph(home))
        heartbeats = daemon_heartbeats(instance)
        yield labelled("daemon_heartbeat_timestamp_seconds", "When a daemon was last alive", "daemon", heartbeats)


@lru_cache
def _graph(home: Home) -> AssetGraph:
    return build_defs(home).resolve_asset_graph()


def _runs(instance: dg.DagsterInstance) -> Iterator[Metric]:
    counts = {
        status.value.lower(): instance.get_runs_count(dg.RunsFilter(statuses=[status]))
        for status in dg.DagsterRunStatus
    }
    yield labelled("runs", "Runs in Dagster's storage, by status; queued is the queue", "status", counts)
    day = datetime.now(UTC) - timedelta(days=1)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=day)
    yield from single("runs_failed_last_day", "Runs that failed in the last 24 h", instance.get_runs_count(failed))
    waiting = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1, order_by="id", ascending=True
    )
    oldest = waiting[0].create_timestamp.timestamp() if waiting else None
    yield from single("oldest_queued_run_timestamp_seconds", "Since when the oldest run waits", oldest)


def _checks(instance: dg.DagsterInstance, graph: AssetGraph) -> Iterator[Metric]:
    checks = sorted(graph.asset_check_keys)
    failing = Counter(
        (state.check.asset_key.to_user_string(), state.check.name, state.evaluation.severity.value.lower())
        for state in check_states(instance, checks)
        if state.evaluation
    )
    family = gauge("checks_failing", "Batches, or 1, whose last check failed", ["asset", "check", "severity"])
    for labels, count in failing.items():
        family.add_metric(labels, count)
    yield family
    drift = gauge("drift", "Difference of the batch checked last from the training cohort", ["asset", "quantity"])
    threshold = gauge("drift_threshold", "Above which that is drift", ["asset", "quantity"])
    for check in checks:
        evaluation = last_evaluation(instance, check) if check.name.endswith(DRIFT) else None
        for name, value in (evaluation.metadata if evaluation else {}).items():
            if isinstance(value, dg.FloatMetadataValue) and value.value is not None:
                into = threshold if name.endswith(THRESHOLD) else drift
                into.add_metric([check.asset_key.to_user_string(), name.removesuffix(THRESHOLD)], value.value)
    yield drift
    yield threshold
