"""A study with phones and no PPG: from the files to published embeddings, by the UI's own daemon."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import numpy as np
import pytest
from playwright.sync_api import expect

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from tests.support.homes import new_home
from tests.support.pipeline import Pipeline
from tests.support.processes import wait_until
from tests.support.recordings import RATE_HZ, Person
from tests.support.ui import CHROMIUM, browser, dagster_dev

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="Chromium is not installed: `apt-get install chromium`"
    ),
]
PEOPLE, MINUTES = 4, 3
GRAVITY_M_S2 = 9.80665


def export(folder: Path) -> None:
    """What the app of each phone exported: `P1/TotalAcceleration.csv`, in m/s², the axes in its own order."""
    for number in range(1, PEOPLE + 1):
        accel = GRAVITY_M_S2 * Person(f"P{number}", 60.0 * MINUTES).accel
        time_s = np.arange(accel.shape[1]) / RATE_HZ
        time_ns = 1_770_000_000_000_000_000 + np.round(time_s * 1e9).astype(np.int64)
        rows = [
            f"{ns},{s:.6f},{z:.5f},{y:.5f},{x:.5f}"
            for ns, s, x, y, z in zip(time_ns.tolist(), time_s.tolist(), *accel.tolist(), strict=True)
        ]
        (folder / f"P{number}").mkdir(parents=True)
        text = "\n".join(["time,seconds_elapsed,z,y,x", *rows])
        (folder / f"P{number}" / "TotalAcceleration.csv").write_text(text, encoding="utf-8")


def embedded(home: Home) -> tuple[int, int]:
    """Segments of the published warehouse, and those with an embedding of the student."""
    if not home.published.exists():
        return 0, 0
    with duckdb.connect(str(home.published), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        if not {"segments", "accel_student"} <= tables:
            return 0, 0
        query = "SELECT count(*), count(embedding) FROM segments LEFT JOIN embeddings.accel_student USING (segment_id)"
        ((segments, rows),) = connection.execute(query).fetchall()
    return segments, rows


def test_phones_alone_are_embedded_by_a_student_from_elsewhere(pipeline: Pipeline, tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    Settings(preset="smoke").save(home)
    export(tmp_path / "phones")
    command = ["--home", str(home.root)]
    assert main([*command, "adopt", str(pipeline.home.root)]) == 0
    with dagster_dev(home) as address, browser() as page:
        assert main([*command, "ingest", "phone", str(tmp_path / "phones"), "--batch", "phones"]) == 0
        wait_until(lambda: embedded(home) == (PEOPLE * MINUTES, PEOPLE * MINUTES), every_s=1)
        page.goto(f"{address}/assets/accel_student_embeddings?partition=phones")
        expect(page.get_by_text("phones").first).to_be_visible()
        page.goto(f"{address}/assets/ppg_teacher")
        expect(page.locator("tr", has_text="training_batches").first).to_contain_text("adopted from elsewhere")
