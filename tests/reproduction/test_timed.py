"""A reproduction in a given time: what is reached counts, what is cut off goes on, what fails costs no other."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.reproduction import timed
from accelkd.reproduction.clock import Clock, time_limit
from accelkd.reproduction.evaluators import evaluate_run
from accelkd.reproduction.experiments import MAIN, Preset, Run, preset
from accelkd.reproduction.packed import MAX_FILE_BYTES, merge, read_facts
from accelkd.reproduction.run import Outcome
from accelkd.reproduction.timed import DeviceLostError, reproduce_in_time
from accelkd.training.runs import Speed
from tests.reproduction.conftest import PLAN

THREE = ("ppg-mae", "accel-kd-mae", "accel-mae")
HOUR = 60.0


def chosen(*names: str, first: tuple[str, ...] = THREE, seeds: tuple[int, ...] = (0,)) -> Preset:
    """A few experiments of the miniature on the small cohort."""
    given = preset("gpu-miniature")
    assert given.time_plan is not None
    experiments = {name: given.experiments[name] for name in (*first, *names)}
    plan = replace(given.time_plan, first=first)
    return replace(given, cohort=PLAN, experiments=experiments, seeds=seeds, time_plan=plan)


@pytest.fixture
def fresh(home: Home, tmp_path: Path) -> Home:
    """A home that has the cohort, and nothing else."""
    shutil.copytree(home.root / "reproduction" / "cohorts", tmp_path / "home" / "reproduction" / "cohorts")
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour is planned for a machine so slow that some steps fill it: no test depends on how fast this one is."""
    monkeypatch.setattr(timed, "measure_speed", as_if_slow)


def as_if_slow(*_: object, **__: object) -> Speed:
    return Speed(0.5, 1.0, None, ())


def run(home: Home, given: Preset, out: Path, **options: object) -> Outcome:
    return reproduce_in_time(home, given, HOUR, out, **options)


def names(outcome: Outcome) -> tuple[set[str], set[str], set[str]]:
    return set(outcome.done), set(outcome.failed), set(outcome.left)


