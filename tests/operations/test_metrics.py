"""Metrics say what lies in a home, beside whoever writes to it, and Prometheus can read them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.operations.alerts import Problem, deliver, record
from accelkd.operations.metrics import metrics_text
from accelkd.recordings.arrivals import Supersession, refuse, supersede
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support import REPOSITORY
from tests.support.homes import land, load_and_split, loaded_checkpoint, plant_embeddings

MONITORING = REPOSITORY / "deploy" / "monitoring"
# Dagster's, which tests/orchestration/test_metrics.py measures
OF_DAGSTER = {
    "accelkd_checks_failing",
    "accelkd_daemon_heartbeat_timestamp_seconds",
    "accelkd_drift",
    "accelkd_drift_threshold",
    "accelkd_oldest_queued_run_timestamp_seconds",
    "accelkd_runs",
    "accelkd_runs_failed_last_day",
}

Samples = dict[tuple[str, ...], float]


@pytest.fixture(autouse=True)
def no_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelkd.operations.metrics.entry_points", lambda **_: ())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two published batches, of which one has lost its embeddings, one refused, one superseded."""
    home = Home(tmp_path / "home")
    land(home, "b1", ["p1", "p2"], minutes=2)
    land(home, "b2", ["p3"], minutes=3)
    load_and_split(home, ["b1", "b2"])
    model_id = loaded_checkpoint(home, "ppg_teacher", ["b1"])
    plant_embeddings(home, "ppg_teacher", model_id, ["b1", "b2"])
    publish(home)
    with duckdb.connect(str(home.published)) as connection:
        connection.execute("DELETE FROM embeddings.ppg_teacher WHERE batch_id = 'b2'")
    land(home, "b3", ["p4"])
    refuse(home, "b3", ["a reason"])
    land(home, "b0", ["p1"])
    supersede(home, Supersession("b0", "b1"))
    return home


def parsed(text: str) -> Samples:
    """Value of every sample, by its name and the values of its labels."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_counts_are_those_of_the_home(home: Home) -> None:
    samples = parsed(metrics_text(home))
    assert {key[1]: value for key, value in samples.items() if key[0] == "accelkd_batches"} == {
        "landed": 4,
        "refused": 1,
        "superseded": 1,
    }
    assert samples["accelkd_published_batches",] == 2
    assert samples["accelkd_published_participants",] == 3
    assert samples["accelkd_published_segments",] == 7
    assert samples["accelkd_quarantine_rate", "b1"] == pytest.approx(1 / 5)
    assert samples["accelkd_last_quarantine_rate",] == samples["accelkd_quarantine_rate", "b2"] == pytest.approx(1 / 4)
    assert samples["accelkd_embeddings_coverage", "ppg_teacher"] == pytest.approx(4 / 7)
    assert 0 <= time.time() - samples["accelkd_last_publish_timestamp_seconds",] < 600
    assert samples["accelkd_last_arrival_timestamp_seconds",] >= samples["accelkd_last_publish_timestamp_seconds",]
    sizes = sum(path.stat().st_size for path in (home.root / "segments").iterdir())
    assert samples["accelkd_size_bytes", "segments"] == sizes
    assert samples["accelkd_collector_up", "published"] == 1


def test_an_empty_home_has_metrics(tmp_path: Path) -> None:
    samples = parsed(metrics_text(Home(tmp_path)))
    assert samples["accelkd_batches", "landed"] == 0
    assert ("accelkd_published_batches",) not in samples
    assert {value for key, value in samples.items() if key[0] == "accelkd_collector_up"} == {1}


def test_alerts_that_are_not_delivered_are_counted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELKD_WEBHOOK_URL", raising=False)
    (home.root / "alerts.toml").write_text("[webhook.oncall]\n")
    record(home, [Problem("landing:b3", "landing_zone", "batch b3 cannot be used")])
    deliver(home)
    samples = parsed(metrics_text(home))
    assert samples["accelkd_alerts_open", "landing_zone"] == 1
    assert samples["accelkd_alerts_undelivered", "webhook.oncall"] == 1


def test_what_cannot_be_read_is_missing_and_said(home: Home) -> None:
    home.published.write_bytes(b"damaged")
    samples = parsed(metrics_text(home))
    assert samples["accelkd_collector_up", "published"] == 0
    assert samples["accelkd_batches", "landed"] == 4


def test_nobody_waits_for_a_writer(home: Home) -> None:
    with staging(home) as connection:
        connection.execute("DELETE FROM segments")
        assert parsed(metrics_text(home))["accelkd_published_segments",] == 7
    publish(home)
    assert parsed(metrics_text(home))["accelkd_published_segments",] == 0


def test_a_file_is_replaced_as_a_whole_and_readable_by_others(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    path = folder / "accelkd.prom"
    for _ in range(2):
        assert main(["--home", str(home.root), "metrics", "--output", str(path)]) == 0
    assert parsed(path.read_text())["accelkd_published_batches",] == 2
    assert list(folder.iterdir()) == [path]
    assert path.stat().st_mode & 0o044 == 0o044 & ~0o022


def test_a_port_serves_them_to_this_machine_until_it_is_stopped(home: Home) -> None:
    with serving(home) as url:
        first = parsed(urllib.request.urlopen(url, timeout=60).read().decode())
        land(home, "b4", ["p9"])
        second = parsed(urllib.request.urlopen(url, timeout=60).read().decode())
    assert (first["accelkd_batches", "landed"], second["accelkd_batches", "landed"]) == (4, 5)


@contextmanager
def serving(home: Home) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelkd.cli", "--home", str(home.root), "metrics", "--serve", str(port)]
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/metrics"
        finally:
            process.kill()  # whoever starts the tests may have SIGTERM ignored


def test_rules_and_dashboard_ask_for_metrics_that_exist(home: Home) -> None:
    rules = yaml.safe_load((MONITORING / "alerts.rules.yml").read_text())
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"accelkd_\w+", expression)}
    text = metrics_text(home)
    known = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) | OF_DAGSTER
    assert asked <= known
    assert len({rule["alert"] for group in rules["groups"] for rule in group["rules"]}) == len(
        rules["groups"][0]["rules"]
    )
