"""An operator sleeps: Dagster's own daemon reports what goes wrong, and what runs, to real servers."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.settings import Settings
from orchestration.dagster_internals import daemon_heartbeats, freshness_states
from tests.support.damage import flip
from tests.support.homes import new_home, simulate
from tests.support.pipeline import opened_instance
from tests.support.processes import daemon, wait_until
from tests.support.receivers import Received, http_receiver

pytestmark = pytest.mark.slow


def test_the_daemon_reports_refusals_runs_and_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home(tmp_path / "home")
    Settings(preset="smoke", expected_arrival_days=7).save(home)
    (home.root / "alerts.toml").write_text("[webhook.oncall]\n")
    simulate(home, "good", participants=3, segments=1)
    simulate(home, "bad", first_participant=3, participants=3, segments=1)
    recordings = next(home.batch("bad").glob("recordings/*"))
    content = recordings.read_bytes()
    flip(recordings)
    with http_receiver() as webhook, http_receiver() as lineage:
        monkeypatch.setenv("ACCELKD_WEBHOOK_URL", webhook.url)
        monkeypatch.setenv("OPENLINEAGE_URL", lineage.url)
        with daemon(home), opened_instance(home) as instance:
            wait_until(lambda: "batch bad cannot be used" in texts(webhook), every_s=1)
            wait_until(lambda: "segment_tables" in completed(lineage), every_s=1)
            assert "failed in raw_recordings" not in texts(webhook)  # the refusal is said once
            recordings.write_bytes(content)
            wait_until(lambda: "[resolved] batch bad cannot be used" in texts(webhook), every_s=1)
            assert texts(webhook).count("[new] batch bad cannot be used") == 1
            assert "SENSOR" in daemon_heartbeats(instance)
            key = dg.AssetKey("raw_recordings")
            wait_until(lambda: freshness_states(instance, [key]).get(key) == "PASS", every_s=1)
    assert "sim3-" not in texts(webhook)


def texts(webhook: Received) -> str:
    return "\n".join(post["text"] for post in webhook.posts)


def completed(lineage: Received) -> set[str]:
    return {post["job"]["name"] for post in lineage.posts if post["eventType"] == "COMPLETE"}
