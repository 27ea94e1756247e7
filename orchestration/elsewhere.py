"""Runs of a catch-up on other machines: of assets that need files alone, one run for each batch, side by side.

Belongs here: launching such runs, waiting for them, and launching again what died. Does not belong here: which assets
are due (catch_up), how a run is started (the launcher), and how files get there and back (accelkd.operations.share).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from orchestration.dagster_internals import (
    CheckRunHealthResult,
    WorkerStatus,
    create_run,
    fail_run,
    launch_run,
    run_events,
)

FILES_ALONE = "accelkd/files_alone"  # tag of runs that any machine may do
MAX_RUNNING = 64  # runs; what the cluster has no room for waits there
MAX_LAUNCHES = 3  # of one batch: a run whose process or machine died is launched again
POLL_S = 0.5
_HEALTH_S = 5.0  # between two looks at whether a run's process is there
# Unknown are jobs of a cluster whose head was started again; Dagster's daemon counts them so, too
_GONE = (WorkerStatus.NOT_FOUND, WorkerStatus.FAILED, WorkerStatus.UNKNOWN)


def run_elsewhere(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    due: Mapping[str, Sequence[dg.AssetKey]],
    tags: Mapping[str, str],
) -> Iterator[tuple[str, list[dg.DagsterEvent]]]:
    """Materialize assets of each batch in a run of its own; yields each batch with the events of its last run.

    In the order in which they end. Runs without the assets' checks. A run that died without saying why is launched
    again, up to MAX_LAUNCHES times in all. Runs that are in progress when the caller stops are failed.
    """
    waiting, launches = list(due), dict.fromkeys(due, 0)
    running: dict[str, str] = {}  # run id by batch
    looked_at = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < MAX_RUNNING:
                batch_id = waiting.pop(0)
                launches[batch_id] += 1
                run = create_run(instance, job, due[batch_id], batch_id, {**tags, FILES_ALONE: "true"})
                running[batch_id] = run.run_id
                launch_run(instance, running[batch_id])
            look = time.monotonic() - looked_at > _HEALTH_S
            looked_at = time.monotonic() if look else looked_at
            for batch_id, run_id in list(running.items()):
                started = instance.get_run_by_id(run_id)
                if started is not None and not started.is_finished:
                    if look and (health := _health(instance, started)).status in _GONE:
                        fail_run(instance, started, f"its process is gone: {health.msg or 'nothing is known of it'}")
                    continue
                del running[batch_id]
                events = run_events(instance, run_id)
                succeeded = started is not None and started.is_success
                died = not succeeded and not any(event.is_step_failure for event in events)
                if died and launches[batch_id] < MAX_LAUNCHES:
                    waiting.append(batch_id)
                else:
                    yield batch_id, events
            time.sleep(POLL_S)
    finally:
        for run_id in running.values():
            left = instance.get_run_by_id(run_id)
            if left is not None and not left.is_finished:
                fail_run(instance, left, "the catch-up that it was part of has ended")


def _health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> CheckRunHealthResult:
    if run.status is dg.DagsterRunStatus.NOT_STARTED:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return instance.run_launcher.check_run_worker_health(run)
