"""The warehouse: tables of each batch, and the published copy that analysts open."""

from collections.abc import Sequence
from functools import partial

import dagster as dg

from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.repair import repairing
from accelkd.segments.schema import METADATA
from accelkd.warehouse.inspect import Column, columns, documented_columns
from accelkd.warehouse.load import load_batch, segments_artifact
from accelkd.warehouse.publish import publish
from assets.metadata import counts_table, table, tags, warehouse_columns
from assets.partitions import arrival_batches
from assets.segments import segments

BATCH_TABLES = ("batches", "demographics", "survey_targets", "segments", "quarantine")


@dg.asset(
    deps=[segments],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"duckdb"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-batch"),
    pool="duckdb_writer",
    code_version="1",
    metadata=table(
        warehouse_columns(documented_columns(), BATCH_TABLES),
        {
            **{f"segments.{name}": [f"segments.{name}"] for name in (*METADATA.names, "ppg_status", "accel_status")},
            "batches.batch_id": ["segments.batch_id"],
            "batches.devices": ["raw_recordings.device_id"],
            "batches.recordings": ["raw_recordings.recording_id"],
            "batches.segments": ["segments.segment_id"],
            "quarantine.reason": [f"raw_recordings.{name}" for name in ("ppg", "dark", "accel")],
        },
    ),
)
def segment_tables(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """Participants, segments (labels and quality, no signals) and quarantine counts of one batch, in the warehouse.

    Who the participants are comes from the batch's own `participants.parquet`, everything else from its recordings.
    """
    loaded = repairing(home, partial(load_batch, home, context.partition_key))
    if loaded.replaced:
        context.instance.delete_dynamic_partition(str(arrival_batches.name), loaded.replaced)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(segments_artifact(home, context.partition_key).version),
        metadata={
            "dagster/row_count": loaded.segments,
            "dagster/uri": str(home.staging),
            "participants": loaded.participants,
            "quarantined": loaded.quarantined,
            "replaced": loaded.replaced or "none",
        },
    )


def _published_from(published: Sequence[Column]) -> dict[str, list[str]]:
    """The asset and column that each published column is a copy of, for the tables that are an asset's."""
    assets = {
        **{name: [f"segment_tables.{name}."] for name in BATCH_TABLES},
        "split": ["participant_split."],
        **{f"embeddings.{spec.name}": [f"{spec.name}_embeddings."] for spec in ENCODERS},
        **{
            name: [f"{spec.name}_probes.{name}." for spec in ENCODERS]
            for name in ("probe_results", "participant_probe_results")
        },
        "retrieval_results": ["retrieval."],
    }
    return {
        f"{column.table}.{column.name}": [f"{asset}{column.name}" for asset in assets[column.table]]
        for column in published
        if column.table in assets
    }


@dg.asset(
    deps=["written_report"],
    group_name="warehouse",
    kinds={"duckdb"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-report"),
    metadata=table(warehouse_columns(documented_columns()), _published_from(documented_columns())),
    pool="duckdb_writer",
    code_version="1",
)
def published_warehouse(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """The DuckDB file that analysts open read-only: a copy of the staging file, put in place by one rename.

    A connection that is open keeps what it sees; the next one sees the new. Nobody ever waits.
    """
    published = publish(home)
    found = columns(home.published)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(published.content_version),
        metadata={
            "dagster/uri": str(published.path),
            "dagster/row_count": sum(published.rows.values()),
            "size_mb": published.bytes / 1e6,
            "rows_by_table": counts_table(published.rows, "table"),
            **table(warehouse_columns(found), _published_from(found)),
        },
    )
