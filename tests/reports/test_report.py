"""From segments and checkpoints to embeddings, result rows, figures and the written report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pytest
import torch

from accelkd.cohort.split import participants_on
from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.operations.sensor_check import check_sensors
from accelkd.registry.history import decide, promoted_checkpoint
from accelkd.reports.report import map_embeddings, probe_encoder, retrieve_pairs, write_report
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import load_encoder
from accelkd.warehouse.embeddings import embedding_table
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.sensors import load_sensor_checks
from accelkd.warehouse.staging import staging
from accelkd.warehouse.summary import summary
from tests.support.homes import land, load_and_split, loaded_checkpoint, loaded_pair, plant_embeddings, segment_keys

BATCHES = ["b1", "b2"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land(home, "b1", [f"p{i}" for i in range(10)], minutes=4)
    land(home, "b2", [f"p{i}" for i in range(10, 16)], minutes=4)
    load_and_split(home, BATCHES)
    return home


def promote_pair(home: Home) -> tuple[str, str]:
    """Promote an untrained pair: model ids of teacher and student."""
    pair = loaded_pair(home, BATCHES)
    decide(home, "promoted", pair, "test")
    return pair["ppg_teacher"], pair["accel_student"]


def plant(home: Home, encoder: str, model_id: str, matrix: npt.NDArray[np.float32]) -> None:
    plant_embeddings(home, encoder, model_id, BATCHES, matrix)


def labels(home: Home) -> npt.NDArray[np.float32]:
    """[segments, 3]: the labels of all segments."""
    table = SegmentStore([home.segments(b) for b in BATCHES]).metadata
    return np.column_stack([table.column(name).to_numpy() for name in ("hr_bpm", "sdnn_ms", "rmssd_ms")]).astype("f4")


def rows(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with staging(home) as connection:
        return connection.execute(sql).fetchall()


def test_a_batch_is_embedded_by_the_promoted_encoder(home: Home) -> None:
    teacher, _ = promote_pair(home)
    result = embed_batch(home, "ppg_teacher", "b2", device="cpu")
    assert (result.model_id, result.rows, result.width, result.status) == (teacher, 24, 16, "active")
    module, _ = load_encoder(promoted_checkpoint(home, "ppg_teacher"))
    store = SegmentStore([home.segments("b2")])
    expected = module(torch.from_numpy(store.signals("ppg", np.arange(24))).float()).detach().numpy()
    stored = dict(rows(home, "SELECT segment_id, embedding FROM embeddings.ppg_teacher"))
    for segment_id, embedding in zip(segment_keys(home, "b2")[0], expected, strict=True):
        assert stored[segment_id] == pytest.approx(embedding.tolist(), abs=1e-5)


def test_batches_without_segments_or_with_other_channels_are_passed_over(home: Home) -> None:
    promote_pair(home)
    land(home, "b3", ["q1"], minutes=0)
    assert embed_batch(home, "ppg_teacher", "b3", device="cpu").status == "the batch has no segments"
    land(home, "b4", ["q2"], ppg_channels=1)
    load_batch(home, "b4")
    for batch_id in BATCHES:
        embed_batch(home, "ppg_teacher", batch_id, device="cpu")
    passed = embed_batch(home, "ppg_teacher", "b4", device="cpu")
    assert (passed.rows, passed.status) == (0, "its segments have 1 ppg channels, the encoder takes 2")
    assert embed_batch(home, "accel_student", "b4", device="cpu").rows == 3
    assert embedding_table(home, "ppg_teacher").missing == 0


def test_probes_read_out_what_the_embeddings_hold_and_nothing_else(home: Home) -> None:
    teacher, student = promote_pair(home)
    y = labels(home)
    noise = np.random.default_rng(1).standard_normal((len(y), 8)).astype(np.float32)
    plant(home, "ppg_teacher", teacher, np.hstack([y, noise]))
    plant(home, "accel_student", student, noise)
    good = probe_encoder(home, "ppg_teacher")
    assert [result.target for result in good.results] == ["hr_bpm", "sdnn_ms", "rmssd_ms"]
    for result in good.results:
        assert result.mae < 0.02 * result.constant_mae
        assert (result.train_participants, result.train_segments) == (13, 52)
        assert (result.test_participants, result.test_segments) == (3, 12)
    assert all(result.mae > 0.7 * result.constant_mae for result in probe_encoder(home, "accel_student").results)
    stored = rows(
        home, "SELECT target, mae, split_version FROM probe_results WHERE encoder = 'ppg_teacher' ORDER BY ALL"
    )
    assert stored == sorted((result.target, result.mae, good.split_version) for result in good.results)
    assert good.figure
    assert good.figure.read_bytes().startswith(PNG)


def test_the_classical_estimator_stands_beside_every_encoder(home: Home) -> None:
    teacher, student = promote_pair(home)
    with staging(home) as connection:
        connection.execute("UPDATE segments SET accel_hr_bpm = hr_bpm + 2")
        connection.execute("UPDATE segments SET accel_hr_bpm = NULL WHERE offset_s = 0")
    for encoder, model_id in (("ppg_teacher", teacher), ("accel_student", student)):
        plant(home, encoder, model_id, labels(home))
        classical = probe_encoder(home, encoder).classical
        assert classical is not None
        assert classical.mae == pytest.approx(2.0)
        assert (classical.segments, classical.labelled_segments) == (9, 12)
    stored = rows(home, "SELECT target, round(classical_mae, 6), classical_segments FROM probe_results ORDER BY ALL")
    assert stored == [
        ("hr_bpm", 2.0, 9),
        ("hr_bpm", 2.0, 9),
        *(2 * [("rmssd_ms", None, None)]),
        *(2 * [("sdnn_ms", None, None)]),
    ]
    assert rows(home, "SELECT DISTINCT round(classical_mae, 6) FROM probe_leaderboard WHERE target = 'hr_bpm'") == [
        (2.0,)
    ]
    text = write_report(home).read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("| classical estimator | heart rate |")]
    assert "| 2.00 |" in line
    assert line.endswith("| none | 9 of 3, 75% have a rate |")
    publish(home)
    assert "classical" in summary(home.published)


def test_the_report_warns_of_sensors_that_carry_nothing(home: Home) -> None:
    promote_pair(home)
    assert "## Sensors\n\nNot measured." in write_report(home).read_text(encoding="utf-8")
    for batch_id in BATCHES:
        load_sensor_checks(home, batch_id, check_sensors(home, batch_id))
    text = write_report(home).read_text(encoding="utf-8")
    assert "| sim-wrist-64 | carries nothing | 64 |" in text
    assert "**Warning: the accelerometer of sim-wrist-64 carries nothing of the heart: " in text
    with staging(home) as connection:
        kinds = connection.execute("SELECT DISTINCT kind FROM lineage_of('report:report')").fetchall()
    assert ("sensors",) in kinds


def test_segments_without_a_good_label_stay_out_of_the_probe(home: Home) -> None:
    teacher, _ = promote_pair(home)
    plant(home, "ppg_teacher", teacher, labels(home))
    test_people = sorted(participants_on(home.split, "test"))
    with staging(home) as connection:
        connection.execute("UPDATE segments SET hr_bpm = NULL WHERE participant_id = ?", [test_people[0]])
    hr, sdnn, _ = probe_encoder(home, "ppg_teacher").results
    assert (hr.test_participants, hr.test_segments) == (2, 8)
    assert (sdnn.test_participants, sdnn.test_segments) == (3, 12)


def test_probes_of_participants_read_what_the_warehouse_knows_of_them(home: Home) -> None:
    teacher, _ = promote_pair(home)
    people = dict(rows(home, "SELECT participant_id, age_years FROM participants"))
    table = SegmentStore([home.segments(b) for b in BATCHES]).metadata
    age = np.array([people[name] for name in table.column("participant_id").to_pylist()])
    noise = np.random.default_rng(1).standard_normal((len(age), 3))
    plant(home, "ppg_teacher", teacher, np.column_stack([age, noise]).astype(np.float32))
    with staging(home) as connection:
        connection.execute(
            "INSERT INTO survey_targets BY NAME SELECT participant_id, batch_id, 'diabetes' AS target, "
            "age_years > (SELECT median(age_years) FROM demographics JOIN split USING (participant_id) "
            "WHERE split = 'test') AS value FROM demographics"
        )
    report = probe_encoder(home, "ppg_teacher")
    results = {result.target: result for result in report.participants}
    assert len(results) == 3 + 46
    assert results["age"].mae is not None
    assert results["age"].constant_mae is not None
    assert results["age"].mae < 0.2 * results["age"].constant_mae
    assert (results["age"].train_participants, results["age"].test_participants) == (13, 3)
    few = "too few people: 7 yes in training, 10 are needed"
    assert (results["diabetes"].auc, results["diabetes"].not_decidable) == (None, few)
    assert (results["diabetes"].test_yes, results["diabetes"].test_no) == (1, 2)
    assert results["bmi"].not_decidable == "too few people: 0 with a value in training, 10 are needed"
    assert results["asthma"].not_decidable == "too few people: 0 with a value in training"
    stored = rows(
        home,
        "SELECT target, auc, mae, not_decidable FROM participant_probe_results WHERE model_id = "
        f"'{teacher}' AND split_version = '{report.split_version}'",
    )
    assert {row[0]: row[1:] for row in stored} == {
        name: (result.auc, result.mae, result.not_decidable) for name, result in results.items()
    }
    assert report.effective_rank
    assert 1 < report.effective_rank < 4
    text = write_report(home).read_text(encoding="utf-8")
    assert "| PPG teacher | Age | too few people: 3 with a value in test, 10 are needed |" in text
    yes, interval = results["diabetes"].train_yes, f"{results['diabetes'].auc_low:.2f} to 1.00"
    assert f"| Diabetes | {few} | PPG teacher {interval} | {yes} of 13 | 1 of 3 |" in text
    assert "| Asthma | too few people: 0 with a value in training | PPG teacher | 0 of 0 | 0 of 0 |" in text


def plant_alike(home: Home) -> None:
    """A promoted pair whose encoders embed every segment alike."""
    same = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
    for encoder, model_id in zip(("ppg_teacher", "accel_student"), promote_pair(home), strict=True):
        plant(home, encoder, model_id, same)


def test_retrieval_runs_both_ways_in_both_spaces(home: Home) -> None:
    plant_alike(home)
    report = retrieve_pairs(home)
    assert {key[2] for key in report.results} == {"projected", "raw"}
    for (_, _, space), result in report.results.items():
        assert result.segments <= 12
        if space == "raw":
            assert (result.top1_percent, result.mean_rank) == (100, 1)
        else:  # two untrained heads turn the same vector into unrelated ones
            assert result.mean_rank > 2
    assert rows(home, "SELECT count(*) FROM retrieval_results") == [(4,)]
    assert retrieve_pairs(home) == report
    assert rows(home, "SELECT count(*) FROM retrieval_results") == [(4,)]


def test_a_retrieval_among_three_people_decides_nothing(home: Home) -> None:
    plant_alike(home)
    report = retrieve_pairs(home)
    few = "too few people: 3 in test, 10 are needed"
    assert report.not_decidable == dict.fromkeys(report.results, few)
    stored = rows(home, "SELECT DISTINCT status, not_decidable FROM retrieval_results")
    assert stored == [("not_decidable", few)]
    text = write_report(home).read_text(encoding="utf-8")
    assert f"Not decidable, PPG teacher finds accelerometer student: {few}." in text


def test_a_student_of_another_teacher_is_not_compared(home: Home) -> None:
    _, student = promote_pair(home)
    other = loaded_checkpoint(home, "ppg_teacher", BATCHES, seed=5)
    matrix = labels(home)
    plant(home, "ppg_teacher", other, matrix)
    plant(home, "accel_student", student, matrix)
    with pytest.raises(ValueError, match=f"{student} was distilled from teacher"):
        retrieve_pairs(home)


def test_reports_say_what_to_do_first(home: Home) -> None:
    with pytest.raises(LookupError, match="no embeddings of ppg_teacher"):
        probe_encoder(home, "ppg_teacher")
    with pytest.raises(FileNotFoundError, match="materialize"):
        embed_batch(home, "ppg_teacher", "b1")


def test_the_whole_report_is_the_same_bytes_twice(home: Home) -> None:
    teacher, student = promote_pair(home)

    def evaluate() -> dict[str, bytes]:
        for batch_id in BATCHES:
            embed_batch(home, "ppg_teacher", batch_id, device="cpu")
            embed_batch(home, "accel_student", batch_id, device="cpu")
        probe_encoder(home, "ppg_teacher")
        probe_encoder(home, "accel_student")
        retrieve_pairs(home)
        assert map_embeddings(home).segments == 12
        write_report(home)
        return {path.name: path.read_bytes() for path in sorted(home.reports.iterdir())}

    first = evaluate()
    published = publish(home).content_version
    assert evaluate() == first
    assert publish(home).content_version == published
    text = first["report.md"].decode()
    figures = {name for name in first if name.endswith(".png")}
    assert len(figures) == 7
    assert all(f"({name})" in text for name in figures)
    assert teacher in text
    assert student in text
    assert all(first[name].startswith(PNG) for name in figures)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        lineage = connection.execute("SELECT kind, path FROM lineage_of('report:report')").fetchall()
    assert {kind for kind, _ in lineage} == {
        "report", "probe", "retrieval", "map", "embeddings", "model", "split", "tables", "segments", "quarantine",
        "batch", "file",
    }  # fmt: skip
    assert ("file", "landing/b2/recordings/part-00000.parquet") in lineage
    shown = summary(home.published)
    assert "16 participants" in shown
    assert "heart rate" in shown