def test_everything_in_the_order_of_the_plan_lengths_by_speed(
    fresh: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    outcome = run(fresh, chosen("kd-lambda-0", seeds=(0, 1)), out)
    expected = [*(f"{name}-0" for name in THREE), *(f"{name}-1" for name in THREE), "kd-lambda-0-0"]
    told = [
        line.split("training ")[1].split(":")[0]
        for line in capsys.readouterr().out.splitlines()
        if " training " in line
    ]
    assert told == expected
    assert names(outcome) == (set(expected), set(), set())
    facts = read_facts(out)
    assert facts["runs_left"] == []
    assert [stage["run"] for stage in facts["stages"]] == expected
    # 52 minutes; of them 15 of 47 parts for masked autoencoding, less encoding: 0.5 segments/s, batches of 8
    assert facts["steps"]["masked"] == pytest.approx((3132 * 15 / 47 - 70 / 0.5) * 0.5 / 8, rel=0.1)
    with zipfile.ZipFile(out / "results.zip") as archive, archive.open("models.parquet") as file:
        models = {(row["experiment"], row["seed"]): row for row in pq.read_table(file).to_pylist()}
    for (name, _), row in models.items():
        assert row["steps"] == facts["steps"]["masked" if "kd" not in name else "distillation"]
    assert models["accel-kd-mae", 1]["teacher_model_id"] == models["ppg-mae", 1]["model_id"]
    assert models["kd-lambda-0", 0]["teacher_model_id"] == models["ppg-mae", 0]["model_id"]


def test_what_comes_back_is_a_few_small_files(fresh: Home, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(fresh, chosen(), out)
    files = {path.name for path in out.iterdir()}
    assert files == {
        *("REPRODUCTION.md", "results.zip", "people.zip"),
        *("ppg-mae-0.safetensors", "accel-kd-mae-0.safetensors"),
    }
    assert all(path.stat().st_size <= MAX_FILE_BYTES for path in out.iterdir())
    weights = load_file(out / "accel-kd-mae-0.safetensors")
    assert weights["encoder.tokenizer.weight"].dtype == torch.float16
    assert {name.split(".")[0] for name in weights} == {"encoder", "teacher_head", "student_head"}
    assert outcome.report == out / "REPRODUCTION.md"
    text = outcome.report.read_text(encoding="utf-8")
    assert "## How the time was spent" in text
    assert "not run" in text


def test_no_time_for_anything_is_a_report_of_what_was_not_reached(fresh: Home, tmp_path: Path) -> None:
    given = chosen("kd-lambda-0")
    outcome = reproduce_in_time(fresh, given, 0.001, tmp_path / "out")
    assert names(outcome) == (set(), set(), {run.name for run in given.timed_runs()})
    assert outcome.report.exists()
    document = merge([tmp_path / "out"], tmp_path / "merged")
    rows = [line for line in document.read_text(encoding="utf-8").splitlines() if "`kd-lambda-0`" in line]
    assert any("not reached" in row for row in rows)


def test_a_cohort_that_takes_the_whole_time_is_used_by_the_next_call(tmp_path: Path) -> None:
    given = chosen()
    outcome = reproduce_in_time(Home(tmp_path / "home"), given, 0.001, tmp_path / "out")
    assert outcome.done == []
    assert "of the cohort" in read_facts(tmp_path / "out")["time_was_over"]
    assert names(run(Home(tmp_path / "home"), given, tmp_path / "out"))[0] == {f"{name}-0" for name in THREE}


def test_a_run_without_time_leaves_its_students_and_takes_what_is_shorter(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(*arguments: object, **_: object) -> Speed:
        return Speed(0.5 if "masked" in str(type(arguments[2])).lower() else 1e-3, 1.0, None, ())

    monkeypatch.setattr(timed, "measure_speed", speed)
    outcome = run(fresh, chosen(), tmp_path / "out")
    assert names(outcome) == ({"ppg-mae-0", "accel-mae-0"}, set(), {"accel-kd-mae-0"})


def test_what_is_important_is_not_left_for_what_comes_later(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is too small for ten steps is made up: here each takes half of the hour."""
    monkeypatch.setattr(timed, "measure_speed", lambda *_, **__: Speed(0.06, 1.0, None, ()))
    outcome = run(fresh, chosen(), tmp_path / "out")
    assert "ppg-mae-0" in outcome.done
    assert read_facts(tmp_path / "out")["steps"]["masked"] == 10


def test_what_fails_is_told_and_costs_only_what_needs_it(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, "ppg-mae", ArithmeticError("the loss is nan"))
    given = chosen(first=("ppg-mae", "accel-kd-mae", "ppg-mae-1-channel"))
    outcome = run(fresh, given, tmp_path / "out")
    assert names(outcome) == ({"ppg-mae-1-channel-0"}, {"ppg-mae-0", "accel-kd-mae-0"}, set())
    assert outcome.failed["accel-kd-mae-0"] == "needs ppg-mae-0, which failed"
    assert "FAILED ppg-mae-0: ArithmeticError: the loss is nan" in capsys.readouterr().out
    assert set(read_facts(tmp_path / "out")["runs_failed"]) == {"ppg-mae-0", "accel-kd-mae-0"}


def test_an_evaluation_that_dies_is_left_and_made_up_for(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = chosen()
    with monkeypatch.context() as patch:
        patch.setattr(timed, "evaluate_run", _dying)
        outcome = run(fresh, given, tmp_path / "out")
    assert outcome.failed == {}
    assert "ppg-mae-0" in outcome.left
    before = _checkpoints(fresh)
    outcome = run(fresh, given, tmp_path / "out")
    assert names(outcome) == ({f"{name}-0" for name in THREE}, set(), set())
    assert _checkpoints(fresh) == before  # nothing was trained again


def test_a_lost_device_ends_the_call_and_the_next_goes_on_without_that_run(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = chosen()
    monkeypatch.setattr(timed, "_device_is_lost", lambda: True)
    with monkeypatch.context() as patch:
        _failing(patch, "accel-kd-mae", RuntimeError("CUDA error: an illegal memory access was encountered"))
        with pytest.raises(DeviceLostError, match="no more work since accel-kd-mae-0: CUDA error"):
            run(fresh, given, tmp_path / "out")
    assert read_facts(tmp_path / "out")["runs_done"] == ["ppg-mae-0"]
    assert (tmp_path / "out" / "REPRODUCTION.md").exists()
    outcome = run(fresh, given, tmp_path / "out")
    assert names(outcome) == ({"ppg-mae-0", "accel-mae-0"}, {"accel-kd-mae-0"}, set())
    assert "the device was lost when it was tried before" in outcome.failed["accel-kd-mae-0"]


def test_a_later_call_goes_on_from_the_weights_of_an_earlier_one(home: Home, fresh: Home, tmp_path: Path) -> None:
    given = chosen("kd-lambda-0", "kd-size-s")
    only_first = replace(given, experiments={name: given.experiments[name] for name in THREE})
    assert names(run(fresh, only_first, tmp_path / "first"))[0] == {f"{name}-0" for name in THREE}

    elsewhere = Home(tmp_path / "elsewhere")
    shutil.copytree(home.root / "reproduction" / "cohorts", elsewhere.root / "reproduction" / "cohorts")
    outcome = run(elsewhere, given, tmp_path / "second", weights=[tmp_path / "first"])
    assert names(outcome) == ({"kd-lambda-0-0", "kd-size-s-0"}, set(), set())
    first, second = read_facts(tmp_path / "first"), read_facts(tmp_path / "second")
    assert second["steps"] == first["steps"]

    merge([tmp_path / "first", tmp_path / "second"], tmp_path / "merged")
    models = {row["experiment"]: row for row in pq.read_table(tmp_path / "merged" / "models.parquet").to_pylist()}
    assert set(models) == {*THREE, "kd-lambda-0", "kd-size-s"}
    assert models["kd-lambda-0"]["teacher_model_id"] == models["ppg-mae"]["model_id"]


def test_weights_of_another_cohort_are_refused(fresh: Home, tmp_path: Path) -> None:
    given = chosen()
    run(fresh, given, tmp_path / "first")
    other = replace(given, cohort=replace(PLAN, participants=10))
    with pytest.raises(ValueError, match=r"first: data_version is \w+, here it is \w+"):
        run(Home(tmp_path / "other"), other, tmp_path / "second", weights=[tmp_path / "first"])


def test_a_call_that_was_killed_goes_on_in_the_length_it_had(fresh: Home, tmp_path: Path) -> None:
    given, out = chosen(), tmp_path / "out"
    process = multiprocessing.get_context("spawn").Process(target=_victim, args=(fresh, given, out))
    process.start()
    plan = fresh.root / "reproduction" / "timed.json"
    _wait_for(lambda: list(fresh.root.glob("reproduction/experiments/ppg-mae-0/run.json")))
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    steps = json.loads(plan.read_text(encoding="utf-8"))["steps"]
    done = (fresh.root / "reproduction/experiments/ppg-mae-0/run.json").stat().st_mtime_ns
    outcome = run(fresh, given, out)
    assert names(outcome) == ({f"{name}-0" for name in THREE}, set(), set())
    assert (fresh.root / "reproduction/experiments/ppg-mae-0/run.json").stat().st_mtime_ns == done
    assert read_facts(out)["steps"]["masked"] == steps["masked"]


def test_seeds_of_two_calls_count_together(home: Home, fresh: Home, tmp_path: Path) -> None:
    elsewhere = Home(tmp_path / "elsewhere")
    shutil.copytree(home.root / "reproduction" / "cohorts", elsewhere.root / "reproduction" / "cohorts")
    run(fresh, chosen(), tmp_path / "a")
    run(elsewhere, chosen(), tmp_path / "b", seeds=(1,))
    document = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    claims = {row["claim_id"]: row for row in pq.read_table(tmp_path / "merged" / "claims.parquet").to_pylist()}
    assert claims["distilled-beats-unimodal-mae"]["seeds"] == 2
    text = document.read_text(encoding="utf-8")
    assert "## Sources" in text
    results = pq.read_table(tmp_path / "merged" / "results.parquet")
    keys = results.select(["experiment", "seed", "target", "label_fraction", "metric"]).to_pylist()
    assert len({tuple(key.values()) for key in keys}) == len(keys)
    (constant,) = {row["seed"] for row in results.to_pylist() if row["experiment"] == "constant"}
    assert constant == 0


def test_the_order_is_that_of_the_plan() -> None:
    given = preset("gpu")
    assert given.time_plan is not None
    order = [run.name for run in given.timed_runs()]
    assert order[:3] == ["ppg-mae-0", "accel-kd-mae-0", "accel-mae-0"]
    first = len(given.time_plan.first)
    assert [name.rpartition("-")[0] for name in order[:first]] == list(given.time_plan.first)
    assert set(order[first : first + 8]) == {f"{name}-{seed}" for name in MAIN for seed in (1, 2)}
    assert order[first + 8].startswith("kd-augment-")  # table 17
    assert len(set(order)) == len(order) == len(given.runs())


def test_a_schedule_keeps_its_shape_at_any_length() -> None:
    run_ = Run(preset("gpu").experiments["accel-kd-mae"], 0)
    before = run_.config.optimisation
    for steps in (333, 20_000):
        after = before.with_steps(steps)
        assert after.steps == steps
        for share in (0.05, 0.5, 0.99):
            rates = [one.learning_rate_at(int(share * one.steps)) for one in (before, after)]
            assert rates[1] == pytest.approx(rates[0], rel=0.1)


def test_a_clock_divides_the_time_and_an_alarm_rings() -> None:
    clock = Clock.start(10, began=100.0)
    assert (clock.train_until, clock.evaluate_until, clock.finish_until) == pytest.approx((622.0, 652.0, 700.0))
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="more than 0 minutes"):
            Clock.start(wrong, 0.0)
    with pytest.raises(TimeoutError), time_limit(0.05):
        time.sleep(5)
    with time_limit(5):
        pass
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_report_that_would_take_too_long_is_a_note_of_how_to_make_it(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> Path:
        raise TimeoutError

    monkeypatch.setattr(timed, "write_reproduction", late)
    outcome = run(fresh, chosen(), tmp_path / "out")
    assert "accelkd reproduce --merge" in outcome.report.read_text(encoding="utf-8")
    monkeypatch.undo()
    assert merge([tmp_path / "out"], tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "gpu", "--budget-min", "1"], "preset gpu needs --budget-min and --out"),
        (["--preset", "gpu", "--out", "x"], "preset gpu needs --budget-min and --out"),
        (["--preset", "smoke", "--out", "x"], "smoke has its own length"),
        (["--preset", "smoke", "--seeds", "1"], "smoke has its own length"),
        (["--merge", "x"], "--merge needs --out"),
        (["--merge", "nothing", "--out", "x"], "nothing holds no cohort.json"),
        (["--preset", "gpu-miniature", "--budget-min", "-1", "--out", "x"], "more than 0 minutes"),
    ],
)
def test_the_command_says_what_it_needs(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def _victim(home: Home, given: Preset, out: Path) -> None:
    timed.measure_speed = as_if_slow
    run(home, given, out)


def _failing(patch: pytest.MonkeyPatch, experiment: str, error: Exception) -> None:
    train = timed.train_encoder

    def failing(*arguments: object, name: str, **options: object) -> Path:
        if name == experiment:
            raise error
        return train(*arguments, name=name, **options)

    patch.setattr(timed, "train_encoder", failing)


def _dying(*arguments: object) -> str:
    if multiprocessing.parent_process() is not None:
        os._exit(9)
    return evaluate_run(*arguments)


def _checkpoints(home: Home) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in home.root.rglob("model.safetensors")}


def _wait_for(there: Callable[[], object]) -> None:
    for _ in range(3_000):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


@pytest.fixture(autouse=True)
def no_alarm_stays() -> Iterator[None]:
    yield
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
