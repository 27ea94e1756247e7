"""Reports: evaluate what the warehouse holds, write the results back as rows, and figures and Markdown to disk.

Files in the reports folder hold no date and no running time: the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, overload

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.cohort.split import read_split
from accelkd.evaluation.beat_locked import SensorCheck
from accelkd.evaluation.calibration import probabilities
from accelkd.evaluation.classical import ClassicalResult, classical_result, undecided_classical
from accelkd.evaluation.collapse import effective_rank
from accelkd.evaluation.evidence import NothingToMeasureError, undecided_retrieval
from accelkd.evaluation.extract import project
from accelkd.evaluation.matrix import Matrix
from accelkd.evaluation.participant_probes import (
    TARGET_LABELS,
    ParticipantProbe,
    ParticipantProbeResult,
    mean_embeddings,
    probe_participants,
)
from accelkd.evaluation.probes import LabelledEmbeddings, Probe, ProbeResult, not_probed, probe_segments
from accelkd.evaluation.projection import MIN_MAPPED, tsne
from accelkd.evaluation.retrieval import MIN_RETRIEVED, POOL_PARTICIPANTS, RetrievalResult, ranks, retrieve
from accelkd.home.behaviour import code_stamp
from accelkd.home.files import atomic_path, sha256_file, sha256_json, write_text
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, encoder_spec, students
from accelkd.recordings.labels import LABELS
from accelkd.registry.history import promoted_checkpoint, promoted_models
from accelkd.registry.trained_on import superseded_training_batches
from accelkd.reports import markdown
from accelkd.reports.figures import (
    encoder_name,
    loss_figure,
    map_figure,
    probe_figure,
    retrieval_figure,
    split_figure,
)
from accelkd.reports.predictions import add_to_card, prediction_section
from accelkd.training.checkpoint import CURVE, load_heads, read_config
from accelkd.warehouse.embeddings import lacks_input, loaded_models
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.read_embeddings import Embeddings, people_of, read_embeddings
from accelkd.warehouse.report_state import (
    NOT_MEASURED,
    ReportInputs,
    not_measured,
    report_inputs,
    state_of_reports,
)
from accelkd.warehouse.schema import PROBE_PREDICTIONS
from accelkd.warehouse.sensors import pooled_sensors, warnings_of
from accelkd.warehouse.staging import staging

MAX_PREDICTED_SEGMENTS = 200_000  # of one target in probe_predictions; beyond, a row for each participant
MAP = "map.png"
MAP_PARTICIPANTS, MAP_SEGMENTS = 10, 20  # section 5.1 draws 200 pairs: 20 from each of 10 participants


@dataclass(frozen=True)
class ProbeReport:
    """Probes of one encoder."""

    encoder: str
    model_id: str
    split_version: str
    batches_version: str  # of the batches that it covers (accelkd.warehouse.report_state)
    results: tuple[ProbeResult, ...]  # of segments
    participants: tuple[ParticipantProbeResult, ...]
    classical: ClassicalResult | None  # of the heart rate, on the same test segments; None where none has an estimate
    effective_rank: float | None  # of the test segments' embeddings; None without one
    figure: Path | None  # None without a probe of segments
    not_measured: tuple[str, ...] = ()  # reasons, of targets of segments or of all


@dataclass(frozen=True)
class RetrievalReport:
    """Retrieval between students and their teachers; keys are (query encoder, key encoder, space)."""

    models: Mapping[str, str]  # model id of each encoder
    split_version: str
    batches_versions: tuple[str, ...]  # of the batches that it covers, by student
    results: Mapping[tuple[str, str, str], RetrievalResult]
    not_decidable: Mapping[tuple[str, str, str], str]  # why a result decides nothing, of those that do not
    figure: Path | None  # None without a result
    not_measured: tuple[str, ...] = ()  # reasons


@dataclass(frozen=True)
class MapReport:
    """The t-SNE figure."""

    participants: int
    segments: int
    made_of: ReportInputs
    figure: Path | None  # None without a map
    not_measured: tuple[str, ...] = ()  # reasons, of an encoder that is not in it or of all


def probe_encoder(home: Home, encoder: str) -> ProbeReport:
    """Ridge probes of segments (heart rate, SDNN, RMSSD) and of participants (age, BMI, sex, health targets).

    Fitted on training and measured on test participants; the results replace the model's rows in the warehouse, what
    they predict that of every model of the encoder. The former use only segments whose labels passed the quality gate,
    the latter the mean over all of a participant's. What cannot be measured (no labels on one side, nobody in test, no
    segment with what the encoder takes) is left out, and recorded with its reason. Raises LookupError before the
    segments are embedded.
    """
    with staging(home) as connection:
        try:
            data = _embeddings(home, connection, encoder, test_only=False)
        except NothingToMeasureError as reason:
            return _without_probes(home, connection, encoder, str(reason))
        train, test = (data.take(np.flatnonzero(rows)) for rows in (~data.in_test, data.in_test))
        people = [people_of(connection, side) for side in (train, test)]
        batches = connection.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall()
        estimated_bpm = _accel_rates(connection, test)
        made_of = report_inputs(connection, {encoder: data.model_id})
        inputs = [
            known_artifact(connection, "split", "ledger"),
            *_embedding_artifacts(connection, encoder, data.model_id),
            *(known_artifact(connection, "tables", batch_id) for (batch_id,) in batches),
        ]
    sides = train.labelled(), test.labelled()
    reasons = not_probed(*sides)
    probed_targets = [target for target in train.labels if target not in reasons]
    segments = probe_segments(
        *(replace(side, targets={target: side.targets[target] for target in probed_targets}) for side in sides)
    )
    why = tuple(f"{LABELS[target].title}: {reason}" for target, reason in reasons.items())
    results = tuple(probe.result for probe in segments.values())
    classical = classical_result(test.labels["hr_bpm"], estimated_bpm, test.people)
    probed = probe_participants(*people)
    participants = tuple(probe.result for probe in probed.values())
    shown = [(probe.result, probe.measured, probe.predicted) for probe in segments.values()]
    figure = _save(home, f"probe_{encoder}.png", probe_figure(encoder, shown) if shown else None)
    key = {
        "encoder": encoder,
        "model_id": data.model_id,
        "split_version": made_of.split_version,
        "batches_version": made_of.batches_version,
    }
    rows = {
        "probe_results": [
            {**key, **asdict(result), **_classical_columns(classical if result.target == "hr_bpm" else None)}
            for result in results
        ],
        "participant_probe_results": [{**key, **asdict(result)} for result in participants],
    }
    predictions = pa.concat_tables(
        [
            *(_segment_predictions(probe, test) for probe in segments.values()),
            *(_participant_predictions(probe, people[0], test) for probe in probed.values()),
        ]
    )
    for name, value in reversed((*key.items(), ("side", "test"))):
        predictions = predictions.add_column(0, name, pa.repeat(value, len(predictions)))
    with staging(home) as connection:
        _forget_probes(connection, encoder, data.model_id)
        for table, arriving in rows.items():
            _insert(connection, table, arriving)
        connection.register("arriving", predictions)
        connection.execute("INSERT INTO probe_predictions BY NAME FROM arriving")
        version = sha256_json(list(rows.values()))
        name = f"{encoder}/{data.model_id}"
        record(connection, _artifact(home, "probe", name, version, figure, made_of, why), inputs)
    return ProbeReport(
        encoder=encoder,
        model_id=data.model_id,
        split_version=made_of.split_version,
        batches_version=made_of.batches_version,
        results=results,
        participants=participants,
        classical=classical,
        effective_rank=effective_rank(test.matrix) if len(test.matrix) else None,
        figure=figure,
        not_measured=why,
    )


def _without_probes(home: Home, connection: duckdb.DuckDBPyConnection, encoder: str, reason: str) -> ProbeReport:
    """Record that there is nothing to probe of the promoted encoder, and remove what there was."""
    model_id = promoted_models(home)[encoder]
    made_of = report_inputs(connection, {encoder: model_id})
    _forget_probes(connection, encoder, model_id)
    figure = _save(home, f"probe_{encoder}.png", None)
    artifact = _artifact(home, "probe", f"{encoder}/{model_id}", sha256_json([reason]), figure, made_of, (reason,))
    record(connection, artifact, [known_artifact(connection, "split", "ledger")])
    return ProbeReport(
        encoder, model_id, made_of.split_version, made_of.batches_version, (), (), None, None, figure, (reason,)
    )


def _forget_probes(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> None:
    """Delete the results of a model, and what any model of its encoder predicted."""
    for table in ("probe_results", "participant_probe_results"):
        connection.execute(f"DELETE FROM {table} WHERE encoder = ? AND model_id = ?", [encoder, model_id])
    connection.execute("DELETE FROM probe_predictions WHERE encoder = ?", [encoder])


def _accel_rates(connection: duckdb.DuckDBPyConnection, side: Embeddings) -> npt.NDArray[np.float64]:
    """accel_hr_bpm of each segment; NaN where there is none."""
    connection.register(
        "wanted",
        pa.table(
            {
                "segment_id": side.segment_ids,
                "number": np.arange(len(side.segment_ids)),
            }
        ),
    )
    rates = connection.sql(
        "SELECT coalesce(accel_hr_bpm, 'nan') AS bpm FROM wanted JOIN segments USING (segment_id) ORDER BY number"
    ).fetchnumpy()["bpm"]
    connection.unregister("wanted")
    return np.asarray(rates, np.float64)


def _classical_columns(result: ClassicalResult | None) -> dict[str, float | int | None]:
    """Columns of probe_results that say what the classical estimator makes of the probe's test segments."""
    names = ("segments", "mae", "mae_low", "mae_high", "rmse", "pearson_r")
    return {f"classical_{name}": None if result is None else getattr(result, name) for name in names}


