"""A batch lands, and with all daemons running everything that follows from it happens by itself."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import duckdb
import pytest

from orchestration.statuses import UNFINISHED
from tests.support.homes import copy_home, simulate
from tests.support.pipeline import Pipeline, opened_instance
from tests.support.processes import wait_until
from tests.support.ui import dagster_dev

PUBLISHED = """
SELECT batch_id FROM segments JOIN embeddings.accel_student USING (segment_id, batch_id)
JOIN embeddings.ppg_teacher USING (segment_id, batch_id)
WHERE batch_id = 'sim-late'
AND EXISTS (FROM lineage_of('report:report') WHERE artifact_id = 'segments:sim-late') LIMIT 1
"""


@pytest.mark.slow
def test_a_batch_that_lands_is_published_by_itself(pipeline: Pipeline, tmp_path: Path) -> None:
    """With the daemons running and nobody near: segments, embeddings, report rows and lineage appear."""
    home = copy_home(pipeline.home, tmp_path / "home")

    def is_published() -> bool:
        with duckdb.connect(str(home.published), read_only=True) as connection:
            return bool(connection.execute(PUBLISHED).fetchall())

    with dagster_dev(home):
        simulate(home, "sim-late", 24)
        wait_until(is_published, every_s=2)
        with opened_instance(home) as instance:
            wait_until(lambda: not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)), every_s=1)  # its checks
            assert instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])) == []
    with duckdb.connect(str(home.published), read_only=True) as connection:
        ((people,),) = connection.execute("SELECT count(DISTINCT participant_id) FROM split").fetchall()
        ((probed,),) = connection.execute(
            "SELECT max(train_participants + test_participants) FROM probe_results"
        ).fetchall()
    assert people > 24
    assert probed > 24
