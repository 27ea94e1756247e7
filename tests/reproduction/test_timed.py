"""A reproduction in a given time: lengths follow from measured speeds, and what is reached counts."""

from __future__ import annotations

import signal
import time
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.reproduction import timed
from accelkd.reproduction.clock import Clock, time_limit
from accelkd.reproduction.experiments import MAIN, Run, experiment_preset
from accelkd.reproduction.packed import merge, read_facts
from accelkd.reproduction.timed import reproduce_in_time
from accelkd.training.runs import Speed
from tests.support.reproduction import THREE, miniature, reproduce_in_an_hour, run_names

pytestmark = pytest.mark.usefixtures("slow_machine")


def test_everything_in_the_order_of_the_plan_lengths_by_speed(
    fresh: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    outcome = reproduce_in_an_hour(fresh, miniature("kd-lambda-0", seeds=(0, 1)), out)
    expected = [*(f"{name}-0" for name in THREE), *(f"{name}-1" for name in THREE), "kd-lambda-0-0"]
    printed = [line for line in capsys.readouterr().out.splitlines() if " training " in line]
    assert [line.split("training ")[1].split(":")[0] for line in printed] == expected
    assert run_names(outcome) == (set(expected), set(), set())
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


def test_no_time_for_anything_is_a_report_of_what_was_not_reached(fresh: Home, tmp_path: Path) -> None:
    chosen = miniature("kd-lambda-0")
    outcome = reproduce_in_time(fresh, chosen, 0.001, tmp_path / "out")
    assert run_names(outcome) == (set(), set(), {run.name for run in chosen.timed_runs()})
    assert outcome.report.exists()
    document = merge([tmp_path / "out"], tmp_path / "merged")
    rows = [line for line in document.read_text(encoding="utf-8").splitlines() if "`kd-lambda-0`" in line]
    assert any("not reached" in row for row in rows)


def test_a_cohort_that_takes_the_whole_time_is_used_by_the_next_call(tmp_path: Path) -> None:
    chosen = miniature()
    outcome = reproduce_in_time(Home(tmp_path / "home"), chosen, 0.001, tmp_path / "out")
    assert outcome.done == []
    assert "of the cohort" in read_facts(tmp_path / "out")["time_was_over"]
    assert run_names(reproduce_in_an_hour(Home(tmp_path / "home"), chosen, tmp_path / "out"))[0] == {
        f"{name}-0" for name in THREE
    }


def test_a_run_without_time_leaves_its_students_and_takes_what_is_shorter(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speed(*arguments: object, **_: object) -> Speed:
        return Speed(0.5 if "masked" in str(type(arguments[2])).lower() else 1e-3, 1.0, None, ())

    monkeypatch.setattr(timed, "measure_speed", speed)
    outcome = reproduce_in_an_hour(fresh, miniature(), tmp_path / "out")
    assert run_names(outcome) == ({"ppg-mae-0", "accel-mae-0"}, set(), {"accel-kd-mae-0"})


def test_what_is_important_is_not_left_for_what_comes_later(
    fresh: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is too small for ten steps is made up: here each takes half of the hour."""
    monkeypatch.setattr(timed, "measure_speed", lambda *_, **__: Speed(0.06, 1.0, None, ()))
    outcome = reproduce_in_an_hour(fresh, miniature(), tmp_path / "out")
    assert "ppg-mae-0" in outcome.done
    assert read_facts(tmp_path / "out")["steps"]["masked"] == 10


def test_the_order_is_that_of_the_plan() -> None:
    chosen = experiment_preset("gpu")
    assert chosen.time_plan is not None
    order = [run.name for run in chosen.timed_runs()]
    assert order[:3] == ["ppg-mae-0", "accel-kd-mae-0", "accel-mae-0"]
    first = len(chosen.time_plan.first)
    assert [name.rpartition("-")[0] for name in order[:first]] == list(chosen.time_plan.first)
    assert set(order[first : first + 8]) == {f"{name}-{seed}" for name in MAIN for seed in (1, 2)}
    assert order[first + 8].startswith("kd-augment-")  # table 17
    assert len(set(order)) == len(order) == len(chosen.runs())


def test_a_schedule_keeps_its_shape_at_any_length() -> None:
    run_ = Run(experiment_preset("gpu").experiments["accel-kd-mae"], 0)
    before = run_.config.optimisation
    for steps in (333, 20_000):
        after = before.with_steps(steps)
        assert after.steps == steps
        for share in (0.05, 0.5, 0.99):
            rates = [optimisation.learning_rate_at(int(share * optimisation.steps)) for optimisation in (before, after)]
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "gpu", "--budget-min", "1"], "preset gpu needs --budget-min and --out"),
        (["--preset", "gpu", "--out", "x"], "preset gpu needs --budget-min and --out"),
        (["--preset", "smoke", "--out", "x"], "smoke has its own length"),
        (["--preset", "smoke", "--seeds", "1"], "smoke has its own length"),
        (["--merge", "x"], "--merge needs --out"),
        (["--merge", "nothing", "--out", "x"], "nothing holds no cohort.json"),
        (["--preset", "gpu-miniature", "--budget-min", "-1", "--out", "x"], "--budget-min. Must be > 0"),
    ],
)
def test_the_command_says_what_it_needs(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
