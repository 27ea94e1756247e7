"""The tables of readouts and predictions: filled batch by batch, and only where something has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.evaluation.matrix import StoredMatrix
from accelkd.evaluation.readouts import READOUTS, Predicted, Readouts, predict, read_participants
from accelkd.home.behaviour import code_stamp
from accelkd.home.layout import Home
from accelkd.warehouse.embeddings import encoder_table, loaded_models
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.read_embeddings import copied_rows, numbered
from accelkd.warehouse.schema import PREDICTIONS
from accelkd.warehouse.staging import staging

_EDGES = (
    "FROM provenance.edges JOIN provenance.artifacts ON artifacts.artifact_id = edges.input_id "
    "WHERE edges.artifact_id = ? AND edges.input_version = artifacts.version"
)


def embedding_versions(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> dict[str, str]:
    """Versions of the embeddings in an encoder's table, by batch."""
    batches = connection.execute(
        f"SELECT DISTINCT batch_id FROM embeddings.{encoder_table(encoder)} ORDER BY 1"
    ).fetchall()
    return {
        batch_id: known_artifact(connection, "embeddings", f"{encoder}/{model_id}/{batch_id}").version
        for (batch_id,) in batches
    }


def load_readouts(home: Home, connection: duckdb.DuckDBPyConnection, readouts: Readouts) -> None:
    """Replace the rows of an encoder's readouts, and record what they were fitted on."""
    encoder, model_id = readouts.encoder, readouts.model_id
    rows = [
        {
            "encoder": encoder,
            "model_id": model_id,
            "readout_id": readouts.readout_id,
            "target": readout.target,
            "level": readout.level,
            "unit": readout.unit,
            "participants": readout.participants,
            "samples": readout.samples,
            "ridge_alpha": readout.alpha,
            "lowest_label": readout.label_range[0],
            "highest_label": readout.label_range[1],
            "held_out": readout.held_out,
            "constant": readout.constant,
            "reads": readout.reads,
        }
        for readout in readouts.of.values()
    ]
    connection.execute("DELETE FROM readouts WHERE encoder = ?", [encoder])
    connection.register("arriving", pa.Table.from_pylist(rows))
    connection.execute("INSERT INTO readouts BY NAME FROM arriving")
    connection.unregister("arriving")
    inputs = [
        known_artifact(connection, "model", f"{encoder}/{model_id}"),
        known_artifact(connection, "split", "ledger"),
        *(
            known_artifact(connection, "embeddings", f"{encoder}/{model_id}/{name}")
            for name in embedding_versions(connection, encoder, model_id).keys() & readouts.batches.keys()
        ),
    ]
    record(connection, _readouts_artifact(home, readouts), inputs)


def forget_readouts(connection: duckdb.DuckDBPyConnection, encoder: str) -> None:
    """Delete the readouts of an encoder and all that they predict."""
    for table in ("readouts", "predictions"):
        connection.execute(f"DELETE FROM {table} WHERE encoder = ?", [encoder])


