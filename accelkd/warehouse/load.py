"""Loading: every call replaces what the same call wrote before, in one transaction, and records where it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.behaviour import code_stamp
from accelkd.cohort.split import read_split, split_version
from accelkd.cohort.survey import known_answers, survey_targets
from accelkd.cohort.trained import read_trained_on
from accelkd.current import history
from accelkd.files import sha256_file, sha256_json
from accelkd.lake import Lake
from accelkd.recordings.arrivals import Retirement, refuse, retire, retired
from accelkd.recordings.batches import MANIFEST, Manifest, read_manifest, read_small_table
from accelkd.segments.schema import METADATA
from accelkd.segments.segment import intact_segments
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.staging import staging

SURVEY = "survey.parquet"
NEXT = "__next"  # suffix of the table that a new model fills before it replaces the current one
PREVIOUS = "__previous"  # suffix of the table that was replaced last, to go back to at once
ASIDE = (NEXT, PREVIOUS)  # suffixes of the tables that are not published

_EMBEDDINGS_DDL = """
CREATE TABLE embeddings.{table} (
    segment_id VARCHAR NOT NULL,
    participant_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    model_id VARCHAR NOT NULL,
    embedding FLOAT[{width}] NOT NULL
);
COMMENT ON TABLE embeddings.{table} IS 'Embeddings of every segment by one checkpoint of {encoder}';
COMMENT ON COLUMN embeddings.{table}.segment_id IS 'Segment that was embedded';
COMMENT ON COLUMN embeddings.{table}.participant_id IS 'Pseudonym';
COMMENT ON COLUMN embeddings.{table}.batch_id IS 'Arrival batch';
COMMENT ON COLUMN embeddings.{table}.model_id IS 'Checkpoint that embedded it; the same in every row';
COMMENT ON COLUMN embeddings.{table}.embedding IS 'Embedding as the encoder gives it, before any projection head';
"""


class DuplicateError(ValueError):
    """A recording that another batch has brought already."""


@dataclass(frozen=True)
class LoadedBatch:
    """Rows of one batch that are now in the warehouse."""

    participants: int
    segments: int
    quarantined: int
    replaced: str | None = None  # the batch that it corrects, which is out of everything now


@dataclass(frozen=True)
class EmbeddingTable:
    """State of one embedding table, for checks."""

    rows: int
    models: int  # 1, or 0 where it is empty
    missing: int  # segments that its model can embed and that are not in it
    orphans: int  # rows whose segment is not in the warehouse
    duplicates: int  # rows beyond the first of a segment


@dataclass(frozen=True)
class LoadedEmbeddings:
    """What became of one batch of embeddings."""

    rows: int
    width: int
    where: Literal["current", "waiting", "swapped in"]  # waiting: the new model does not cover every segment yet


def load_batch(lake: Lake, batch_id: str) -> LoadedBatch:
    """Load participants, survey targets, segments (without signals) and the quarantine counts of one batch.

    An answer that no question has as a choice is left out and counted in the quarantine. A batch that corrects another
    one takes its place: in the same transaction the other's rows go, its embeddings too; then its derived files. That
    it was there stays on record (`retired_batches`, provenance), and what arrived of it stays in the landing zone.
    Raises ValueError if the batch was itself replaced or says that it replaces itself, DuplicateError if a recording is
    also in another batch: then this one is refused, and no training reads its segments.
    """
    try:
        return _load_batch(lake, batch_id)
    except DuplicateError as error:
        refuse(lake, batch_id, [str(error)])
        for derived in (lake.segments(batch_id), lake.quarantine(batch_id)):
            derived.unlink(missing_ok=True)
        raise


def _load_batch(lake: Lake, batch_id: str) -> LoadedBatch:
    if batch_id in (gone := retired(lake)):
        raise ValueError(f"batch {batch_id} was replaced by {gone[batch_id].replaced_by}")
    intact_segments(lake, batch_id)
    folder, store, quarantine = lake.batch(batch_id), lake.segments(batch_id), lake.quarantine(batch_id)
    manifest = read_manifest(folder)
    if manifest.replaces == batch_id:
        raise ValueError(f"batch {batch_id} says that it replaces itself")
    demographics = read_small_table(folder, "participants")
    with pa.memory_map(str(store)) as source:
        segments = pa.ipc.open_file(source).read_all().select([*METADATA.names, "ppg_status", "accel_status"])
        with staging(lake) as connection:
            _delete(connection, batch_id)
            if manifest.replaces:
                _retire(connection, manifest.replaces, batch_id)
            connection.register("arriving", segments)
            _refuse_known_recordings(connection, batch_id)
            connection.execute("INSERT INTO segments BY NAME FROM arriving ORDER BY recording_id, offset_s")
            connection.register("arriving", demographics)
            connection.execute(
                "INSERT INTO demographics BY NAME SELECT *, ? AS batch_id FROM arriving ORDER BY participant_id",
                [batch_id],
            )
            connection.register("arriving", pq.read_table(quarantine))
            connection.execute(
                "INSERT INTO quarantine BY NAME SELECT batch_id, unit, reason, count(*) AS number, "
                "count(DISTINCT participant_id) AS participants FROM arriving GROUP BY ALL ORDER BY ALL"
            )
            if (folder / SURVEY).exists():
                _load_survey(connection, batch_id, read_small_table(folder, "survey"))
            quarantined = pq.read_metadata(quarantine).num_rows
            connection.execute(
                "INSERT INTO batches (batch_id, source, devices, recordings, participants, segments, quarantined) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    batch_id,
                    manifest.source,
                    list(manifest.devices),
                    manifest.rows("recordings"),
                    demographics.num_rows,
                    segments.num_rows,
                    quarantined,
                ],
            )
            _record_batch(lake, connection, batch_id, manifest)
    if manifest.replaces:
        retire(lake, Retirement(manifest.replaces, batch_id))
    return LoadedBatch(demographics.num_rows, segments.num_rows, quarantined, manifest.replaces)


def load_split(lake: Lake) -> int:
    """Load the split ledger, whole; returns its number of participants."""
    ledger = read_split(lake.split)
    with staging(lake) as connection:
        connection.execute("DELETE FROM split")
        connection.register("arriving", ledger)
        connection.execute("INSERT INTO split BY NAME FROM arriving ORDER BY participant_id")
        known = _artifacts(connection, "tables", pc.unique(ledger.column("batch_id")).to_pylist())
        record(
            connection,
            Artifact(
                "split",
                "ledger",
                split_version(ledger),
                _relative(lake, lake.split),
                code_stamp("accelkd.cohort"),
                _settings(lake.split),
            ),
            known,
        )
    return int(ledger.num_rows)


def load_model(lake: Lake, encoder: str, model_id: str, batch_ids: Sequence[str]) -> None:
    """Load what is known of one checkpoint, which was trained on the given batches, and whose segments are inside.

    Raises FileNotFoundError if nobody wrote down whose (accelkd.cohort.trained).
    """
    from accelkd.training.checkpoint import CONFIG, METRICS, WEIGHTS, load_encoder, read_config  # imports torch

    folder = lake.checkpoint(encoder, model_id)
    config = read_config(folder)
    module, info = load_encoder(folder)
    inside, _ = read_trained_on(lake, encoder, model_id)
    with staging(lake) as connection:
        for table in ("models", "provenance.model_participants"):
            connection.execute(f"DELETE FROM {table} WHERE encoder = ? AND model_id = ?", [_encoder(encoder), model_id])
        connection.register("arriving", inside)
        connection.execute(
            "INSERT INTO provenance.model_participants BY NAME SELECT ? AS encoder, ? AS model_id, * FROM arriving",
            [encoder, model_id],
        )
        connection.execute(
            "INSERT INTO models (encoder, model_id, modality, channels, embedding_dim, parameters, split_version, "
            "config, metrics) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                encoder,
                model_id,
                info.modality,
                info.channels,
                info.width,
                sum(parameter.numel() for parameter in module.parameters()),
                config["split_version"],
                json.dumps(config, sort_keys=True),
                (folder / METRICS).read_text(encoding="utf-8"),
            ],
        )
        inputs = _artifacts(connection, "segments", batch_ids)
        inputs.append(Artifact("split", "ledger", config["split_version"], _relative(lake, lake.split)))
        if info.teacher is not None:
            inputs.append(known_artifact(connection, "model", f"ppg_teacher/{info.teacher}"))
        parts = [_file(lake, folder / name, sha256_file(folder / name)) for name in (CONFIG, WEIGHTS)]
        for part in parts:
            record(connection, part, [])
        record(
            connection,
            Artifact(
                "model",
                f"{encoder}/{model_id}",
                model_id,
                _relative(lake, folder),
                f"accelkd.training@{config['code_version']}",
                config["config"],
            ),
            [*inputs, *parts],
        )


def load_embeddings(
    lake: Lake,
    encoder: str,
    model_id: str,
    batch_id: str,
    segment_ids: Sequence[str],
    participant_ids: Sequence[str],
    embeddings: npt.NDArray[np.float32],
    together: Mapping[str, str] | None = None,
) -> LoadedEmbeddings:
    """Load the embeddings `[segments, width]` of one batch into `embeddings.<encoder>`.

    That table holds one model only. Another model than its current one fills a table beside it, which replaces it, in
    the same transaction, as soon as it covers every segment of the warehouse that the model can embed; where models
    belong `together` (model id by encoder), as soon as all of them do, and then all at once. Raises ValueError for an
    encoder that is not a lower-case SQL name or a value that is not finite, LookupError for a model or batch that has
    not been loaded.
    """
    if not np.isfinite(embeddings).all():
        raise ValueError(f"{encoder} {model_id}, batch {batch_id}: embeddings hold NaN or infinity")
    current, waiting = _encoder(encoder), _encoder(encoder) + NEXT
    width = embeddings.shape[1]
    arriving = pa.table(
        {
            "segment_id": pa.array(segment_ids, pa.string()),
            "participant_id": pa.array(participant_ids, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel(), pa.float32()), width),
        }
    )
    with staging(lake) as connection:
        table = current if _model_of(connection, current) in (None, model_id) else waiting
        if _model_of(connection, table) != model_id:
            connection.execute(f"DROP TABLE IF EXISTS embeddings.{table}")
            connection.execute(_EMBEDDINGS_DDL.format(table=table, encoder=encoder, width=width))
            if table == current:
                connection.execute(_means_ddl(encoder, width))
        connection.execute(f"DELETE FROM embeddings.{table} WHERE batch_id = ?", [batch_id])
        connection.register("arriving", arriving)
        connection.execute(
            f"INSERT INTO embeddings.{table} SELECT segment_id, participant_id, ?, ?, embedding FROM arriving",
            [batch_id, model_id],
        )
        swap = swap_in(connection, together or {encoder: model_id}) and table == waiting
        segments = known_artifact(connection, "segments", batch_id)
        record(
            connection,
            embeddings_artifact(encoder, model_id, batch_id, segments.version),
            [segments, known_artifact(connection, "model", f"{encoder}/{model_id}")],
        )
    return LoadedEmbeddings(
        len(arriving), width, "swapped in" if swap else "waiting" if table == waiting else "current"
    )


def swap_in(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> bool:
    """Put the waiting tables of `models` (model id by encoder) in place, all or none: once each is complete.

    A table that is replaced is kept beside the new one. Returns whether anything was put in place.
    """
    waiting = []
    for encoder, model_id in models.items():
        if _model_of(connection, _encoder(encoder)) == model_id:
            continue
        if _model_of(connection, encoder + NEXT) != model_id:
            return False
        if _missing(connection, encoder, model_id, encoder + NEXT):
            return False
        waiting.append(encoder)
    for encoder in waiting:
        connection.execute(f"DROP TABLE IF EXISTS embeddings.{encoder}{PREVIOUS}")
        if _model_of(connection, encoder) is not None:
            connection.execute(f"ALTER TABLE embeddings.{encoder} RENAME TO {encoder}{PREVIOUS}")
        connection.execute(f"DROP TABLE IF EXISTS embeddings.{encoder}")
        connection.execute(f"ALTER TABLE embeddings.{encoder}{NEXT} RENAME TO {encoder}")
        widths = connection.execute(f"SELECT len(embedding) FROM embeddings.{encoder} LIMIT 1").fetchall()
        connection.execute(_means_ddl(encoder, widths[0][0]))
    return bool(waiting)


def not_embedded(lake: Lake, models: Mapping[str, str]) -> list[tuple[str, str]]:
    """(encoder, batch) that `models` (model id by encoder) have not embedded as the batch's segments are now.

    Where the table that was replaced last is one of theirs, it becomes the waiting one.
    """
    todo = []
    with staging(lake) as connection:
        for encoder, model_id in models.items():
            tables = [encoder, encoder + NEXT, encoder + PREVIOUS]
            held = next((table for table in tables if _model_of(connection, table) == model_id), None)
            if held == encoder + PREVIOUS:
                connection.execute(f"DROP TABLE IF EXISTS embeddings.{encoder}{NEXT}")
                connection.execute(f"ALTER TABLE embeddings.{held} RENAME TO {encoder}{NEXT}")
            for (batch_id,) in connection.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall():
                made_from = connection.execute(
                    "SELECT input_version FROM provenance.edges WHERE artifact_id = ? AND input_id = ?",
                    [f"embeddings:{encoder}/{model_id}/{batch_id}", f"segments:{batch_id}"],
                ).fetchall()
                now = known_artifact(connection, "segments", batch_id).version
                if held is None or made_from != [(now,)]:
                    todo.append((encoder, batch_id))
    return todo


def load_decisions(lake: Lake) -> None:
    """Load the history of what was promoted, rejected and gone back from, whole."""
    with staging(lake) as connection:
        connection.execute("DELETE FROM promotions")
        for decision in history(lake):
            for encoder, model_id in sorted(decision.models.items()):
                criteria = json.dumps(decision.criteria, sort_keys=True)
                connection.execute(
                    "INSERT INTO promotions VALUES (?, ?, ?, ?, ?, ?)",
                    [decision.number, decision.action, encoder, model_id, decision.reason, criteria],
                )


def embedding_table(lake: Lake, encoder: str) -> EmbeddingTable:
    """What `embeddings.<encoder>` holds. Raises LookupError if nothing was loaded into it yet."""
    table = _encoder(encoder)
    with staging(lake) as connection:
        model_id = _model_of(connection, table)
        if model_id is None:
            raise LookupError(f"embeddings.{table} holds nothing: embed a batch first")
        rows, models, distinct, orphans = connection.execute(
            f"SELECT count(*), count(DISTINCT model_id), count(DISTINCT segment_id), "
            f"count(*) FILTER (NOT EXISTS (FROM segments s WHERE s.segment_id = e.segment_id)) "
            f"FROM embeddings.{table} e"
        ).fetchall()[0]
        missing = _missing(connection, encoder, model_id, table)
    return EmbeddingTable(rows, models, missing, orphans, rows - distinct)


def models_in_use(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The model whose embeddings each encoder's table holds, by encoder."""
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'embeddings' ORDER BY 1 DESC"
    ).fetchall()  # which puts the teacher before the student
    models = {table: _model_of(connection, table) for (table,) in tables if not table.endswith(ASIDE)}
    return {encoder: model_id for encoder, model_id in models.items() if model_id is not None}


