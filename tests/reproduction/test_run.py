"""Running experiments: what is done is not done again, what fails stops nothing else, what is left goes on later."""

from __future__ import annotations

import fcntl
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.reproduction.experiments import ExperimentPreset, experiment_preset
from accelkd.reproduction.results import SCHEMAS
from accelkd.reproduction.run import ReproductionOutcome, reproduce
from accelkd.warehouse.staging import staging
from assets.reproduction import reproduction
from tests.support.reproduction import few_experiments

FIGURES = {"figure-2-label-efficiency.png", "figure-3-maps.png", "figure-4-compression.png", "loss-curves.png"}


def with_experiment(chosen: ExperimentPreset, name: str, **changed: Any) -> ExperimentPreset:
    """The preset with one experiment's optimisation changed."""
    experiment = chosen.experiments[name]
    config = replace(experiment.config, optimisation=replace(experiment.config.optimisation, **changed))
    return replace(chosen, experiments={**chosen.experiments, name: replace(experiment, config=config)})


def run(home: Home, chosen: ExperimentPreset, budget_min: float | None = None) -> ReproductionOutcome:
    return reproduce(home, chosen, workers=1, budget_min=budget_min)


def made(home: Home) -> dict[str, int]:
    """When each run's results were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in home.root.glob("reproduction/experiments/*/run.json")}


def test_unchanged_runs_are_skipped_and_a_changed_one_takes_its_student_along(fresh: Home) -> None:
    chosen = few_experiments("smoke", ["ppg-mae", "accel-kd-mae", "ppg-mae-1-channel"])
    assert run(fresh, chosen).failed == {}
    first = made(fresh)
    assert set(first) == {"ppg-mae-0", "accel-kd-mae-0", "ppg-mae-1-channel-0"}
    again = run(fresh, chosen)
    assert set(again.done) == set(first)
    assert made(fresh) == first

    changed = with_experiment(chosen, "ppg-mae", steps=5)
    assert set(run(fresh, changed, budget_min=0).remaining) == {"ppg-mae-0", "accel-kd-mae-0"}
    assert pq.read_table(_file(fresh, "models")).column("experiment").to_pylist() == ["ppg-mae-1-channel"]
    run(fresh, changed)
    second = made(fresh)
    assert {name for name in first if second[name] != first[name]} == {"ppg-mae-0", "accel-kd-mae-0"}
    models = {row["experiment"]: row for row in pq.read_table(_file(fresh, "models")).to_pylist()}
    assert models["ppg-mae"]["steps"] == 5
    assert models["accel-kd-mae"]["teacher_model_id"] == models["ppg-mae"]["model_id"]


def test_a_failing_run_is_reported_and_stops_only_what_needs_it(
    fresh: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = few_experiments("smoke", ["ppg-mae", "accel-kd-mae", "ppg-mae-1-channel"])
    outcome = run(fresh, with_experiment(chosen, "ppg-mae", learning_rate=float("1e30"), clip_norm=None, steps=8))
    assert outcome.done == ["ppg-mae-1-channel-0"]
    assert "NonFiniteLossError" in outcome.failed["ppg-mae-0"]
    assert outcome.failed["accel-kd-mae-0"] == "needs ppg-mae-0, which failed"
    assert "FAILED ppg-mae-0" in capsys.readouterr().out
    log = fresh.root / "reproduction" / "experiments" / "ppg-mae-0.error.txt"
    assert "Traceback" in log.read_text(encoding="utf-8")
    facts = json.loads((fresh.root / "reproduction" / "cohort.json").read_text(encoding="utf-8"))
    assert set(facts["runs_failed"]) == {"ppg-mae-0", "accel-kd-mae-0"}
    assert set(pq.read_table(_file(fresh, "models")).column("experiment").to_pylist()) == {"ppg-mae-1-channel"}

    assert run(fresh, chosen).failed == {}
    assert not log.exists()


def test_when_the_time_is_over_the_rest_is_left_for_the_next_time(fresh: Home) -> None:
    chosen = few_experiments("smoke", ["ppg-mae", "ppg-mae-1-channel"])
    outcome = run(fresh, chosen, budget_min=0)
    assert (outcome.done, outcome.remaining) == ([], ["ppg-mae-0", "ppg-mae-1-channel-0"])
    assert outcome.report.exists()
    outcome = run(fresh, chosen)
    assert (set(outcome.done), outcome.remaining) == ({"ppg-mae-0", "ppg-mae-1-channel-0"}, [])


def test_one_table_adds_to_what_is_there(fresh: Home) -> None:
    chosen = few_experiments("smoke", ["ppg-mae", "ppg-mae-1-channel", "ppg-mae-16-layers"])
    for table, name in (("table-15", "ppg-mae-1-channel"), ("table-16", "ppg-mae-16-layers")):
        outcome = reproduce(fresh, chosen, only=[table], workers=1)
        assert set(outcome.done) == {"ppg-mae-0", f"{name}-0"}
    models = pq.read_table(_file(fresh, "models")).column("experiment").to_pylist()
    assert models == ["ppg-mae", "ppg-mae-1-channel", "ppg-mae-16-layers"]


def test_two_reproductions_do_not_work_in_one_home(fresh: Home) -> None:
    chosen = few_experiments("smoke", ["ppg-mae"])
    (fresh.root / "reproduction").mkdir(exist_ok=True)
    with (fresh.root / "reproduction" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another reproduction runs in"):
            run(fresh, chosen)


def test_a_student_has_the_teacher_of_its_own_seed(fresh: Home) -> None:
    run(fresh, few_experiments("smoke", ["ppg-mae", "accel-kd-mae", "kd-lambda-0"], seeds=(0, 1)))
    models = {(row["experiment"], row["seed"]): row for row in pq.read_table(_file(fresh, "models")).to_pylist()}
    assert set(models) == {(name, seed) for name in ("ppg-mae", "accel-kd-mae") for seed in (0, 1)} | {
        ("kd-lambda-0", 0)
    }
    for seed in (0, 1):
        teacher, student = models["ppg-mae", seed], models["accel-kd-mae", seed]
        assert student["teacher_model_id"] == teacher["model_id"]
    assert models["ppg-mae", 0]["model_id"] != models["ppg-mae", 1]["model_id"]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A home in which the command has run the whole of `smoke`, and what it printed."""
    home = tmp_path_factory.mktemp("smoke")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setenv("ACCELKD_HOME", str(home))
        assert main(["reproduce", "--preset", "smoke", "--workers", "1"]) == 0
    return Home(home), printed.getvalue()


