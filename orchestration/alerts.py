"""Alerts: what Dagster knows of problems is handed to accelkd.operations.alerts, which sends it.

Belongs here: which runs, checks, arrivals and ages are problems, and when they are not any more. Does not belong here:
channels, messages and what was sent already (accelkd.operations).
"""

import json
from collections.abc import Iterator, Sequence

import dagster as dg

from accelkd.home.layout import Home
from accelkd.operations.alert_channels import Kind
from accelkd.operations.alerts import Problem, alert_status, alerts_are_on, deliver, record
from accelkd.recordings.arrivals import pending_arrivals, refused
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings
from orchestration.dagster_internals import (
    PARTITION_TAG,
    WILL_RETRY_TAG,
    AssetGraph,
    CheckState,
    check_states,
    freshness_states,
)

_PLANNED = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION}
_BLOCKED = "DagsterAssetCheckFailedError"  # of a step whose blocking check failed
_OFF = "no alerts.toml in the home: alerts are off"
MAX_MEASURED = 4  # numbers of a check in its sentence


@dg.run_failure_sensor(
    name="failed_runs",
    monitor_all_code_locations=True,  # also runs of the headless catch-up, which come from none
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts about runs that failed and are not started again; off without alerts.toml.",
)
def failed_runs(context: dg.RunFailureSensorContext, home: dg.ResourceParam[Home]) -> dg.SkipReason:
    if not alerts_are_on(home):
        return dg.SkipReason(_OFF)
    run = context.dagster_run
    if run.tags.get(WILL_RETRY_TAG) == "true":
        return dg.SkipReason(f"run {run.run_id} is started again")
    steps = context.get_step_failure_events()
    if steps and {_error_name(step) for step in steps} == {_BLOCKED}:
        return dg.SkipReason(f"run {run.run_id} was stopped by a check, which is reported itself")
    if {step.step_key for step in steps} == {raw_recordings.op.name} and run.tags.get(PARTITION_TAG) in refused(home):
        return dg.SkipReason(f"run {run.run_id} refused its batch, which is reported itself")
    record(home, [_failure(context.instance, run, steps)])
    return dg.SkipReason(_deliver(context, home))


@dg.sensor(
    name="alerts",
    description="Alerts about failed checks, refused batches and overdue assets, and about their end.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def alerts(context: dg.SensorEvaluationContext, home: dg.ResourceParam[Home]) -> dg.SensorResult | dg.SkipReason:
    """Alerts about failed checks, refused batches and overdue assets, and about their end; off without alerts.toml.

    What could not be delivered is tried again.
    """
    if not alerts_are_on(home):
        return dg.SkipReason(_OFF)
    instance, graph = context.instance, _graph(context)
    before = {problem.key: problem for problem in alert_status(home).open}
    partitions = set(instance.get_dynamic_partitions(str(arrival_batches.name)))
    seen = int(json.loads(context.cursor)["storage_id"]) if context.cursor else None
    states = [
        state
        for state in check_states(instance, _checks(graph), after_storage_id=seen)
        if state.partition is None or state.partition in partitions
    ]
    failed = sorted(
        (_failed_check(state, state.evaluation) for state in states if state.evaluation),
        key=lambda problem: (problem.kind, problem.key),  # errors first
    )
    now = [*_landing_zone(home, partitions), *_overdue(instance, graph)]
    current = {problem.key for problem in now}
    resolved = {_check_key(state) for state in states if not state.evaluation}
    resolved |= {key for key, problem in before.items() if _is_over(instance, problem, current, partitions)}
    record(home, [*failed, *now], resolved - {problem.key for problem in failed})
    cursor = json.dumps({"storage_id": max((state.storage_id for state in states), default=seen or 0)})
    return dg.SensorResult(skip_reason=dg.SkipReason(_deliver(context, home)), cursor=cursor)


alert_sensors = [failed_runs, alerts]


def _deliver(context: dg.SensorEvaluationContext | dg.RunFailureSensorContext, home: Home) -> str:
    """Deliver what is news; what the tick says. A channel that fails is a warning in its log."""
    try:
        failed = deliver(home)
    except ValueError as error:
        context.log.error(f"no alert can be sent: {error}")
        return f"no alert can be sent: {error}"
    for line in failed:
        context.log.warning(line)
    return "; ".join([f"{len(alert_status(home).open)} problems are open", *failed])


def _graph(context: dg.SensorEvaluationContext) -> AssetGraph:
    if context.repository_def is None:
        raise ValueError("the sensor needs its repository: build its context with definitions")
    return context.repository_def.asset_graph


def _checks(graph: AssetGraph) -> Sequence[dg.AssetCheckKey]:
    """All but the landing zone's, whose batches are reported one by one."""
    return [key for key in graph.asset_check_keys if key.name != "landing_zone"]


def _failure(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: Sequence[dg.DagsterEvent]) -> Problem:
    """A failed run: its job, batch, steps and kinds of error; an error's text may hold anything, and stays here."""
    names = sorted({str(step.step_key) for step in steps})
    errors = sorted({_error_name(step) for step in steps})
    batch = run.tags.get(PARTITION_TAG)
    job = "a materialization" if run.job_name.startswith("__") else f"job {run.job_name}"
    text = f"{job} failed"
    text += f" in {', '.join(names)} ({', '.join(errors)})" if names else ": its process is gone"
    text += f", batch {batch}" if batch else ""
    return Problem(
        f"run:{run.job_name}:{batch or ''}:{','.join(names)}",
        "run_failed",
        f"{text}; run {run.run_id[:8]}",
        version=",".join(errors),
        details={
            "run_id": run.run_id,
            "job": run.job_name,
            "batch": batch,
            "assets": [key.to_user_string() for key in _not_made(instance, run.run_id)],
            "storage_id": _last_storage_id(instance, run.run_id),
        },
    )


def _error_name(step: dg.DagsterEvent) -> str:
    error = step.step_failure_data.error
    cause = error.cause if error and error.cause else error
    return (cause.cls_name if cause else None) or "unknown error"


def _not_made(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetKey]:
    """The assets that a run was to make and did not."""
    entries = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=_PLANNED)]
    events = [event for event in entries if event is not None and event.asset_key is not None]
    made = {event.asset_key for event in events if event.is_step_materialization}
    return sorted({event.asset_key for event in events if event.asset_key} - made)