def embeddings_artifact(encoder: str, model_id: str, batch_id: str, segments_version: str) -> Artifact:
    """The rows of one batch in an embedding table, as provenance names them."""
    return Artifact(
        "embeddings",
        f"{encoder}/{model_id}/{batch_id}",
        f"{model_id}:{segments_version[:16]}",
        code_version=code_stamp("accelkd.evaluation"),
    )


def segments_artifact(lake: Lake, batch_id: str) -> Artifact:
    """The segment store of one batch, as provenance names it."""
    path, settings = lake.segments(batch_id), _settings(lake.quarantine(batch_id))
    code = settings.pop("code", None)
    return Artifact("segments", batch_id, sha256_file(path), _relative(lake, path), code, settings)


def _load_survey(connection: duckdb.DuckDBPyConnection, batch_id: str, survey: pa.Table) -> None:
    known = known_answers(survey)
    connection.register("arriving", survey_targets(survey.filter(known)))
    connection.execute("INSERT INTO survey_targets BY NAME SELECT *, ? AS batch_id FROM arriving", [batch_id])
    unknown = survey.filter(pc.invert(known))
    if unknown.num_rows:
        connection.execute(
            "INSERT INTO quarantine BY NAME SELECT ? AS batch_id, 'answer' AS unit, 'unknown_answer' AS reason, "
            "? AS number, ? AS participants",
            [batch_id, unknown.num_rows, len(pc.unique(unknown.column("participant_id")))],
        )