def _segment_predictions(probe: Probe, test: Embeddings) -> pa.Table:
    """Rows of probe_predictions, ordered by segment; means by participant where there are too many segments."""
    labelled = np.isfinite(test.labels[probe.result.target])
    people, errors = test.people[labelled], np.abs(probe.measured - probe.predicted)
    if len(people) <= MAX_PREDICTED_SEGMENTS:
        segment_ids = test.segment_ids.filter(pa.array(labelled)).cast(pa.string())
        ones = np.ones(len(people))
        return _predictions(
            probe.result.target, test.names[people], segment_ids, ones, probe.measured, probe.predicted, errors
        )
    values = np.column_stack([probe.measured, probe.predicted, errors])
    numbers, means = mean_embeddings(values.astype(np.float32), people)
    counts = np.unique(people, return_counts=True)[1]
    nothing = pa.nulls(len(numbers), pa.string())
    return _predictions(probe.result.target, test.names[numbers], nothing, counts, *means.T)


def _participant_predictions(probe: ParticipantProbe, train: LabelledEmbeddings, test: Embeddings) -> pa.Table:
    """Rows of probe_predictions of a participants' target, with the number of segments of each mean embedding."""
    counts = np.bincount(test.people, minlength=len(test.names))
    segments = counts[np.searchsorted(test.names, probe.participants)]
    predicted = probe.predicted if probe.result.unit else probabilities(probe, train)
    nobody = pa.nulls(len(segments), pa.string())
    errors = np.abs(probe.measured - predicted)
    return _predictions(probe.result.target, probe.participants, nobody, segments, probe.measured, predicted, errors)