def test_the_command_reproduces_every_table_and_figure(smoke: tuple[Home, str]) -> None:
    home, printed = smoke
    assert "0 failed, 0 left" in printed
    folder = home.root / "reproduction"
    for name, schema in SCHEMAS.items():
        table = pq.read_table(folder / f"{name}.parquet")
        assert table.schema.names == schema.names
        assert table.num_rows, name
    experiments = set(pq.read_table(folder / "results.parquet").column("experiment").to_pylist())
    supervised = {name for name in experiment_preset("smoke").experiments if name.startswith("supervised-")}
    trained = set(experiment_preset("smoke").experiments) - supervised | {"accel-supervised"}
    assert experiments == trained | {"classical", "constant"}
    facts = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    assert facts["command"] == "accelkd reproduce --preset smoke --workers 1"
    text = (folder / "REPRODUCTION.md").read_text(encoding="utf-8")
    for number in (*range(1, 4), *range(6, 20)):
        assert f"Table {number}." in text
    assert pq.read_table(folder / "claims.parquet").num_rows >= 15
    assert {path.name for path in (folder / "figures").glob("*.png")} >= FIGURES


def test_the_asset_shows_the_claims_and_loads_the_rows(smoke: tuple[Home, str]) -> None:
    home, _ = smoke
    before = made(home)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([reproduction], instance=instance, resources={"home": home})
    assert made(home) == before  # what the command had done was used again
    metadata = result.asset_materializations_for_node("reproduction")[0].metadata
    assert metadata["runs_done"].value == len(before)
    claims = pq.read_table(_file(home, "claims")).column("sentence").to_pylist()
    assert all(sentence in str(metadata["claims"].value) for sentence in claims)
    assert "data:image/png" in str(metadata["figure_2_label_efficiency"].value)
    with staging(home) as connection:
        for table in ("results", "retrieval", "claims"):
            rows = pq.read_metadata(_file(home, table)).num_rows
            assert connection.execute(f"SELECT count(*) FROM reproduction.{table}").fetchall() == [(rows,)]
        lineage = connection.execute("SELECT path FROM lineage_of('reproduction:reproduction')").fetchall()
    assert ("reproduction/results.parquet",) in lineage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "smoke, small, longer, gpu"),
        (["--preset", "smoke", "--only", "table-99"], "table-1, table-2"),
    ],
)
def test_the_command_names_what_it_does_not_know(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(tmp_path))
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def _file(home: Home, name: str) -> Path:
    return home.root / "reproduction" / f"{name}.parquet"