def _record_batch(lake: Lake, connection: duckdb.DuckDBPyConnection, batch_id: str, manifest: Manifest) -> None:
    """Files, batch, segment store, quarantine, and the batch's rows in the tables, each made from those before it."""
    folder, quarantine = lake.batch(batch_id), lake.quarantine(batch_id)
    files = [_file(lake, folder / file.path, file.sha256) for file in manifest.files]
    for file in files:
        record(connection, file, [])
    landed = Artifact("batch", batch_id, sha256_file(folder / MANIFEST), _relative(lake, folder))
    record(connection, landed, files)
    cut = segments_artifact(lake, batch_id)
    lost = replace(cut, kind="quarantine", version=sha256_file(quarantine), path=_relative(lake, quarantine))
    for artifact in (cut, lost):
        record(connection, artifact, [landed])
    parts = [landed, cut, lost]
    version = sha256_json([part.version for part in parts])
    tables = Artifact("tables", batch_id, version, code_version=code_stamp("accelkd.warehouse"))
    record(connection, tables, parts)


def _delete(connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    for table in ("batches", "demographics", "survey_targets", "segments", "quarantine"):
        connection.execute(f"DELETE FROM {table} WHERE batch_id = ?", [batch_id])


def _retire(connection: duckdb.DuckDBPyConnection, batch_id: str, replaced_by: str) -> None:
    """Take a batch out of every table; its artifacts stay, since checkpoints were made from it."""
    _delete(connection, batch_id)
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'embeddings'").fetchall()
    for (table,) in tables:  # those that stand aside too
        connection.execute(f"DELETE FROM embeddings.{table} WHERE batch_id = ?", [batch_id])
    connection.execute("INSERT OR REPLACE INTO retired_batches VALUES (?, ?)", [batch_id, replaced_by])


def _artifacts(connection: duckdb.DuckDBPyConnection, kind: str, batch_ids: Sequence[str]) -> list[Artifact]:
    """What is known of batches, as they are now; retired ones that this warehouse has never held are left out."""
    found = connection.execute("SELECT artifact_id FROM provenance.artifacts WHERE kind = ?", [kind]).fetchall()
    gone = connection.execute("SELECT batch_id FROM retired_batches").fetchall()
    absent = {batch_id for (batch_id,) in gone} - {name.partition(":")[2] for (name,) in found}
    return [known_artifact(connection, kind, batch_id) for batch_id in batch_ids if batch_id not in absent]


def _refuse_known_recordings(connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    clash = connection.execute(
        "SELECT batch_id, count(DISTINCT recording_id) FROM segments "
        "WHERE recording_id IN (SELECT recording_id FROM arriving) GROUP BY batch_id LIMIT 1"
    ).fetchall()
    for where, number in clash:
        raise DuplicateError(f"batch {batch_id}: {number} of its recordings are also in batch {where}")


def _model_of(connection: duckdb.DuckDBPyConnection, table: str) -> str | None:
    """The model whose embeddings a table holds; None without the table or a row in it."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'embeddings' AND table_name = ?", [table]
    ).fetchall()
    rows = connection.execute(f"SELECT model_id FROM embeddings.{table} LIMIT 1").fetchall() if found else []
    return str(rows[0][0]) if rows else None


def _missing(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str, table: str) -> int:
    """Number of segments that the model can embed and that the table lacks."""
    ((missing,),) = connection.execute(
        f"SELECT count(*) FROM segments, models WHERE encoder = ? AND model_id = ? "
        f"AND (modality = 'accel' OR channels = len(ppg_status)) "
        f"AND NOT EXISTS (FROM embeddings.{table} e WHERE e.segment_id = segments.segment_id)",
        [encoder, model_id],
    ).fetchall()
    return int(missing)


def _encoder(name: str) -> str:
    """The name, if it can be a table's: it goes into SQL as it is, and `__` is kept for the waiting table."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > 60:
        raise ValueError(f"encoder {name!r} is not a lower-case SQL name")
    return name


def _file(lake: Lake, path: Path, sha256: str) -> Artifact:
    name = _relative(lake, path)
    return Artifact("file", name, sha256, name)


def _settings(path: Path) -> dict[str, str]:
    """What a Parquet file of ours says it was made with."""
    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW:")}


def _means_ddl(encoder: str, width: int) -> str:
    """The view of every participant's mean embedding: a sum for each dimension is ten times as fast as unnesting."""
    means = ", ".join(f"avg(embedding[{dimension}])" for dimension in range(1, width + 1))
    view = f"embeddings.{encoder}__by_participant"
    return f"""
CREATE OR REPLACE VIEW {view} AS
SELECT participant_id, any_value(model_id) AS model_id, count(*) AS segments, [{means}]::FLOAT[{width}] AS embedding
FROM embeddings.{encoder} GROUP BY participant_id;
COMMENT ON VIEW {view} IS 'Mean embedding of every participant by {encoder}; participant_embedding reads it';
COMMENT ON COLUMN {view}.participant_id IS 'Pseudonym';
COMMENT ON COLUMN {view}.model_id IS 'Checkpoint of the embeddings';
COMMENT ON COLUMN {view}.segments IS 'Number of segments that the mean is over';
COMMENT ON COLUMN {view}.embedding IS 'Mean of the embeddings, not normalised';
"""


def _relative(lake: Lake, path: Path) -> str:
    return path.relative_to(lake.root).as_posix()
