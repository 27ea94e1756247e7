"""What a report says of targets that few people have: what is decidable first, one person never as the winner."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

import accelkd.reports.report
from accelkd.cohort.split import participants_on
from accelkd.home.layout import Home
from accelkd.operations.withdraw import withdraw
from accelkd.registry.history import decide
from accelkd.reports.report import ProbeReport, probe_encoder, write_report
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support.homes import (
    copy_home,
    land,
    load_and_split,
    loaded_pair,
    plant_embeddings,
    segment_keys,
    simulate,
)

PEOPLE = [f"p{i:03d}" for i in range(150)]
RARE, COMMON, COIN = "afib", "diabetes", "asthma"


def rows(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with staging(home) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """150 people with a segment or two each; embeddings hold a common illness, and another of one test person alone.

    That person has the most extreme embedding of all: nobody ranks better.
    """
    home = Home(tmp_path_factory.mktemp("home"))
    land(home, "b1", PEOPLE[:100], minutes=1)
    land(home, "b2", PEOPLE[100:], minutes=2)
    load_and_split(home, ["b1", "b2"])
    pair = loaded_pair(home, ["b1", "b2"])
    decide(home, "promoted", pair, "test")
    test = sorted(participants_on(home.split, "test"))
    rng = np.random.default_rng(0)
    trait = dict(zip(PEOPLE, rng.standard_normal(len(PEOPLE)), strict=True))
    trait[test[0]] = 6.0
    train = sorted(set(PEOPLE) - set(test), key=lambda name: trait[name])
    answers = {
        RARE: {test[0], *train[-12:]},
        COMMON: {name for name in PEOPLE if trait[name] + rng.normal(0, 0.7) > 0},
        COIN: {name for name in PEOPLE if rng.random() < 0.5},
    }
    with staging(home) as connection:
        connection.executemany(
            "INSERT INTO survey_targets (participant_id, batch_id, target, value) VALUES (?, ?, ?, ?)",
            [
                (name, "b1" if name in PEOPLE[:100] else "b2", target, name in yes)
                for target, yes in answers.items()
                for name in PEOPLE
            ],
        )
    people = [name for batch_id in ("b1", "b2") for name in segment_keys(home, batch_id)[1]]
    noise = rng.standard_normal((len(people), 4))
    matrix = np.column_stack([[trait[name] for name in people], noise])
    for encoder, scale in (("ppg_teacher", 1.0), ("accel_student", 0.0)):
        plant_embeddings(home, encoder, pair[encoder], ["b1", "b2"], np.column_stack([scale * matrix[:, 0], noise]))
    return home


@pytest.fixture(scope="module")
def probed(made: Home) -> tuple[Home, dict[str, ProbeReport]]:
    return made, {encoder: probe_encoder(made, encoder) for encoder in ("ppg_teacher", "accel_student")}


def test_one_person_never_wins(probed: tuple[Home, dict[str, ProbeReport]]) -> None:
    home, reports = probed
    results = {result.target: result for result in reports["ppg_teacher"].participants}
    rare = results[RARE]
    assert (rare.test_yes, rare.auc, rare.auc_high, rare.status) == (1, None, 1, "not_decidable")
    assert rare.auc_low is not None
    assert results[COMMON].auc_low is not None
    assert rare.auc_low < 0.3 < 0.5 < results[COMMON].auc_low
    stored = rows(
        home,
        "SELECT target, status, not_decidable FROM participant_probe_results WHERE encoder = 'ppg_teacher' "
        "ORDER BY auc DESC NULLS LAST, target",
    )
    assert stored[0] == (COMMON, "decidable", None)
    assert (RARE, "not_decidable", "too few people: 1 yes in test, 10 are needed") in stored
    assert {status for _, status, _ in stored} == {"decidable", "not_decidable"}
    assert all((status == "decidable") == (reason is None) for _, status, reason in stored)


def test_a_report_lists_the_best_supported_first_and_the_undecided_apart(
    probed: tuple[Home, dict[str, ProbeReport]],
) -> None:
    home, _ = probed
    text = write_report(home).read_text(encoding="utf-8")
    section = text.split("## Probes of participants")[1].split("\n## ")[0]
    area = r"\d\.\d\d \(\d\.\d\d to \d\.\d\d\)"
    decided, undecided = section.split("that are not decidable, ")
    lines = re.findall(
        rf"^\| (\w[\w ]*) \| ({area}) \| ({area}) \| \d+ of 12\d \| \d+ of \d+ \|$", decided, re.MULTILINE
    )
    assert lines[0][0] == "Diabetes"
    lows = [max(float(cell.split("(")[1].split(" ")[0]) for cell in line[1:]) for line in lines]
    assert lows == sorted(lows, reverse=True)
    assert len(lines) == 3  # with sex and asthma
    assert undecided.startswith("44 of 47;")
    assert "1 yes in test, 10 are needed | PPG teacher 0.2" in undecided
    assert "1 of 30 |" in undecided
    assert "ibrillation" not in decided


def test_predictions_are_those_that_the_errors_and_areas_are_of(
    probed: tuple[Home, dict[str, ProbeReport]],
) -> None:
    home, reports = probed
    test = participants_on(home.split, "test")
    for encoder, report in reports.items():
        stored = rows(
            home,
            "SELECT target, participant_id, segment_id, segments, measured, predicted, absolute_error, side, "
            f"model_id, split_version FROM probe_predictions WHERE encoder = '{encoder}'",
        )
        assert {row[7:] for row in stored} == {("test", report.model_id, report.split_version)}
        assert {row[1] for row in stored} == test
        by_target: dict[str, list[tuple[Any, ...]]] = {}
        for row in stored:
            by_target.setdefault(row[0], []).append(row)
        for result in report.results:
            own = by_target.pop(result.target)
            assert len({row[2] for row in own}) == len(own) == result.test_segments
            measured, predicted, errors = (np.array([row[i] for row in own]) for i in (4, 5, 6))
            assert mean_absolute_error(measured, predicted) == pytest.approx(result.mae, rel=1e-5)
            assert errors.mean() == pytest.approx(result.mae, rel=1e-5)
        targets = {result.target: result for result in report.participants}
        assert by_target.keys() == {"age", "sex", RARE, COMMON, COIN}
        for target, own in by_target.items():
            assert sorted(row[1] for row in own) == sorted(test)
            assert {row[2] for row in own} == {None}
            assert {row[3] for row in own} == {1, 2}  # segments of the mean embedding
            measured, predicted = (np.array([row[i] for row in own]) for i in (4, 5))
            if target == "age":
                assert mean_absolute_error(measured, predicted) == pytest.approx(targets["age"].mae, rel=1e-5)
                continue
            assert set(measured) == {0, 1}
            assert 0 < predicted.min() < predicted.max() < 1
            if targets[target].auc is not None:
                assert roc_auc_score(measured, predicted) == pytest.approx(targets[target].auc, abs=1e-3)


def test_who_has_an_illness_and_how_well_is_it_predicted(probed: tuple[Home, dict[str, ProbeReport]]) -> None:
    home, _ = probed
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        ill = connection.execute(
            "SELECT participant_id, predicted FROM probe_predictions "
            f"WHERE encoder = 'ppg_teacher' AND target = '{RARE}' AND measured = 1"
        ).fetchall()
        lineage = connection.execute(
            "SELECT DISTINCT kind FROM lineage_of((SELECT DISTINCT 'probe:' || encoder || '/' || model_id "
            "FROM probe_predictions WHERE encoder = 'ppg_teacher'))"
        ).fetchall()
    assert [name for name, _ in ill] == sorted(participants_on(home.split, "test"))[:1]
    assert ill[0][1] > 0.5
    assert {"file", "embeddings", "split", "tables"} <= {kind for (kind,) in lineage}


def test_too_many_segments_are_averaged_by_participant(
    made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copy_home(made, tmp_path / "home")
    whole = probe_encoder(home, "ppg_teacher")
    means = rows(
        home,
        "SELECT participant_id, count(*), avg(measured), avg(predicted), avg(absolute_error) FROM probe_predictions "
        "WHERE target = 'hr_bpm' AND encoder = 'ppg_teacher' GROUP BY 1 ORDER BY 1",
    )
    monkeypatch.setattr(accelkd.reports.report, "MAX_PREDICTED_SEGMENTS", 10)
    assert probe_encoder(home, "ppg_teacher").results == whole.results
    short = rows(
        home,
        "SELECT participant_id, segments, measured, predicted, absolute_error FROM probe_predictions "
        "WHERE target = 'hr_bpm' AND encoder = 'ppg_teacher' AND segment_id IS NULL ORDER BY 1",
    )
    assert [row[:2] for row in short] == [row[:2] for row in means]
    for row, expected in zip(short, means, strict=True):
        assert row[2:] == pytest.approx(expected[2:], rel=1e-5)
    assert rows(home, "SELECT count(*) FROM probe_predictions WHERE target = 'hr_bpm' AND encoder = 'ppg_teacher'") == [
        (len(short),)
    ]


def test_a_correction_takes_its_people_out_of_the_predictions(made: Home, tmp_path: Path) -> None:
    home = copy_home(made, tmp_path / "home")
    probe_encoder(home, "ppg_teacher")
    land(home, "b2-corrected", PEOPLE[100:110], prefix="b2", replaces="b2")
    load_batch(home, "b2-corrected")
    people = {name for (name,) in rows(home, "SELECT DISTINCT participant_id FROM probe_predictions")}
    assert people == participants_on(home.split, "test") & set(PEOPLE[:100])


def test_who_withdraws_is_in_no_prediction(tmp_path: Path) -> None:
    home = Home(tmp_path)
    simulate(home, "b1", participants=6, segments=2, seed=5)
    segment_batch(home, "b1")
    load_and_split(home, ["b1"])
    plant_embeddings(home, "accel_student", loaded_pair(home, ["b1"])["accel_student"], ["b1"])
    probe_encoder(home, "accel_student")
    publish(home)
    ((participant,),) = rows(home, "SELECT min(participant_id) FROM probe_predictions")
    assert withdraw(home, participant).remaining == []
    for file in (home.staging, home.published):
        with duckdb.connect(str(file), read_only=True) as connection:
            own = f"SELECT count(*) FROM probe_predictions WHERE participant_id = '{participant}'"
            assert connection.execute(own).fetchall() == [(0,)]
