"""Whether the reports belong together: one split, the promoted models, and the batches that are loaded now.

Each report records what it was made from. Those of different origins must not stand side by side as if they were one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, students
from accelkd.registry.history import promoted_models
from accelkd.warehouse.embeddings import encoder_table, loaded_models
from accelkd.warehouse.schema import TAKES
from accelkd.warehouse.staging import staging, tables

REPORT = "report:report"
NOT_MEASURED = "not_measured"  # in what provenance says of a report, beside what it was made from
_PROBES = ("probe_results", "participant_probe_results", "probe_predictions")


@dataclass(frozen=True)
class ReportInputs:
    """What a report was made from."""

    split_version: str
    models: Mapping[str, str]  # model id by encoder
    batches_version: str  # hash of the batches that it covers, with their versions, by encoder

    @property
    def configuration(self) -> dict[str, object]:
        """As provenance records it."""
        return {
            "split_version": self.split_version,
            "models": dict(self.models),
            "batches_version": self.batches_version,
        }


@dataclass(frozen=True)
class ReportState:
    """What is wrong with the reports as a whole."""

    missing: tuple[str, ...]  # reports that have not been made of the promoted models
    mixed: tuple[str, ...]  # reasons why reports that were made do not belong together: making them again helps
    uncovered: tuple[str, ...]  # loaded batches that no report can cover yet: not embedded whole, or without a side
    not_measured: tuple[str, ...] = ()  # what the reports could not measure, with the reason: nothing is wrong with it

    @property
    def is_current(self) -> bool:
        """Whether every report has been made of the loaded split, the promoted models and all loaded batches."""
        return not (self.missing or self.mixed or self.uncovered)


def report_inputs(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> ReportInputs:
    """What a report of `models` (model id by encoder) covers if it is made in this transaction.

    A batch counts once each of its segments that the encoder can take is embedded as it is now, and its participant is
    on a side of the split. Raises LookupError without a split.
    """
    covered = {encoder: _covered(connection, encoder, model_id) for encoder, model_id in models.items()}
    return ReportInputs(_split_version(connection), dict(models), _version(covered))


def report_state(home: Home) -> ReportState:
    """Whether probes, retrieval, map and written report are of the loaded split, promoted models and loaded batches.

    Reports are compared with what they would be made of now. Where no model is promoted, there is no report to miss.
    """
    with staging(home) as connection:
        return state_of_reports(connection, promoted_models(home))


def drop_mixed(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Delete the results of the loaded models if they do not belong together; returns why."""
    models = loaded_models(connection)
    if not models or not connection.execute("FROM provenance.artifacts WHERE artifact_id = 'split:ledger'").fetchall():
        return []
    covered = {encoder: _covered(connection, encoder, model_id) for encoder, model_id in models.items()}
    reasons = _mixed_rows(connection, models, covered)
    for table in _PROBES if reasons else ():
        connection.execute(f"DELETE FROM {table} WHERE model_id IN $models", {"models": list(models.values())})
    if reasons:
        connection.execute("DELETE FROM probe_predictions")
        connection.execute(
            "DELETE FROM retrieval_results WHERE query_model_id IN $models AND key_model_id IN $models",
            {"models": list(models.values())},
        )
    return list(dict.fromkeys(reasons))


def state_of_reports(
    connection: duckdb.DuckDBPyConnection, models: Mapping[str, str], *, written: bool = True
) -> ReportState:
    """`report_state` in a transaction; without the written report unless `written`."""
    promoted = {spec.name: models[spec.name] for spec in ENCODERS if spec.name in models}
    if not promoted:
        return ReportState((), (), ())
    expected = {f"probe:{encoder}/{model_id}": {encoder: model_id} for encoder, model_id in promoted.items()}
    for spec, teacher in students():
        if spec.name in promoted and teacher in promoted:
            pair = {teacher: promoted[teacher], spec.name: promoted[spec.name]}
            expected[f"retrieval:{spec.name}/{promoted[spec.name]}"] = pair
    last = list(promoted)[-1]
    if len(promoted) == len(ENCODERS):
        expected[f"map:{last}/{promoted[last]}"] = promoted
    if written:
        expected[REPORT] = promoted
    made = dict(
        connection.execute(
            "SELECT artifact_id, configuration FROM provenance.artifacts WHERE artifact_id IN $reports",
            {"reports": list(expected)},
        ).fetchall()
    )
    covered = {encoder: _covered(connection, encoder, model_id) for encoder, model_id in promoted.items()}
    mixed = []
    for name, of in expected.items():
        if name in made:
            now = ReportInputs(_split_version(connection), of, _version({encoder: covered[encoder] for encoder in of}))
            mixed += [f"{name}: {reason}" for reason in _differences(json.loads(made[name] or "null"), now)]
    mixed += _stale_inputs(connection, list(expected))
    mixed += _mixed_rows(connection, promoted, covered)
    uncovered = {
        batch_id
        for encoder, model_id in promoted.items()
        for batch_id in _loaded(connection, encoder, model_id).keys() - covered[encoder].keys()
    }
    return ReportState(
        tuple(name for name in expected if name not in made),
        tuple(dict.fromkeys(mixed)),
        tuple(sorted(uncovered)),
        tuple(f"{name}: {reason}" for name in expected for reason in not_measured(connection, name)),
    )


