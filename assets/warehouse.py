"""The warehouse: tables of each batch, and the published copy that analysts open."""

from functools import partial

import dagster as dg

from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.repair import repairing
from accelkd.operations.share import share_published
from accelkd.warehouse.load import load_batch, segments_artifact
from accelkd.warehouse.publish import publish
from accelkd.warehouse.schema import BATCH_TABLES, TABLES, embeddings_table
from assets.failures import explained
from assets.metadata import copied_tables, counts_table, presented, tags, warehouse_tables
from assets.partitions import arrival_batches, current_batch
from assets.segments import segments


@dg.asset(
    deps=[segments],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"duckdb"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-batch"),
    pool="duckdb_writer",
    code_version="1",
    metadata=warehouse_tables(BATCH_TABLES),
)
@explained
def segment_tables(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """Participants, segments (labels and quality, no signals) and quarantine counts of one batch, in the warehouse.

    Who the participants are comes from the batch's own `participants.parquet`, everything else from its recordings.
    """
    batch_id = context.partition_key
    with current_batch(home, batch_id):
        loaded = repairing(home, partial(load_batch, home, batch_id), [batch_id])
        version = segments_artifact(home, batch_id).version
    for replaced in loaded.replaced:
        context.instance.delete_dynamic_partition(str(arrival_batches.name), replaced)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata=presented(
            {
                "segments": loaded.segments,
                "participants": loaded.participants,
                "quarantined": loaded.quarantined,
                "replaced": ", ".join(loaded.replaced) or "none",
                "dagster/row_count": loaded.segments,
                "dagster/uri": str(home.staging),
            }
        ),
    )


@dg.asset(
    deps=["written_report", segment_tables],
    group_name="warehouse",
    kinds={"duckdb"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-report"),
    metadata=copied_tables([*TABLES, *(embeddings_table(spec.name, modality=spec.modality) for spec in ENCODERS)]),
    pool="duckdb_writer",
    code_version="1",
)
@explained
def published_warehouse(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """The DuckDB file that analysts open read-only: a copy of the staging file, put in place by one rename.

    A connection that is open keeps what it sees; the next one sees the new. Nobody ever waits. A batch that an encoder
    has not embedded yet is held back, whole. A catch-up publishes the tables also before there are encoders, and where
    a report failed.
    """
    published = publish(home)
    share_published(home)
    for batch_id, reason in published.held_back.items():
        context.log.warning(f"batch {batch_id} is held back: {reason}")
    for reason in published.left_out:
        context.log.warning(f"results are left out: {reason}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(published.content_version),
        metadata=presented(
            {
                "rows": sum(published.rows.values()),
                "size_mb": published.bytes / 1e6,
                "rows_by_table": counts_table(published.rows, "table"),
                "held_back": ", ".join(published.held_back) or "none",
                "results_left_out": "; ".join(published.left_out) or "none",
                "dagster/row_count": sum(published.rows.values()),
                "dagster/uri": str(published.path),
            }
        ),
    )
