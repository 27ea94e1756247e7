"""Readouts and predictions of a home: every segment, nothing computed twice, and nothing of what is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from accelkd.evaluation.readouts import READOUTS, read_readouts, write_readouts
from accelkd.home.layout import Home
from accelkd.operations.checks import embeddings_are_typical, intervals_hold
from accelkd.operations.fairness import measure_fairness
from accelkd.operations.readouts import predict_all, refresh_readouts
from accelkd.operations.withdraw import withdraw
from accelkd.registry.history import decide
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support.homes import copy_home, land, load_and_split, loaded_pair, plant_embeddings, segment_keys

PEOPLE = [f"p{number:03d}" for number in range(140)]
STUDENT = "accel_student"


def rows(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with staging(home) as connection:
        return connection.execute(sql).fetchall()


def plant(home: Home, models: dict[str, str], batch_id: str) -> None:
    """Embeddings that hold the heart rate of the segment, a little noise, and nothing else."""
    labels = SegmentStore([home.segments(batch_id)]).metadata.column("hr_bpm").to_numpy()
    rng = np.random.default_rng(len(labels))
    matrix = np.column_stack([labels / 20 + rng.normal(0, 0.1, len(labels)), rng.standard_normal((len(labels), 3))])
    for encoder, model_id in models.items():
        plant_embeddings(home, encoder, model_id, [batch_id], matrix)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, str]]:
    """Two embedded batches of 60 people each with readouts and predictions."""
    home = Home(tmp_path_factory.mktemp("home"))
    land(home, "b1", PEOPLE[:60])
    land(home, "b2", PEOPLE[60:120])
    load_and_split(home, ["b1", "b2"])
    models = loaded_pair(home, ["b1", "b2"])
    decide(home, "promoted", models, "test")
    for batch_id in ("b1", "b2"):
        plant(home, models, batch_id)
    refresh_readouts(home)
    predict_all(home)
    return home, models


@pytest.fixture
def home(made: tuple[Home, dict[str, str]], tmp_path: Path) -> Home:
    return copy_home(made[0], tmp_path / "home")


def test_every_segment_and_participant_has_its_values(home: Home) -> None:
    assert rows(home, "SELECT encoder, target, count(*), count(segment_id) FROM predictions GROUP BY ALL ORDER BY ALL")[
        :5
    ] == [
        (STUDENT, "age", 120, 0),
        (STUDENT, "hr_bpm", 360, 360),
        (STUDENT, "rmssd_ms", 360, 360),
        (STUDENT, "sdnn_ms", 360, 360),
        (STUDENT, "sex", 120, 0),
    ]
    ((error, width),) = rows(
        home,
        "SELECT avg(abs(value - hr_bpm)), avg(high - low) FROM predictions JOIN segments USING (segment_id) "
        f"WHERE target = 'hr_bpm' AND encoder = '{STUDENT}'",
    )
    assert error < 3.0
    assert width < 12.0
    assert rows(home, "SELECT DISTINCT target FROM predictions WHERE low IS NULL OR high IS NULL") == [("sex",)]


def test_nothing_is_computed_twice(home: Home) -> None:
    assert [done.batches for done in predict_all(home)] == [(), ()]
    assert [fitted.status for fitted in refresh_readouts(home)] == ["kept", "kept"]
    assert [done.batches for done in predict_all(home)] == [(), ()]


def test_readouts_stay_while_a_few_people_arrive(home: Home, made: tuple[Home, dict[str, str]]) -> None:
    before = {fitted.encoder: fitted.readouts for fitted in refresh_readouts(home)}
    values = rows(home, "FROM predictions ORDER BY ALL")
    land(home, "b3", PEOPLE[120:])
    load_and_split(home, ["b3"])
    plant(home, made[1], "b3")
    for fitted in refresh_readouts(home):
        old = before[fitted.encoder]
        assert fitted.readouts is not None
        assert old is not None
        assert (fitted.status, fitted.readouts.readout_id) == ("kept", old.readout_id)
    assert [done.batches for done in predict_all(home)] == [("b3",), ("b3",)]
    now = rows(home, "FROM predictions ORDER BY ALL")
    assert set(values) < set(now)
    assert len(now) == len(values) * 140 // 120


def test_readouts_are_fitted_again_for_many_more_people(home: Home, made: tuple[Home, dict[str, str]]) -> None:
    before = read_readouts(home.checkpoint(STUDENT, made[1][STUDENT])).readout_id
    land(home, "b3", [f"q{number:03d}" for number in range(90)])
    load_and_split(home, ["b3"])
    plant(home, made[1], "b3")
    assert {fitted.status for fitted in refresh_readouts(home)} == {"fitted"}
    assert [done.batches for done in predict_all(home)] == [("b1", "b2", "b3")] * 2
    assert before not in {readout_id for (readout_id,) in rows(home, "SELECT DISTINCT readout_id FROM predictions")}


def test_a_batch_that_changes_is_predicted_again_by_fresh_readouts(home: Home) -> None:
    victim = segment_keys(home, "b2")[1][0]
    withdraw(home, victim)
    everywhere = "SELECT count(*) FROM predictions WHERE participant_id = '" + victim + "'"
    assert rows(home, everywhere) == [(0,)]


def test_a_lost_or_damaged_file_of_readouts_is_fitted_again(home: Home, made: tuple[Home, dict[str, str]]) -> None:
    folder = home.checkpoint(STUDENT, made[1][STUDENT])
    whole = (folder / READOUTS).read_bytes()
    (folder / READOUTS).write_bytes(whole[:100])
    assert {fitted.encoder: fitted.status for fitted in refresh_readouts(home)} == {
        "ppg_teacher": "kept",
        STUDENT: "fitted",
    }
    assert (folder / READOUTS).read_bytes() == whole


def test_without_enough_labels_readouts_from_elsewhere_stay(home: Home, made: tuple[Home, dict[str, str]]) -> None:
    """A home of accelerometers adopts an encoder with what it was fitted on elsewhere."""
    with staging(home) as connection:
        connection.execute("UPDATE segments SET hr_bpm = NULL, sdnn_ms = NULL, rmssd_ms = NULL")
        connection.execute("UPDATE demographics SET age_years = NULL, sex = NULL")
    folder = home.checkpoint(STUDENT, made[1][STUDENT])
    write_readouts(replace(read_readouts(folder), batches={"elsewhere": "v1"}), folder)
    kept = {fitted.encoder: fitted for fitted in refresh_readouts(home)}[STUDENT]
    assert kept.readouts is not None
    assert kept.readouts.readout_id == read_readouts(folder).readout_id
    assert {done.encoder: done.batches for done in predict_all(home)}[STUDENT] == ("b1", "b2")
    (folder / READOUTS).unlink()
    without = {fitted.encoder: fitted for fitted in refresh_readouts(home)}[STUDENT]
    assert without.readouts is None
    assert without.status == "no target has the labels of 10 training participants"
    assert rows(home, f"SELECT count(*) FROM predictions WHERE encoder = '{STUDENT}'") == [(0,)]


def test_what_is_published_is_of_the_published_embeddings(home: Home) -> None:
    with staging(home) as connection:
        connection.execute(f"DELETE FROM embeddings.{STUDENT} WHERE batch_id = 'b2'")
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        stray = connection.execute(
            f"SELECT count(*) FROM predictions WHERE encoder = '{STUDENT}' AND segment_id IS NOT NULL "
            f"AND segment_id NOT IN (SELECT segment_id FROM embeddings.{STUDENT})"
        ).fetchall()
    assert stray == [(0,)]


def test_lineage_leads_from_a_prediction_to_the_raw_files(home: Home, made: tuple[Home, dict[str, str]]) -> None:
    lineage = rows(home, f"SELECT kind FROM lineage_of('predictions:{STUDENT}/{made[1][STUDENT]}/b1')")
    assert {"readouts", "embeddings", "model", "segments", "batch", "file"} <= {kind for (kind,) in lineage}


def test_fairness_is_measured_on_test_participants_alone(home: Home) -> None:
    measured = {of.encoder: of.results for of in measure_fairness(home)}
    everybody, *groups = measured[STUDENT]["hr_bpm"]
    ((people, segments),) = rows(
        home,
        "SELECT count(DISTINCT participant_id), count(*) FROM segments JOIN split USING (participant_id) "
        "WHERE split = 'test'",
    )
    assert (everybody.participants, everybody.samples) == (people, segments)
    assert {group.attribute for group in groups} == {"sex", "age", "device"}  # nobody has a BMI or a skin tone
    assert sum(group.samples for group in groups if group.attribute == "sex") == segments
    coverage = intervals_hold(home)
    assert coverage.measured[f"{STUDENT}_hr_bpm_coverage"] == pytest.approx(0.9, abs=0.1)
    assert embeddings_are_typical(home).passed
