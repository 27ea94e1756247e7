"""Embedding tables: one per encoder, one model each; filled batch by batch, replaced as a whole.

With a store they are views (accelkd.warehouse.embedding_relations).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import duckdb
import pyarrow as pa

from accelkd.home.behaviour import code_stamp
from accelkd.home.layout import Home
from accelkd.registry.history import head_checkpoint, promoted_models
from accelkd.warehouse.embedding_relations import (
    add_rows,
    create_relation,
    delete_rows,
    drop_relation,
    relations,
    rename_relation,
)
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.schema import TAKES, comments, mean_embeddings
from accelkd.warehouse.staging import staging

NEXT = "__next"  # suffix of the staged table, which a new model fills before it replaces the active one
PREVIOUS = "__previous"  # suffix of the table that was replaced last, to go back to at once
UNPUBLISHED_SUFFIXES = (NEXT, PREVIOUS)


@dataclass(frozen=True)
class EmbeddingTable:
    """State of one embedding table, for checks."""

    rows: int
    models: int  # 1, or 0 where it is empty
    missing: int  # segments that its model can embed and that are not in it
    orphans: int  # rows whose segment is not in the warehouse
    duplicates: int  # rows beyond the first of a segment
    projections: int  # students whose heads projected its rows: 0 or 1


@dataclass(frozen=True)
class LoadedEmbeddings:
    """What became of one batch of embeddings."""

    rows: int
    width: int
    status: Literal["active", "staged", "swapped in"]  # staged: the new model does not cover every segment yet


def load_embeddings(
    home: Home, encoder: str, rows: pa.Table, together: Mapping[str, str] | None = None
) -> LoadedEmbeddings:
    """Load the rows of one batch, one at least (embedding_files.embedding_rows), into `embeddings.<encoder>`.

    That table holds one model only, projected by one student. Another model than the active one, or the same one
    projected by another student, fills a staged table beside it. That replaces it, in the same transaction, as soon as
    it covers every segment of the warehouse that the model can embed; where models belong `together` (model id by
    encoder), as soon as all of them do, and then all at once. Raises ValueError for an encoder that is not a lower-case
    SQL name, LookupError for a model or batch that has not been loaded.
    """
    active, staged = encoder_table(encoder), encoder_table(encoder) + NEXT
    model_id, batch_id, projected_by = (
        rows.column(name)[0].as_py() for name in ("model_id", "batch_id", "projected_by")
    )
    width = rows.schema.field("embedding").type.list_size
    with staging(home) as connection:
        if not connection.execute("SELECT 1 FROM batches WHERE batch_id = ?", [batch_id]).fetchall():
            raise LookupError(f"batch {batch_id} is not in the warehouse: load it first; a superseded one stays out")
        held = _held(connection, active)
        table = active if held is None or held.takes(model_id, projected_by) else staged
        held = _held(connection, table)
        if held is None or not held.takes(model_id, projected_by):
            drop_relation(connection, table)
            create_relation(home, connection, table, width)
            if table == active:
                connection.execute(_means_ddl(encoder, width))
        delete_rows(home, connection, table, "batch_id = ?", [batch_id])
        add_rows(home, connection, table, rows)
        swap = swap_in(home, connection, together or {encoder: model_id}) and table == staged
        segments = known_artifact(connection, "segments", batch_id)
        record(
            connection,
            replace(
                embeddings_artifact(encoder, model_id, batch_id, segments.version),
                path=home.relative(home.embeddings(encoder, model_id, batch_id)),
            ),
            [segments, known_artifact(connection, "model", f"{encoder}/{model_id}")],
        )
    return LoadedEmbeddings(rows.num_rows, width, "swapped in" if swap else "staged" if table == staged else "active")


def drop_embeddings(home: Home, models: Mapping[str, str], encoder: str, batch_id: str) -> None:
    """Take the rows of one batch, of which nothing is embedded any more, out of the tables of its model in `models`.

    Then the tables of all `models` (model id by encoder) are swapped in, if they have become complete.
    """
    with staging(home) as connection:
        for table in (encoder_table(encoder) + suffix for suffix in ("", NEXT)):
            if table in relations(connection):
                delete_rows(home, connection, table, "batch_id = ? AND model_id = ?", [batch_id, models[encoder]])
        swap_in(home, connection, models)


def swap_in(home: Home, connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> bool:
    """Make the staged tables of `models` (model id by encoder) the active ones, all or none: once each is complete.

    A table that is replaced is kept beside the new one. A model that no segment suits has no table, and the one of
    another model goes. Returns whether any table was swapped.
    """
    complete, without = [], []
    for encoder, model_id in models.items():
        wanted = _Held(model_id, _projecting(encoder, models))
        active, staged = (_held(connection, encoder_table(encoder) + suffix) for suffix in ("", NEXT))
        if active == wanted:
            continue
        if staged in (wanted, _Held(model_id, None)):
            if _missing(connection, encoder, model_id, encoder + NEXT):
                return False
            complete.append(encoder)
        elif lacks_input(connection, encoder, model_id):
            without += [] if active is None else [encoder]
        elif active is None or active.model_id != model_id:
            return False
    for encoder in [*complete, *without]:
        drop_relation(connection, encoder + PREVIOUS)
        if _model_of(connection, encoder) is not None:
            rename_relation(home, connection, encoder, encoder + PREVIOUS)
        drop_relation(connection, encoder)
        connection.execute(f"DROP VIEW IF EXISTS {mean_embeddings(encoder).name}")
    for encoder in complete:
        rename_relation(home, connection, encoder + NEXT, encoder)
        widths = connection.execute(f"SELECT len(embedding) FROM embeddings.{encoder} LIMIT 1").fetchall()
        connection.execute(_means_ddl(encoder, widths[0][0]))
    return bool(complete or without)


def not_embedded(home: Home, models: Mapping[str, str]) -> list[tuple[str, str]]:
    """(encoder, batch) that `models` (model id by encoder) have not embedded as the batch's segments are now.

    Where the table that was replaced last is one of theirs, it becomes the staged one.
    """
    todo = []
    with staging(home) as connection:
        for encoder, model_id in models.items():
            tables = {name: _held(connection, name) for name in (encoder, encoder + NEXT, encoder + PREVIOUS)}
            # A file of an earlier version, and an encoder without a head, have no projections
            wanted = [_Held(model_id, _projecting(encoder, models)), _Held(model_id, None)]
            held = next((table for identity in wanted for table in tables if tables[table] == identity), None)
            if held == encoder + PREVIOUS:
                drop_relation(connection, encoder + NEXT)
                rename_relation(home, connection, held, encoder + NEXT)
                held = encoder + NEXT
            if held is None and lacks_input(connection, encoder, model_id):
                continue
            incomplete = {} if held is None else _missing(connection, encoder, model_id, held)
            for (batch_id,) in connection.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall():
                lineage = connection.execute(
                    "SELECT input_version FROM provenance.edges WHERE artifact_id = ? AND input_id = ?",
                    [f"embeddings:{encoder}/{model_id}/{batch_id}", f"segments:{batch_id}"],
                ).fetchall()
                now = known_artifact(connection, "segments", batch_id).version
                if held is None or lineage != [(now,)] or batch_id in incomplete:
                    todo.append((encoder, batch_id))
    return todo


def embedding_table(home: Home, encoder: str, batch_id: str | None = None) -> EmbeddingTable:
    """What `embeddings.<encoder>` holds: nothing, where no segment has what the promoted encoder takes.

    With a batch, segments are looked up for its rows alone: so the cost of all batches does not grow with their square.
    Rows, models and projections are still those of the table, and rows of batches that are not loaded are orphans too.
    Raises LookupError if something is to be embedded and nothing was.
    """
    table = encoder_table(encoder)
    with staging(home) as connection:
        model_id = _model_of(connection, table)
        if model_id is None:
            if lacks_input(connection, encoder, promoted_models(home).get(encoder)):
                return EmbeddingTable(0, 0, 0, 0, 0, 0)
            raise LookupError(f"embeddings.{table} holds nothing: embed a batch first")
        of_batch = {"batch_id": batch_id}
        ((rows, models, projections, strays),) = connection.execute(
            "SELECT count(*), count(DISTINCT model_id), count(DISTINCT projected_by), "
            "count(*) FILTER ($batch_id IS NOT NULL AND batch_id NOT IN (SELECT batch_id FROM batches)) "
            f"FROM embeddings.{table}",
            of_batch,
        ).fetchall()
        ((looked_up, distinct, orphans),) = connection.execute(
            "SELECT count(*), count(DISTINCT segment_id), "
            "count(*) FILTER (NOT EXISTS (FROM segments s WHERE s.segment_id = e.segment_id)) "
            f"FROM embeddings.{table} e WHERE $batch_id IS NULL OR batch_id = $batch_id",
            of_batch,
        ).fetchall()
        missing = sum(_missing(connection, encoder, model_id, table, batch_id).values())
    return EmbeddingTable(rows, models, missing, orphans + strays, looked_up - distinct, projections)


def loaded_models(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The model whose embeddings each encoder's table holds, by encoder."""
    tables = sorted(relations(connection), reverse=True)  # which puts the teacher before the student
    models = {table: _model_of(connection, table) for table in tables if not table.endswith(UNPUBLISHED_SUFFIXES)}
    return {encoder: model_id for encoder, model_id in models.items() if model_id is not None}


