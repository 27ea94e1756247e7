"""Embedding one batch by a promoted encoder: into a file, and from the file into the warehouse."""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.behaviour import code_version
from accelkd.home.files import DamagedFileError, recorded_checksum
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.repair import repairing
from accelkd.recordings.arrivals import check_not_superseded
from accelkd.registry.history import Models, head_checkpoint, previous_models, promoted_checkpoint, promoted_models
from accelkd.registry.trained_on import read_trained_on
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.embedding_files import (
    EmbeddingFile,
    Projections,
    describe_embeddings,
    embedding_rows,
    write_embeddings,
)
from accelkd.warehouse.embeddings import drop_embeddings, load_embeddings
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


def embed_into_file(home: Home, encoder: str, batch_id: str, device: str = "auto") -> EmbeddingFile:
    """Embed the segments of one batch with the promoted encoder, also projected, into a file of the home.

    Needs no warehouse, so batches are embedded side by side. A file that is there already, whole, and made from the
    same segments and weights by the same code, stays. Segments that lack the encoder's modality, or have another number
    of channels, are passed over; damaged segments are repaired first. Raises FileNotFoundError if no such encoder is
    promoted, SupersededError for a batch that a correction has replaced.
    """
    check_not_superseded(home, batch_id)
    promoted_checkpoint(home, encoder)
    return _embedded_file(home, promoted_models(home), encoder, batch_id, device)


def embed_batch(home: Home, encoder: str, batch_id: str, device: str = "auto") -> EmbeddedBatch:
    """Load the embeddings of one batch by the promoted encoder into the warehouse, from their file or a new one.

    Promoted models that the warehouse does not know, because they were adopted, are loaded first. Raises as
    `embed_into_file`, and LookupError if the batch was not loaded into the warehouse.
    """
    check_not_superseded(home, batch_id)
    promoted_checkpoint(home, encoder)
    models = promoted_models(home)
    file = _embedded_file(home, models, encoder, batch_id, device)
    load_missing_models(home, models)
    if not file.rows:
        drop_embeddings(home, models, encoder, batch_id)
        return EmbeddedBatch(file.model_id, 0, file.width, file.reason, file.content_version)
    rows = pq.read_table(home.embeddings(encoder, file.model_id, batch_id))
    loaded = load_embeddings(home, encoder, rows, together=models)
    if loaded.status == "swapped in":
        _remove_unused(home)
    return EmbeddedBatch(file.model_id, loaded.rows, loaded.width, loaded.status, file.content_version)


def load_missing_models(home: Home, models: Models) -> None:
    """Load what the warehouse does not know yet of `models`, a teacher before its students."""
    for spec in ENCODERS:
        if spec.name in models and not is_loaded(home, spec.name, models[spec.name]):
            _, batch_ids = read_trained_on(home, spec.name, models[spec.name])
            load_model(home, spec.name, models[spec.name], batch_ids)


def _embedded_file(home: Home, models: Models, encoder: str, batch_id: str, device: str) -> EmbeddingFile:
    """The file of a batch by one of `models`: as it is where it was made from what is there now, else a new one."""
    try:
        made = describe_embeddings(home, encoder, models[encoder], batch_id)
        if made.inputs == _inputs(home, models, encoder, recorded_checksum(home.segments(batch_id))):
            return made
    except (DamagedFileError, FileNotFoundError):
        pass  # made below, which also repairs the segments
    return _embed(home, models, encoder, batch_id, device)


def _embed(home: Home, models: Models, encoder: str, batch_id: str, device: str) -> EmbeddingFile:
    from accelkd.evaluation.extract import embed  # imports torch: what an embedding was, is known without
    from accelkd.training.checkpoint import load_encoder

    module, info = load_encoder(home.checkpoint(encoder, models[encoder]))
    segments = repairing(home, partial(verify_segments, home, batch_id), [batch_id])
    whole = SegmentStore([home.segments(batch_id)])
    store = whole.subset(whole.counts(info.modality) == info.channels)
    matrix, projections, reason = np.empty((0, info.width), np.float32), None, ""
    inputs = _inputs(home, models, encoder, segments)
    if len(store):
        matrix = embed(module, store, info.modality, device)
        try:
            projections = _project(home, encoder, matrix, models)
        except (FileNotFoundError, DamagedFileError) as error:
            logger.warning("embeddings of %s are without their projections: %s", encoder, error)
            inputs["heads"] = "unreadable"  # so that they are tried again
    elif len(whole):
        others = sorted(set(whole.counts(info.modality).tolist()))
        reason = (
            f"its segments have {' or '.join(map(str, others))} {info.modality} channels, the encoder takes "
            f"{info.channels}"
        )
    else:
        reason = "the batch has no segments"
    ids, people = (store.metadata.column(name).combine_chunks() for name in ("segment_id", "participant_id"))
    rows = embedding_rows(encoder, info.model_id, batch_id, ids, people, matrix, projections)
    student = projections.student if projections is not None else None
    version = _content_version(info.model_id, ids, matrix, projections) if len(store) else info.model_id
    file = EmbeddingFile(encoder, info.model_id, batch_id, len(store), info.width, student, reason, version, inputs)
    write_embeddings(home, file, rows)
    return file


def _inputs(home: Home, models: Models, encoder: str, segments_sha256: str) -> dict[str, str]:
    """Versions of everything that determines the embeddings of a batch."""
    holder = head_checkpoint(encoder, models)
    heads = None if holder is None else home.weights(*holder)
    return {
        "segments": segments_sha256,
        "weights": recorded_checksum(home.weights(encoder, models[encoder])),
        "heads": recorded_checksum(heads) if heads is not None and heads.exists() else "none",
        "code": code_version("accelkd.models", "accelkd.evaluation.extract", "accelkd.warehouse.embedding_files"),
    }


def _content_version(
    model_id: str, segment_ids: pa.Array, matrix: npt.NDArray[np.float32], projections: Projections | None
) -> str:
    content = hashlib.sha256("\n".join([model_id, *segment_ids.to_pylist()]).encode() + matrix.tobytes())
    if projections is not None:
        content.update(projections.student.encode() + projections.matrix.tobytes())
    return content.hexdigest()


def _remove_unused(home: Home) -> None:
    """Remove the files of models that are neither promoted nor the ones to go back to."""
    kept = {*promoted_models(home).items(), *(previous_models(home) or {}).items()}
    for folder in (home.root / "embeddings").glob("*/*/"):
        if (folder.parent.name, folder.name) not in kept:
            shutil.rmtree(folder)


def _project(home: Home, encoder: str, embeddings: npt.NDArray[np.float32], models: Models) -> Projections | None:
    """The embeddings in the space that teacher and student share; None where the promoted encoders have no heads.

    Raises FileNotFoundError or DamagedFileError where a student's checkpoint cannot be read.
    """
    from accelkd.evaluation.extract import project  # imports torch
    from accelkd.training.checkpoint import load_heads, read_config

    holder = head_checkpoint(encoder, models)
    if holder is None:
        return None
    student, model_id = holder
    folder = home.checkpoint(student, model_id)
    own_teacher = read_config(folder)["teacher"]
    if encoder != student and models[encoder] != own_teacher:
        return None  # the head belongs to another teacher
    try:
        teacher_head, student_head = load_heads(folder)
    except DamagedFileError:
        raise
    except ValueError as error:
        logger.warning("embeddings of %s have no projections: %s", encoder, error)
        return None
    return Projections(model_id, project(student_head if encoder == student else teacher_head, embeddings))
