"""Whether reports belong together: of the loaded split, the promoted models and the batches that are loaded now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import accelkd.reports.report
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.evaluation.retrieval import RetrievalResult, retrieve
from accelkd.home.layout import Home
from accelkd.operations.checks import reports_are_current
from accelkd.registry.history import decide
from accelkd.reports.report import map_embeddings, probe_encoder, retrieve_pairs, write_report
from accelkd.warehouse.inspect import loaded_split_version
from accelkd.warehouse.load import load_batch, load_split
from accelkd.warehouse.publish import publish
from accelkd.warehouse.report_state import ReportState, report_state
from accelkd.warehouse.staging import staging
from tests.support.homes import copy_home, land, load_and_split, loaded_pair, plant_embeddings

BATCHES = ["b1", "b2"]
ENCODERS = ("ppg_teacher", "accel_student")
NOTHING_WRONG = ReportState((), (), ())


def embed(home: Home, models: dict[str, str], batch_ids: list[str]) -> None:
    for encoder, model_id in models.items():
        plant_embeddings(home, encoder, model_id, batch_ids)


def evaluate(home: Home) -> None:
    for encoder in ENCODERS:
        probe_encoder(home, encoder)
    retrieve_pairs(home)
    map_embeddings(home)
    write_report(home)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, str]]:
    """Two batches with every report of a promoted pair."""
    home = Home(tmp_path_factory.mktemp("home"))
    land(home, "b1", [f"p{i}" for i in range(10)])
    land(home, "b2", [f"p{i}" for i in range(10, 16)])
    load_and_split(home, BATCHES)
    models = loaded_pair(home, BATCHES)
    decide(home, "promoted", models, "test")
    embed(home, models, BATCHES)
    evaluate(home)
    return home, models


@pytest.fixture
def home(made: tuple[Home, dict[str, str]], tmp_path: Path) -> Home:
    return copy_home(made[0], tmp_path / "home")


@pytest.fixture
def models(made: tuple[Home, dict[str, str]]) -> dict[str, str]:
    return made[1]


def reports(models: dict[str, str]) -> list[str]:
    teacher, student = (models[encoder] for encoder in ENCODERS)
    pair = f"accel_student/{student}"
    return [f"probe:ppg_teacher/{teacher}", f"probe:{pair}", f"retrieval:{pair}", f"map:{pair}", "report:report"]


def test_reports_of_the_same_inputs_belong_together(home: Home) -> None:
    assert report_state(home) == NOTHING_WRONG
    assert reports_are_current(home).passed
    load_batch(home, "b1")  # the same content again
    assert report_state(home) == NOTHING_WRONG
    assert "do not belong together" not in (home.reports / "report.md").read_text(encoding="utf-8")


def test_a_home_without_a_promoted_model_misses_nothing(tmp_path: Path) -> None:
    assert report_state(Home(tmp_path)) == NOTHING_WRONG


def test_reports_that_were_not_made_are_missing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", [f"p{i}" for i in range(12)])
    load_and_split(home, ["b1"])
    models = loaded_pair(home, ["b1"])
    decide(home, "promoted", models, "test")
    assert report_state(home) == ReportState(tuple(reports(models)), (), ("b1",))
    embed(home, models, ["b1"])
    probe_encoder(home, "ppg_teacher")
    assert report_state(home) == ReportState(tuple(reports(models)[1:]), (), ())
    verdict = reports_are_current(home)
    assert (verdict.passed, verdict.measured) == (
        False,
        {"missing": 4, "mixed": 0, "uncovered_batches": 0, "not_measured": 0},
    )
    assert verdict.table == [{"what": "missing", "which": name} for name in reports(models)[1:]]


def test_a_batch_that_arrived_later_is_in_no_report(home: Home, models: dict[str, str]) -> None:
    land(home, "b3", ["p90", "p91"])
    load_batch(home, "b3")
    assert report_state(home) == ReportState((), (), ("b3",))
    embed(home, models, ["b3"])
    evaluate(home)  # nobody of the new batch has a side yet: the reports pass over it
    assert report_state(home) == ReportState((), (), ("b3",))
    extend_split(home.split, segmented_participants(home, ["b3"]))
    load_split(home)
    state = report_state(home)
    assert (state.missing, state.uncovered) == ((), ())
    for name in (*reports(models), "probe_results", "participant_probe_results", "retrieval_results"):
        assert any(reason.startswith(name) and "other batches" in reason for reason in state.mixed), name
    evaluate(home)
    assert report_state(home) == NOTHING_WRONG


def test_a_batch_that_an_encoder_cannot_take_is_not_missed(home: Home, models: dict[str, str]) -> None:
    land(home, "b3", ["p90", "p91"], ppg_channels=1)
    load_batch(home, "b3")
    assert report_state(home).uncovered == ("b3",)
    embed(home, {"accel_student": models["accel_student"]}, ["b3"])
    extend_split(home.split, segmented_participants(home, ["b3"]))
    load_split(home)
    evaluate(home)
    assert report_state(home) == NOTHING_WRONG


def test_results_of_an_old_split_do_not_stand_beside_those_of_a_new_one(home: Home, models: dict[str, str]) -> None:
    old = loaded_split_version(home)
    land(home, "b3", [f"q{i}" for i in range(5)])
    load_batch(home, "b3")
    embed(home, models, ["b3"])
    extend_split(home.split, segmented_participants(home, ["b3"]))
    load_split(home)
    probe_encoder(home, "ppg_teacher")
    new = loaded_split_version(home)
    assert old != new
    mixed = report_state(home).mixed
    assert f"retrieval_results: rows of split {old}, loaded is {new}" in mixed
    student = f"accel_student/{models['accel_student']}"
    assert f"probe:{student}: of split {old}, loaded is {new}" in mixed
    assert not any(reason.startswith("probe:ppg_teacher") for reason in mixed)
    text = write_report(home).read_text(encoding="utf-8")
    assert text.startswith("# Report\n\n**These results do not belong together; evaluate again.**\n\n- ")
    assert f"- retrieval_results: rows of split {old}, loaded is {new}\n" in text
    evaluate(home)
    assert report_state(home) == NOTHING_WRONG
    assert "do not belong together" not in (home.reports / "report.md").read_text(encoding="utf-8")


def test_what_is_published_is_of_one_split_and_of_whole_batches(home: Home, models: dict[str, str]) -> None:
    assert publish(home).left_out == ()
    land(home, "b3", [f"q{i}" for i in range(5)])
    load_batch(home, "b3")
    embed(home, {"ppg_teacher": models["ppg_teacher"]}, ["b3"])
    held_back = publish(home)
    assert held_back.held_back == {"b3": "not embedded by accel_student yet"}
    assert held_back.left_out == ()  # the results are of the batches that are published
    embed(home, {"accel_student": models["accel_student"]}, ["b3"])
    extend_split(home.split, segmented_participants(home, ["b3"]))
    load_split(home)
    probe_encoder(home, "ppg_teacher")
    mixed = publish(home)
    assert any("rows of split" in reason for reason in mixed.left_out)
    assert (mixed.rows["probe_results"], mixed.rows["retrieval_results"], mixed.rows["probe_predictions"]) == (0, 0, 0)
    evaluate(home)
    whole = publish(home)
    assert whole.left_out == ()
    assert whole.rows["probe_results"] == 6


def test_a_split_that_grows_during_an_evaluation_is_not_the_one_it_measured(
    home: Home, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = loaded_split_version(home)

    def interrupted(*arguments: Any, **options: Any) -> RetrievalResult:
        if loaded_split_version(home) == old:
            land(home, "b3", [f"q{i}" for i in range(5)])
            load_batch(home, "b3")
            embed(home, models, ["b3"])
            extend_split(home.split, segmented_participants(home, ["b3"]))
            load_split(home)
        return retrieve(*arguments, **options)

    monkeypatch.setattr(accelkd.reports.report, "retrieve", interrupted)
    assert retrieve_pairs(home).split_version == old
    assert f"retrieval_results: rows of split {old}, loaded is {loaded_split_version(home)}" in report_state(home).mixed


def test_reports_are_of_the_promoted_models(home: Home, models: dict[str, str]) -> None:
    newer = loaded_pair(home, BATCHES, seed=5)
    decide(home, "promoted", newer, "test")
    state = report_state(home)
    assert state.missing == tuple(reports(newer)[:-1])
    assert any(
        reason.startswith("report:report: of accel_student") and models["ppg_teacher"] in reason
        for reason in state.mixed
    )
    for encoder in ENCODERS:
        assert f"probe_predictions: rows of {encoder} {models[encoder]}, which is not promoted" in state.mixed


def test_a_report_that_was_written_before_its_results_is_stale(home: Home, models: dict[str, str]) -> None:
    with staging(home) as connection:
        connection.execute("UPDATE segments SET hr_bpm = NULL WHERE participant_id = 'p1'")
    probe_encoder(home, "ppg_teacher")
    stale = f"report:report: of an earlier version of probe:ppg_teacher/{models['ppg_teacher']}"
    assert report_state(home) == ReportState((), (stale,), ())
    write_report(home)
    assert report_state(home) == NOTHING_WRONG


def test_results_of_an_earlier_version_of_accelkd_say_so(home: Home) -> None:
    with staging(home) as connection:
        connection.execute("UPDATE provenance.artifacts SET configuration = NULL WHERE kind = 'retrieval'")
        connection.execute(
            "UPDATE probe_results SET batches_version = NULL, status = NULL, not_decidable = NULL "
            "WHERE encoder = 'ppg_teacher'"
        )
    mixed = report_state(home).mixed
    assert len(mixed) == 2
    assert "an earlier version of accelkd made it" in mixed[0]
    assert mixed[1] == "probe_results: rows of other batches than there are now"
    text = write_report(home).read_text(encoding="utf-8")
    assert "| PPG teacher | heart rate | evaluated by an earlier version of accelkd |" in text
