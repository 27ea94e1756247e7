"""Embeddings in the warehouse: put there batch by batch, and read back for evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from accelkd.home.layout import Home
from accelkd.registry.history import EncoderName, active_checkpoint, promoted_models
from accelkd.segments.segment import verified_segments
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.embeddings import load_embeddings


@dataclass(frozen=True)
class EmbeddedBatch:
    """What became of embedding one arrival batch."""

    model_id: str
    rows: int
    width: int
    where: str  # LoadedEmbeddings.where, or why nothing was embedded
    content_version: str  # hash of model, segments and embeddings


def embed_batch(home: Home, encoder: EncoderName, batch_id: str, device: str = "auto") -> EmbeddedBatch:
    """Embed the segments of one batch with the encoder in use and load them into the warehouse.

    A PPG encoder passes over a batch whose devices have another number of PPG channels. Raises FileNotFoundError if
    the encoder has no checkpoint in use, LookupError if its model or the batch was not loaded into the warehouse.
    """
    from accelkd.evaluation.extract import embed  # imports torch: what an embedding was, is known without
    from accelkd.training.checkpoint import load_encoder

    module, info = load_encoder(active_checkpoint(home, encoder))
    verified_segments(home, batch_id)
    store = SegmentStore([home.segments(batch_id)])
    if not len(store):
        return EmbeddedBatch(info.model_id, 0, info.width, "the batch has no segments", info.model_id)
    if store.channels(info.modality) != info.channels:
        reason = f"the batch has {store.channels(info.modality)} PPG channels, the encoder takes {info.channels}"
        return EmbeddedBatch(info.model_id, 0, info.width, reason, info.model_id)
    segment_ids = store.metadata.column("segment_id").to_pylist()
    matrix = embed(module, store, info.modality, device)
    loaded = load_embeddings(
        home,
        encoder,
        info.model_id,
        batch_id,
        segment_ids,
        store.metadata.column("participant_id").to_pylist(),
        matrix,
        together=promoted_models(home),
    )
    content = hashlib.sha256("\n".join([info.model_id, *segment_ids]).encode() + matrix.tobytes()).hexdigest()
    return EmbeddedBatch(info.model_id, loaded.rows, loaded.width, loaded.where, content)
