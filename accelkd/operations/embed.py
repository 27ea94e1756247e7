"""Embedding one batch by a promoted encoder, into the warehouse."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.repair import repairing
from accelkd.recordings.arrivals import check_not_superseded
from accelkd.registry.history import Models, head_checkpoint, promoted_checkpoint, promoted_models
from accelkd.registry.trained_on import read_trained_on
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.embeddings import Projections, drop_embeddings, load_embeddings
from accelkd.warehouse.inspect import is_loaded
from accelkd.warehouse.load import load_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedBatch:
    """What became of embedding one arrival batch."""

    model_id: str
    rows: int
    width: int
    status: str  # of the rows in the warehouse, or why nothing was embedded
    content_version: str  # hash of model, segments, embeddings and projections


def embed_batch(home: Home, encoder: str, batch_id: str, device: str = "auto") -> EmbeddedBatch:
    """Embed the segments of one batch with the promoted encoder and load them into the warehouse, also projected.

    Segments that lack the encoder's modality, or have another number of channels, are passed over. Damaged segments
    are repaired first, and promoted models that the warehouse does not know, because they were adopted, are loaded.
    Raises FileNotFoundError if no such encoder is promoted, LookupError if the batch was not loaded into the warehouse,
    SupersededError for a batch that a correction has replaced.
    """
    from accelkd.evaluation.extract import embed  # imports torch: what an embedding was, is known without
    from accelkd.training.checkpoint import load_encoder

    check_not_superseded(home, batch_id)
    module, info = load_encoder(promoted_checkpoint(home, encoder))
    repairing(home, partial(verify_segments, home, batch_id), [batch_id])
    whole = SegmentStore([home.segments(batch_id)])
    models = promoted_models(home)
    load_missing_models(home, models)
    if not len(whole):
        drop_embeddings(home, models, encoder, batch_id)
        return EmbeddedBatch(info.model_id, 0, info.width, "the batch has no segments", info.model_id)
    store = whole.subset(whole.counts(info.modality) == info.channels)
    if not len(store):
        others = sorted(set(whole.counts(info.modality).tolist()))
        reason = (
            f"its segments have {' or '.join(map(str, others))} {info.modality} channels, the encoder takes "
            f"{info.channels}"
        )
        drop_embeddings(home, models, encoder, batch_id)
        return EmbeddedBatch(info.model_id, 0, info.width, reason, info.model_id)
    segment_ids = store.metadata.column("segment_id").to_pylist()
    matrix = embed(module, store, info.modality, device)
    projections = _project(home, encoder, matrix, models)
    loaded = load_embeddings(
        home,
        encoder,
        info.model_id,
        batch_id,
        segment_ids,
        store.metadata.column("participant_id").to_pylist(),
        matrix,
        together=models,
        projections=projections,
    )
    content = hashlib.sha256("\n".join([info.model_id, *segment_ids]).encode() + matrix.tobytes())
    if projections is not None:
        content.update(projections.student.encode() + projections.matrix.tobytes())
    return EmbeddedBatch(info.model_id, loaded.rows, loaded.width, loaded.status, content.hexdigest())


def load_missing_models(home: Home, models: Models) -> None:
    """Load what the warehouse does not know yet of `models`, a teacher before its students."""
    for spec in ENCODERS:
        if spec.name in models and not is_loaded(home, spec.name, models[spec.name]):
            _, batch_ids = read_trained_on(home, spec.name, models[spec.name])
            load_model(home, spec.name, models[spec.name], batch_ids)


def _project(home: Home, encoder: str, embeddings: npt.NDArray[np.float32], models: Models) -> Projections | None:
    """The embeddings in the space that teacher and student share; None where the promoted encoders have no heads."""
    from accelkd.evaluation.extract import project  # imports torch
    from accelkd.training.checkpoint import load_heads, read_config

    holder = head_checkpoint(encoder, models)
    if holder is None:
        return None
    student, model_id = holder
    folder = home.checkpoint(student, model_id)
    try:
        teacher_head, student_head = load_heads(folder)
        own_teacher = read_config(folder)["teacher"]
    except (ValueError, FileNotFoundError, DamagedFileError) as error:
        logger.warning("embeddings of %s are loaded without their projections: %s", encoder, error)
        return None
    if encoder != student and models[encoder] != own_teacher:
        return None  # the head belongs to another teacher
    return Projections(model_id, project(student_head if encoder == student else teacher_head, embeddings))