def _predictions(
    target: str,
    participants: npt.NDArray[np.str_],
    segment_ids: pa.Array,
    segments: npt.NDArray[np.number],
    measured: npt.NDArray[np.floating],
    predicted: npt.NDArray[np.floating],
    absolute_error: npt.NDArray[np.floating],
) -> pa.Table:
    """Columns of probe_predictions that differ by row."""
    schema = PROBE_PREDICTIONS.arrow()
    columns = {
        "target": pa.repeat(target, len(participants)),
        "participant_id": participants.tolist(),
        "segment_id": segment_ids,
        "segments": segments.astype(np.int64),
        "measured": measured.astype(np.float32),
        "predicted": predicted.astype(np.float32),
        "absolute_error": absolute_error.astype(np.float32),
    }
    return pa.table(columns, pa.schema([schema.field(name) for name in columns]))


def retrieve_pairs(home: Home) -> RetrievalReport:
    """Retrieval in both directions between every student and its teacher, on the test segments that both embedded.

    In two spaces: `projected` by the heads that the student was trained with, and `raw` if teacher and student are
    equally wide. The results replace the models' rows in the warehouse. A pair without two such segments is recorded
    with the reason. Raises LookupError before the segments are embedded, and ValueError if a student was distilled from
    another teacher.
    """
    results: dict[tuple[str, str, str], RetrievalResult] = {}
    not_decidable: dict[tuple[str, str, str], str] = {}
    curves: dict[str, npt.NDArray[np.float64]] = {}
    models: dict[str, str] = {}
    candidates = 0
    made_of: dict[str, ReportInputs] = {}
    inputs: dict[str, list[Artifact]] = {}
    pairs: dict[str, list[Embeddings]] = {}  # those of which something is measured
    reasons: dict[str, str] = {}
    with staging(home) as connection:  # all at once: the split may grow before the results are written
        split = known_artifact(connection, "split", "ledger")
        for spec, teacher in students():
            try:
                pairs[spec.name] = _common(home, connection, (teacher, spec.name), MIN_RETRIEVED)
            except NothingToMeasureError as error:
                reasons[spec.name] = str(error)
            own = {name: _model_of(home, connection, name) for name in (teacher, spec.name)}
            models |= own
            made_of[spec.name] = report_inputs(connection, own)
            inputs[spec.name] = [
                split,
                known_artifact(connection, "model", f"{spec.name}/{own[spec.name]}"),
                *(
                    artifact
                    for name in own
                    if spec.name in pairs
                    for artifact in _embedding_artifacts(connection, name, own[name])
                ),
            ]
    for spec, teacher in students():
        if spec.name not in pairs:
            continue
        taught, learned = pairs[spec.name]
        folder = home.checkpoint(spec.name, learned.model_id)
        own_teacher = read_config(folder)["teacher"]
        if own_teacher != taught.model_id:
            raise ValueError(
                f"student {learned.model_id} was distilled from teacher {own_teacher}, "
                f"but the teacher's embeddings are those of {taught.model_id}: distil or embed again"
            )
        spaces: dict[str, tuple[Matrix, Matrix]] = {"projected": _projected(folder, taught.matrix, learned.matrix)}
        if taught.matrix.shape == learned.matrix.shape:
            spaces["raw"] = (taught.matrix, learned.matrix)
        people = np.unique(taught.people)
        shown = np.isin(taught.people, people[:POOL_PARTICIPANTS])
        candidates = max(candidates, int(shown.sum()))
        for space, (ppg, accel) in spaces.items():
            for query, key, queries, keys in ((spec.name, teacher, accel, ppg), (teacher, spec.name, ppg, accel)):
                results[query, key, space] = retrieve(queries, keys, taught.people)
                if reason := undecided_retrieval(len(people)):
                    not_decidable[query, key, space] = reason
                curves[f"{_direction(query, key)}, {space}"] = ranks(queries[shown], keys[shown])
    figure = _save(home, "retrieval.png", retrieval_figure(curves, candidates) if curves else None)
    rows = {
        spec.name: [
            {
                "query_encoder": query,
                "query_model_id": models[query],
                "key_encoder": key,
                "key_model_id": models[key],
                "split_version": made_of[spec.name].split_version,
                "batches_version": made_of[spec.name].batches_version,
                "space": space,
                **asdict(result),
                "status": "not_decidable" if (query, key, space) in not_decidable else "decidable",
                "not_decidable": not_decidable.get((query, key, space)),
            }
            for (query, key, space), result in results.items()
            if spec.name in (query, key)
        ]
        for spec, _ in students()
    }
    with staging(home) as connection:
        connection.execute(
            "DELETE FROM retrieval_results WHERE query_model_id IN $models AND key_model_id IN $models",
            {"models": list(models.values())},
        )
        for student, results_of in rows.items():
            _insert(connection, "retrieval_results", results_of)
            name, why = f"{student}/{models[student]}", tuple(reasons[name] for name in reasons if name == student)
            artifact = _artifact(home, "retrieval", name, sha256_json(results_of), figure, made_of[student], why)
            record(connection, artifact, inputs[student])
    batches_versions = tuple(inputs_of.batches_version for inputs_of in made_of.values())
    return RetrievalReport(
        models, split.version, batches_versions, results, not_decidable, figure, tuple(reasons.values())
    )


