"""Whom the promoted encoders' predictions hold for: test participants by sex, age, BMI, skin tone and device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.evaluation.participant_probes import participant_targets
from accelkd.evaluation.subgroups import (
    BMI_BANDS,
    BMI_EDGES_KG_M2,
    SKIN_TONE_EDGES,
    SKIN_TONES,
    GroupResult,
    Judged,
    band,
    by_group,
)
from accelkd.home.behaviour import code_stamp
from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.recordings.labels import LABELS
from accelkd.registry.history import refuse_unpromoted
from accelkd.warehouse.embeddings import loaded_models
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.staging import staging


@dataclass(frozen=True)
class Fairness:
    """Results of one encoder, by target."""

    encoder: str
    readout_id: str
    results: Mapping[str, Sequence[GroupResult]]


def measure_fairness(home: Home) -> list[Fairness]:
    """Compare the predictions for test participants with what was measured, by group, and load the results.

    Encoders without predictions, and targets without a label in test, are left out. Raises FileNotFoundError before an
    encoder is promoted.
    """
    refuse_unpromoted(home)
    measured = []
    with staging(home) as connection:
        connection.execute("DELETE FROM fairness_results")
        people = _people(connection)
        for encoder, model_id in loaded_models(connection).items():
            rows = connection.execute(
                "SELECT DISTINCT readout_id FROM predictions WHERE encoder = ? AND model_id = ?", [encoder, model_id]
            ).fetchall()
            for (readout_id,) in rows:
                results = {
                    **_of_segments(connection, encoder, people),
                    **_of_participants(connection, encoder, people),
                }
                _load(connection, encoder, model_id, readout_id, results)
                measured.append(Fairness(encoder, readout_id, results))
    return measured


def overall_coverage(home: Home) -> list[dict[str, Any]]:
    """Coverage of the intervals over everybody in test, a row for each encoder and target.

    Raises NothingToMeasureError where nobody in test has a prediction and a label.
    """
    with staging(home) as connection:
        rows: list[dict[str, Any]] = (
            connection.sql(
                "SELECT encoder, target, coverage, coverage_low, coverage_high, participants FROM fairness_results "
                "WHERE attribute = 'everybody' AND coverage IS NOT NULL ORDER BY ALL"
            )
            .to_arrow_table()
            .to_pylist()
        )
    if not rows:
        raise NothingToMeasureError("nobody in test has a prediction and a label")
    return rows


def _load(
    connection: duckdb.DuckDBPyConnection,
    encoder: str,
    model_id: str,
    readout_id: str,
    results: Mapping[str, Sequence[GroupResult]],
) -> None:
    key = {"encoder": encoder, "model_id": model_id, "readout_id": readout_id}
    rows = [{**key, "target": target, **asdict(result)} for target, of in results.items() for result in of]
    if rows:
        connection.register("arriving", pa.Table.from_pylist(rows))
        connection.execute("INSERT INTO fairness_results BY NAME FROM arriving")
        connection.unregister("arriving")
    name = f"{encoder}/{model_id}"
    artifact = Artifact("fairness", name, sha256_json(rows), code_version=code_stamp("accelkd.evaluation"))
    batches = connection.execute(
        "SELECT DISTINCT batch_id FROM predictions WHERE encoder = ? AND batch_id IS NOT NULL ORDER BY 1", [encoder]
    ).fetchall()
    inputs = [
        known_artifact(connection, "split", "ledger"),
        known_artifact(connection, "readouts", name),
        *(known_artifact(connection, "predictions", f"{name}/{batch_id}") for (batch_id,) in batches),
    ]
    record(connection, artifact, inputs)


@dataclass(frozen=True, eq=False)
class _People:
    """The test participants, sorted, with the groups that each is in and what is known of them."""

    names: npt.NDArray[np.str_]
    groups: Mapping[str, npt.NDArray[np.str_]]  # by attribute
    targets: Mapping[str, npt.NDArray[np.float64]]


def _people(connection: duckdb.DuckDBPyConnection) -> _People:
    known = connection.sql(
        "SELECT participant_id, sex, age_years, age_band, bmi_kg_m2, skin_tone FROM participants "
        "WHERE split = 'test' ORDER BY participant_id"
    ).to_arrow_table()
    names = np.asarray(known.column("participant_id").to_pylist(), np.str_)
    health = connection.sql("SELECT participant_id, target, value FROM participant_targets").to_arrow_table()

    def numbers(column: str) -> npt.NDArray[np.float64]:
        return np.array([np.nan if value is None else value for value in known.column(column).to_pylist()], np.float64)

    ages = ["" if name == "unknown" else name for name in known.column("age_band").to_pylist()]
    groups = {
        "sex": np.asarray([name or "" for name in known.column("sex").to_pylist()], np.str_),
        "age": np.asarray(ages, np.str_),
        "BMI": band(numbers("bmi_kg_m2"), BMI_EDGES_KG_M2, BMI_BANDS),
        "skin tone": band(numbers("skin_tone"), SKIN_TONE_EDGES, SKIN_TONES),
    }
    return _People(names, groups, participant_targets(known, health, names))


def _of_segments(connection: duckdb.DuckDBPyConnection, encoder: str, people: _People) -> dict[str, list[GroupResult]]:
    results = {}
    for target in LABELS:
        rows = connection.sql(
            f"SELECT predictions.participant_id, segments.device_id, {target} AS measured, value, low, high "
            "FROM predictions JOIN segments USING (segment_id) "
            "JOIN split ON split.participant_id = predictions.participant_id "
            f"WHERE encoder = $encoder AND target = $target AND {target} IS NOT NULL AND split = 'test' "
            "ORDER BY segment_id",
            params={"encoder": encoder, "target": target},
        ).to_arrow_table()
        if rows.num_rows:
            judged = _judged(rows, rows.column("measured").to_numpy())
            groups = _groups(people, judged.participants)
            groups["device"] = np.asarray(rows.column("device_id").to_pylist(), np.str_)
            results[target] = by_group(judged, groups)
    return results


def _of_participants(
    connection: duckdb.DuckDBPyConnection, encoder: str, people: _People
) -> dict[str, list[GroupResult]]:
    rows = connection.sql(
        "SELECT participant_id, target, value, low, high FROM predictions "
        "JOIN split USING (participant_id) WHERE encoder = ? AND segment_id IS NULL AND split = 'test' "
        "ORDER BY target, participant_id",
        params=[encoder],
    ).to_arrow_table()
    named = np.asarray(rows.column("target").to_pylist(), np.str_)
    results = {}
    for target in dict.fromkeys(named.tolist()):
        own = rows.filter(pa.array(named == target))
        names = np.asarray(own.column("participant_id").to_pylist(), np.str_)
        measured = people.targets[target][np.searchsorted(people.names, names)]
        known = np.isfinite(measured)
        if known.any():
            judged = _judged(own.filter(pa.array(known)), measured[known])
            results[target] = by_group(judged, _groups(people, judged.participants))
    return results


def _judged(rows: pa.Table, measured: npt.NDArray[np.floating]) -> Judged:
    value, low, high = (
        rows.column(name).to_numpy().astype(np.float64)
        for name in ("value", "low", "high")  # null is NaN
    )
    return Judged(measured, value, low, high, np.asarray(rows.column("participant_id").to_pylist(), np.str_))


def _groups(people: _People, names: npt.NDArray[np.str_]) -> dict[str, npt.NDArray[np.str_]]:
    """The group of each sample's participant, by attribute."""
    row = np.searchsorted(people.names, names)
    return {attribute: of[row] for attribute, of in people.groups.items()}
