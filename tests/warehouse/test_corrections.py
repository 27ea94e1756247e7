"""A correction takes the place of the batch that it replaces, in the tables and among the files."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from accelkd.cohort.training_set import segmented_batches
from accelkd.home.layout import Home
from accelkd.operations.embed import embed_batch
from accelkd.recordings.arrivals import arrived_batches, refused_unchanged, superseded
from accelkd.registry.history import decide
from accelkd.warehouse.load import load_batch, load_decisions
from accelkd.warehouse.publish import publish
from tests.support.homes import land, loaded_checkpoint


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land(home, "b1", ["p1", "p2"])
    land(home, "b2", ["p3"])
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    model_id = loaded_checkpoint(home, "ppg_teacher", ["b1", "b2"])
    decide(home, "promoted", {"ppg_teacher": model_id}, "test")
    for batch_id in ("b1", "b2"):
        embed_batch(home, "ppg_teacher", batch_id, device="cpu")
    return home


def query(home: Home, sql: str) -> list[tuple[object, ...]]:
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_correction_replaces_rows_embeddings_and_files(home: Home) -> None:
    land(home, "b1-corrected", ["p1"], prefix="b1", replaces="b1")  # the same recording of p1; p2 is gone
    assert load_batch(home, "b1-corrected").replaced == "b1"
    assert load_batch(home, "b1-corrected").replaced == "b1"  # again changes nothing
    for table in ("batches", "segments", "demographics", "quarantine"):
        assert query(home, f"SELECT DISTINCT batch_id FROM {table} ORDER BY 1") == [("b1-corrected",), ("b2",)]
    assert query(home, "SELECT DISTINCT batch_id FROM embeddings.ppg_teacher") == [("b2",)]
    embed_batch(home, "ppg_teacher", "b1-corrected", device="cpu")
    assert query(home, "SELECT count(*), count(DISTINCT segment_id) FROM embeddings.ppg_teacher") == [(6, 6)]
    assert query(home, "FROM superseded_batches") == [("b1", "b1-corrected")]
    assert set(segmented_batches(home)) == {"b1-corrected", "b2"}
    assert not home.quarantine("b1").exists()
    assert (home.batch("b1") / "manifest.json").exists()  # what arrived stays
    assert arrived_batches(home) == ["b1-corrected", "b2"]
    # The checkpoint was trained with it: that stays on record
    model = query(home, "SELECT artifact_id FROM provenance.artifacts WHERE kind = 'model'")[0][0]
    assert ("segments:b1",) in query(home, f"SELECT artifact_id FROM lineage_of('{model}')")


def test_corrections_of_an_older_home_stay_known(home: Home) -> None:
    land(home, "b1-corrected", ["p1"], prefix="b1", replaces="b1")
    load_batch(home, "b1-corrected")
    (home.root / "superseded.json").rename(home.root / "retired.json")  # its name in version 0.1.0
    assert superseded(home)["b1"].replaced_by == "b1-corrected"
    assert arrived_batches(home) == ["b1-corrected", "b2"]


def test_a_superseded_batch_does_not_come_back(home: Home) -> None:
    land(home, "b1-corrected", ["p1"], prefix="b1", replaces="b1")
    load_batch(home, "b1-corrected")
    land(home, "b1", ["p1", "p2"])  # somebody segments it again
    with pytest.raises(ValueError, match="b1 was replaced by b1-corrected"):
        load_batch(home, "b1")
    assert query(home, "SELECT count(*) FROM segments WHERE batch_id = 'b1'") == [(0,)]


def test_a_correction_that_cannot_be_loaded_leaves_the_old_batch(home: Home) -> None:
    land(home, "b3", ["p3"], prefix="b2", replaces="b1")  # its recording is in b2
    with pytest.raises(ValueError, match="also in batch b2"):
        load_batch(home, "b3")
    assert superseded(home) == {}
    assert query(home, "SELECT count(*) FROM segments WHERE batch_id = 'b1'") == [(6,)]
    assert home.segments("b1").exists()


def test_the_same_delivery_under_another_name_is_refused_and_never_trained_on(home: Home) -> None:
    land(home, "again", ["p3"], prefix="b2")
    with pytest.raises(ValueError, match="1 of its recordings are also in batch b2"):
        load_batch(home, "again")
    assert refused_unchanged(home) == {"again"}
    assert set(segmented_batches(home)) == {"b1", "b2"}


def test_a_batch_does_not_replace_itself(home: Home) -> None:
    land(home, "b4", ["p4"], replaces="b4")
    with pytest.raises(ValueError, match="replaces itself"):
        load_batch(home, "b4")


def test_decisions_are_rows(home: Home) -> None:
    load_decisions(home)
    load_decisions(home)
    assert query(home, "SELECT number, action, encoder, reason FROM promotions") == [
        (1, "promoted", "ppg_teacher", "test")
    ]
