"""The warehouse: tables of each batch, and the published copy that analysts open."""

import dagster as dg

from accelkd.lake import Lake
from accelkd.segments.schema import METADATA
from accelkd.warehouse.load import load_batch, segments_artifact
from accelkd.warehouse.publish import publish
from assets.metadata import column_schema, counts_table
from assets.partitions import arrival_batches
from assets.segments import segments


@dg.asset(
    deps=[segments],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"duckdb"},
    owners=["team:data-engineering"],
    pool="duckdb_writer",
    code_version="1",
    metadata={"dagster/column_schema": column_schema(METADATA)},
)
def segment_tables(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """Participants, segments (labels and quality, no signals) and quarantine counts of one batch, in the warehouse."""
    loaded = load_batch(lake, context.partition_key)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(segments_artifact(lake, context.partition_key).version),
        metadata={
            "dagster/row_count": loaded.segments,
            "dagster/uri": str(lake.staging),
            "participants": loaded.participants,
            "quarantined": loaded.quarantined,
        },
    )


@dg.asset(
    deps=["written_report"],
    group_name="warehouse",
    kinds={"duckdb"},
    owners=["team:data-engineering"],
    pool="duckdb_writer",
    code_version="1",
)
def published_warehouse(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """The DuckDB file that analysts open read-only: a copy of the staging file, put in place by one rename.

    A connection that is open keeps what it sees; the next one sees the new. Nobody ever waits.
    """
    published = publish(lake)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(published.content_version),
        metadata={
            "dagster/uri": str(published.path),
            "dagster/row_count": sum(published.rows.values()),
            "size_mb": published.bytes / 1e6,
            "rows_by_table": counts_table(published.rows, "table"),
        },
    )
