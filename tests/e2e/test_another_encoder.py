"""Adding an encoder is a row in the table of encoders: assets, checks, tables and reports follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb

from tests.support import REPOSITORY
from tests.support.homes import new_home, simulate
from tests.support.processes import environment

# In a process of its own: the table is read when assets and checks are imported
PROGRAM = """
import sys
from dataclasses import replace

from accelkd.models import specs

second = specs.EncoderSpec("second_student", "accel", 3, teacher="ppg_teacher", title="second student")
specs.ENCODERS = (*specs.ENCODERS, second)

from accelkd.home.layout import Home
from accelkd.models.transformer import TransformerShape
from accelkd.training.presets import PRESETS

smoke = PRESETS["smoke"]
smaller = replace(smoke.student, encoder=TransformerShape(width=24, layers=1, heads=2, mlp=32))
PRESETS["smoke"] = replace(smoke, others={"second_student": smaller})

from orchestration.catch_up import catch_up
from orchestration.instance import dagster_home, opened_instance
from orchestration.definitions import build_defs

home = Home.from_environment()
with opened_instance(dagster_home(home)) as instance:
    outcome = catch_up(home, instance)
checks = {key.name for key in build_defs(home).resolve_asset_graph().asset_check_keys if "second" in str(key.asset_key)}
print(sorted(checks))
sys.exit(bool(outcome.failed or outcome.skipped))
"""


def test_a_second_student_is_a_row_more(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    simulate(home, "sim-a")
    simulate(home, "sim-b", first_participant=12)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment(home), "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every_segment_is_embedded" in done.stdout.splitlines()[-1]
    with duckdb.connect(str(home.published), read_only=True) as connection:

        def rows(sql: str) -> list[tuple[object, ...]]:
            return connection.execute(sql).fetchall()

        assert rows("SELECT count(*) FROM embeddings.second_student") == rows("SELECT count(*) FROM segments")
        assert rows("SELECT DISTINCT len(embedding) FROM embeddings.second_student") == [(24,)]
        assert rows("SELECT count(*) FROM probe_results WHERE encoder = 'second_student'") == [(3,)]
        pairs = rows(
            "SELECT DISTINCT query_encoder FROM retrieval_results WHERE key_encoder = 'ppg_teacher' ORDER BY 1"
        )
        assert pairs == [("accel_student",), ("second_student",)]
        assert rows("SELECT encoder FROM promotions ORDER BY 1") == [
            ("accel_student",),
            ("ppg_teacher",),
            ("second_student",),
        ]
    report = (home.reports / "report.md").read_text(encoding="utf-8")
    assert "second student" in report
