"""From a trained experiment to rows of results."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from accelkd.evaluation.extract import embed
from accelkd.evaluation.significance import auc
from accelkd.recordings.labels import LABELS
from accelkd.recordings.survey import TARGETS
from accelkd.reproduction.cohort import Cohort
from accelkd.reproduction.evaluate import classical_rows, constant_rows, encode, evaluate, training_rows
from accelkd.reproduction.experiments import Run, experiment_preset
from accelkd.training.checkpoint import load_encoder, load_regressor
from accelkd.training.runs import train_encoder
from accelkd.training.signals import ResidentSignals

FRACTIONS = (0.1, 1.0)
SMOKE = experiment_preset("smoke").experiments
Evaluated = tuple[dict[str, pa.Table], npt.NDArray[np.float32], Path]


@pytest.fixture(scope="module")
def evaluated(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluated]:
    """A teacher, its student, an encoder to align, and a supervised one, by their names."""
    out = tmp_path_factory.mktemp("checkpoints")
    encoders: dict[str, Evaluated] = {}
    for name in ("ppg-mae", "accel-kd-mae", "accel-mae", "ppg-mae-1-channel", "supervised-hr_bpm-1"):
        run = Run(SMOKE[name], seed=0)
        teacher = run.experiment.teacher
        checkpoint = train_encoder(
            cohort.store,
            training_rows(run, cohort),
            run.config,
            out,
            name=name,
            data_version="0",
            split_version="0",
            teacher=None if teacher is None else encoders[teacher][2],
        )
        partners = {parent: encoders[parent][1] for parent in run.experiment.needs}
        encoded = encode(run, cohort, checkpoint, partners, pools=3)
        encoders[name] = (evaluate(run, cohort, checkpoint, encoded, FRACTIONS), encoded.embeddings, checkpoint)
    return encoders


def test_every_target_is_measured(evaluated: dict[str, Evaluated], cohort: Cohort) -> None:
    rows = evaluated["accel-kd-mae"][0]["results"].to_pylist()
    segments = {(r["target"], r["label_fraction"], r["metric"]) for r in rows if r["level"] == "segment"}
    metrics = ("mae", "rmse", "pearson_r")
    assert segments == {(t, f, m) for t in LABELS for f in FRACTIONS for m in metrics}
    people = {(r["target"], r["metric"]) for r in rows if r["level"] == "participant"}
    assert people == {
        *((target, metric) for target in ("age", "bmi") for metric in metrics),
        *((target, "auc") for target in ("sex", *TARGETS)),
    }
    labelled = np.isfinite(cohort.labels["hr_bpm"]) & cohort.in_test
    assert {r["test_n"] for r in rows if r["target"] == "hr_bpm"} == {int(labelled.sum())}
    assert all(r["experiment"] == "accel-kd-mae" and r["seed"] == 0 for r in rows)


def test_participants_errors_add_up_to_the_mean_error(evaluated: dict[str, Evaluated]) -> None:
    for name, (tables, _, _) in evaluated.items():
        sums: dict[tuple[str, float], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in tables["errors"].to_pylist():
            sums_of_target = sums[row["target"], row["label_fraction"]]
            sums_of_target[0] += row["absolute_error_sum"]
            sums_of_target[1] += row["n"]
        maes = [r for r in tables["results"].to_pylist() if r["metric"] == "mae"]
        assert maes, name
        for row in maes:
            total, count = sums.pop((row["target"], row["label_fraction"]))
            assert total / count == pytest.approx(row["value"])
            assert count == row["test_n"]
        assert not sums


def test_scores_give_the_areas_under_the_curve(evaluated: dict[str, Evaluated]) -> None:
    tables = evaluated["accel-kd-mae"][0]
    scores = [row for row in tables["scores"].to_pylist() if row["target"] == "sex"]
    (area,) = [r["value"] for r in tables["results"].to_pylist() if r["target"] == "sex"]
    labels = np.array([row["label"] for row in scores])
    assert auc(labels, np.array([row["score"] for row in scores])) == pytest.approx(area)


def test_retrieval_is_of_students_and_aligned_encoders(evaluated: dict[str, Evaluated]) -> None:
    def spaces(name: str) -> set[tuple[str, str, str]]:
        rows = evaluated[name][0]["retrieval"].to_pylist()
        return {(row["teacher"], row["space"], row["direction"]) for row in rows}

    ways = ("ppg_from_accel", "accel_from_ppg")
    assert spaces("accel-kd-mae") == {("ppg-mae", space, way) for space in ("raw", "projected") for way in ways}
    assert spaces("accel-mae") == {("ppg-mae", "procrustes", way) for way in ways}
    assert spaces("ppg-mae") == set()
    for row in evaluated["accel-mae"][0]["retrieval"].to_pylist():
        assert 1 <= row["mean_rank"] <= row["segments"]
        assert row["pools"] == 3


def test_embeddings_are_the_encoders_own(evaluated: dict[str, Evaluated], cohort: Cohort) -> None:
    _, embeddings, checkpoint = evaluated["ppg-mae-1-channel"]
    encoder, info = load_encoder(checkpoint)
    assert info.channels == 1
    np.testing.assert_array_equal(embeddings, embed(encoder, cohort.store, "ppg"))
    assert embeddings.shape == (len(cohort.store), info.width)


def test_a_supervised_encoder_is_measured_by_its_own_predictions(
    evaluated: dict[str, Evaluated], cohort: Cohort
) -> None:
    tables, _, checkpoint = evaluated["supervised-hr_bpm-1"]
    rows = {row["metric"]: row for row in tables["results"].to_pylist()}
    assert {(row["experiment"], row["target"]) for row in rows.values()} == {("accel-supervised", "hr_bpm")}
    labelled = np.flatnonzero(np.isfinite(cohort.labels["hr_bpm"]) & cohort.in_test)
    predicted = embed(load_regressor(checkpoint), cohort.store, "accel", rows=labelled)
    expected = np.abs(predicted - cohort.labels["hr_bpm"][labelled]).mean()
    assert rows["mae"]["value"] == pytest.approx(expected)


def test_the_map_shows_the_same_test_segments_for_each(evaluated: dict[str, Evaluated], cohort: Cohort) -> None:
    maps = [evaluated[name][0]["map"] for name in ("ppg-mae", "accel-mae", "accel-kd-mae")]
    people = [table.column("participant").to_pylist() for table in maps]
    assert people[0] == people[1] == people[2]
    counts = np.unique(cohort.participants[cohort.in_test], return_counts=True)[1]
    assert sorted(np.bincount(people[0])) == sorted(counts)
    assert evaluated["ppg-mae-1-channel"][0]["map"].num_rows == 0


def test_models_say_what_was_trained(evaluated: dict[str, Evaluated]) -> None:
    rows = {name: tables["models"].to_pylist()[0] for name, (tables, _, _) in evaluated.items()}
    assert rows["accel-kd-mae"]["teacher_model_id"] == rows["ppg-mae"]["model_id"]
    assert rows["accel-kd-mae"]["chance_loss"] == pytest.approx(np.log(rows["accel-kd-mae"]["batch_size"]))
    assert rows["ppg-mae"]["modality"] == "ppg"
    assert 0 <= rows["ppg-mae"]["effective_rank"] <= rows["ppg-mae"]["width"]
    steps = evaluated["ppg-mae"][0]["curves"].column("step").to_pylist()
    assert steps[-1] == rows["ppg-mae"]["steps"]


def test_supervised_encoders_see_labelled_training_segments_alone(cohort: Cohort) -> None:
    few, half, every = (
        training_rows(Run(replace(SMOKE["supervised-sdnn_ms-1"], label_fraction=fraction), 0), cohort)
        for fraction in (0.001, 0.5, 1.0)
    )
    assert set(few) < set(half) < set(every) <= set(cohort.training_rows)
    assert np.isfinite(cohort.labels["sdnn_ms"][every]).all()
    assert len(half) == pytest.approx(len(every) / 2, abs=1)
    np.testing.assert_array_equal(training_rows(Run(SMOKE["accel-mae"], 0), cohort), cohort.training_rows)


def test_constants_are_the_best_of_the_training_labels(cohort: Cohort) -> None:
    rows = {
        (r["target"], r["label_fraction"], r["metric"]): r for r in constant_rows(cohort, FRACTIONS, seed=0).to_pylist()
    }
    heart_rate = cohort.labels["hr_bpm"]
    known = heart_rate[cohort.training_rows][np.isfinite(heart_rate[cohort.training_rows])]
    measured = heart_rate[cohort.test_rows][np.isfinite(heart_rate[cohort.test_rows])]
    row = rows["hr_bpm", 1.0, "mae"]
    assert row["value"] == pytest.approx(np.abs(measured - np.median(known)).mean())
    assert (row["train_n"], row["test_n"]) == (len(known), len(measured))
    assert rows["sex", 1.0, "auc"]["value"] == 0.5
    assert rows["hr_bpm", 0.1, "mae"]["train_n"] < len(known)


def test_the_classical_estimator_is_measured_where_it_finds_a_rate(cohort: Cohort) -> None:
    rows = {row["metric"]: row for row in classical_rows(cohort, seed=0).to_pylist()}
    estimates = cohort.store.metadata.column("accel_hr_bpm").to_numpy()[cohort.test_rows]
    measured = cohort.labels["hr_bpm"][cohort.test_rows]
    errors = np.abs(measured - estimates)
    assert rows["mae"]["value"] == pytest.approx(np.nanmean(errors))
    assert (rows["mae"]["train_n"], rows["mae"]["test_n"]) == (0, np.isfinite(errors).sum())
    few = classical_rows(cohort.with_at_most(2), seed=0)
    assert few.to_pylist() == list(rows.values())  # every test segment is kept


def test_a_copy_of_the_cohort_is_embedded_to_the_same(evaluated: dict[str, Evaluated], cohort: Cohort) -> None:
    few, resident = cohort.with_at_most(2), ResidentSignals(cohort.store, torch.device("cpu"))
    _, embeddings, checkpoint = evaluated["ppg-mae-1-channel"]
    encoded = encode(Run(SMOKE["ppg-mae-1-channel"], 0), few, checkpoint, {}, pools=3, resident=resident)
    np.testing.assert_allclose(encoded.embeddings, embeddings[few.rows], rtol=1e-4, atol=1e-5)


def test_of_a_cohort_that_is_embedded_in_part_everything_is_measured(
    evaluated: dict[str, Evaluated], cohort: Cohort
) -> None:
    few = cohort.with_at_most(2)
    for name in ("accel-kd-mae", "supervised-hr_bpm-1"):
        run = Run(SMOKE[name], 0)
        partners = {parent: evaluated[parent][1][few.rows] for parent in run.experiment.needs}
        encoded = encode(run, few, evaluated[name][2], partners, pools=3)
        tables = evaluate(run, few, evaluated[name][2], encoded, FRACTIONS)
        expected = evaluated[name][0]
        assert {key: table.num_rows for key, table in tables.items()} == {k: t.num_rows for k, t in expected.items()}
        (row,) = [
            r
            for r in tables["results"].to_pylist()
            if (r["target"], r["metric"], r["label_fraction"]) == ("hr_bpm", "mae", 1)
        ]
        (whole,) = [
            r
            for r in expected["results"].to_pylist()
            if (r["target"], r["metric"], r["label_fraction"]) == ("hr_bpm", "mae", 1)
        ]
        assert row["test_n"] == whole["test_n"]
        assert row["train_n"] < whole["train_n"]
