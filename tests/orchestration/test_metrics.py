"""What Dagster adds to the metrics, through the entry point that pyproject.toml declares."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from accelkd.home.layout import Home
from accelkd.operations.metrics import GROUP, metrics_text
from orchestration.definitions import build_defs
from tests.support import REPOSITORY
from tests.support.homes import new_home, simulate
from tests.support.pipeline import materialize_batch, opened_instance

Samples = dict[tuple[str, ...], float]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points of this checkout, whatever is installed."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    folder = tmp_path / "checkout-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: checkout\nVersion: 0\n")
    lines = "\n".join(f"{name} = {target}" for name, target in declared.items())
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two batches whose runs ended without embeddings, for want of encoders."""
    home = new_home(tmp_path_factory.mktemp("metrics") / "home")
    with opened_instance(home) as instance:
        for number, batch in enumerate(("sim-a", "sim-b")):
            simulate(home, batch, first_participant=4 * number, participants=4, segments=1)
            assert not materialize_batch(home, instance, batch).success
    return home


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with opened_instance(home) as instance:
        yield instance


def measured(home: Home) -> Samples:
    families = text_string_to_metric_families(metrics_text(home))
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_runs_checks_and_drift_are_measured(home: Home, instance: dg.DagsterInstance) -> None:
    job = build_defs(home).resolve_job_def("tidy")
    started = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    samples = measured(home)
    assert samples["accelkd_collector_up", "dagster"] == 1
    assert samples["accelkd_runs", "failure"] == samples["accelkd_runs_failed_last_day",] == 2
    assert samples["accelkd_runs", "started"] == 1
    assert samples["accelkd_runs", "queued"] == 0
    drifts = {key[1:] for key in samples if key[0] == "accelkd_drift"}
    assert ("segments", "hr_bpm") in drifts
    assert drifts == {key[1:] for key in samples if key[0] == "accelkd_drift_threshold"}
    assert samples["accelkd_drift_threshold", "segments", "hr_bpm"] >= 0.25
    instance.delete_run(started.run_id)


def test_checks_that_fail_are_counted_by_severity(home: Home, instance: dg.DagsterInstance) -> None:
    for batch, passed in (("sim-a", False), ("sim-b", True)):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("segments"),
                check_name="quarantine_rate",
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={},
                partition=batch,
            )
        )
    assert measured(home)["accelkd_checks_failing", "segments", "quarantine_rate", "warn"] == 1


def test_a_home_without_dagster_has_the_others(tmp_path: Path) -> None:
    samples = measured(Home(tmp_path))
    assert samples["accelkd_batches", "landed"] == 0
    assert not [key for key in samples if key[0] == "accelkd_runs"]