def map_embeddings(home: Home) -> MapReport:
    """t-SNE maps of the same test segments by every encoder: up to 20 of each of up to 10 participants.

    An encoder that no segment suits is left out; that, and too few segments for a map, is recorded with the reason.
    Raises LookupError before the segments are embedded.
    """
    encoders, reasons = [spec.name for spec in ENCODERS], []
    pairs: list[tuple[str, Embeddings]] = []
    with staging(home) as connection:
        models = {name: _model_of(home, connection, name) for name in encoders}
        made_of = report_inputs(connection, models)
        inputs = [known_artifact(connection, "split", "ledger")]
        shown = [name for name in encoders if not lacks_input(connection, name, models[name])]
        reasons += [f"no segment has what the {encoder_name(name)} takes" for name in encoders if name not in shown]
        try:
            pairs = list(zip(shown, _common(home, connection, shown, MIN_MAPPED), strict=True)) if shown else []
        except NothingToMeasureError as reason:
            reasons.append(str(reason))
        for name, embeddings in pairs:
            inputs += _embedding_artifacts(connection, name, embeddings.model_id)
    name, why = f"{encoders[-1]}/{models[encoders[-1]]}", tuple(reasons)
    if not pairs:
        figure = _save(home, MAP, None)
        with staging(home) as connection:
            artifact = _artifact(home, "map", name, sha256_json(reasons), figure, made_of, why)
            record(connection, artifact, inputs)
        return MapReport(0, 0, made_of, figure, why)
    shown_segments = pairs[0][1]
    numbers, counts = np.unique(shown_segments.people, return_counts=True)
    most = numbers[np.argsort(-counts, kind="stable")[:MAP_PARTICIPANTS]]
    rows = np.concatenate([np.flatnonzero(shown_segments.people == number)[:MAP_SEGMENTS] for number in most])
    maps = {encoder_name(encoder): tsne(embeddings.matrix[rows]) for encoder, embeddings in pairs}
    png = map_figure(maps, shown_segments.participants[rows].tolist())
    figure = _save(home, MAP, png)
    with staging(home) as connection:
        artifact = _artifact(home, "map", name, hashlib.sha256(png).hexdigest(), figure, made_of, why)
        record(connection, artifact, inputs)
    return MapReport(len(most), len(rows), made_of, figure, why)


def write_report(home: Home) -> Path:
    """Write `reports/report.md`: cohort, training, probes and retrieval of the promoted models, and their inputs.

    Raises LookupError if no split has been loaded.
    """
    with staging(home) as connection:
        models = _reported_models(home, connection)
        split = known_artifact(connection, "split", "ledger")
        _save(home, "split.png", split_figure(read_split(home.split)))
        made_of = report_inputs(connection, models)
        sections = [
            *_mixed_section(state_of_reports(connection, promoted_models(home), written=False).mixed),
            _cohort_section(connection, split.version),
            _sensor_section(pooled_sensors(connection)),
            _training_section(home, connection, models),
            _probe_section(connection, models),
            _participant_section(connection, models),
            prediction_section(connection, models),
            _retrieval_section(connection, models),
            _map_section(home, connection, models),
            _origin_section(connection, made_of),
        ]
        for encoder, model_id in models.items():
            add_to_card(home.checkpoint(encoder, model_id), connection, encoder, model_id)
        path = home.reports / "report.md"
        write_text(path, "# Report\n\n" + "\n".join(sections))
        lineage = connection.execute(
            "SELECT kind, artifact_id, version FROM provenance.artifacts WHERE kind IN ('probe', 'retrieval', 'map') "
            "AND list_contains(?, split_part(artifact_id, ':', 2)) ORDER BY artifact_id",
            [[f"{encoder}/{model_id}" for encoder, model_id in models.items()]],
        ).fetchall()
        inputs = [Artifact(kind, name.partition(":")[2], version) for kind, name, version in lineage]
        artifact = _artifact(home, "report", "report", sha256_file(path), path, made_of)
        sensors = connection.execute(
            "SELECT name, version FROM (SELECT *, split_part(artifact_id, ':', 2) AS name FROM provenance.artifacts "
            "WHERE kind = 'sensors') SEMI JOIN batches ON name = batch_id ORDER BY name"
        ).fetchall()
        inputs += [Artifact("sensors", name, version) for name, version in sensors]
        record(connection, artifact, [split, *inputs])
    return path


