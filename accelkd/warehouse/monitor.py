"""What the published warehouse holds, counted for monitoring: read-only, beside whoever writes or reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from accelkd.warehouse.embedding_relations import relations
from accelkd.warehouse.schema import TAKES

NEWEST_BATCHES = 20  # with a quarantine rate of their own


@dataclass(frozen=True)
class PublishedCounts:
    """Counts of the published file."""

    batches: int
    participants: int  # with segments
    segments: int
    quarantine_rates: Mapping[str, float]  # of the batches loaded last, the newest first
    coverage: Mapping[str, float]  # share of the segments that an encoder can take which it has embedded, by encoder


def published_counts(path: Path) -> PublishedCounts | None:
    """Count what a published file holds; None where nothing was published."""
    if not path.exists():
        return None
    with duckdb.connect(str(path), read_only=True) as connection:
        ((batches, segments, participants),) = connection.execute(
            "SELECT (SELECT count(*) FROM batches), count(*), count(DISTINCT participant_id) FROM segments"
        ).fetchall()
        rates = connection.execute(
            "SELECT batch_id, quarantined / greatest(segments + quarantined, 1) FROM batches "
            "LEFT JOIN (SELECT artifact_id, max(recorded_at) AS loaded_at FROM provenance.runs GROUP BY artifact_id) "
            "ON artifact_id = 'tables:' || batch_id ORDER BY loaded_at DESC NULLS LAST, batch_id DESC LIMIT ?",
            [NEWEST_BATCHES],
        ).fetchall()
        coverage = {encoder: _coverage(connection, encoder) for encoder in relations(connection)}
    return PublishedCounts(batches, participants, segments, dict(rates), coverage)


def _coverage(connection: duckdb.DuckDBPyConnection, encoder: str) -> float:
    ((embedded,),) = connection.execute(f'SELECT count(DISTINCT segment_id) FROM embeddings."{encoder}"').fetchall()
    ((takes,),) = connection.execute(
        "SELECT count(*) FROM segments, models WHERE encoder = ? "
        f'AND model_id = (SELECT any_value(model_id) FROM embeddings."{encoder}") '
        f"AND {TAKES}",
        [encoder],
    ).fetchall()
    return embedded / takes if takes else 1.0
