"""Embeddings: one DuckDB table per encoder, one model per table, filled batch by batch."""

import sys

import dagster as dg

from accelkd.home.isolated import run_in_subprocess
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, EncoderSpec
from accelkd.warehouse.schema import embeddings_table
from assets.encoders import promoted_encoders
from assets.failures import explained
from assets.metadata import presented, tags, warehouse_tables
from assets.partitions import arrival_batches, current_batch
from assets.warehouse import segment_tables


def _embeddings(spec: EncoderSpec) -> dg.AssetsDefinition:

    @dg.asset(
        name=f"{spec.name}_embeddings",
        deps=[segment_tables, promoted_encoders],
        partitions_def=arrival_batches,
        group_name="embeddings",
        kinds={"pytorch", "duckdb"},
        owners=["team:data-engineering", "team:research"],
        tags=tags("participant-level", "each-batch"),
        pool="duckdb_writer",
        code_version="2",
        metadata={
            "dagster/table_name": f"embeddings.{spec.name}",
            **warehouse_tables([embeddings_table(spec.name, modality=spec.modality)]),
        },
        description=(
            f"Embeddings of one batch's segments by the promoted {spec.name}, in `embeddings.{spec.name}`, with their "
            "projections into the space that teacher and student share. Newly promoted encoders fill tables beside "
            "the current ones, and replace all at once when they cover every segment."
        ),
    )
    @explained
    def embeddings(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
        from accelkd.operations.embed import embed_batch

        with current_batch(home, context.partition_key):
            if "torch" in sys.modules:
                done = embed_batch(home, spec.name, context.partition_key)
            else:  # PyTorch would stay in the memory of this run, which is one of many, until its end
                done = run_in_subprocess(embed_batch, home, spec.name, context.partition_key)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(done.content_version),
            metadata=presented(
                {
                    "segments": done.rows,
                    "width": done.width,
                    "model_id": done.model_id,
                    "status": done.status,
                    "dagster/row_count": done.rows,
                    "dagster/uri": str(home.staging),
                }
            ),
        )

    return embeddings


embeddings_assets = [_embeddings(spec) for spec in ENCODERS]
