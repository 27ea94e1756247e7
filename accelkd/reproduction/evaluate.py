"""From a trained experiment to its rows of results: probes, retrieval, map, training curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from accelkd.evaluation.classical import classical_result
from accelkd.evaluation.collapse import effective_rank
from accelkd.evaluation.extract import embed
from accelkd.evaluation.participant_probes import CONTINUOUS, mean_embeddings, probe_participants
from accelkd.evaluation.probes import (
    LabelledEmbeddings,
    labelled_subsets,
    mean_absolute_error,
    pearson_r,
    probe_segments,
    root_mean_squared_error,
)
from accelkd.evaluation.procrustes import fit_alignment
from accelkd.evaluation.projection import tsne
from accelkd.evaluation.retrieval import retrieve
from accelkd.recordings.labels import LABELS
from accelkd.reproduction.cohort import Cohort
from accelkd.reproduction.experiments import MAPPED, Run
from accelkd.reproduction.results import CLASSICAL, CONSTANT, SCHEMAS
from accelkd.training.checkpoint import CURVE, load_encoder, load_heads, load_regressor, read_config, read_metrics
from accelkd.training.distillation import DistillationConfig
from accelkd.training.signals import ResidentSignals
from accelkd.training.supervised import SupervisedConfig

MAP_PARTICIPANTS, MAP_SEGMENTS = 10, 20  # section 5.1
_LABEL_SEED = 0  # of the draws of labelled segments: the same for all experiments and seeds

Floats = npt.NDArray[np.floating]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Encoded:
    """The part of an evaluation that needs the encoder, and so the GPU if there is one."""

    embeddings: npt.NDArray[np.float32]  # of the segments of the cohort, [segments, width]
    retrieval: Rows
    predicted: npt.NDArray[np.float64] | None  # of a supervised encoder, on the test segments that have the label


def training_rows(run: Run, cohort: Cohort) -> npt.NDArray[np.intp]:
    """Rows of the store to train on: the training side, or for a supervised encoder the labelled part of it.

    The latter are the rows that probes are fitted on at the same label fraction.
    """
    rows = cohort.training_rows
    if isinstance(run.config, SupervisedConfig):
        rows = rows[np.isfinite(cohort.labels[run.config.target][rows])]
        fraction = run.experiment.label_fraction
        assert fraction is not None  # of every supervised experiment
        rows = rows[labelled_subsets(cohort.participants[rows], [fraction], seed=_LABEL_SEED)[fraction]]
    return cohort.rows[rows]


def encode(
    run: Run,
    cohort: Cohort,
    checkpoint: Path,
    partners: Mapping[str, npt.NDArray[np.float32]],
    pools: int,
    device: str = "auto",
    resident: ResidentSignals | None = None,
) -> Encoded:
    """Embed the segments of the cohort with a trained encoder, and measure its retrieval.

    `partners` are the embeddings [segments, width] of the experiments that it needs: its teacher's, or those to align
    with. `resident` is a copy of the cohort's store on the device.
    """
    encoder, info = load_encoder(checkpoint)
    embeddings = embed(encoder, cohort.store, info.modality, device, cohort.rows, resident)
    predicted = None
    if isinstance(run.config, SupervisedConfig):
        rows = cohort.rows[_labelled_test_rows(run.config, cohort)]
        regressor = load_regressor(checkpoint)
        predicted = embed(regressor, cohort.store, info.modality, device, rows, resident).astype(np.float64)
    retrieval = list(_retrieval(run, cohort, checkpoint, embeddings, partners, pools, device))
    return Encoded(embeddings, retrieval, predicted)


def evaluate(
    run: Run, cohort: Cohort, checkpoint: Path, encoded: Encoded, label_fractions: Sequence[float]
) -> dict[str, pa.Table]:
    """Tables of one trained run by their names in SCHEMAS: the rest of the evaluation after `encode`, on the CPU."""
    tables: dict[str, Rows] = {name: [] for name in SCHEMAS}
    if isinstance(run.config, SupervisedConfig):
        _evaluate_regressor(run, cohort, encoded, tables)
    else:
        _probe_segments(run, cohort, encoded.embeddings, label_fractions, tables)
        _probe_participants(run, cohort, encoded.embeddings, tables)
    tables["retrieval"] = encoded.retrieval
    tables["models"] = [_model_row(run, checkpoint, encoded.embeddings[cohort.test_rows])]
    curve = pq.read_table(checkpoint / CURVE, columns=["step", "loss", "learning_rate"]).to_pylist()
    tables["curves"] = [{"experiment": run.experiment.name, "seed": run.seed, **row} for row in curve]
    if run.experiment.name in MAPPED:
        tables["map"] = _map_rows(run, cohort, encoded.embeddings)
    return {name: pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in tables.items()}


def constant_rows(cohort: Cohort, label_fractions: Sequence[float], seed: int) -> pa.Table:
    """Results of the constant predictor: the training labels' median for MAE, their mean for RMSE, 0.5 for the AUC."""
    rows: Rows = []
    for target, fraction, known, measured in _labelled(cohort, label_fractions):
        rows += _metric_rows(
            (CONSTANT, seed, target, "segment", fraction, len(known), len(measured)),
            mae=mean_absolute_error(measured, np.median(known)),
            rmse=root_mean_squared_error(measured, known.mean()),
        )
    in_test = np.isin(cohort.people, cohort.participants[cohort.in_test])
    for target, values in cohort.traits.items():
        known, measured = (values[side & np.isfinite(values)] for side in (~in_test, in_test))
        if not len(known) or not len(measured):
            continue
        key = (CONSTANT, seed, target, "participant", 1.0, len(known), len(measured))
        if target in CONTINUOUS:
            mae = mean_absolute_error(measured, np.median(known))
            rows += _metric_rows(key, mae=mae, rmse=root_mean_squared_error(measured, known.mean()))
        else:
            rows += _metric_rows(key, auc=0.5)
    return pa.Table.from_pylist(rows, SCHEMAS["results"])