def _last_storage_id(instance: dg.DagsterInstance, run_id: str) -> int:
    """Place of a run's failure in the order of all events; that of the last failure where it is long ago."""
    failures = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1000).records
    places = [record.storage_id for record in failures if record.run_id == run_id]
    return max(places or [record.storage_id for record in failures], default=0)


def _check_key(state: CheckState) -> str:
    return f"check:{state.check.asset_key.to_user_string()}:{state.check.name}:{state.partition or ''}"


def _failed_check(state: CheckState, evaluation: dg.AssetCheckEvaluation) -> Problem:
    """A failed check: what it is about, and the numbers that it measured."""
    severe = evaluation.severity is dg.AssetCheckSeverity.ERROR
    kind: Kind = "check_error" if severe else "check_warning"
    numbers = {name: value.value for name, value in evaluation.metadata.items()}
    measured = [
        f"{name} {value:.4g}"
        for name, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    text = f"check {state.check.name} of {state.check.asset_key.to_user_string()} failed"
    text += f", batch {state.partition}" if state.partition else ""
    text += f": {', '.join(measured[:MAX_MEASURED])}" if measured else ""
    return Problem(_check_key(state), kind, text, version=kind, details={"batch": state.partition})


def _landing_zone(home: Home, partitions: set[str]) -> Iterator[Problem]:
    """Batches that cannot be used, each with the first reason; the same files are reported once."""
    for arrival in pending_arrivals(home, partitions):
        if arrival.problem:
            reason = arrival.problem.split(";")[0].split(", first ")[0]
            text = f"batch {arrival.batch_id} cannot be used: {reason}"
            yield Problem(f"landing:{arrival.batch_id}", "landing_zone", text, version=arrival.fingerprint)


def _overdue(instance: dg.DagsterInstance, graph: AssetGraph) -> Iterator[Problem]:
    """Assets that fail their freshness policy."""
    for key, state in sorted(freshness_states(instance, list(graph.materializable_asset_keys)).items()):
        if state != "FAIL":
            continue
        name = key.to_user_string()
        yield Problem(f"overdue:{name}", "overdue", f"{name} was not materialized within its freshness window")


def _is_over(instance: dg.DagsterInstance, problem: Problem, current: set[str], partitions: set[str]) -> bool:
    """Whether an open problem has ended, as far as other events than a check's own say so."""
    if problem.kind in ("landing_zone", "overdue"):
        return problem.key not in current
    batch = problem.details.get("batch")
    if batch is not None and batch not in partitions:
        return True  # a correction replaced the batch
    return problem.kind == "run_failed" and _is_made_up_for(instance, problem)


def _is_made_up_for(instance: dg.DagsterInstance, problem: Problem) -> bool:
    """Whether all that a failed run was to make was made since; if that was nothing, whether its job succeeded."""
    details = problem.details
    batch, after = details["batch"], details["storage_id"]
    if not details["assets"]:
        since = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_SUCCESS, after_storage_id=after)
        runs = [record.run_id for record in instance.fetch_run_status_changes(since, limit=200).records]
        return bool(runs) and any(
            run.job_name == details["job"] and run.tags.get(PARTITION_TAG) == batch
            for run in instance.get_runs(dg.RunsFilter(run_ids=runs))
        )
    return all(
        instance.fetch_materializations(
            dg.AssetRecordsFilter(
                dg.AssetKey.from_user_string(name),
                asset_partitions=None if batch is None else [batch],
                after_storage_id=after,
            ),
            limit=1,
        ).records
        for name in details["assets"]
    )
