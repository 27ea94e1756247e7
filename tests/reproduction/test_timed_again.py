"""A reproduction in a given time that is cut off, fails or goes on elsewhere: nothing is lost, nothing done twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from accelkd.home.layout import Home
from accelkd.reproduction import timed
from accelkd.reproduction.packed import MAX_FILE_BYTES, merge, read_facts
from accelkd.reproduction.run import Outcome
from accelkd.reproduction.timed import DeviceLostError
from accelkd.training.runs import train_encoder
from tests.support.homes import copy_home
from tests.support.processes import wait_until
from tests.support.reproduction import (
    PLAN,
    THREE,
    as_if_slow,
    die_evaluating,
    miniature,
    reproduce_as_if_slow,
    reproduce_in_an_hour,
    run_names,
)

pytestmark = pytest.mark.usefixtures("slow_machine")


@dataclass(frozen=True)
class Call:
    """A call that reached THREE with seed 0: its home and what came back."""

    home: Home
    out: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def finished(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Call:
    root = tmp_path_factory.mktemp("finished")
    done = copy_home(home, root / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed, "measure_speed", as_if_slow)
        outcome = reproduce_in_an_hour(done, miniature(), root / "first")
    assert run_names(outcome) == ({f"{name}-0" for name in THREE}, set(), set())
    return Call(done, root / "first", outcome)


def test_what_comes_back_is_a_few_small_files(finished: Call) -> None:
    out = finished.out
    files = {path.name for path in out.iterdir()}
    assert files == {
        *("REPRODUCTION.md", "results.zip", "people.zip"),
        *("ppg-mae-0.safetensors", "accel-kd-mae-0.safetensors"),
    }
    assert all(path.stat().st_size <= MAX_FILE_BYTES for path in out.iterdir())
    weights = load_file(out / "accel-kd-mae-0.safetensors")
    assert weights["encoder.tokenizer.weight"].dtype == torch.float16
    assert {name.split(".")[0] for name in weights} == {"encoder", "teacher_head", "student_head"}
    assert finished.outcome.report == out / "REPRODUCTION.md"
    text = finished.outcome.report.read_text(encoding="utf-8")
    assert "## How the time was spent" in text
    assert "not run" in text


def test_a_report_that_would_take_too_long_is_a_note_of_how_to_make_it(
    finished: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> Path:
        raise TimeoutError

    monkeypatch.setattr(timed, "write_reproduction", late)
    home = copy_home(finished.home, tmp_path / "home")
    outcome = reproduce_in_an_hour(home, miniature(), tmp_path / "out")
    assert "accelkd reproduce --merge" in outcome.report.read_text(encoding="utf-8")
    monkeypatch.undo()
    assert merge([tmp_path / "out"], tmp_path / "merged").exists()


def test_a_later_call_goes_on_from_the_weights_of_an_earlier_one(finished: Call, fresh: Home, tmp_path: Path) -> None:
    chosen = miniature("kd-lambda-0", "kd-size-s")
    outcome = reproduce_in_an_hour(fresh, chosen, tmp_path / "second", weights=[finished.out])
    assert run_names(outcome) == ({"kd-lambda-0-0", "kd-size-s-0"}, set(), set())
    assert read_facts(tmp_path / "second")["steps"] == read_facts(finished.out)["steps"]

    merge([finished.out, tmp_path / "second"], tmp_path / "merged")
    models = {row["experiment"]: row for row in pq.read_table(tmp_path / "merged" / "models.parquet").to_pylist()}
    assert set(models) == {*THREE, "kd-lambda-0", "kd-size-s"}
    assert models["kd-lambda-0"]["teacher_model_id"] == models["ppg-mae"]["model_id"]


def test_weights_of_another_cohort_are_refused(finished: Call, tmp_path: Path) -> None:
    other = replace(miniature(), cohort=replace(PLAN, participants=10))
    with pytest.raises(ValueError, match=r"first: data_version is \w+, here it is \w+"):
        reproduce_in_an_hour(Home(tmp_path / "other"), other, tmp_path / "second", weights=[finished.out])


def test_seeds_of_two_calls_count_together(finished: Call, fresh: Home, tmp_path: Path) -> None:
    reproduce_in_an_hour(fresh, miniature(), tmp_path / "second", seeds=(1,))
    document = merge([finished.out, tmp_path / "second"], tmp_path / "merged")
    claims = {row["claim_id"]: row for row in pq.read_table(tmp_path / "merged" / "claims.parquet").to_pylist()}
    assert claims["distilled-beats-unimodal-mae"]["seeds"] == 2
    text = document.read_text(encoding="utf-8")
    assert "## Sources" in text
    results = pq.read_table(tmp_path / "merged" / "results.parquet")
    keys = results.select(["experiment", "seed", "target", "label_fraction", "metric"]).to_pylist()
    assert len({tuple(key.values()) for key in keys}) == len(keys)
    (constant,) = {row["seed"] for row in results.to_pylist() if row["experiment"] == "constant"}
    assert constant == 0


def test_what_fails_is_reported_and_costs_only_what_needs_it(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, "ppg-mae", ArithmeticError("the loss is nan"))
    chosen = miniature(first=("ppg-mae", "accel-kd-mae", "ppg-mae-1-channel"))
    outcome = reproduce_in_an_hour(fresh, chosen, tmp_path / "out")
    assert run_names(outcome) == ({"ppg-mae-1-channel-0"}, {"ppg-mae-0", "accel-kd-mae-0"}, set())
    assert outcome.failed["accel-kd-mae-0"] == "needs ppg-mae-0, which failed"
    assert "FAILED ppg-mae-0: ArithmeticError: the loss is nan" in capsys.readouterr().out
    assert set(read_facts(tmp_path / "out")["runs_failed"]) == {"ppg-mae-0", "accel-kd-mae-0"}


def test_an_evaluation_that_dies_is_left_and_made_up_for(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = miniature()
    with monkeypatch.context() as patch:
        patch.setattr(timed, "evaluate_run", die_evaluating)
        outcome = reproduce_in_an_hour(fresh, chosen, tmp_path / "out")
    assert outcome.failed == {}
    assert "ppg-mae-0" in outcome.remaining
    before = _checkpoints(fresh)
    outcome = reproduce_in_an_hour(fresh, chosen, tmp_path / "out")
    assert run_names(outcome) == ({f"{name}-0" for name in THREE}, set(), set())
    assert _checkpoints(fresh) == before  # nothing was trained again


def test_a_lost_device_ends_the_call_and_the_next_goes_on_without_that_run(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = miniature()
    monkeypatch.setattr(timed, "_device_is_lost", lambda: True)
    with monkeypatch.context() as patch:
        _failing(patch, "accel-kd-mae", RuntimeError("CUDA error: an illegal memory access was encountered"))
        with pytest.raises(DeviceLostError, match="no more work since accel-kd-mae-0: CUDA error"):
            reproduce_in_an_hour(fresh, chosen, tmp_path / "out")
    assert read_facts(tmp_path / "out")["runs_done"] == ["ppg-mae-0"]
    assert (tmp_path / "out" / "REPRODUCTION.md").exists()
    outcome = reproduce_in_an_hour(fresh, chosen, tmp_path / "out")
    assert run_names(outcome) == ({"ppg-mae-0", "accel-mae-0"}, {"accel-kd-mae-0"}, set())
    assert "the device was lost when it was tried before" in outcome.failed["accel-kd-mae-0"]


def test_a_call_that_was_killed_goes_on_in_the_length_it_had(fresh: Home, tmp_path: Path) -> None:
    chosen, out = miniature(), tmp_path / "out"
    process = multiprocessing.get_context("spawn").Process(target=reproduce_as_if_slow, args=(fresh, chosen, out))
    process.start()
    plan = fresh.root / "reproduction" / "timed.json"
    run_facts = fresh.root / "reproduction" / "experiments" / "ppg-mae-0" / "run.json"
    wait_until(run_facts.exists)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    steps = json.loads(plan.read_text(encoding="utf-8"))["steps"]
    done_ns = run_facts.stat().st_mtime_ns
    outcome = reproduce_in_an_hour(fresh, chosen, out)
    assert run_names(outcome) == ({f"{name}-0" for name in THREE}, set(), set())
    assert run_facts.stat().st_mtime_ns == done_ns
    assert read_facts(out)["steps"]["masked"] == steps["masked"]


def _failing(patch: pytest.MonkeyPatch, experiment: str, error: Exception) -> None:
    def failing(*arguments: Any, name: str, **options: Any) -> Path:
        if name == experiment:
            raise error
        return train_encoder(*arguments, name=name, **options)

    patch.setattr(timed, "train_encoder", failing)


def _checkpoints(home: Home) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in home.root.rglob("model.safetensors")}