def update_predictions(home: Home, connection: duckdb.DuckDBPyConnection, readouts: Readouts) -> list[str]:
    """Predict the batches whose embeddings or readouts have changed, and their participants; returns the batches.

    Rows of other readouts, and of batches that are not embedded any more, go.
    """
    encoder, model_id = readouts.encoder, readouts.model_id
    now = _readouts_artifact(home, readouts)
    others = connection.execute(
        "SELECT count(*) FROM predictions WHERE encoder = ? AND readout_id <> ?", [encoder, readouts.readout_id]
    ).fetchall()[0][0]
    if others:
        connection.execute("DELETE FROM predictions WHERE encoder = ?", [encoder])
    embedded = embedding_versions(connection, encoder, model_id)
    predicted = {
        batch_id
        for (batch_id,) in connection.execute(
            "SELECT DISTINCT batch_id FROM predictions WHERE encoder = ? AND batch_id IS NOT NULL", [encoder]
        ).fetchall()
    }
    stale = [
        batch_id
        for batch_id in embedded
        if batch_id not in predicted or not _is_current(connection, readouts, batch_id, now)
    ]
    gone = sorted(predicted - embedded.keys())
    concerned = _participants(connection, encoder, stale) | {
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT participant_id FROM predictions WHERE encoder = ? AND list_contains(?, batch_id)",
            [encoder, gone],
        ).fetchall()
    }
    connection.execute(
        "DELETE FROM predictions WHERE encoder = ? AND list_contains(?, batch_id)", [encoder, [*stale, *gone]]
    )
    for batch_id in stale:
        rows = _embedded(connection, encoder, batch_id)
        _insert(connection, readouts, _of_segments(readouts, rows, batch_id))
        inputs = [now, known_artifact(connection, "embeddings", f"{encoder}/{model_id}/{batch_id}")]
        record(connection, _artifact(readouts, batch_id), inputs)
    _update_participants(connection, readouts, sorted(concerned))
    return [*stale, *gone]


def typical_shares(home: Home) -> list[dict[str, Any]]:
    """Share of each batch's segments that are unlike those of training, by encoder.

    Raises NothingToMeasureError where nothing is predicted.
    """
    with staging(home) as connection:
        rows: list[dict[str, Any]] = (
            connection.sql(
                "SELECT encoder, batch_id AS batch, avg((NOT typical)::INTEGER) AS not_typical, "
                "count(DISTINCT segment_id) AS segments FROM predictions WHERE batch_id IS NOT NULL "
                "GROUP BY ALL ORDER BY ALL"
            )
            .to_arrow_table()
            .to_pylist()
        )
    if not rows:
        raise NothingToMeasureError("nothing is predicted")
    return rows


def drop_stray_predictions(connection: duckdb.DuckDBPyConnection) -> None:
    """Delete predictions of what the embedding tables do not hold as it was: of other models, segments or means."""
    models = loaded_models(connection)
    connection.execute(
        "DELETE FROM predictions WHERE (encoder, model_id) NOT IN (SELECT unnest($encoders), unnest($models))",
        {"encoders": list(models), "models": list(models.values())},
    )
    for encoder in models:
        table = f"embeddings.{encoder_table(encoder)}"
        connection.execute(
            f"DELETE FROM predictions WHERE encoder = ? AND segment_id NOT IN (SELECT segment_id FROM {table})",
            [encoder],
        )
        connection.execute(
            "DELETE FROM predictions WHERE encoder = $1 AND segment_id IS NULL AND NOT EXISTS ("
            f"FROM (SELECT participant_id, count(*) AS number FROM {table} GROUP BY participant_id) AS now "
            "WHERE now.participant_id = predictions.participant_id AND now.number = predictions.segments)",
            [encoder],
        )


def _is_current(connection: duckdb.DuckDBPyConnection, readouts: Readouts, batch_id: str, now: Artifact) -> bool:
    """Whether a batch was predicted by these readouts from its embeddings as they are."""
    rows = connection.execute(f"SELECT input_id, input_version {_EDGES}", [_artifact(readouts, batch_id).artifact_id])
    made_of: dict[str, str] = dict(rows.fetchall())
    embeddings = f"embeddings:{readouts.encoder}/{readouts.model_id}/{batch_id}"
    return made_of.get(now.artifact_id) == now.version and embeddings in made_of


def _update_participants(
    connection: duckdb.DuckDBPyConnection, readouts: Readouts, participants: Iterable[str]
) -> None:
    """Predict participants again from the mean over all their segments; who has none left has no row."""
    names = list(participants)
    connection.execute(
        "DELETE FROM predictions WHERE encoder = ? AND segment_id IS NULL AND list_contains(?, participant_id)",
        [readouts.encoder, names],
    )
    rows, matrix = copied_rows(
        connection,
        readouts.encoder,
        "participant_id",
        "WHERE list_contains(?, participant_id)",
        "participant_id, segment_id",
        [names],
    )
    if len(matrix) and readouts.at("participant"):
        _insert(connection, readouts, _of_participants(readouts, rows.column("participant_id"), matrix))