def _mixed_section(reasons: Sequence[str]) -> list[str]:
    """What the reader must know first: results that do not belong together."""
    if not reasons:
        return []
    listed = "\n".join(f"- {reason}" for reason in reasons)
    return [f"**These results do not belong together; evaluate again.**\n\n{listed}\n"]


def _cohort_section(connection: duckdb.DuckDBPyConnection, split_version: str) -> str:
    batches = connection.execute("FROM batches ORDER BY batch_id").fetchall()
    quarantined = connection.execute(
        "SELECT unit, reason, sum(number)::BIGINT FROM quarantine GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    ).fetchall()
    sides = connection.execute(
        "SELECT split, count(DISTINCT participant_id), count(*), count(*) FILTER (label_good) "
        "FROM segments JOIN split USING (participant_id) GROUP BY split ORDER BY split DESC"
    ).fetchall()
    return "\n".join(
        [
            "## Cohort",
            "",
            markdown.table(
                ("batch", "source", "devices", "recordings", "participants", "segments", "quarantined"),
                [(*row[:2], ", ".join(row[2]), *row[3:]) for row in batches],
            ),
            "",
            markdown.table(("quarantined", "reason", "number"), quarantined)
            if quarantined
            else "Nothing was quarantined.",
            "",
            f"Split {markdown.code(split_version)}:",
            "",
            markdown.table(("side", "participants", "segments", "with good labels"), sides),
            "",
            "![participants in training and test](split.png)",
            "",
        ]
    )


def _sensor_section(sensors: Sequence[SensorCheck]) -> str:
    """Whether the accelerometers carry the heart, device by device."""
    if not sensors:
        return "## Sensors\n\nNot measured.\n"
    rows = [
        (
            sensor.device_id,
            sensor.verdict,
            sensor.tested_minutes,
            _share(sensor.locked_share),
            _share(sensor.false_alarm_share),
            sensor.locked_rms_mg,
            sensor.peak,
            _share(sensor.bands.share),
            _share(sensor.bands.by_chance),
        )
        for sensor in sensors
    ]
    header = ("device", "heart", "minutes", "locked", "by chance", "mg", "peak", "bands agree", "by chance")
    return "\n".join(
        [
            "## Sensors",
            "",
            "Whether the accelerometer of each device shows the heart (docs/sensors.md): the share of still minutes "
            "whose acceleration is locked to the beats at p < 0.01, and with other people's beats; the size of the "
            "wave; the height of the autocorrelation's peak; how often the rates of 4 to 11 Hz and of the heart sounds "
            "agree.",
            "",
            markdown.table(header, rows),
            "",
            *(f"**Warning: {markdown.escape(warning)}.**\n" for warning in warnings_of(sensors)),
        ]
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def _training_section(home: Home, connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    rows, figures = [], []
    for encoder, model_id in models.items():
        facts = connection.execute(
            "SELECT parameters, embedding_dim, metrics->>'participants', metrics->>'segments', metrics->>'steps', "
            "(metrics->>'loss')::DOUBLE FROM models WHERE encoder = ? AND model_id = ?",
            [encoder, model_id],
        ).fetchall()
        rank = _test_rank(home, connection, encoder)
        rows += [(encoder_name(encoder), markdown.code(model_id), *row, rank) for row in facts]
        curve = pq.read_table(home.checkpoint(encoder, model_id) / CURVE)
        figure = _save(home, f"loss_{encoder}.png", loss_figure(curve, encoder))
        figures.append(f"![training loss of the {markdown.escape(encoder_name(encoder))}]({figure.name})")
    header = (
        "encoder",
        "model",
        "parameters",
        "width",
        "participants",
        "segments",
        "steps",
        "last loss",
        "effective rank",
    )
    meaning = (
        "Effective rank: how many directions the test embeddings use, of the width (docs/evaluation.md); near 1 the "
        "encoder has collapsed."
    )
    outdated = [
        f"`{batch_id}` (by `{replaced_by}`)"
        for batch_id, replaced_by in superseded_training_batches(home, models).items()
    ]
    warning = f"Trained on batches that are superseded since: {', '.join(outdated)}. Training again uses the others."
    return "\n".join(
        [
            *("## Encoders", "", markdown.table(header, rows), "", meaning, ""),
            *([warning, ""] if outdated else []),
            *(*figures, ""),
        ]
    )


def _test_rank(home: Home, connection: duckdb.DuckDBPyConnection, encoder: str) -> float | None:
    """Effective rank of the test segments' embeddings; None without one."""
    try:
        return effective_rank(_embeddings(home, connection, encoder, test_only=True).matrix)
    except NothingToMeasureError:
        return None


def _not_measured_lines(connection: duckdb.DuckDBPyConnection, kind: str, models: Mapping[str, str]) -> list[str]:
    """A paragraph for each thing that the reports of a kind could not measure."""
    reasons = [
        (encoder_name(encoder), reason)
        for encoder, model_id in models.items()
        for reason in not_measured(connection, f"{kind}:{encoder}/{model_id}")
    ]
    return [f"Not measured, {markdown.escape(f'{encoder}: {reason}')}.\n" for encoder, reason in reasons]


_ERRORS = ("encoder", "target", "MAE", "95 %", "constant", "RMSE", "constant", "Pearson R", "unit", "train", "test")
_UNDECIDED_ERRORS = ("encoder", "target", "because", "MAE", "95 %", "constant", "unit", "train", "test")
# Best supported first: the upper end of the interval, as a share of the constant's error; then in a fixed order
_BY_EVIDENCE = "mae_high / nullif(constant_mae, 0) NULLS LAST, list_position($targets, target), encoder"
_REASON = "coalesce(not_decidable, if(status IS NULL, 'evaluated by an earlier version of accelkd', NULL))"


def _error_tables(rows: Sequence[tuple[Any, ...]], titles: Mapping[str, str]) -> list[str]:
    """Tables of errors: what is decidable, then what is not; a row is (reason, encoder, target, ...) as in _ERRORS."""
    named = [(reason, encoder_name(encoder), titles[target], *row) for reason, encoder, target, *row in rows]
    decided = [row for reason, *row in named if reason is None]
    undecided = [(*row[:2], reason, *row[2:5], *row[8:]) for reason, *row in named if reason is not None]
    lines = [markdown.table(_ERRORS, decided), ""] if decided else []
    if undecided:
        count = f"Not decidable, {len(undecided)} of {len(rows)}:"
        lines += [count, "", markdown.table(_UNDECIDED_ERRORS, undecided), ""]
    return lines


def _probe_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    rows = connection.execute(
        f"SELECT mae_high / nullif(constant_mae, 0), {_REASON}, encoder, target, mae, "
        "       format('{:.2f} to {:.2f}', mae_low, mae_high), constant_mae, "
        "       rmse, constant_rmse, pearson_r, unit, train_segments || ' of ' || train_participants, "
        "       test_segments || ' of ' || test_participants "
        "FROM probe_results WHERE model_id IN $models",
        {"models": list(models.values())},
    ).fetchall()
    encoders = [encoder for encoder in models if any(row[2] == encoder for row in rows)]
    rows = sorted([*rows, *_classical_rows(connection, models)], key=_evidence)
    return "\n".join(
        [
            "## Ridge probes",
            "",
            "Fitted on frozen embeddings of training participants, measured on test participants; `train` and `test` "
            "are segments of participants. The constant beside MAE is the median of the training labels, beside RMSE "
            "their mean. Best supported first: by the upper end of the error's 95 % interval over participants, as a "
            "share of the constant's error. The classical estimator is fitted on nobody: it reads the rate of the "
            "acceleration itself (docs/signal-processing.md) on the same test segments, so an encoder of acceleration "
            "that does not beat it has learned nothing of use about the heart rate.",
            "",
            *_error_tables([row[1:] for row in rows], {name: label.title for name, label in LABELS.items()}),
            *_not_measured_lines(connection, "probe", models),
            *(
                f"![probes of the {markdown.escape(encoder_name(encoder))}](probe_{encoder}.png)"
                for encoder in encoders
            ),
            "",
        ]
    )


def _evidence(row: Sequence[Any]) -> tuple[bool, float, int, str]:
    """Best supported first: by the upper end of the interval as a share of the constant's error, the row's first."""
    share, _, encoder, target, *_ = row
    return share is None, share or 0.0, [*LABELS].index(target), encoder


def _classical_rows(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """The row of the classical estimator, as those of the encoders; several where encoders take other segments."""
    results = connection.execute(
        "SELECT DISTINCT target, classical_mae, classical_mae_low, classical_mae_high, constant_mae, classical_rmse, "
        "constant_rmse, classical_pearson_r, unit, classical_segments, test_segments, test_participants "
        "FROM probe_results WHERE model_id IN $models AND classical_mae IS NOT NULL ORDER BY ALL",
        {"models": list(models.values())},
    ).fetchall()
    rows = []
    for target, mae, low, high, constant, *errors, unit, segments, labelled, people in results:
        bounds = None if low is None or high is None else f"{low:.2f} to {high:.2f}"
        estimated = "" if segments == labelled else f", {segments / labelled:.0%} have a rate"
        rows.append(
            (
                high / constant if high is not None and constant else None,
                undecided_classical(people, low, high, constant),
                *("classical_estimator", target, mae, bounds, constant, *errors, unit),
                *("none", f"{segments} of {people}{estimated}"),
            )
        )
    return rows


def _participant_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    """Errors of age and BMI, areas of yes-or-no targets with a column for each encoder, and what is not decidable."""
    import polars as pl

    parameters = {"models": list(models.values()), "targets": list(TARGET_LABELS)}
    errors = connection.execute(
        f"SELECT {_REASON}, encoder, target, mae, format('{{:.2f}} to {{:.2f}}', mae_low, mae_high), constant_mae, "
        "       rmse, constant_rmse, pearson_r, unit, train_participants, test_participants "
        "FROM participant_probe_results WHERE model_id IN $models AND unit IS NOT NULL "
        f"ORDER BY {_BY_EVIDENCE}",
        parameters,
    ).fetchall()
    areas = connection.sql(
        f"SELECT encoder, target, {_REASON} AS reason, auc_low, "
        "       format('{:.2f} ({:.2f} to {:.2f})', auc, auc_low, auc_high) AS area, "
        "       format('{:.2f} to {:.2f}', auc_low, auc_high) AS bounds, "
        "       format('{} of {}', train_yes, train_participants) AS train_yes, "
        "       format('{} of {}', test_yes, test_participants) AS test_yes "
        "FROM participant_probe_results WHERE model_id IN $models AND unit IS NULL "
        "ORDER BY list_position($models, model_id), list_position($targets, target)",
        params=parameters,
    ).pl()
    titles = [encoder_name(encoder) for encoder in models]
    areas = areas.with_columns(
        pl.col("encoder").replace(dict(zip(models, titles, strict=True))), pl.col("target").replace(TARGET_LABELS)
    )
    decided = (
        areas.filter(pl.col("reason").is_null())
        .with_columns(pl.col("auc_low").max().over("target").alias("best_low"))
        .sort("best_low", descending=True, maintain_order=True)
        .pivot("encoder", on_columns=titles, index=["target", "train_yes", "test_yes"], values="area")
    )
    undecided = (
        areas.drop_nulls("reason")
        .with_columns(pl.concat_str("encoder", "bounds", separator=" ", ignore_nulls=True).alias("of"))
        .group_by("target", "reason", "train_yes", "test_yes", maintain_order=True)
        .agg(pl.col("of").str.join(", "))
    )
    lines = ["## Probes of participants", ""]
    if errors:
        lines += [
            "The same regression on each participant's mean embedding; `train` and `test` are participants.",
            "",
            *_error_tables(errors, TARGET_LABELS),
        ]
    if len(decided):
        lines += [
            "Yes-or-no targets: area under the ROC curve, 0.5 for a coin, with its 95 % interval; best supported "
            "first, by the lower end. One interval in twenty misses the truth. Yes of sex is male.",
            "",
            markdown.table(
                ("target", *titles, "yes: train", "test"),
                decided.select("target", *titles, "train_yes", "test_yes").rows(),
            ),
            "",
        ]
    if len(undecided):
        targets = areas["target"].n_unique()
        lines += [
            f"Yes-or-no targets that are not decidable, {undecided['target'].n_unique()} of {targets}; with each "
            "encoder stands the interval that the area may lie in, where there is one:",
            "",
            markdown.table(
                ("target", "because", "of", "yes: train", "test"),
                undecided.select("target", "reason", "of", "train_yes", "test_yes").rows(),
            ),
            "",
        ]
    return "\n".join(lines)


def _retrieval_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    rows = connection.execute(
        "SELECT query_encoder, key_encoder, space, top1_percent, top1_percent_sd, chance_top1_percent, mean_rank, "
        f"       mean_rank_sd, chance_mean_rank, segments, participants, pools, {_REASON} "
        "FROM retrieval_results WHERE query_model_id IN $models AND key_model_id IN $models ORDER BY ALL",
        {"models": list(models.values())},
    ).fetchall()
    if not rows:
        lines = _not_measured_lines(connection, "retrieval", models) or ["Not evaluated.\n"]
        return "\n".join(["## Retrieval", "", *lines])
    reasons = dict.fromkeys((encoder_name(row[0]), encoder_name(row[1]), row[-1]) for row in rows if row[-1])
    undecided = [f"Not decidable, {query} finds {key}: {reason}.\n" for query, key, reason in reasons]
    header = (
        "query",
        "finds",
        "space",
        "top-1 (%)",
        "sd",
        "chance",
        "mean rank",
        "sd",
        "chance",
        "of",
        "people",
        "pools",
    )
    return "\n".join(
        [
            "## Retrieval",
            "",
            "Means over candidate pools of test participants drawn with replacement; `of` is the mean number of "
            "candidates.",
            "",
            markdown.table(header, [(encoder_name(row[0]), encoder_name(row[1]), *row[2:-1]) for row in rows]),
            "",
            *undecided,
            *_not_measured_lines(connection, "retrieval", models),
            "![rank of the own pair](retrieval.png)",
            "",
        ]
    )


def _map_section(home: Home, connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    lines = _not_measured_lines(connection, "map", models)
    if (home.reports / MAP).exists():
        lines += [f"![t-SNE of the embeddings]({MAP})\n"]
    return "\n".join(["## Map", "", *(lines or ["Not evaluated.\n"])])


def _origin_section(connection: duckdb.DuckDBPyConnection, made_of: ReportInputs) -> str:
    batches = [batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall()]
    return "\n".join(
        [
            "## Made from",
            "",
            *(
                f"- {markdown.escape(encoder_name(encoder))} {markdown.code(model_id)}"
                for encoder, model_id in made_of.models.items()
            ),
            f"- split {markdown.code(made_of.split_version)}",
            f"- arrival batches {', '.join(markdown.code(batch_id) for batch_id in batches)}",
            f"- their contents, as far as they are embedded and split: {markdown.code(made_of.batches_version)}",
            "- `FROM lineage_of('report:report')` in the warehouse leads on to every raw file.",
            "",
        ]
    )


def _embeddings(home: Home, connection: duckdb.DuckDBPyConnection, encoder: str, *, test_only: bool) -> Embeddings:
    """As `read_embeddings`; raises NothingToMeasureError where no segment has what the promoted encoder takes."""
    try:
        return read_embeddings(connection, encoder, test_only=test_only)
    except LookupError:
        if lacks_input(connection, encoder, promoted_models(home).get(encoder)):
            raise NothingToMeasureError(f"no segment has what the {encoder_name(encoder)} takes") from None
        raise


def _reported_models(home: Home, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Those with embeddings, and the promoted ones that no segment suits; a teacher before its student."""
    without = {name: model for name, model in promoted_models(home).items() if lacks_input(connection, name, model)}
    return dict(sorted({**without, **loaded_models(connection)}.items(), reverse=True))


def _model_of(home: Home, connection: duckdb.DuckDBPyConnection, encoder: str) -> str:
    """The model that a report of an encoder is of: the one in its table, or where it has none, the promoted one."""
    return loaded_models(connection).get(encoder) or promoted_checkpoint(home, encoder).name


def _common(
    home: Home, connection: duckdb.DuckDBPyConnection, encoders: Sequence[str], needed: int
) -> list[Embeddings]:
    """Test embeddings of each encoder, with the rows of all for the same segments.

    Raises NothingToMeasureError if they have fewer than the needed number of segments in common.
    """
    embedded = [_embeddings(home, connection, encoder, test_only=True) for encoder in encoders]
    ids = [embeddings.segment_ids for embeddings in embedded]
    common = [
        np.flatnonzero(np.logical_and.reduce([pc.is_in(own, other).to_numpy(zero_copy_only=False) for other in ids]))
        for own in ids
    ]
    if len(common[0]) < needed:
        titles = " and ".join(encoder_name(encoder) for encoder in encoders)
        raise NothingToMeasureError(
            f"too few segments: {len(common[0])} of test participants embedded by {titles}, {needed} are needed"
        )
    return [embeddings.take(rows) for embeddings, rows in zip(embedded, common, strict=True)]  # ordered by segment


def _direction(query: str, key: str) -> str:
    """Which modality finds which; with the student's title where there are several."""
    names = {"ppg": "PPG", "accel": "acceleration"}
    specs = [encoder_spec(query), encoder_spec(key)]
    own = f" ({next(spec.title for spec in specs if spec.teacher)})" if len(students()) > 1 else ""
    return f"{names[specs[1].modality]} from {names[specs[0].modality]}{own}"


def _projected(folder: Path, ppg: Matrix, accel: Matrix) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """PPG and accelerometer embeddings `[segments, 128]`, projected by the heads of the student's checkpoint."""
    teacher_head, student_head = load_heads(folder)
    return project(teacher_head, ppg), project(student_head, accel)


def _embedding_artifacts(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> list[Artifact]:
    batches = connection.execute(f"SELECT DISTINCT batch_id FROM embeddings.{encoder} ORDER BY 1").fetchall()
    return [known_artifact(connection, "embeddings", f"{encoder}/{model_id}/{batch_id}") for (batch_id,) in batches]


def _artifact(
    home: Home,
    kind: str,
    name: str,
    version: str,
    path: Path | None,
    made_of: ReportInputs,
    reasons: Sequence[str] = (),
) -> Artifact:
    """A report as provenance names it; `reasons` say what it could not measure."""
    configuration = {**made_of.configuration, **({NOT_MEASURED: list(reasons)} if reasons else {})}
    code = code_stamp("accelkd.evaluation")
    return Artifact(kind, name, version, None if path is None else home.relative(path), code, configuration)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        return
    columns = ", ".join(rows[0])
    values = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", [list(row.values()) for row in rows])


@overload
def _save(home: Home, name: str, png: bytes) -> Path: ...
@overload
def _save(home: Home, name: str, png: bytes | None) -> Path | None: ...
def _save(home: Home, name: str, png: bytes | None) -> Path | None:
    """The path of a figure; without one, the earlier one goes."""
    path = home.reports / name
    if png is None:
        path.unlink(missing_ok=True)
        return None
    with atomic_path(path) as part:
        part.write_bytes(png)
    return path
