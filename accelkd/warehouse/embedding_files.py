"""Embeddings as files: one Parquet file for each checkpoint and batch, with the columns of its table in the warehouse.

A file is made beside others, without the warehouse, and loaded in a moment. Its footer says what it was made from, so
that equal inputs need no second pass through the encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import DamagedFileError, atomic_path, verify_checksum, write_checksum
from accelkd.home.layout import Home
from accelkd.warehouse.schema import PROJECTED_WIDTH, embeddings_table

_FACTS = b"accelkd"


@dataclass(frozen=True)
class Projections:
    """Embeddings in the space that a student and its teacher share."""

    student: str  # model id of the student, whose checkpoint holds the heads
    matrix: npt.NDArray[np.float32]  # [segments, 128]


@dataclass(frozen=True)
class EmbeddingFile:
    """What a file of embeddings says of itself."""

    encoder: str
    model_id: str
    batch_id: str
    rows: int
    width: int
    projected_by: str | None  # model id of the student whose heads projected them
    reason: str  # why nothing was embedded; empty where something was
    content_version: str  # hash of model, segments, embeddings and projections
    inputs: Mapping[str, str]  # versions of everything that determines the rows


def embedding_rows(
    encoder: str,
    model_id: str,
    batch_id: str,
    segment_ids: Sequence[str] | pa.Array,
    participant_ids: Sequence[str] | pa.Array,
    embeddings: npt.NDArray[np.float32],
    projections: Projections | None = None,
) -> pa.Table:
    """The rows of one batch for `embeddings.<encoder>`; `embeddings` [segments, width].

    Raises ValueError for a value that is not finite.
    """
    count, width = embeddings.shape
    projected = np.empty((0, PROJECTED_WIDTH), np.float32) if projections is None else projections.matrix
    if not (np.isfinite(embeddings).all() and np.isfinite(projected).all()):
        raise ValueError(f"{encoder} {model_id}, batch {batch_id}: embeddings hold NaN or infinity")
    schema = embeddings_table(encoder, width).arrow()
    columns = {
        "segment_id": _texts(segment_ids),
        "participant_id": _texts(participant_ids),
        "batch_id": pa.repeat(batch_id, count),
        "model_id": pa.repeat(model_id, count),
        "embedding": _fixed_size_lists(embeddings),
        "projected": _no_lists(count) if projections is None else _fixed_size_lists(projected),
        "projected_by": pa.repeat(pa.scalar(projections.student if projections else None, pa.string()), count),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def write_embeddings(home: Home, file: EmbeddingFile, rows: pa.Table) -> None:
    """Replace the file of a batch, atomically, and its checksum."""
    path = home.embeddings(file.encoder, file.model_id, file.batch_id)
    facts = json.dumps({**vars(file), "inputs": dict(file.inputs)}, sort_keys=True)
    with atomic_path(path) as part:
        pq.write_table(
            rows.replace_schema_metadata({_FACTS: facts}),
            part,
            compression="none",  # random digits: compressing them costs time and saves nothing
            use_dictionary=["participant_id", "batch_id", "model_id", "projected_by"],
            write_statistics=["segment_id", "participant_id"],
        )
    write_checksum(path)


def describe_embeddings(home: Home, encoder: str, model_id: str, batch_id: str) -> EmbeddingFile:
    """What the file of a batch says of itself, once its checksum is verified. Raises DamagedFileError."""
    path = home.embeddings(encoder, model_id, batch_id)
    verify_checksum(path)
    try:
        return EmbeddingFile(**json.loads((pq.read_schema(path).metadata or {})[_FACTS]))
    except (KeyError, ValueError, TypeError, OSError, pa.ArrowException) as error:
        raise DamagedFileError(f"{path} does not say what it was made from: {error!r}") from None


def _texts(values: Sequence[str] | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())


def _fixed_size_lists(matrix: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), matrix.shape[1])


def _no_lists(count: int) -> pa.Array:
    return pa.nulls(count, pa.list_(pa.float32(), PROJECTED_WIDTH))
