"""Reports: evaluate what the warehouse holds, write the results back as rows, and figures and Markdown to disk.

Files in the reports folder hold no date and no running time: the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from accelkd.cohort.split import read_split
from accelkd.evaluation.collapse import effective_rank
from accelkd.evaluation.participant_probes import (
    TARGET_LABELS,
    ParticipantProbeResult,
    mean_embeddings,
    participant_targets,
    probe_participants,
)
from accelkd.evaluation.probes import TARGETS, LabelledEmbeddings, ProbeResult, probe_segments
from accelkd.evaluation.projection import tsne
from accelkd.evaluation.retrieval import POOL_PARTICIPANTS, RetrievalResult, ranks, retrieve
from accelkd.home.behaviour import code_stamp
from accelkd.home.files import atomic_path, sha256_file, sha256_json, write_text
from accelkd.home.layout import Home
from accelkd.registry.history import EncoderName
from accelkd.reports import markdown
from accelkd.reports.figures import (
    TARGET_NAMES,
    encoder_name,
    loss_figure,
    map_figure,
    probe_figure,
    retrieval_figure,
    split_figure,
)
from accelkd.training.checkpoint import CURVE, load_heads, read_config
from accelkd.warehouse.embeddings import Embeddings, loaded_models, read_embeddings
from accelkd.warehouse.provenance import Artifact, known_artifact, record
from accelkd.warehouse.staging import staging

TEACHER: EncoderName = "ppg_teacher"
STUDENT: EncoderName = "accel_student"
MAP_PARTICIPANTS, MAP_SEGMENTS = 10, 20  # section 5.1 draws 200 pairs: 20 from each of 10 participants


@dataclass(frozen=True)
class ProbeReport:
    """Probes of one encoder."""

    encoder: EncoderName
    model_id: str
    split_version: str
    results: tuple[ProbeResult, ...]  # of segments
    participants: tuple[ParticipantProbeResult, ...]
    effective_rank: float  # of the test segments' embeddings
    figure: Path


@dataclass(frozen=True)
class RetrievalReport:
    """Retrieval between teacher and student; keys are (query encoder, key encoder, space)."""

    teacher_model_id: str
    student_model_id: str
    split_version: str
    results: Mapping[tuple[EncoderName, EncoderName, str], RetrievalResult]
    figure: Path


@dataclass(frozen=True)
class MapReport:
    """The t-SNE figure."""

    participants: int
    segments: int
    figure: Path


def probe_encoder(home: Home, encoder: EncoderName) -> ProbeReport:
    """Ridge probes of segments (heart rate, SDNN, RMSSD) and of participants (age, BMI, sex, health targets).

    Fitted on training and measured on test participants. Only segments whose labels passed the quality gate take part
    in the former; all of a participant's are averaged for the latter. Raises LookupError without embeddings, ValueError
    where heart rate, SDNN or RMSSD has no labels on one side.
    """
    with staging(home) as connection:
        data = read_embeddings(connection, encoder, test_only=False)
        train, test = (data.take(np.flatnonzero(rows)) for rows in (~data.in_test, data.in_test))
        people = [_people(connection, side) for side in (train, test)]
        batches = connection.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall()
        split = known_artifact(connection, "split", "ledger")
        inputs = [
            split,
            *_embedding_artifacts(connection, encoder, data.model_id),
            *(known_artifact(connection, "tables", batch_id) for (batch_id,) in batches),
        ]
    segments = probe_segments(*(LabelledEmbeddings(one.matrix, one.participants, one.labels) for one in (train, test)))
    results = tuple(probe.result for probe in segments.values())
    participants = tuple(probe.result for probe in probe_participants(*people).values())
    shown = [(probe.result, probe.measured, probe.predicted) for probe in segments.values()]
    figure = _save(home, f"probe_{encoder}.png", probe_figure(encoder, shown))
    key = {"encoder": encoder, "model_id": data.model_id, "split_version": split.version}
    rows, participant_rows = ([{**key, **asdict(one)} for one in found] for found in (results, participants))
    with staging(home) as connection:
        for table, found in (("probe_results", rows), ("participant_probe_results", participant_rows)):
            connection.execute(f"DELETE FROM {table} WHERE encoder = ? AND model_id = ?", [encoder, data.model_id])
            _insert(connection, table, found)
        version = sha256_json([rows, participant_rows])
        record(connection, _artifact(home, "probe", f"{encoder}/{data.model_id}", version, figure), inputs)
    rank = effective_rank(test.matrix)
    return ProbeReport(encoder, data.model_id, split.version, results, participants, rank, figure)


def retrieve_pairs(home: Home) -> RetrievalReport:
    """Retrieval both ways between teacher and student on the test participants' segments that both embedded.

    In two spaces: `projected` by the heads that the student was trained with, and `raw`, where teacher and student are
    equally wide. Raises LookupError without embeddings, ValueError if the student learned from another teacher.
    """
    with staging(home) as connection:
        teacher, student = _pairs(connection)
        split = known_artifact(connection, "split", "ledger")
    folder = home.checkpoint(STUDENT, student.model_id)
    learned_from = read_config(folder)["teacher"]
    if learned_from != teacher.model_id:
        raise ValueError(
            f"student {student.model_id} was distilled from teacher {learned_from}, "
            f"but the teacher's embeddings are those of {teacher.model_id}: distil or embed again"
        )
    spaces = {"projected": _projected(folder, teacher.matrix, student.matrix)}
    if teacher.matrix.shape == student.matrix.shape:
        spaces["raw"] = (teacher.matrix, student.matrix)

    people = teacher.participants.tolist()
    shown = np.isin(teacher.participants, np.unique(teacher.participants)[:POOL_PARTICIPANTS])
    results, curves = {}, {}
    for space, (ppg, accel) in spaces.items():
        for query, key, queries, keys in ((STUDENT, TEACHER, accel, ppg), (TEACHER, STUDENT, ppg, accel)):
            results[query, key, space] = retrieve(queries, keys, people)
            direction = "PPG from acceleration" if query == STUDENT else "acceleration from PPG"
            curves[f"{direction}, {space}"] = ranks(queries[shown], keys[shown])
    figure = _save(home, "retrieval.png", retrieval_figure(curves, int(shown.sum())))

    models = {TEACHER: teacher.model_id, STUDENT: student.model_id}
    rows = [
        {
            "query_encoder": query,
            "query_model_id": models[query],
            "key_encoder": key,
            "key_model_id": models[key],
            "split_version": split.version,
            "space": space,
            **asdict(result),
        }
        for (query, key, space), result in results.items()
    ]
    with staging(home) as connection:
        connection.execute(
            "DELETE FROM retrieval_results WHERE query_model_id IN (?, ?) AND key_model_id IN (?, ?)",
            [*models.values(), *models.values()],
        )
        _insert(connection, "retrieval_results", rows)
        inputs = [split, known_artifact(connection, "model", f"{STUDENT}/{student.model_id}")]
        inputs += [one for name, model in models.items() for one in _embedding_artifacts(connection, name, model)]
        name = f"{STUDENT}/{student.model_id}"
        record(connection, _artifact(home, "retrieval", name, sha256_json(rows), figure), inputs)
    return RetrievalReport(teacher.model_id, student.model_id, split.version, results, figure)


def map_embeddings(home: Home) -> MapReport:
    """t-SNE maps of the same test segments by teacher and student: up to 20 of each of up to 10 participants."""
    with staging(home) as connection:
        teacher, student = _pairs(connection)
    names, counts = np.unique(teacher.participants, return_counts=True)
    most = names[np.argsort(-counts, kind="stable")[:MAP_PARTICIPANTS]]
    rows = np.concatenate([np.flatnonzero(teacher.participants == name)[:MAP_SEGMENTS] for name in most])
    maps = {
        encoder_name(name): tsne(embeddings.matrix[rows])
        for name, embeddings in ((TEACHER, teacher), (STUDENT, student))
    }
    figure = _save(home, "map.png", map_figure(maps, teacher.participants[rows].tolist()))
    with staging(home) as connection:
        inputs = [known_artifact(connection, "split", "ledger")]
        inputs += _embedding_artifacts(connection, TEACHER, teacher.model_id)
        inputs += _embedding_artifacts(connection, STUDENT, student.model_id)
        name = f"{STUDENT}/{student.model_id}"
        record(connection, _artifact(home, "map", name, sha256_file(figure), figure), inputs)
    return MapReport(len(most), len(rows), figure)


def write_report(home: Home) -> Path:
    """`reports/report.md`: cohort, training, probes and retrieval of the models in use, and what they were made from.

    Raises LookupError if no split has been loaded.
    """
    with staging(home) as connection:
        models = loaded_models(connection)
        split = known_artifact(connection, "split", "ledger")
        _save(home, "split.png", split_figure(read_split(home.split)))
        sections = [
            _cohort_section(connection, split.version),
            _training_section(home, connection, models),
            _probe_section(connection, models),
            _participant_section(connection, models),
            _retrieval_section(connection, models),
            _origin_section(connection, models, split.version),
        ]
        path = home.reports / "report.md"
        write_text(path, "# Report\n\n" + "\n".join(sections))
        lineage = connection.execute(
            "SELECT kind, artifact_id, version FROM provenance.artifacts WHERE kind IN ('probe', 'retrieval', 'map') "
            "AND list_contains(?, split_part(artifact_id, ':', 2)) ORDER BY artifact_id",
            [[f"{encoder}/{model_id}" for encoder, model_id in models.items()]],
        ).fetchall()
        inputs = [Artifact(kind, name.partition(":")[2], version) for kind, name, version in lineage]
        record(connection, _artifact(home, "report", "report", sha256_file(path), path), [split, *inputs])
    return path


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
            f"Split `{split_version}`:",
            "",
            markdown.table(("side", "participants", "segments", "with good labels"), sides),
            "",
            "![participants in training and test](split.png)",
            "",
        ]
    )


def _training_section(home: Home, connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    rows, figures = [], []
    for encoder, model_id in models.items():
        facts = connection.execute(
            "SELECT parameters, embedding_dim, metrics->>'participants', metrics->>'segments', metrics->>'steps', "
            "(metrics->>'loss')::DOUBLE FROM models WHERE encoder = ? AND model_id = ?",
            [encoder, model_id],
        ).fetchall()
        rank = effective_rank(read_embeddings(connection, cast(EncoderName, encoder), test_only=True).matrix)
        rows += [(encoder_name(encoder), f"`{model_id}`", *row, rank) for row in facts]
        curve = pq.read_table(home.checkpoint(encoder, model_id) / CURVE)
        figure = _save(home, f"loss_{encoder}.png", loss_figure(curve, encoder))
        figures.append(f"![training loss of the {encoder_name(encoder)}]({figure.name})")
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
    return "\n".join(["## Encoders", "", markdown.table(header, rows), "", meaning, "", *figures, ""])


def _probe_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    header = ("encoder", "target", "MAE", "constant", "RMSE", "constant", "Pearson R", "unit", "train", "test")
    rows = connection.execute(
        "SELECT encoder, target, mae, constant_mae, rmse, constant_rmse, pearson_r, unit, "
        "       train_segments || ' of ' || train_participants, test_segments || ' of ' || test_participants "
        "FROM probe_results WHERE model_id IN $models "
        "ORDER BY list_position($models, model_id), list_position($targets, target)",
        {"models": list(models.values()), "targets": list(TARGETS)},
    ).fetchall()
    encoders = dict.fromkeys(row[0] for row in rows)
    return "\n".join(
        [
            "## Ridge probes",
            "",
            "Fitted on frozen embeddings of training participants, measured on test participants; `train` and `test` "
            "are segments of participants. The constant beside MAE is the median of the training labels, beside RMSE "
            "their mean.",
            "",
            markdown.table(header, [(encoder_name(row[0]), TARGET_NAMES[row[1]], *row[2:]) for row in rows]),
            "",
            *(f"![probes of the {encoder_name(encoder)}](probe_{encoder}.png)" for encoder in encoders),
            "",
        ]
    )


def _participant_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    """Errors of age and BMI, areas of yes-or-no targets with a column for each encoder, and what is not decidable."""
    import polars as pl

    results = connection.sql(
        "SELECT encoder, target, mae, constant_mae, rmse, constant_rmse, pearson_r, unit, "
        "       train_participants, test_participants, not_decidable AS reason, "
        "       format('{:.2f} ({:.2f} to {:.2f})', auc, auc_low, auc_high) AS area, "
        "       train_yes || ' of ' || train_participants AS train_yes, "
        "       test_yes || ' of ' || test_participants AS test_yes "
        "FROM participant_probe_results WHERE model_id IN $models "
        "ORDER BY list_position($models, model_id), list_position($targets, target)",
        params={"models": list(models.values()), "targets": list(TARGET_LABELS)},
    ).pl()
    encoders = [encoder_name(encoder) for encoder in models]
    results = results.with_columns(
        pl.col("encoder").replace(dict(zip(models, encoders, strict=True))), pl.col("target").replace(TARGET_LABELS)
    )
    errors = results.filter(pl.col("reason").is_null(), pl.col("area").is_null())
    areas = results.drop_nulls("area").pivot(
        "encoder", on_columns=encoders, index=["target", "train_yes", "test_yes"], values="area"
    )
    reasons = results.drop_nulls("reason").group_by("target", "reason", maintain_order=True)
    undecided = reasons.agg(pl.col("encoder").str.join(", "))
    header = ("encoder", "target", "MAE", "constant", "RMSE", "constant", "Pearson R", "unit", "train", "test")
    lines = ["## Probes of participants", ""]
    if len(errors):
        lines += [
            "The same regression on each participant's mean embedding; `train` and `test` are participants.",
            "",
            markdown.table(header, errors.drop("reason", "area", "train_yes", "test_yes").rows()),
            "",
        ]
    if len(areas):
        lines += [
            "Yes-or-no targets: area under the ROC curve, 0.5 for a coin, with the 95 % interval over bootstraps of "
            "the test participants; where few of them say yes, it is too narrow. Yes of sex is male.",
            "",
            markdown.table(
                ("target", *encoders, "yes: train", "test"),
                areas.select("target", *encoders, "train_yes", "test_yes").rows(),
            ),
            "",
        ]
    if len(undecided):
        lines += ["Not decidable:", "", markdown.table(("target", "because", "of"), undecided.rows()), ""]
    return "\n".join(lines)


def _retrieval_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    rows = connection.execute(
        "SELECT query_encoder, key_encoder, space, top1_percent, top1_percent_sd, chance_top1_percent, mean_rank, "
        "       mean_rank_sd, chance_mean_rank, segments, participants, pools "
        "FROM retrieval_results WHERE query_model_id IN $models AND key_model_id IN $models ORDER BY ALL",
        {"models": list(models.values())},
    ).fetchall()
    if not rows:
        return "## Retrieval\n\nNot evaluated.\n"
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
            markdown.table(header, [(encoder_name(row[0]), encoder_name(row[1]), *row[2:]) for row in rows]),
            "",
            "![rank of the own pair](retrieval.png)",
            "![t-SNE of teacher and student](map.png)",
            "",
        ]
    )


def _origin_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str], split_version: str) -> str:
    batches = [batch_id for (batch_id,) in connection.execute("SELECT batch_id FROM batches ORDER BY 1").fetchall()]
    return "\n".join(
        [
            "## Made from",
            "",
            *(f"- {encoder_name(encoder)} `{model_id}`" for encoder, model_id in models.items()),
            f"- split `{split_version}`",
            f"- arrival batches {', '.join(f'`{batch_id}`' for batch_id in batches)}",
            "- `FROM lineage_of('report:report')` in the warehouse leads on to every raw file.",
            "",
        ]
    )


def _pairs(connection: duckdb.DuckDBPyConnection) -> tuple[Embeddings, Embeddings]:
    """Test embeddings of teacher and student, row by row of the same segment."""
    teacher, student = (read_embeddings(connection, encoder, test_only=True) for encoder in (TEACHER, STUDENT))
    _, ours, theirs = np.intersect1d(teacher.segment_ids, student.segment_ids, return_indices=True)
    if not len(ours):
        raise LookupError("no test segment was embedded by both teacher and student")
    return teacher.take(ours), student.take(theirs)


def _people(connection: duckdb.DuckDBPyConnection, side: Embeddings) -> LabelledEmbeddings:
    """The participants of one side, a row each, with what the warehouse knows of them."""
    names, means = mean_embeddings(side.matrix, side.participants)
    demographics = connection.sql("SELECT participant_id, sex, age_years, bmi_kg_m2 FROM participants").to_arrow_table()
    health = connection.sql("SELECT participant_id, target, value FROM participant_targets").to_arrow_table()
    return LabelledEmbeddings(means, names, participant_targets(demographics, health, names))


def _projected(
    folder: Path, ppg: npt.NDArray[np.float32], accel: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    teacher_head, student_head = load_heads(folder)
    with torch.inference_mode():
        return teacher_head(torch.from_numpy(ppg)).numpy(), student_head(torch.from_numpy(accel)).numpy()


def _embedding_artifacts(connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> list[Artifact]:
    batches = connection.execute(f"SELECT DISTINCT batch_id FROM embeddings.{encoder} ORDER BY 1").fetchall()
    return [known_artifact(connection, "embeddings", f"{encoder}/{model_id}/{batch_id}") for (batch_id,) in batches]


def _artifact(home: Home, kind: str, name: str, version: str, path: Path) -> Artifact:
    return Artifact(kind, name, version, home.relative(path), code_stamp("accelkd.evaluation"))


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    columns = ", ".join(rows[0])
    values = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", [list(row.values()) for row in rows])


def _save(home: Home, name: str, png: bytes) -> Path:
    path = home.reports / name
    with atomic_path(path) as part:
        part.write_bytes(png)
    return path
