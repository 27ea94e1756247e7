"""Loading: every call replaces what the same call wrote before, in one transaction, and records where it came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.cohort.loaded import read_loaded, usable_batches, write_loaded
from accelkd.cohort.split import read_split, split_version
from accelkd.home.behaviour import code_stamp
from accelkd.home.columns import Table
from accelkd.home.files import DamagedFileError, sha256_file, sha256_json
from accelkd.home.layout import Home
from accelkd.models.specs import encoder_spec
from accelkd.recordings.arrivals import (
    SupersededError,
    Supersession,
    check_not_superseded,
    refuse,
    remove_derived,
    supersede,
    superseded,
)
from accelkd.recordings.batches import MANIFEST, Manifest, read_manifest
from accelkd.recordings.corrections import RefusedBatchError, corrected_batches, late_corrections
from accelkd.recordings.people import batch_participants, batch_survey
from accelkd.recordings.survey import known_answers, survey_targets
from accelkd.registry.history import history
from accelkd.registry.trained_on import read_trained_on
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import select_columns
from accelkd.warehouse.embedding_relations import delete_rows, relations
from accelkd.warehouse.embeddings import NEXT, PREVIOUS, encoder_table
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.schema import BATCH_TABLES, SEGMENTS, TABLES_WITH_BATCHES
from accelkd.warehouse.staging import staging

SURVEY = "survey.parquet"


@dataclass(frozen=True)
class LoadedBatch:
    """Rows of one batch that are now in the warehouse."""

    participants: int
    segments: int
    quarantined: int
    replaced: tuple[str, ...] = ()  # the batches that it corrects, which are out of everything now


def load_batch(home: Home, batch_id: str) -> LoadedBatch:
    """Load participants, survey targets, segments (without signals) and the quarantine counts of one batch.

    An answer that no question has as a choice is left out and counted in the quarantine. A batch that corrects another
    one takes its place, and that of all which the other one corrects: in the same transaction their rows go, their
    embeddings too; then their derived files. That they were there stays on record (`superseded_batches`, provenance),
    and what arrived of them stays in the landing zone.

    Raises SupersededError if the batch was itself replaced. Raises RefusedBatchError if a recording is also in another
    batch, or if it is not clear what the batch replaces (`corrected_batches`): then it is refused, and nothing of it
    remains in the warehouse or among the segments.
    """
    try:
        loaded = _load_batch(home, batch_id)
    except RefusedBatchError as error:
        with staging(home) as connection:
            _take_out(home, connection, batch_id)
        settle_batches(home, without=batch_id)
        remove_derived(home, batch_id)
        refuse(home, batch_id, [str(error)], error.also_in)  # at the end: whatever was interrupted is done again
        raise
    settle_batches(home)
    return loaded


def settle_batches(home: Home, *, without: str | None = None) -> None:
    """Write down which batches the warehouse holds (accelkd.cohort.loaded) and which are superseded, as its tables say.

    Follows every load; what a process did not write because it was killed after its transaction, the next call writes.
    Files that are derived from superseded batches are removed. A staging file that was lost or rebuilt learns again
    which batches are superseded; batches are taken from the list only as superseded, or as `without`.
    """
    with staging(home) as connection:
        _restore_superseded(home, connection)
    with staging(home) as connection:  # of what is committed; nobody else writes meanwhile
        held = {batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM batches").fetchall()}
        replaced = [Supersession(*row) for row in connection.execute("FROM superseded_batches ORDER BY 1").fetchall()]
        try:
            known = read_loaded(home)
        except DamagedFileError:
            known = None
        loaded = held | (_published(home) if known is None else known)
        loaded -= {entry.batch_id for entry in replaced} | {without}
        if loaded != known:
            write_loaded(home, loaded)
        supersede(home, *replaced)


def _load_batch(home: Home, batch_id: str) -> LoadedBatch:
    check_not_superseded(home, batch_id)
    verify_segments(home, batch_id)
    folder, store, quarantine = home.batch(batch_id), home.segments(batch_id), home.quarantine(batch_id)
    manifest = read_manifest(folder)
    try:
        corrected = corrected_batches(home, batch_id)
    except RefusedBatchError:
        if batch_id not in usable_batches(home) or read_loaded(home) is None:
            raise
        corrected = []  # it was loaded before the other one arrived: what it replaced is settled
    demographics = batch_participants(folder)
    with pa.memory_map(str(store)) as source:
        segments = select_columns(pa.ipc.open_file(source).read_all(), SEGMENTS.names, store)
        with staging(home) as connection:
            _restore_superseded(home, connection)
            _check_not_superseded(connection, batch_id)
            _delete(connection, batch_id)
            for entry in corrected:
                _supersede(home, connection, entry)
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
                _load_survey(connection, batch_id, batch_survey(folder))
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
            _record_batch(home, connection, batch_id, manifest)
    return LoadedBatch(
        demographics.num_rows, segments.num_rows, quarantined, tuple(entry.batch_id for entry in corrected)
    )


def load_split(home: Home) -> int:
    """Load the split ledger, whole; returns its number of participants."""
    ledger = read_split(home.split)
    with staging(home) as connection:
        connection.execute("DELETE FROM split")
        connection.register("arriving", ledger)
        connection.execute("INSERT INTO split BY NAME FROM arriving ORDER BY participant_id")
        known = _artifacts(home, connection, "tables", pc.unique(ledger.column("batch_id")).to_pylist())
        record(
            connection,
            Artifact(
                "split",
                "ledger",
                split_version(ledger),
                home.relative(home.split),
                code_stamp("accelkd.cohort"),
                _settings(home.split),
            ),
            known,
        )
    return int(ledger.num_rows)


def load_model(home: Home, encoder: str, model_id: str, batch_ids: Sequence[str]) -> None:
    """Load what is known of one checkpoint, which was trained on the given batches, and whose segments are inside.

    Raises FileNotFoundError if it is not recorded whose (accelkd.registry.trained_on).
    """
    from accelkd.training.checkpoint import CONFIG, METRICS, WEIGHTS, load_encoder, read_config  # imports torch

    folder = home.checkpoint(encoder, model_id)
    config = read_config(folder)
    module, info = load_encoder(folder)
    inside, _ = read_trained_on(home, encoder, model_id)
    with staging(home) as connection:
        for table in ("models", "provenance.model_participants"):
            connection.execute(
                f"DELETE FROM {table} WHERE encoder = ? AND model_id = ?", [encoder_table(encoder), model_id]
            )
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
        inputs = _artifacts(home, connection, "segments", batch_ids)
        if batch_ids:  # else it was trained elsewhere
            inputs.append(Artifact("split", "ledger", config["split_version"], home.relative(home.split)))
        if info.teacher is not None:
            inputs.append(known_artifact(connection, "model", f"{encoder_spec(encoder).teacher}/{info.teacher}"))
        parts = [_file(home, folder / name, sha256_file(folder / name)) for name in (CONFIG, WEIGHTS)]
        _drop_embeddings_of_other_weights(home, connection, encoder, model_id, parts[1])
        for part in parts:
            record(connection, part, [])
        record(
            connection,
            Artifact(
                "model",
                f"{encoder}/{model_id}",
                model_id,
                home.relative(folder),
                f"accelkd.training@{config['code_version']}",
                config["config"],
            ),
            [*inputs, *parts],
        )


def _drop_embeddings_of_other_weights(
    home: Home, connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str, weights: Artifact
) -> None:
    """A checkpoint that was lost and trained again, on other threads or another machine, may have other weights.

    Its name is that of its inputs and stays; embeddings by the lost weights must not stand beside those by the new.
    """
    before = connection.execute(
        "SELECT version FROM provenance.artifacts WHERE artifact_id = ?", [weights.artifact_id]
    ).fetchall()
    if before in ([], [(weights.version,)]):
        return
    for table in relations(connection):
        if table.removesuffix(NEXT).removesuffix(PREVIOUS) == encoder:
            delete_rows(home, connection, table, "model_id = ?", [model_id])


def load_decisions(home: Home) -> None:
    """Load the history of what was promoted, rejected and rolled back, whole."""
    with staging(home) as connection:
        connection.execute("DELETE FROM promotions")
        for decision in history(home):
            for encoder, model_id in sorted(decision.models.items()):
                criteria = json.dumps(decision.criteria, sort_keys=True)
                connection.execute(
                    "INSERT INTO promotions VALUES (?, ?, ?, ?, ?, ?)",
                    [decision.number, decision.action, encoder, model_id, decision.reason, criteria],
                )


def segments_artifact(home: Home, batch_id: str) -> Artifact:
    """The segment store of one batch, as provenance names it."""
    path, settings = home.segments(batch_id), _settings(home.quarantine(batch_id))
    code = settings.pop("code", None)
    return Artifact("segments", batch_id, sha256_file(path), home.relative(path), code, settings)


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


def _record_batch(home: Home, connection: duckdb.DuckDBPyConnection, batch_id: str, manifest: Manifest) -> None:
    """Files, batch, segment store, quarantine, and the batch's rows in the tables, each made from those before it."""
    folder, quarantine = home.batch(batch_id), home.quarantine(batch_id)
    files = [_file(home, folder / file.path, file.sha256) for file in manifest.files]
    for file in files:
        record(connection, file, [])
    landed = Artifact("batch", batch_id, sha256_file(folder / MANIFEST), home.relative(folder))
    record(connection, landed, files)
    segmented = segments_artifact(home, batch_id)
    quarantined = replace(segmented, kind="quarantine", version=sha256_file(quarantine), path=home.relative(quarantine))
    for artifact in (segmented, quarantined):
        record(connection, artifact, [landed])
    parts = [landed, segmented, quarantined]
    version = sha256_json([part.version for part in parts])
    tables = Artifact("tables", batch_id, version, code_version=code_stamp("accelkd.warehouse"))
    record(connection, tables, parts)


