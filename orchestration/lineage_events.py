"""OpenLineage: every run, and what it read and made, is reported to a lineage server; off without its configuration.

Where events go is OpenLineage's own configuration (OPENLINEAGE_URL, OPENLINEAGE_CONFIG, `openlineage.yml`). An event
holds names, columns, row counts and versions; of an error its kind alone.

Belongs here: which event of Dagster is which of OpenLineage. Does not belong here: columns and their sources, which are
metadata of the assets.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

import accelkd
from assets.metadata import COLUMNS
from orchestration.dagster_internals import PARTITION_TAG, AssetGraph

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

RUNS_A_TICK = 20  # more are sent by the next ticks: a tick is cut off after a minute
PRODUCER = f"urn:accelkd:{accelkd.__version__}"
_ENDS: Mapping[dg.DagsterEventType, str] = {
    dg.DagsterEventType.RUN_SUCCESS: "COMPLETE",
    dg.DagsterEventType.RUN_FAILURE: "FAIL",
    dg.DagsterEventType.RUN_CANCELED: "ABORT",
}
_CHANGES = (dg.DagsterEventType.RUN_START, *_ENDS)
_STEPS = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
}


def lineage_is_on() -> bool:
    """Whether OpenLineage has a configuration in the environment, the current folder or the user's."""
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    named = any(
        value and (name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG") or name.startswith("OPENLINEAGE__TRANSPORT"))
        for name, value in os.environ.items()
    )
    return named or any(
        path.exists() for path in (Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser())
    )


@dg.sensor(
    description="Sends the runs, and what they read and made, to a lineage server; off without its configuration.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def lineage_events(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Sends the runs, and what they read and made, to a lineage server (OpenLineage); off without its configuration.

    While the server does not answer nothing is lost: the next tick goes on where this one stopped.
    """
    if not lineage_is_on():
        return dg.SkipReason("OpenLineage is not configured: no events are sent")
    if find_spec("openlineage") is None:
        return dg.SkipReason("OpenLineage is configured, but not installed: pip install 'accelkd[lineage]'")
    if context.repository_def is None:
        raise ValueError("the sensor needs its repository: build its context with definitions")
    from openlineage.client import OpenLineageClient

    graph: AssetGraph = context.repository_def.asset_graph
    sent: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    client = OpenLineageClient()
    problem = None
    try:
        for record in _changes(context.instance, sent):
            for event in _events(context.instance, graph, record):
                client.emit(event)
            kind = record.event_log_entry.get_dagster_event().event_type_value
            sent = {**sent, kind: record.storage_id}
    except Exception as error:  # of any transport
        problem = f"the lineage server does not answer ({type(error).__name__}): the next tick tries again"
        context.log.warning(problem)
    finally:
        client.close(timeout=10)
    return dg.SensorResult(skip_reason=dg.SkipReason(problem or "all runs are reported"), cursor=json.dumps(sent))


def _changes(instance: dg.DagsterInstance, sent: Mapping[str, int]) -> Iterator[dg.EventLogRecord]:
    """Starts and ends of runs that were not sent yet, starts first."""
    for kind in _CHANGES:
        wanted = dg.RunStatusChangeRecordsFilter(
            kind,  # type: ignore[arg-type]  # a literal of these
            after_storage_id=sent.get(kind.value),
        )
        yield from instance.fetch_run_status_changes(wanted, limit=RUNS_A_TICK, ascending=True).records


def _events(instance: dg.DagsterInstance, graph: AssetGraph, record: dg.EventLogRecord) -> Iterator["RunEvent"]:
    """What is sent about the start or the end of one run."""
    from openlineage.client.event_v2 import RunEvent, RunState

    run = instance.get_run_by_id(record.run_id)
    if run is None:
        return  # deleted since
    entry = record.event_log_entry
    kind = entry.get_dagster_event().event_type
    if kind in _ENDS:
        yield from _asset_events(instance, graph, run)
    state = RunState(_ENDS.get(kind, "START"))
    yield RunEvent(
        eventType=state,
        eventTime=_time(entry.timestamp),
        run=_run(run.run_id, run),
        job=_job(_job_name(run)),
        producer=PRODUCER,
    )


def _asset_events(instance: dg.DagsterInstance, graph: AssetGraph, run: dg.DagsterRun) -> Iterator["RunEvent"]:
    """START and COMPLETE or FAIL of every asset that a finished run worked on: each is a job of its own."""
    from openlineage.client.event_v2 import RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run
    from openlineage.client.uuid import generate_static_uuid

    started: dict[str, float] = {}
    for entry in instance.all_logs(run.run_id, of_type=_STEPS):
        event = entry.get_dagster_event()
        step = str(event.step_key)
        if event.event_type is dg.DagsterEventType.STEP_START:
            started[step] = entry.timestamp
            continue
        key = event.asset_key if event.is_step_materialization else dg.AssetKey(step)
        if key is None or not graph.has(key):
            continue
        begin = started.get(step, entry.timestamp)
        identity = f"{run.run_id}:{key.to_user_string()}:{run.tags.get(PARTITION_TAG)}"
        run_id = str(generate_static_uuid(datetime.fromtimestamp(begin, UTC), identity.encode()))
        inputs = [_input(graph, parent) for parent in sorted(graph.get(key).parent_keys)]
        output = _output(graph, key, entry if event.is_step_materialization else None)
        facets: dict[str, Any] = {}
        if not event.is_step_materialization:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            message = (cause.cls_name if cause else None) or "unknown error"
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message, "PYTHON")
        end = RunState.COMPLETE if event.is_step_materialization else RunState.FAIL
        for state, at, more in ((RunState.START, begin, {}), (end, entry.timestamp, facets)):
            yield RunEvent(
                eventType=state,
                eventTime=_time(at),
                run=_run(run_id, run, parent=True, facets=more),
                job=_job(key.to_user_string()),
                producer=PRODUCER,
                inputs=inputs,
                outputs=[output],
            )


def _run(run_id: str, run: dg.DagsterRun, *, parent: bool = False, facets: Mapping[str, Any] | None = None) -> Any:
    from openlineage.client.event_v2 import Run
    from openlineage.client.facet_v2 import parent_run, tags_run

    every: dict[str, Any] = dict(facets or {})
    if batch := run.tags.get(PARTITION_TAG):
        every["tags"] = tags_run.TagsRunFacet([tags_run.TagsRunFacetFields("batch", batch, "DAGSTER")])
    if parent:
        job = parent_run.Job(namespace=_namespace(), name=_job_name(run))
        every["parent"] = parent_run.ParentRunFacet(run=parent_run.Run(runId=run.run_id), job=job)
    return Run(runId=run_id, facets=every)


def _job(name: str) -> Any:
    from openlineage.client.event_v2 import Job
    from openlineage.client.facet_v2 import job_type_job

    kind = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DAGSTER", jobType="JOB")
    return Job(namespace=_namespace(), name=name, facets={"jobType": kind})


def _job_name(run: dg.DagsterRun) -> str:
    return "materialize" if run.job_name.startswith("__") else run.job_name


def _input(graph: AssetGraph, key: dg.AssetKey) -> "InputDataset":
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(namespace=_namespace(), name=key.to_user_string(), facets=_columns(graph, key, {}))


def _output(graph: AssetGraph, key: dg.AssetKey, made: dg.EventLogEntry | None) -> "OutputDataset":
    """An asset with its columns, and, where it was made, its version and number of rows."""
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import dataset_version_dataset, output_statistics_output_dataset

    metadata: Mapping[str, Any] = {}
    facets: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    if made is not None and made.asset_materialization is not None:
        metadata = made.asset_materialization.metadata
        if version := (made.asset_materialization.tags or {}).get("dagster/data_version"):
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(version)
        if isinstance(rows := metadata.get("dagster/row_count"), dg.IntMetadataValue):
            statistics["outputStatistics"] = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=rows.value
            )
    return OutputDataset(
        namespace=_namespace(),
        name=key.to_user_string(),
        facets={**_columns(graph, key, metadata), **facets},
        outputFacets=statistics,
    )


def _columns(graph: AssetGraph, key: dg.AssetKey, made: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of an asset and what each is computed from: as it was made, else as it is declared."""
    from openlineage.client.facet_v2 import column_lineage_dataset, schema_dataset

    metadata = {**graph.get(key).metadata, **made}
    facets: dict[str, Any] = {}
    schema, lineage = metadata.get(COLUMNS), metadata.get("dagster/column_lineage")
    if isinstance(schema, dg.TableSchemaMetadataValue):
        fields = [
            schema_dataset.SchemaDatasetFacetFields(column.name, column.type, column.description)
            for column in schema.schema.columns
        ]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    if isinstance(lineage, dg.TableColumnLineageMetadataValue):
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            {
                name: column_lineage_dataset.Fields(
                    [
                        column_lineage_dataset.InputField(
                            _namespace(), source.asset_key.to_user_string(), source.column_name
                        )
                        for source in sources
                    ]
                )
                for name, sources in lineage.column_lineage.deps_by_column.items()
            }
        )
    return facets


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE") or "accelkd"


def _time(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")


lineage_sensors: Sequence[dg.SensorDefinition] = [lineage_events]