def not_measured(connection: duckdb.DuckDBPyConnection, report: str) -> tuple[str, ...]:
    """Why a report, by its identifier, has no result of something that it is to measure; empty where it has all."""
    rows = connection.execute(
        "SELECT configuration FROM provenance.artifacts WHERE artifact_id = ?", [report]
    ).fetchall()
    recorded = json.loads(rows[0][0] or "null") if rows else None
    return tuple((recorded or {}).get(NOT_MEASURED, ()))


def _differences(recorded: Mapping[str, object] | None, now: ReportInputs) -> list[str]:
    if not recorded:
        return ["an earlier version of accelkd made it, without saying of which split and batches"]
    reasons = []
    if recorded["split_version"] != now.split_version:
        reasons.append(f"of split {recorded['split_version']}, loaded is {now.split_version}")
    if recorded["models"] != dict(now.models):
        reasons.append(f"of {_named(recorded['models'])}, promoted are {_named(now.models)}")
    if recorded["batches_version"] != now.batches_version:
        reasons.append("of other batches than there are now")
    return reasons


def _stale_inputs(connection: duckdb.DuckDBPyConnection, reports: list[str]) -> list[str]:
    """Reports that were made from an earlier version of something."""
    rows = connection.execute(
        "SELECT edges.artifact_id, input_id FROM provenance.edges "
        "JOIN provenance.artifacts AS inputs ON inputs.artifact_id = input_id "
        "WHERE edges.artifact_id IN $reports AND input_version <> inputs.version ORDER BY ALL",
        {"reports": reports},
    ).fetchall()
    return [f"{report}: of an earlier version of {source}" for report, source in rows]


def _mixed_rows(
    connection: duckdb.DuckDBPyConnection,
    promoted: Mapping[str, str],
    covered: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Tables of results with rows of the promoted models that are of another split or of other batches."""
    own = "SELECT DISTINCT '{0}', encoder, encoder, split_version, batches_version FROM {0} WHERE model_id IN $models"
    rows = connection.execute(
        " UNION ALL ".join(own.format(table) for table in _PROBES)
        + " UNION ALL SELECT DISTINCT 'retrieval_results', query_encoder, key_encoder, split_version, batches_version "
        "FROM retrieval_results WHERE query_model_id IN $models AND key_model_id IN $models ORDER BY ALL",
        {"models": list(promoted.values())},
    ).fetchall()
    split_version, reasons = _split_version(connection), []
    for table, first, second, split, batches_version in rows:
        if split != split_version:
            reasons.append(f"{table}: rows of split {split}, loaded is {split_version}")
        if batches_version != _version({encoder: covered[encoder] for encoder in {first, second} & covered.keys()}):
            reasons.append(f"{table}: rows of other batches than there are now")
    others = connection.execute(
        "SELECT DISTINCT encoder, model_id FROM probe_predictions "
        "WHERE encoder IN $encoders AND model_id NOT IN $models ORDER BY ALL",
        {"encoders": list(promoted), "models": list(promoted.values())},
    ).fetchall()
    return [*reasons, *(f"probe_predictions: rows of {' '.join(model)}, which is not promoted" for model in others)]


def _split_version(connection: duckdb.DuckDBPyConnection) -> str:
    rows = connection.execute("SELECT version FROM provenance.artifacts WHERE artifact_id = 'split:ledger'").fetchall()
    if not rows:
        raise LookupError("split 'ledger' is not in the warehouse: load it first")
    return str(rows[0][0])


# Segments that a model can take
_TAKEN = (
    "SELECT batch_id, segment_id, participant_id FROM segments, models WHERE encoder = $encoder "
    f"AND model_id = $model_id AND {TAKES}"
)


def _loaded(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> dict[str, str]:
    """Versions of the loaded batches that have a segment for the model."""
    return dict(
        connection.execute(
            f"SELECT batch_id, version FROM (SELECT DISTINCT batch_id FROM ({_TAKEN})) "
            "JOIN provenance.artifacts ON artifact_id = 'tables:' || batch_id",
            {"encoder": encoder, "model_id": model_id},
        ).fetchall()
    )


def _covered(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> dict[str, str]:
    """Of the loaded batches those that the model has embedded as they are now, and whose participants have a side."""
    table = f"embeddings.{encoder_table(encoder)}"
    if table not in tables(connection):
        return {}
    rows = connection.execute(
        f"SELECT taken.batch_id FROM ({_TAKEN}) AS taken "
        f"LEFT JOIN {table} AS embedded ON embedded.segment_id = taken.segment_id AND embedded.model_id = $model_id "
        "LEFT JOIN split ON split.participant_id = taken.participant_id "
        "GROUP BY taken.batch_id HAVING count(*) = count(embedded.segment_id) AND count(*) = count(split.split) "
        "AND EXISTS (FROM provenance.edges JOIN provenance.artifacts ON artifacts.artifact_id = input_id "
        "WHERE edges.artifact_id = 'embeddings:' || $encoder || '/' || $model_id || '/' || taken.batch_id "
        "AND input_id = 'segments:' || taken.batch_id AND input_version = artifacts.version)",
        {"encoder": encoder, "model_id": model_id},
    ).fetchall()
    complete = {batch_id for (batch_id,) in rows}
    loaded = _loaded(connection, encoder, model_id)
    return {batch_id: version for batch_id, version in loaded.items() if batch_id in complete}


def _version(batches: Mapping[str, Mapping[str, str]]) -> str:
    return sha256_json({encoder: dict(versions) for encoder, versions in batches.items()})[:16]


def _named(models: object) -> str:
    assert isinstance(models, Mapping)
    return ", ".join(f"{encoder} {model_id}" for encoder, model_id in sorted(models.items()))