def embeddings_artifact(encoder: str, model_id: str, batch_id: str, segments_version: str) -> Artifact:
    """The rows of one batch in an embedding table, as provenance names them."""
    return Artifact(
        "embeddings",
        f"{encoder}/{model_id}/{batch_id}",
        f"{model_id}:{segments_version[:16]}",
        code_version=code_stamp("accelkd.evaluation"),
    )


class _Held(NamedTuple):
    """What a table holds."""

    model_id: str
    projected_by: str | None  # student whose heads projected it; None where none did

    def takes(self, model_id: str, projected_by: str | None) -> bool:
        """Whether rows of that model and projection belong into the same table; rows without a projection do too."""
        return self.model_id == model_id and projected_by in (None, self.projected_by)


def _held(connection: duckdb.DuckDBPyConnection, table: str) -> _Held | None:
    """What a table holds; None without the table or a row in it."""
    if table not in relations(connection):
        return None
    ((model_id, projected_by),) = connection.execute(
        f"SELECT any_value(model_id), any_value(projected_by) FROM embeddings.{table}"
    ).fetchall()
    return None if model_id is None else _Held(model_id, projected_by)


def _model_of(connection: duckdb.DuckDBPyConnection, table: str) -> str | None:
    held = _held(connection, table)
    return None if held is None else held.model_id