def classical_rows(cohort: Cohort, seed: int) -> pa.Table:
    """Results of the classical estimator, which is fitted on nobody, on the test segments with label and estimate."""
    estimates = cohort.store.metadata.column("accel_hr_bpm").to_numpy()[cohort.rows[cohort.test_rows]]
    test = cohort.test_rows
    result = classical_result(cohort.labels["hr_bpm"][test], estimates, cohort.participants[test])
    rows: Rows = []
    if result is not None:
        key = (CLASSICAL, seed, "hr_bpm", "segment", 1.0, 0, result.segments)
        rows = _metric_rows(key, mae=result.mae, rmse=result.rmse, pearson_r=result.pearson_r)
    return pa.Table.from_pylist(rows, SCHEMAS["results"])


def _labelled(
    cohort: Cohort, label_fractions: Sequence[float]
) -> Iterator[tuple[str, float, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Each target and label fraction, with the training labels that the fraction keeps and the test labels."""
    for target in LABELS:
        values = cohort.labels[target]
        rows = cohort.training_rows[np.isfinite(values[cohort.training_rows])]
        measured = values[cohort.in_test & np.isfinite(values)]
        for fraction, kept in labelled_subsets(cohort.participants[rows], label_fractions, seed=_LABEL_SEED).items():
            yield target, fraction, values[rows[kept]], measured


def _probe_segments(
    run: Run, cohort: Cohort, embeddings: Floats, label_fractions: Sequence[float], tables: dict[str, Rows]
) -> None:
    train, test = (
        LabelledEmbeddings(
            embeddings[rows], cohort.participants[rows], {name: y[rows] for name, y in cohort.labels.items()}
        )
        for rows in (cohort.training_rows, cohort.test_rows)
    )
    probes = probe_segments(train, test, fractions=label_fractions, seed=_LABEL_SEED)
    for (target, fraction), probe in probes.items():
        result = probe.result
        key = (
            run.experiment.name,
            run.seed,
            target,
            "segment",
            fraction,
            result.train_segments,
            result.test_segments,
        )
        tables["results"] += _metric_rows(key, mae=result.mae, rmse=result.rmse, pearson_r=result.pearson_r)
        people = test.participants[np.isfinite(test.targets[target])]
        tables["errors"] += _error_rows(run, target, fraction, people, np.abs(probe.predicted - probe.measured))


def _probe_participants(run: Run, cohort: Cohort, embeddings: npt.NDArray[np.float32], tables: dict[str, Rows]) -> None:
    people, means = mean_embeddings(embeddings, cohort.participants)
    in_test = np.isin(people, cohort.participants[cohort.in_test])
    train, test = (
        LabelledEmbeddings(means[side], people[side], {name: y[side] for name, y in cohort.traits.items()})
        for side in (~in_test, in_test)
    )
    for target, probe in probe_participants(train, test).items():
        result = probe.result
        name, seed = run.experiment.name, run.seed
        key = (name, seed, target, "participant", 1.0, result.train_participants, result.test_participants)
        if target in CONTINUOUS:
            tables["results"] += _metric_rows(key, mae=result.mae, rmse=result.rmse, pearson_r=result.pearson_r)
            errors = np.abs(probe.predicted - probe.measured)
            tables["errors"] += _error_rows(run, target, 1.0, probe.participants, errors)
            continue
        tables["results"] += _metric_rows(key, auc=probe.area)
        if probe.area is None:
            continue
        tables["scores"] += [
            {
                "experiment": name,
                "seed": seed,
                "target": target,
                "participant_id": participant,
                "label": label == 1,
                "score": score,
            }
            for participant, label, score in zip(
                probe.participants.tolist(), probe.measured.tolist(), probe.predicted.tolist(), strict=True
            )
        ]


def _labelled_test_rows(config: SupervisedConfig, cohort: Cohort) -> npt.NDArray[np.intp]:
    return cohort.test_rows[np.isfinite(cohort.labels[config.target][cohort.test_rows])]


def _evaluate_regressor(run: Run, cohort: Cohort, encoded: Encoded, tables: dict[str, Rows]) -> None:
    """Add the metrics of a supervised encoder's own predictions on the test segments to `tables`."""
    config, fraction, predicted = run.config, run.experiment.label_fraction, encoded.predicted
    assert isinstance(config, SupervisedConfig)
    assert fraction is not None
    assert predicted is not None  # of every supervised encoder
    rows = _labelled_test_rows(config, cohort)
    measured = cohort.labels[config.target][rows]
    trained_on = len(training_rows(run, cohort))
    key = (run.experiment.reported_as, run.seed, config.target, "segment", fraction, trained_on, len(rows))
    tables["results"] += _metric_rows(
        key,
        mae=mean_absolute_error(measured, predicted),
        rmse=root_mean_squared_error(measured, predicted),
        pearson_r=pearson_r(measured, predicted),
    )
    errors = np.abs(predicted - measured)
    tables["errors"] += _error_rows(run, config.target, fraction, cohort.participants[rows], errors)


def _retrieval(
    run: Run,
    cohort: Cohort,
    checkpoint: Path,
    embeddings: npt.NDArray[np.float32],
    partners: Mapping[str, npt.NDArray[np.float32]],
    pools: int,
    device: str,
) -> Iterator[dict[str, Any]]:
    """Retrieval on the test segments in both directions, for a student or an aligned encoder, in each of its spaces.

    Students of a trainable teacher are left out: the teacher is no longer the one of its checkpoint.
    """
    test, experiment = cohort.test_rows, run.experiment
    spaces: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}
    if experiment.aligned_with is not None:
        ppg = partners[experiment.aligned_with]
        alignment = fit_alignment(embeddings[cohort.training_rows], ppg[cohort.training_rows])
        spaces["procrustes"] = (ppg[test], alignment.apply(embeddings[test]))
    elif isinstance(run.config, DistillationConfig) and run.config.teacher == "frozen":
        assert experiment.teacher is not None  # of every frozen teacher's student
        ppg = partners[experiment.teacher]
        teacher_head, student_head = load_heads(checkpoint)
        with torch.inference_mode():
            projected = [
                head(torch.from_numpy(x[test])).numpy() for head, x in ((teacher_head, ppg), (student_head, embeddings))
            ]
        spaces["projected"] = (projected[0], projected[1])
        if ppg.shape[1] == embeddings.shape[1]:
            spaces["raw"] = (ppg[test], embeddings[test])
    people = cohort.participants[test].tolist()
    for space, (ppg, accel) in spaces.items():
        for direction, queries, keys in (("ppg_from_accel", accel, ppg), ("accel_from_ppg", ppg, accel)):
            yield {
                "experiment": experiment.name,
                "teacher": experiment.teacher or experiment.aligned_with,
                "seed": run.seed,
                "space": space,
                "direction": direction,
                **asdict(retrieve(queries, keys, people, pools=pools, device=device)),
            }


def _model_row(run: Run, checkpoint: Path, test_embeddings: Floats) -> dict[str, Any]:
    config, metrics = read_config(checkpoint), read_metrics(checkpoint)
    measured = ("steps", "batch_size", "loss", "chance_loss", "wall_s", "segments_per_s", "mfu", "device", "precision")
    return {
        "experiment": run.experiment.name,
        "seed": run.seed,
        "model_id": config["model_id"],
        "teacher_model_id": config["teacher"],
        "method": config["method"],
        "modality": config["modality"],
        "architecture": config["config"]["encoder"]["architecture"],
        "parameters": sum(parameter.numel() for parameter in load_encoder(checkpoint)[0].parameters()),
        "width": test_embeddings.shape[1],
        **{name: metrics.get(name) for name in measured},
        "effective_rank": effective_rank(test_embeddings),
        "code_version": config["code_version"],
    }


def _map_rows(run: Run, cohort: Cohort, embeddings: npt.NDArray[np.float32]) -> Rows:
    """t-SNE of up to 20 test segments of each of the 10 test participants with most segments."""
    people, counts = np.unique(cohort.participants[cohort.in_test], return_counts=True)
    most = people[np.argsort(-counts, kind="stable")[:MAP_PARTICIPANTS]]
    per_person = [np.flatnonzero(cohort.participants == name)[:MAP_SEGMENTS] for name in most]
    places = tsne(embeddings[np.concatenate(per_person)])
    numbers = np.repeat(np.arange(len(most)), [len(rows) for rows in per_person])
    return [
        {"experiment": run.experiment.name, "participant": number, "x": x, "y": y}
        for number, (x, y) in zip(numbers.tolist(), places.tolist(), strict=True)
    ]


def _metric_rows(key: tuple[str, int, str, str, float, int, int], **values: float | None) -> Rows:
    """A row of `results` for each metric."""
    experiment, seed, target, level, fraction, train_n, test_n = key
    return [
        {
            "experiment": experiment,
            "seed": seed,
            "target": target,
            "level": level,
            "label_fraction": fraction,
            "metric": metric,
            "value": value,
            "train_n": train_n,
            "test_n": test_n,
        }
        for metric, value in values.items()
    ]


def _error_rows(run: Run, target: str, fraction: float, participants: npt.NDArray[np.str_], errors: Floats) -> Rows:
    """A row of `errors` for each test participant."""
    people, code = np.unique(participants, return_inverse=True)
    counts, sums = np.bincount(code, minlength=len(people)), np.bincount(code, errors, minlength=len(people))
    return [
        {
            "experiment": run.experiment.reported_as,
            "seed": run.seed,
            "target": target,
            "label_fraction": fraction,
            "participant_id": participant,
            "n": count,
            "absolute_error_sum": total,
        }
        for participant, count, total in zip(people.tolist(), counts.tolist(), sums.tolist(), strict=True)
    ]
