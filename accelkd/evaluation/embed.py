"""Embeddings in the warehouse: put there batch by batch, and read back for evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from accelkd.current import EncoderName, current_checkpoint, current_models
from accelkd.lake import Lake
from accelkd.segments.segment import intact_segments
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.load import load_embeddings


@dataclass(frozen=True)
class EmbeddedBatch:
    """What became of embedding one arrival batch."""

    model_id: str
    rows: int
    width: int
    where: str  # LoadedEmbeddings.where, or why nothing was embedded
    content_version: str  # hash of model, segments and embeddings


def embed_batch(lake: Lake, encoder: EncoderName, batch_id: str, device: str = "auto") -> EmbeddedBatch:
    """Embed the segments of one batch with the encoder in use and load them into the warehouse.

    A PPG encoder passes over a batch whose devices have another number of PPG channels. Raises FileNotFoundError if
    the encoder has no checkpoint in use, LookupError if its model or the batch was not loaded into the warehouse.
    """
    from accelkd.evaluation.extract import embed  # imports torch: what an embedding was, is known without
    from accelkd.training.checkpoint import load_encoder

    module, info = load_encoder(current_checkpoint(lake, encoder))
    intact_segments(lake, batch_id)
    store = SegmentStore([lake.segments(batch_id)])
    if not len(store):
        return EmbeddedBatch(info.model_id, 0, info.width, "the batch has no segments", info.model_id)
    if store.channels(info.modality) != info.channels:
        reason = f"the batch has {store.channels(info.modality)} PPG channels, the encoder takes {info.channels}"
        return EmbeddedBatch(info.model_id, 0, info.width, reason, info.model_id)
    segment_ids = store.metadata.column("segment_id").to_pylist()
    matrix = embed(module, store, info.modality, device)
    loaded = load_embeddings(
        lake,
        encoder,
        info.model_id,
        batch_id,
        segment_ids,
        store.metadata.column("participant_id").to_pylist(),
        matrix,
        together=current_models(lake),
    )
    content = hashlib.sha256("\n".join([info.model_id, *segment_ids]).encode() + matrix.tobytes()).hexdigest()
    return EmbeddedBatch(info.model_id, loaded.rows, loaded.width, loaded.where, content)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of one encoder with the labels of their segments, ordered by segment."""

    model_id: str
    segment_ids: npt.NDArray[np.str_]
    participants: npt.NDArray[np.str_]
    in_test: npt.NDArray[np.bool_]
    labels: dict[str, npt.NDArray[np.float64]]  # NaN where a segment has none
    matrix: npt.NDArray[np.float32]  # [segments, width]

    def take(self, rows: npt.NDArray[np.intp]) -> Embeddings:
        """The given rows."""
        return Embeddings(
            self.model_id,
            self.segment_ids[rows],
            self.participants[rows],
            self.in_test[rows],
            {name: values[rows] for name, values in self.labels.items()},
            self.matrix[rows],
        )


def read_embeddings(connection: duckdb.DuckDBPyConnection, encoder: EncoderName, *, test_only: bool) -> Embeddings:
    """Embeddings of the participants in the split, or of its test side alone.

    Raises LookupError that says what is missing if there are none.
    """
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'embeddings' AND table_name = ?", [encoder]
    ).fetchall()
    if not found:
        raise LookupError(f"no embeddings of {encoder} in the warehouse: embed a batch first")
    table = connection.sql(
        "SELECT segment_id, participant_id, split = 'test' AS in_test, model_id, embedding, "
        "       coalesce(hr_bpm, 'nan') AS hr_bpm, coalesce(sdnn_ms, 'nan') AS sdnn_ms, "
        "       coalesce(rmssd_ms, 'nan') AS rmssd_ms "
        f"FROM embeddings.{encoder} JOIN segments USING (segment_id, participant_id) JOIN split USING (participant_id) "
        "WHERE split = 'test' OR NOT ? ORDER BY segment_id",
        params=[test_only],
    ).to_arrow_table()
    if not table.num_rows:
        raise LookupError(f"no embeddings of {encoder} whose participants are in the split: extend the split first")
    matrix = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    return Embeddings(
        model_id=table.column("model_id")[0].as_py(),
        segment_ids=np.asarray(table.column("segment_id").to_pylist()),
        participants=np.asarray(table.column("participant_id").to_pylist()),
        in_test=table.column("in_test").to_numpy(),
        labels={name: table.column(name).to_numpy() for name in ("hr_bpm", "sdnn_ms", "rmssd_ms")},
        matrix=matrix,
    )
