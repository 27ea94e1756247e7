"""Questions that checks ask of the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from accelkd.lake import Lake
from accelkd.training.current import EncoderName, current_checkpoint
from accelkd.warehouse.load import NEXT
from accelkd.warehouse.staging import staging


@dataclass(frozen=True)
class Coverage:
    """Embeddings of one batch by the encoder in use."""

    segments: int  # of the batch that the encoder can take
    passed_over: int  # segments with another number of PPG channels than the encoder's
    embedded: int
    not_finite: int
    duplicates: int  # rows beyond the first of a segment


def coverage(lake: Lake, encoder: EncoderName, batch_id: str) -> Coverage:
    """How much of a batch the encoder in use has embedded, in its table or in the one that will replace it.

    Raises FileNotFoundError if the encoder has no checkpoint in use.
    """
    model_id = current_checkpoint(lake, encoder).name
    with staging(lake) as connection:
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'embeddings' AND table_name IN (?, ?)",
            [encoder, encoder + NEXT],
        ).fetchall()
        ((segments, passed_over),) = connection.execute(
            "SELECT count(*) FILTER (takes), count(*) FILTER (NOT takes) FROM ("
            "SELECT modality = 'accel' OR channels = len(ppg_status) AS takes FROM segments, models "
            "WHERE batch_id = ? AND encoder = ? AND model_id = ?)",
            [batch_id, encoder, model_id],
        ).fetchall()
        rows, distinct, not_finite = 0, 0, 0
        for (table,) in tables:
            counts = connection.execute(
                "SELECT count(*), count(DISTINCT segment_id), "
                "count(*) FILTER (NOT isfinite(list_sum(embedding::FLOAT[]))) "
                f"FROM embeddings.{table} WHERE batch_id = ? AND model_id = ?",
                [batch_id, model_id],
            ).fetchall()[0]
            rows, distinct, not_finite = rows + counts[0], distinct + counts[1], not_finite + counts[2]
    return Coverage(segments, passed_over, distinct, not_finite, rows - distinct)


def heart_rate_errors(lake: Lake, encoder: EncoderName) -> tuple[float, float]:
    """Mean absolute error in bpm of the current encoder's heart-rate probe, and of the constant beside it."""
    with staging(lake) as connection:
        rows: list[tuple[float, float]] = connection.execute(
            "SELECT mae, constant_mae FROM probe_results WHERE encoder = ? AND model_id = ? AND target = 'hr_bpm'",
            [encoder, current_checkpoint(lake, encoder).name],
        ).fetchall()
    return rows[0]


def row_counts(path: Path) -> dict[str, int]:
    """Rows of every table of a DuckDB file but those that wait to replace another."""
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
        return {
            f"{schema}.{table}": connection.execute(f"SELECT count(*) FROM {schema}.{table}").fetchall()[0][0]
            for schema, table in tables
            if not table.endswith(NEXT)
        }
