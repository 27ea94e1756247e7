"""Publishing: analysts open a copy that is never written to, so no reader waits and no writer fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from accelkd.home.files import atomic_path, sha256_json
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import landed_versions, refused, superseded
from accelkd.warehouse.embedding_relations import delete_rows, drop_relation, relations, remove_unused
from accelkd.warehouse.embeddings import UNPUBLISHED_SUFFIXES, incomplete_batches
from accelkd.warehouse.predictions import drop_stray_predictions
from accelkd.warehouse.report_state import drop_mixed
from accelkd.warehouse.schema import HISTORY_TABLES, TABLES_WITH_BATCHES
from accelkd.warehouse.staging import READABLE_BY_OLDER, contents, staging, staging_lock, tables

# Which run wrote what and when, and the history of checks: differ when the same is made again
NO_CONTENT = {"provenance.runs", *(table.name for table in HISTORY_TABLES)}
MAX_FREE_SHARE = 0.2  # of the file's blocks, above which it is rewritten


@dataclass(frozen=True)
class PublishedInfo:
    """What was published."""

    path: Path
    bytes: int
    rows: Mapping[str, int]  # of each table, by its name with its schema
    content_version: str  # hash of all rows but those of NO_CONTENT, whatever their order: equal for equal content
    held_back: Mapping[str, str]  # batches that are loaded and not published, with the reason
    left_out: tuple[str, ...]  # reasons why the results of the loaded models were left out


def publish(home: Home) -> PublishedInfo:
    """Copy the staging file to the published one: checkpoint, copy, rename.

    Connections that are open on the published file keep what they see; the next ones see the new. Tables that a new
    model has not filled yet, and those that it replaced, are left out; so are batches that an encoder has not embedded
    yet, whole, and results that are of another split or of other batches: what is published is of one split, one pair
    of encoders and whole batches. Copying bytes is thirty times as fast as writing rows, so only a copy that a
    swapped-out table has left mostly empty is rewritten, without its free blocks. With a store embeddings are not
    among them: views read files, of which those that no publication has read for a day are removed.

    Raises RuntimeError if batches that are published would be gone, because the staging file was lost.
    """
    with staging(home):
        pass  # makes an empty warehouse where there is none
    with staging_lock(home), _replacing_published(home) as part:
        with duckdb.connect(str(home.staging)) as connection:
            connection.execute("FORCE CHECKPOINT")
        shutil.copyfile(home.staging, part)
        with duckdb.connect(str(part)) as connection:
            _refuse_loss(home, connection)
            for relation in relations(connection):
                if relation.endswith(UNPUBLISHED_SUFFIXES):
                    drop_relation(connection, relation)
            held_back = _hold_back(home, connection)
            left_out = drop_mixed(connection)
            drop_stray_predictions(connection)
            connection.execute("FORCE CHECKPOINT")
            wasteful = _free_share(connection) > MAX_FREE_SHARE
        if wasteful:
            compact(part)
        with duckdb.connect(str(part)) as connection:
            published = contents(connection)
    return PublishedInfo(
        home.published,
        home.published.stat().st_size,
        {table: rows for table, (rows, _) in published.items()},
        sha256_json({table: [rows, total] for table, (rows, total) in published.items() if table not in NO_CONTENT}),
        held_back,
        tuple(left_out),
    )


@contextmanager
def _replacing_published(home: Home) -> Iterator[Path]:
    with atomic_path(home.published) as part:
        yield part
    remove_unused(home)


def publishable(home: Home) -> dict[str, tuple[int, int | None]]:
    """What a publication would hold now, as `contents` says it: without the history of checks, which goes on after it.

    Raises FileNotFoundError where there is no staging file.
    """
    if not home.staging.exists():
        raise FileNotFoundError(f"{home.staging} is missing: `accelkd rebuild-warehouse` rebuilds it")
    with staging_lock(home), duckdb.connect(str(home.staging)) as connection:
        connection.begin()
        _hold_back(home, connection)
        drop_mixed(connection)
        drop_stray_predictions(connection)
        rows = contents(connection, without_suffixes=UNPUBLISHED_SUFFIXES)
        connection.rollback()
    return {table: count for table, count in rows.items() if table not in {table.name for table in HISTORY_TABLES}}


def _hold_back(home: Home, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Delete the batches that are not embedded by every encoder, and those that have changed since they were loaded.

    Returns the reason for each.
    """
    reasons = {
        batch_id: f"not embedded by {' and '.join(encoders)} yet"
        for batch_id, encoders in incomplete_batches(connection).items()
    }
    landed = landed_versions(home)
    rows = connection.execute(
        "SELECT substr(artifact_id, 7), version FROM provenance.artifacts WHERE kind = 'batch'"
    ).fetchall()
    for batch_id, version in rows:
        if landed.get(batch_id, version) != version:
            reasons[batch_id] = "it has landed again with other bytes, which have not been processed"
    held_back = "list_contains(?, batch_id)", [list(reasons)]
    for table in TABLES_WITH_BATCHES if reasons else ():
        connection.execute(f"DELETE FROM {table.name} WHERE {held_back[0]}", held_back[1])
    for relation in relations(connection) if reasons else ():
        delete_rows(home, connection, relation, *held_back)
    return reasons


def _refuse_loss(home: Home, connection: duckdb.DuckDBPyConnection) -> None:
    if not home.published.exists():
        return
    with duckdb.connect(str(home.published), read_only=True) as published:
        before = _batches(published)
    lost = before - _batches(connection) - superseded(home).keys() - refused(home).keys()
    if lost:
        raise RuntimeError(
            f"{home.staging} lacks {len(lost)} published batches ({', '.join(sorted(lost)[:3])}): it was lost; "
            "`accelkd rebuild-warehouse` rebuilds it"
        )


def _batches(connection: duckdb.DuckDBPyConnection) -> set[str]:
    if "batches" not in tables(connection):
        return set()
    return {batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM main.batches").fetchall()}


def _free_share(connection: duckdb.DuckDBPyConnection) -> float:
    ((free, total),) = connection.execute("SELECT free_blocks, total_blocks FROM pragma_database_size()").fetchall()
    return float(free / max(total, 1))


def compact(file: Path) -> None:
    """Rewrite a DuckDB file without its free blocks: tables, views, macros and comments."""
    small = file.with_name("small.duckdb")
    with duckdb.connect(str(small), config=READABLE_BY_OLDER) as connection:
        connection.execute(f"ATTACH '{str(file).replace(chr(39), chr(39) * 2)}' AS whole (READ_ONLY)")
        connection.execute("COPY FROM DATABASE whole TO small")
        connection.execute("FORCE CHECKPOINT")  # on a full disk it raises; closing would leave the rows in the log
    small.replace(file)