def _delete(connection: duckdb.DuckDBPyConnection, batch_id: str, tables: Sequence[Table] = BATCH_TABLES) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table.name} WHERE batch_id = ?", [batch_id])


def _take_out(home: Home, connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    """Take a batch out of every table; its artifacts stay, since checkpoints were made from it."""
    _delete(connection, batch_id, TABLES_WITH_BATCHES)
    for table in relations(connection):  # the unpublished ones too
        delete_rows(home, connection, table, "batch_id = ?", [batch_id])
    for table in ("probe_predictions", "predictions"):
        connection.execute(
            f"DELETE FROM {table} WHERE participant_id NOT IN (SELECT participant_id FROM demographics) "
            "OR segment_id NOT IN (SELECT segment_id FROM segments)"
        )


def _supersede(home: Home, connection: duckdb.DuckDBPyConnection, entry: Supersession) -> None:
    """Take a batch out, and record its correction. Raises RefusedBatchError if another one was loaded meanwhile."""
    others = connection.execute(
        "SELECT replaced_by FROM superseded_batches WHERE batch_id = ? AND replaced_by <> ?",
        [entry.batch_id, entry.replaced_by],
    ).fetchall()
    for (other,) in others:
        raise RefusedBatchError(f"batch {entry.replaced_by} replaces {entry.batch_id}, which was replaced by {other}")
    _take_out(home, connection, entry.batch_id)
    connection.execute("INSERT OR REPLACE INTO superseded_batches VALUES (?, ?)", [entry.batch_id, entry.replaced_by])


def _restore_superseded(home: Home, connection: duckdb.DuckDBPyConnection) -> None:
    """Supersede what the home's files say that is superseded and the tables do not."""
    known = {batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM superseded_batches").fetchall()}
    for entry in [*superseded(home).values(), *late_corrections(home)]:
        if entry.batch_id not in known:
            _supersede(home, connection, entry)


def _check_not_superseded(connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    """Its correction may have been loaded while this one waited for the staging file."""
    rows = connection.execute("SELECT replaced_by FROM superseded_batches WHERE batch_id = ?", [batch_id]).fetchall()
    for (replaced_by,) in rows:
        raise SupersededError(f"batch {batch_id} was replaced by {replaced_by}")


def _published(home: Home) -> set[str]:
    """Batches of the published file; none where there is none. A home of an earlier version has no other list."""
    if not home.published.exists():
        return set()
    try:
        with duckdb.connect(str(home.published), read_only=True) as connection:
            return {batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM batches").fetchall()}
    except duckdb.Error:  # it is damaged, and the next one replaces it
        return set()


def _artifacts(
    home: Home, connection: duckdb.DuckDBPyConnection, kind: str, batch_ids: Sequence[str]
) -> list[Artifact]:
    """What is known of batches, as they are now; those that are not usable and were never held here are left out."""
    rows = connection.execute("SELECT artifact_id FROM provenance.artifacts WHERE kind = ?", [kind]).fetchall()
    expected = {name.partition(":")[2] for (name,) in rows} | set(usable_batches(home))
    return [known_artifact(connection, kind, batch_id) for batch_id in batch_ids if batch_id in expected]


def _refuse_known_recordings(connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    clashes = connection.execute(
        "SELECT batch_id, count(DISTINCT recording_id) FROM segments "
        "WHERE recording_id IN (SELECT recording_id FROM arriving) GROUP BY batch_id ORDER BY batch_id"
    ).fetchall()
    if clashes:
        places = ", ".join(f"{number} of its recordings are also in batch {other}" for other, number in clashes)
        raise RefusedBatchError(f"batch {batch_id}: {places}", tuple(other for other, _ in clashes))


def _file(home: Home, path: Path, sha256: str) -> Artifact:
    name = home.relative(path)
    return Artifact("file", name, sha256, name)


def _settings(path: Path) -> dict[str, str]:
    """What a Parquet file of ours says it was made with."""
    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW:")}