def _projecting(encoder: str, models: Mapping[str, str]) -> str | None:
    """Model id of the student whose heads project the encoder's embeddings."""
    holder = head_checkpoint(encoder, models)
    return None if holder is None else holder[1]


def _missing(
    connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str, table: str, batch_id: str | None = None
) -> dict[str, int]:
    """Number of segments that the model can embed and that the table lacks, of each batch that has any, or of one."""
    counts = connection.execute(
        f"SELECT batch_id, count(*) FROM segments, models WHERE encoder = $encoder AND model_id = $model_id "
        f"AND {TAKES} AND ($batch_id IS NULL OR batch_id = $batch_id) "
        f"AND NOT EXISTS (FROM embeddings.{table} e WHERE e.segment_id = segments.segment_id) GROUP BY batch_id",
        {"encoder": encoder, "model_id": model_id, "batch_id": batch_id},
    ).fetchall()
    return dict(counts)


def lacks_input(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str | None) -> bool:
    """Whether the warehouse knows a model, and has no segment with what it takes."""
    own = "(FROM models WHERE encoder = $encoder AND model_id = $model_id)"
    ((known, taken),) = connection.execute(
        f"SELECT EXISTS {own}, EXISTS (FROM segments, {own} WHERE {TAKES})",
        {"encoder": encoder, "model_id": model_id},
    ).fetchall()
    return bool(known and not taken)


def incomplete_batches(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Batches with a segment that an encoder can take and that its table lacks: the encoders, by batch."""
    incomplete: dict[str, list[str]] = {}
    for encoder, model_id in loaded_models(connection).items():
        for batch_id in sorted(_missing(connection, encoder, model_id, encoder)):
            incomplete.setdefault(batch_id, []).append(encoder)
    return incomplete


def encoder_table(name: str) -> str:
    """The name, if it can be a table's: it goes into SQL as it is, and `__` is kept for suffixes."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 60:
        raise ValueError(f"encoder {name!r} is not a lower-case SQL name")
    return name


def _means_ddl(encoder: str, width: int) -> str:
    """The view of every participant's mean embedding: a sum for each dimension is ten times as fast as unnesting."""
    means = ", ".join(f"avg(embedding[{dimension}])" for dimension in range(1, width + 1))
    view = mean_embeddings(encoder, width)
    return f"""
CREATE OR REPLACE VIEW {view.name} AS
SELECT participant_id, any_value(model_id) AS model_id, count(*) AS segments, [{means}]::FLOAT[{width}] AS embedding
FROM embeddings.{encoder} GROUP BY participant_id;
{comments(view, "VIEW")}"""
