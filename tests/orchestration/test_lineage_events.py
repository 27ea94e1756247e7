"""A lineage server is sent every run with what it read and made, or nothing where none is configured."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from accelkd.home.layout import Home
from orchestration.definitions import build_defs
from orchestration.lineage_events import lineage_events
from tests.support.homes import new_home, simulate
from tests.support.pipeline import materialize_batch, opened_instance
from tests.support.receivers import Received, http_receiver

JOBS = ["raw_recordings", "segments", "segment_tables", "sensor_check"]


@pytest.fixture(autouse=True)
def nowhere_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE_DISABLED", "OPENLINEAGE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a run that fails at the embeddings, and one that fails at once."""
    home = new_home(tmp_path_factory.mktemp("lineage") / "home")
    simulate(home, "sim-a", participants=3, segments=1)
    with opened_instance(home) as instance:
        assert not materialize_batch(home, instance, "sim-a").success  # there are no encoders
        assert not materialize_batch(home, instance, "missing").success
    return home


@pytest.fixture
def instance(ran: Home) -> Iterator[dg.DagsterInstance]:
    with opened_instance(ran) as instance:
        yield instance


@pytest.fixture
def server() -> Iterator[Received]:
    with http_receiver() as received:
        yield received


def tick(home: Home, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    repository = build_defs(home).get_repository_def()
    result = lineage_events(dg.build_sensor_context(instance, cursor=cursor, repository_def=repository))
    assert isinstance(result, dg.SensorResult)
    return result


def test_without_a_configuration_nothing_is_sent(ran: Home, instance: dg.DagsterInstance) -> None:
    result = lineage_events(dg.build_sensor_context(instance, repository_def=build_defs(ran).get_repository_def()))
    assert isinstance(result, dg.SkipReason)
    assert "not configured" in str(result.skip_message)


def test_a_server_gets_runs_with_columns_and_their_lineage(
    ran: Home, instance: dg.DagsterInstance, server: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    first = tick(ran, instance)
    posts: list[dict[str, Any]] = server.posts
    assert [post["eventType"] for post in posts[:2]] == ["START", "START"]  # of the runs themselves
    made = {post["job"]["name"]: post for post in posts if post["eventType"] == "COMPLETE"}
    assert list(made) == JOBS
    runs = {run.run_id: run.tags["dagster/partition"] for run in instance.get_runs()}
    by_run: dict[str, list[str]] = {}
    for post in posts:
        by_run.setdefault(post["run"]["runId"], []).append(post["eventType"])
    assert set(runs) < set(by_run)
    assert all(states in (["START", "COMPLETE"], ["START", "FAIL"]) for states in by_run.values())

    tables = made["segment_tables"]
    assert [dataset["name"] for dataset in tables["inputs"]] == ["segments"]
    assert tables["run"]["facets"]["parent"]["job"]["name"] == "per_batch"
    assert runs[tables["run"]["facets"]["parent"]["run"]["runId"]] == "sim-a"
    assert tables["run"]["facets"]["tags"]["tags"][0]["value"] == "sim-a"
    (output,) = tables["outputs"]
    columns = {field["name"]: field["type"] for field in output["facets"]["schema"]["fields"]}
    assert columns["segments.hr_bpm"] == "DOUBLE"
    sources = output["facets"]["columnLineage"]["fields"]["segments.hr_bpm"]["inputFields"]
    assert [(source["name"], source["field"]) for source in sources] == [("segments", "hr_bpm")]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] > 0
    assert len(output["facets"]["version"]["datasetVersion"]) == 64
    assert made["segments"]["inputs"][0]["facets"]["schema"]["fields"]

    failed = [post for post in posts if post["eventType"] == "FAIL" and "parent" in post["run"]["facets"]]
    assert {post["job"]["name"] for post in failed} >= {"raw_recordings"}
    assert all("/" not in post["run"]["facets"]["errorMessage"]["message"] for post in failed)
    assert "sim3-" not in json.dumps(posts)  # no participant

    sent = len(posts)
    assert tick(ran, instance, first.cursor).cursor == first.cursor
    assert len(posts) == sent  # each once


def test_a_server_that_is_down_gets_all_of_it_later(
    ran: Home, instance: dg.DagsterInstance, server: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", server.url)
    server.status = 400
    down = tick(ran, instance)
    assert "does not answer" in str(down.skip_reason and down.skip_reason.skip_message)
    server.status = 200
    tick(ran, instance, down.cursor)
    assert {post["job"]["name"] for post in server.posts if post["eventType"] == "COMPLETE"} == {*JOBS}


def test_a_file_is_a_transport_too(ran: Home, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    (tmp_path / "openlineage.yml").write_text(f"transport:\n  type: file\n  log_file_path: {events}\n  append: true\n")
    tick(ran, instance)
    names = {json.loads(line)["job"]["name"] for line in events.read_text().splitlines()}
    assert {*JOBS, "per_batch"} <= names
