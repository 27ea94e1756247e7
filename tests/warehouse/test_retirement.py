"""A correction takes the place of the batch that it replaces, in the tables and among the files."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from accelkd.cohort.curation import segmented_batches
from accelkd.current import decide
from accelkd.evaluation.embed import embed_batch
from accelkd.lake import Lake
from accelkd.recordings.arrivals import arrived_batches, refused_unchanged, retired
from accelkd.warehouse.load import load_batch, load_decisions, load_model
from accelkd.warehouse.publish import publish
from tests.lakes import checkpoint, land


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    land(lake, "b1", ["p1", "p2"])
    land(lake, "b2", ["p3"])
    for batch_id in ("b1", "b2"):
        load_batch(lake, batch_id)
    model_id = checkpoint(lake, "ppg_teacher")
    load_model(lake, "ppg_teacher", model_id, ["b1", "b2"])
    decide(lake, "promoted", {"ppg_teacher": model_id}, "test")
    for batch_id in ("b1", "b2"):
        embed_batch(lake, "ppg_teacher", batch_id, device="cpu")
    return lake


def query(lake: Lake, sql: str) -> list[tuple[object, ...]]:
    publish(lake)
    with duckdb.connect(str(lake.published), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_correction_replaces_rows_embeddings_and_files(lake: Lake) -> None:
    land(lake, "b1-corrected", ["p1"], named="b1", replaces="b1")  # the same recording of p1; p2 is gone
    assert load_batch(lake, "b1-corrected").replaced == "b1"
    assert load_batch(lake, "b1-corrected").replaced == "b1"  # again changes nothing
    for table in ("batches", "segments", "demographics", "quarantine"):
        assert query(lake, f"SELECT DISTINCT batch_id FROM {table} ORDER BY 1") == [("b1-corrected",), ("b2",)]
    assert query(lake, "SELECT DISTINCT batch_id FROM embeddings.ppg_teacher") == [("b2",)]
    embed_batch(lake, "ppg_teacher", "b1-corrected", device="cpu")
    assert query(lake, "SELECT count(*), count(DISTINCT segment_id) FROM embeddings.ppg_teacher") == [(6, 6)]
    assert query(lake, "FROM retired_batches") == [("b1", "b1-corrected")]
    assert set(segmented_batches(lake)) == {"b1-corrected", "b2"}
    assert not lake.quarantine("b1").exists()
    assert (lake.batch("b1") / "manifest.json").exists()  # what arrived stays
    assert arrived_batches(lake) == ["b1-corrected", "b2"]
    # The checkpoint was trained with it: that stays on record
    model = query(lake, "SELECT artifact_id FROM provenance.artifacts WHERE kind = 'model'")[0][0]
    assert ("segments:b1",) in query(lake, f"SELECT artifact_id FROM lineage_of('{model}')")


def test_a_batch_that_was_replaced_does_not_come_back(lake: Lake) -> None:
    land(lake, "b1-corrected", ["p1"], named="b1", replaces="b1")
    load_batch(lake, "b1-corrected")
    land(lake, "b1", ["p1", "p2"])  # somebody cuts its segments again
    with pytest.raises(ValueError, match="b1 was replaced by b1-corrected"):
        load_batch(lake, "b1")
    assert query(lake, "SELECT count(*) FROM segments WHERE batch_id = 'b1'") == [(0,)]


def test_a_correction_that_cannot_be_loaded_leaves_the_old_batch(lake: Lake) -> None:
    land(lake, "b3", ["p3"], named="b2", replaces="b1")  # its recording is in b2
    with pytest.raises(ValueError, match="also in batch b2"):
        load_batch(lake, "b3")
    assert retired(lake) == {}
    assert query(lake, "SELECT count(*) FROM segments WHERE batch_id = 'b1'") == [(6,)]
    assert lake.segments("b1").exists()


def test_the_same_delivery_under_another_name_is_refused_and_never_trained_on(lake: Lake) -> None:
    land(lake, "again", ["p3"], named="b2")
    with pytest.raises(ValueError, match="1 of its recordings are also in batch b2"):
        load_batch(lake, "again")
    assert refused_unchanged(lake) == {"again"}
    assert set(segmented_batches(lake)) == {"b1", "b2"}


def test_a_batch_does_not_replace_itself(lake: Lake) -> None:
    land(lake, "b4", ["p4"], replaces="b4")
    with pytest.raises(ValueError, match="replaces itself"):
        load_batch(lake, "b4")


def test_decisions_are_rows(lake: Lake) -> None:
    load_decisions(lake)
    load_decisions(lake)
    assert query(lake, "SELECT number, action, encoder, reason FROM promotions") == [
        (1, "promoted", "ppg_teacher", "test")
    ]
