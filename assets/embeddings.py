"""Embeddings: a file for each encoder and batch, made side by side, and a DuckDB table for each encoder."""

import sys

import dagster as dg

from accelkd.home.isolated import run_in_subprocess
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, EncoderSpec
from accelkd.operations.share import embeddings_unit, segments_unit
from accelkd.registry.history import promoted_checkpoint
from accelkd.warehouse.schema import embeddings_table
from assets.encoders import promoted_encoders
from assets.failures import explained
from assets.metadata import file_table, presented, tags, warehouse_tables
from assets.partitions import arrival_batches, current_batch
from assets.segments import segments
from assets.warehouse import segment_tables


def _files(spec: EncoderSpec) -> dg.AssetsDefinition:

    @dg.asset(
        name=f"{spec.name}_embedding_files",
        deps=[segments, promoted_encoders],
        partitions_def=arrival_batches,
        group_name="embeddings",
        kinds={"pytorch", "parquet"},
        owners=["team:research"],
        tags=tags("participant-level", "each-batch"),
        code_version="1",
        metadata=file_table(embeddings_table(spec.name, modality=spec.modality)),
        description=(
            f"Embeddings of one batch's segments by the promoted {spec.name}, with their projections into the space "
            "that teacher and student share: a Parquet file. Needs no warehouse, so batches are embedded side by side."
        ),
    )
    @explained
    def files(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
        from accelkd.operations.embed import embed_into_file

        batch_id = context.partition_key
        makes = embeddings_unit(spec.name, promoted_checkpoint(home, spec.name).name, batch_id)
        with current_batch(home, batch_id, makes=makes, reads=[segments_unit(batch_id)]):
            if "torch" in sys.modules:
                made = embed_into_file(home, spec.name, batch_id)
            else:  # PyTorch would stay in the memory of this run, which is one of many, until its end
                made = run_in_subprocess(embed_into_file, home, spec.name, batch_id)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(made.content_version),
            metadata=presented(
                {
                    "segments": made.rows,
                    "width": made.width,
                    "model_id": made.model_id,
                    "status": made.reason or "embedded",
                    "dagster/row_count": made.rows,
                    "dagster/uri": str(home.embeddings(spec.name, made.model_id, made.batch_id)),
                }
            ),
        )

    return files


def _tables(spec: EncoderSpec, files: dg.AssetsDefinition) -> dg.AssetsDefinition:

    @dg.asset(
        name=f"{spec.name}_embeddings",
        deps=[files, segment_tables, promoted_encoders],  # which of them the tables are of
        partitions_def=arrival_batches,
        group_name="embeddings",
        kinds={"duckdb"},
        owners=["team:data-engineering", "team:research"],
        tags=tags("participant-level", "each-batch"),
        pool="duckdb_writer",
        code_version="3",
        metadata={
            "dagster/table_name": f"embeddings.{spec.name}",
            **warehouse_tables([embeddings_table(spec.name, modality=spec.modality)]),
        },
        description=(
            f"Embeddings of one batch's segments by the promoted {spec.name}, in `embeddings.{spec.name}`. Newly "
            "promoted encoders fill tables beside the current ones, and replace all at once when they cover every "
            "segment."
        ),
    )
    @explained
    def embeddings(context: dg.AssetExecutionContext, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
        from accelkd.operations.embed import embed_batch

        with current_batch(home, context.partition_key):
            done = embed_batch(home, spec.name, context.partition_key)
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


embedding_files = [_files(spec) for spec in ENCODERS]
embeddings_assets = [_tables(spec, files) for spec, files in zip(ENCODERS, embedding_files, strict=True)]
