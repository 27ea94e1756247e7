"""What the warehouse holds: counts and measurements for checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from accelkd.home.layout import Home
from accelkd.registry.history import promoted_checkpoint
from accelkd.segments.schema import DURATION_S
from accelkd.warehouse.embeddings import NEXT, UNPUBLISHED_SUFFIXES, loaded_models
from accelkd.warehouse.schema import HISTORY_TABLES, TAKES
from accelkd.warehouse.staging import contents, staging, tables


def loaded_batches(home: Home) -> set[str]:
    """Batches that the warehouse holds."""
    with staging(home) as connection:
        return {batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM batches").fetchall()}


def loaded_split_version(home: Home) -> str | None:
    """Version of the split ledger that the warehouse holds; None where it holds none."""
    with staging(home) as connection:
        rows = connection.execute(
            "SELECT version FROM provenance.artifacts WHERE artifact_id = 'split:ledger'"
        ).fetchall()
    return str(rows[0][0]) if rows else None


def is_loaded(home: Home, encoder: str, model_id: str) -> bool:
    """Whether the warehouse knows a checkpoint."""
    with staging(home) as connection:
        query = "SELECT 1 FROM models WHERE encoder = ? AND model_id = ?"
        return bool(connection.execute(query, [encoder, model_id]).fetchall())


@dataclass(frozen=True)
class Coverage:
    """Embeddings of one batch by the promoted encoder."""

    segments: int  # of the batch that the encoder can take
    passed_over: int  # segments with another number of PPG channels than the encoder's
    embedded: int
    not_finite: int
    duplicates: int  # rows beyond the first of a segment


def coverage(home: Home, encoder: str, batch_id: str) -> Coverage:
    """How much of a batch the promoted encoder has embedded, in its active table or in the staged one.

    Raises FileNotFoundError if no such encoder is promoted.
    """
    model_id = promoted_checkpoint(home, encoder).name
    with staging(home) as connection:
        ((segments, passed_over),) = connection.execute(
            "SELECT count(*) FILTER (takes), count(*) FILTER (NOT takes) FROM ("
            f"SELECT {TAKES} AS takes FROM segments, models "
            "WHERE batch_id = ? AND encoder = ? AND model_id = ?)",
            [batch_id, encoder, model_id],
        ).fetchall()
        rows, distinct, not_finite = 0, 0, 0
        for table in _tables_of(connection, encoder):
            rows, distinct, not_finite = connection.execute(
                "SELECT count(*), count(DISTINCT segment_id), "
                "count(*) FILTER (NOT isfinite(list_sum(embedding::FLOAT[]))) "
                f"FROM {table} WHERE batch_id = ? AND model_id = ?",
                [batch_id, model_id],
            ).fetchall()[0]
            if rows:
                break
    return Coverage(segments, passed_over, distinct, not_finite, rows - distinct)


def _tables_of(connection: duckdb.DuckDBPyConnection, encoder: str) -> list[str]:
    """The staged and the active table of an encoder's embeddings, as far as they exist.

    While a new student's heads project the same teacher again, both hold its embeddings.
    """
    present = tables(connection)
    return [table for table in (f"embeddings.{encoder}{NEXT}", f"embeddings.{encoder}") if table in present]


@dataclass(frozen=True)
class LoadedRows:
    """Rows of one batch in the table of segments."""

    rows: int
    segments: int  # different ones
    participants_unknown: int  # with a segment, whom the batch does not describe


def loaded_batch(home: Home, batch_id: str) -> LoadedRows:
    """Count what the warehouse holds of one batch. Raises LookupError if it was not loaded."""
    with staging(home) as connection:
        if not connection.execute("SELECT 1 FROM batches WHERE batch_id = ?", [batch_id]).fetchall():
            raise LookupError(f"batch {batch_id} is not in the warehouse: materialize `segment_tables` first")
        ((rows, segments, unknown),) = connection.execute(
            "SELECT count(*), count(DISTINCT segment_id), count(DISTINCT participant_id) FILTER (NOT EXISTS "
            "(FROM demographics d WHERE d.participant_id = s.participant_id AND d.batch_id = s.batch_id)) "
            "FROM segments s WHERE batch_id = ?",
            [batch_id],
        ).fetchall()
    return LoadedRows(rows, segments, unknown)


def shared_minutes(home: Home, batch_id: str) -> dict[str, int]:
    """Segments of a batch whose time another recording of the same participant and device covers too, by batch of it.

    Two sensors of a kind on one person at the same time count as well.
    """
    with staging(home) as connection:
        rows = connection.execute(
            "SELECT b.batch_id, count(DISTINCT a.segment_id) FROM segments a JOIN segments b "
            "ON b.participant_id = a.participant_id AND b.device_id = a.device_id AND b.recording_id <> a.recording_id "
            f"AND b.started_at > a.started_at - INTERVAL {DURATION_S - 1} SECOND "
            f"AND b.started_at < a.started_at + INTERVAL {DURATION_S - 1} SECOND "
            "WHERE a.batch_id = ? GROUP BY b.batch_id ORDER BY b.batch_id",
            [batch_id],
        ).fetchall()
    return dict(rows)


def batch_embeddings(home: Home, encoder: str, batch_ids: Sequence[str]) -> pa.Table:
    """participant_id and embedding of batches by the promoted encoder, from its active or its staged table.

    Raises FileNotFoundError if no such encoder is promoted.
    """
    model_id = promoted_checkpoint(home, encoder).name
    with staging(home) as connection:
        parts: list[pa.Table] = []
        wanted = set(batch_ids)
        for table in _tables_of(connection, encoder):
            rows = connection.sql(
                f"SELECT batch_id, participant_id, embedding FROM {table} "
                "WHERE model_id = ? AND list_contains(?, batch_id) ORDER BY segment_id",
                params=[model_id, sorted(wanted)],
            ).to_arrow_table()
            wanted -= set(rows.column("batch_id").unique().to_pylist())
            if rows.num_rows:
                parts.append(rows.drop_columns("batch_id"))
    schema = pa.schema({"participant_id": pa.string(), "embedding": pa.list_(pa.float32())})
    return pa.concat_tables(parts) if parts else schema.empty_table()


def trained_on(home: Home, encoder: str) -> list[str]:
    """The batches that the promoted encoder was trained on, by name; none while none is promoted."""
    try:
        model_id = promoted_checkpoint(home, encoder).name
    except FileNotFoundError:
        return []
    with staging(home) as connection:
        rows = connection.execute(
            "SELECT input_id FROM provenance.edges WHERE artifact_id = ? AND starts_with(input_id, 'segments:') "
            "ORDER BY 1",
            [f"model:{encoder}/{model_id}"],
        ).fetchall()
    return [str(input_id).partition(":")[2] for (input_id,) in rows]


def heart_rate_errors(home: Home, encoder: str) -> tuple[float, float, str | None]:
    """Mean absolute error in bpm of the heart-rate probe on the encoder's table, and of the constant beside it.

    The third is why they decide nothing, None if they do. Raises LookupError where it was not probed.
    """
    with staging(home) as connection:
        rows: list[tuple[float, float, str | None]] = connection.execute(
            "SELECT mae, constant_mae, not_decidable FROM probe_results "
            "WHERE encoder = ? AND model_id = ? AND target = 'hr_bpm'",
            [encoder, loaded_models(connection).get(encoder)],
        ).fetchall()
    if not rows:
        raise LookupError(f"no heart-rate probe of the promoted {encoder}: materialize `{encoder}_probes` first")
    return rows[0]


def retrieval_ranks(home: Home) -> dict[str, tuple[float, float]]:
    """Mean rank of the own pair and that of chance in projected space, for each direction.

    Raises LookupError where it was not measured.
    """
    with staging(home) as connection:
        rows = connection.execute(
            "SELECT query_encoder || '_finds_' || key_encoder, mean_rank, chance_mean_rank FROM retrieval_results "
            "WHERE space = 'projected' AND list_contains($models, query_model_id) "
            "AND list_contains($models, key_model_id) ORDER BY 1",
            {"models": list(loaded_models(connection).values())},
        ).fetchall()
    if not rows:
        raise LookupError("no retrieval results of the promoted encoders: materialize `retrieval` first")
    return {direction: (rank, chance) for direction, rank, chance in rows}


def table_contents(path: Path) -> dict[str, tuple[int, int | None]]:
    """Rows of every published table of a DuckDB file, and the sum of the rows' hashes.

    Without the history of checks, which goes on after publishing. Raises FileNotFoundError where the file is missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: materialize `published_warehouse` first")
    histories = tuple(table.name for table in HISTORY_TABLES)
    with duckdb.connect(str(path), read_only=True) as connection:
        return contents(connection, without_suffixes=(*UNPUBLISHED_SUFFIXES, *histories))