def _of_segments(readouts: Readouts, rows: pa.Table, batch_id: str) -> pa.Table:
    matrix = _matrix(rows)
    typical = readouts.typical.contains(matrix)
    return _rows(
        {readout.target: predict(readout, matrix) for readout in readouts.at("segment")},
        {
            "participant_id": rows.column("participant_id").combine_chunks(),
            "segment_id": rows.column("segment_id").combine_chunks(),
            "batch_id": pa.repeat(batch_id, rows.num_rows),
            "segments": pa.array(np.ones(rows.num_rows, np.int64)),
            "typical": pa.array(typical),
        },
    )


def _of_participants(readouts: Readouts, people: pa.ChunkedArray, matrix: StoredMatrix) -> pa.Table:
    names, numbers = numbered(people)
    read = read_participants(readouts, matrix, numbers)
    nothing = pa.nulls(len(read.names), pa.string())
    return _rows(
        read.of,
        {
            "participant_id": pa.array(names[read.names].tolist(), pa.string()),
            "segment_id": nothing,
            "batch_id": nothing,
            "segments": pa.array(read.segments),
            "typical": pa.array(read.typical),
        },
    )


def _rows(of: Mapping[str, Predicted], keys: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of `predictions` without the columns that say what predicted them: target after target."""
    parts = [
        pa.table(
            {
                "target": pa.repeat(target, len(predicted.value)),
                **keys,
                **{
                    name: pa.array(getattr(predicted, name).astype(np.float32), from_pandas=True)  # NaN is null
                    for name in ("value", "low", "high")
                },
            }
        )
        for target, predicted in of.items()
    ]
    return pa.concat_tables(parts)


def _insert(connection: duckdb.DuckDBPyConnection, readouts: Readouts, rows: pa.Table) -> None:
    for name, value in (
        ("encoder", readouts.encoder),
        ("model_id", readouts.model_id),
        ("readout_id", readouts.readout_id),
    ):
        rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
    connection.register("arriving", rows.select(PREDICTIONS.names))
    connection.execute("INSERT INTO predictions BY NAME FROM arriving")
    connection.unregister("arriving")


def _embedded(connection: duckdb.DuckDBPyConnection, encoder: str, batch_id: str) -> pa.Table:
    return connection.sql(
        f"SELECT segment_id, participant_id, embedding FROM embeddings.{encoder_table(encoder)} "
        "WHERE batch_id = ? ORDER BY participant_id, segment_id",
        params=[batch_id],
    ).to_arrow_table()


def _participants(connection: duckdb.DuckDBPyConnection, encoder: str, batches: list[str]) -> set[str]:
    rows = connection.execute(
        f"SELECT DISTINCT participant_id FROM embeddings.{encoder_table(encoder)} WHERE list_contains(?, batch_id)",
        [batches],
    ).fetchall()
    return {name for (name,) in rows}


def _matrix(rows: pa.Table) -> npt.NDArray[np.float32]:
    values = rows.column("embedding").combine_chunks().flatten().to_numpy()
    return np.reshape(values, (rows.num_rows, -1))


def _readouts_artifact(home: Home, readouts: Readouts) -> Artifact:
    path = home.checkpoint(readouts.encoder, readouts.model_id) / READOUTS
    name = f"{readouts.encoder}/{readouts.model_id}"
    return Artifact("readouts", name, readouts.readout_id, home.relative(path), code_stamp("accelkd.evaluation"))


def _artifact(readouts: Readouts, batch_id: str) -> Artifact:
    """The predictions of one batch, as provenance names them."""
    name = f"{readouts.encoder}/{readouts.model_id}/{batch_id}"
    return Artifact("predictions", name, readouts.readout_id, code_version=code_stamp("accelkd.evaluation"))
