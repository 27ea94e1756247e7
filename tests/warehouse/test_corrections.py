"""A correction takes the place of the batch that it replaces, in the tables and among the files."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from accelkd.cohort.loaded import unused_batches, usable_batches
from accelkd.cohort.split import SplitError, participants_on, read_split
from accelkd.cohort.training_set import segmented_batches
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.operations.checks import trained_on_current_batches
from accelkd.operations.embed import embed_batch
from accelkd.operations.promote import evaluate_candidate, fill_tables
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.repair import repair
from accelkd.operations.split import split_participants
from accelkd.operations.train import load_candidate
from accelkd.recordings.arrivals import (
    SupersededError,
    arrived_batches,
    refused,
    refused_unchanged,
    settled_arrivals,
    superseded,
)
from accelkd.recordings.batches import MANIFEST
from accelkd.recordings.corrections import RefusedBatchError
from accelkd.recordings.people import batch_participants
from accelkd.registry.history import decide, make_candidate
from accelkd.reports.report import write_report
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.embedding_files import embedding_rows
from accelkd.warehouse.embeddings import load_embeddings
from accelkd.warehouse.load import load_batch, load_decisions, settle_batches
from accelkd.warehouse.publish import publish
from tests.support.homes import EMBEDDING_WIDTH, checkpoint, land, loaded_checkpoint, loaded_pair, segment_keys


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two batches that are loaded."""
    home = Home(tmp_path)
    land(home, "b1", ["p1", "p2"])
    land(home, "b2", ["p3"])
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
    return home


@pytest.fixture
def embedded(home: Home) -> Home:
    """The same, embedded by a promoted encoder that was trained on p1."""
    model_id = loaded_checkpoint(home, "ppg_teacher", ["b1", "b2"])
    decide(home, "promoted", {"ppg_teacher": model_id}, "test")
    for batch_id in ("b1", "b2"):
        embed_batch(home, "ppg_teacher", batch_id, device="cpu")
    return home


def query(home: Home, sql: str) -> list[tuple[object, ...]]:
    publish(home)
    with duckdb.connect(str(home.published), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_a_correction_replaces_rows_embeddings_and_files(embedded: Home) -> None:
    land(embedded, "b1-corrected", ["p1"], prefix="b1", replaces="b1")  # the same recording of p1; p2 is gone
    assert load_batch(embedded, "b1-corrected").replaced == ("b1",)
    assert load_batch(embedded, "b1-corrected").replaced == ("b1",)  # again changes nothing
    assert query(embedded, "SELECT DISTINCT batch_id FROM embeddings.ppg_teacher") == [("b2",)]
    embed_batch(embedded, "ppg_teacher", "b1-corrected", device="cpu")
    for table in ("batches", "segments", "demographics", "quarantine"):
        assert query(embedded, f"SELECT DISTINCT batch_id FROM {table} ORDER BY 1") == [("b1-corrected",), ("b2",)]
    assert query(embedded, "SELECT count(*), count(DISTINCT segment_id) FROM embeddings.ppg_teacher") == [(6, 6)]
    assert query(embedded, "FROM superseded_batches") == [("b1", "b1-corrected")]
    assert set(segmented_batches(embedded)) == {"b1-corrected", "b2"}
    assert not embedded.quarantine("b1").exists()
    assert (embedded.batch("b1") / "manifest.json").exists()  # what arrived stays
    assert arrived_batches(embedded) == ["b1-corrected", "b2"]
    # The checkpoint was trained with it: that stays on record
    model = query(embedded, "SELECT artifact_id FROM provenance.artifacts WHERE kind = 'model'")[0][0]
    assert ("segments:b1",) in query(embedded, f"SELECT artifact_id FROM lineage_of('{model}')")


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


def test_what_replaces_itself_is_refused(home: Home) -> None:
    land(home, "b4", ["p4"], replaces="b4")
    with pytest.raises(RefusedBatchError, match="itself"):
        load_batch(home, "b4")
    assert refused_unchanged(home) == settled_arrivals(home) == {"b4"}
    assert files_of(home, "b4") == []
    assert superseded(home) == {}
    assert usable_batches(home) == ["b1", "b2"]
    split_participants(home)
    assert sorted(read_split(home.split).column("participant_id").to_pylist()) == ["p1", "p2", "p3"]


def files_of(home: Home, batch_id: str) -> list[str]:
    """What is derived from a batch, checksums and pictures too."""
    return [path.name for path in home.root.rglob(f"{batch_id}.*") if path.parent.name not in ("landing", "refused")]


def loaded(home: Home) -> list[tuple[object, ...]]:
    return query(home, "SELECT batch_id FROM batches ORDER BY 1")


def test_a_refused_batch_leaves_nothing_behind_that_could_count(home: Home) -> None:
    """Not the checksums of its files, nor its people: neither when it is refused nor after it was loaded before."""
    land(home, "b3", ["p4", "p5"])
    load_batch(home, "b3")
    split_participants(home)
    home.batch("b3").rename(home.root / "away")  # then segmented again: a recording that is in b2 has segments now
    land(home, "b3", ["p3", "p5"], prefix="b2")
    with pytest.raises(RefusedBatchError, match="1 of its recordings are also in batch b2"):
        load_batch(home, "b3")
    assert files_of(home, "b3") == []
    assert loaded(home) == [("b1",), ("b2",)]
    split_participants(home)
    assert sorted(read_split(home.split).column("participant_id").to_pylist()) == ["p1", "p2", "p3"]


def test_a_correction_of_a_refused_batch_settles_it(home: Home) -> None:
    land(home, "b3", ["p3", "p4"], prefix="b2")
    with pytest.raises(RefusedBatchError):
        load_batch(home, "b3")
    land(home, "b3-corrected", ["p4"], replaces="b3")
    assert load_batch(home, "b3-corrected").replaced == ("b3",)
    assert refused(home) == {}
    assert loaded(home) == [("b1",), ("b2",), ("b3-corrected",)]


def test_a_correction_may_land_before_its_original(home: Home) -> None:
    land(home, "b3-corrected", ["p4"], prefix="b3", replaces="b3")
    load_batch(home, "b3-corrected")
    land(home, "b3", ["p4", "p5"])
    assert "b3" not in arrived_batches(home)
    with pytest.raises(SupersededError, match="b3 was replaced by b3-corrected"):
        load_batch(home, "b3")
    repair(home)
    assert files_of(home, "b3") == []
    assert loaded(home) == [("b1",), ("b2",), ("b3-corrected",)]


@pytest.mark.parametrize("prefix", ["b1", "other"])  # the same recordings, or others
@pytest.mark.parametrize("middle_lands", ["first", "last"])
def test_the_last_of_several_corrections_stays_in_whatever_order_they_come(
    home: Home, prefix: str, middle_lands: str
) -> None:
    if middle_lands == "first":
        land(home, "b1-second", ["p1", "p2"], prefix=prefix, replaces="b1")  # nobody has loaded it yet
    land(home, "b1-third", ["p1"], prefix=prefix, replaces="b1-second")
    if middle_lands == "last" and prefix == "b1":
        with pytest.raises(RefusedBatchError, match="also in batch b1"):  # who knows yet that it corrects that one
            load_batch(home, "b1-third")
    else:
        load_batch(home, "b1-third")
    if middle_lands == "last":
        land(home, "b1-second", ["p1", "p2"], prefix=prefix, replaces="b1")
        if prefix == "b1":
            load_batch(home, "b1-second")
            assert refused(home) == {}  # so that the next catch-up tries it again
            land(home, "b1-third", ["p1"], prefix=prefix, replaces="b1-second")  # which segments it again
            load_batch(home, "b1-third")
    settle_batches(home)
    assert loaded(home) == [("b1-third",), ("b2",)]
    assert usable_batches(home) == ["b1-third", "b2"]
    assert {name: entry.replaced_by for name, entry in superseded(home).items()} == {
        "b1": "b1-second",
        "b1-second": "b1-third",
    }
    assert query(home, "FROM superseded_batches ORDER BY 1") == [("b1", "b1-second"), ("b1-second", "b1-third")]
    assert files_of(home, "b1") == files_of(home, "b1-second") == []


def test_of_two_corrections_of_one_batch_the_second_is_refused(home: Home) -> None:
    land(home, "b1-first", ["p1"], replaces="b1")
    land(home, "b1-second", ["p2"], replaces="b1")
    load_batch(home, "b1-first")
    with pytest.raises(RefusedBatchError, match=r"replaced by b1-first: .* as a correction of b1-first"):
        load_batch(home, "b1-second")
    assert load_batch(home, "b1-first").replaced == ("b1",)  # again changes nothing
    assert loaded(home) == [("b1-first",), ("b2",)]
    land(home, "b1-better", ["p2"], replaces="b1-first")  # as the message says
    load_batch(home, "b1-better")
    assert loaded(home) == [("b1-better",), ("b2",)]
    assert refused_unchanged(home) == {"b1-second"}


def test_of_two_corrections_that_are_loaded_at_once_the_first_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(home, "b1-first", ["p1"], replaces="b1")
    land(home, "b1-second", ["p2"], replaces="b1")

    def read(folder: Path) -> pa.Table:
        monkeypatch.setattr("accelkd.warehouse.load.batch_participants", batch_participants)
        load_batch(home, "b1-first")
        return batch_participants(folder)

    monkeypatch.setattr("accelkd.warehouse.load.batch_participants", read)
    with pytest.raises(RefusedBatchError, match="b1-second replaces b1, which was replaced by b1-first"):
        load_batch(home, "b1-second")
    assert loaded(home) == [("b1-first",), ("b2",)]


def test_a_rebuilt_warehouse_leaves_out_what_is_refused_by_now(home: Home) -> None:
    publish(home)
    home.batch("b2").rename(home.root / "away")  # then segmented again: a recording that is in b1 has segments now
    land(home, "b2", ["p1", "p3"], prefix="b1")
    home.staging.unlink()
    rebuild_warehouse(home)
    assert loaded(home) == [("b1",)]
    assert usable_batches(home) == ["b1"]
    assert refused_unchanged(home) == {"b2"}


def test_batches_that_replace_each_other_are_refused(home: Home) -> None:
    land(home, "b3", ["p4"], replaces="b4")
    land(home, "b4", ["p5"], replaces="b3")
    for batch_id, other in (("b3", "b4"), ("b4", "b3")):
        with pytest.raises(RefusedBatchError, match=f"batch {batch_id} replaces {other} replaces {batch_id}"):
            load_batch(home, batch_id)
    assert loaded(home) == [("b1",), ("b2",)]


def test_a_loaded_correction_stays_whatever_lands_against_it(home: Home) -> None:
    land(home, "b1-first", ["p1"], replaces="b1")
    load_batch(home, "b1-first")
    manifest = home.batch("b1") / MANIFEST
    manifest.write_text(manifest.read_text().replace('"replaces": null', '"replaces": "b1-first"'))
    load_batch(home, "b1-first")
    rebuild_warehouse(home)
    assert loaded(home) == [("b1-first",), ("b2",)]


def test_a_process_that_dies_after_the_transaction_is_made_good_by_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(home, "b1-corrected", ["p1"], prefix="other", replaces="b1")
    with monkeypatch.context() as dying:
        dying.setattr("accelkd.warehouse.load.settle_batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_batch(home, "b1-corrected")
    assert usable_batches(home) == ["b1", "b2"]  # as before: never both, never none of them
    with pytest.raises(SupersededError):
        load_batch(home, "b1")  # the tables know already
    split_participants(home)
    assert usable_batches(home) == ["b1-corrected", "b2"]
    assert files_of(home, "b1") == []
    assert superseded(home).keys() == {"b1"}


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_rebuilt_warehouse_holds_what_it_held_and_knows_all_corrections(home: Home) -> None:
    land(home, "b1-second", ["p1"], replaces="b1")
    load_batch(home, "b1-second")
    land(home, "b1-third", ["p1"], replaces="b1-second")
    load_batch(home, "b1-third")
    land(home, "never", ["p9"])  # segmented, and never loaded
    home.staging.unlink()
    rebuild_warehouse(home)
    assert loaded(home) == [("b1-third",), ("b2",)]
    assert query(home, "FROM superseded_batches ORDER BY 1") == [("b1", "b1-second"), ("b1-second", "b1-third")]
    assert usable_batches(home) == ["b1-third", "b2"]


def test_a_damaged_list_stops_training_until_the_warehouse_is_rebuilt(home: Home) -> None:
    home.loaded.write_text("{")
    with pytest.raises(DamagedFileError, match="`accelkd rebuild-warehouse`"):
        usable_batches(home)
    rebuild_warehouse(home)
    assert usable_batches(home) == ["b1", "b2"]


def test_a_lost_list_is_written_from_the_tables(home: Home) -> None:
    land(home, "never", ["p9"])
    publish(home)
    home.loaded.unlink()
    split_participants(home)
    assert usable_batches(home) == ["b1", "b2"]
    assert unused_batches(home) == ["never"]


def test_a_superseded_batch_is_neither_embedded_nor_segmented_nor_repaired(embedded: Home) -> None:
    segments, people = segment_keys(embedded, "b1")
    matrix = np.zeros((len(segments), EMBEDDING_WIDTH), np.float32)
    model_id = query(embedded, "SELECT model_id FROM embeddings.ppg_teacher LIMIT 1")[0][0]
    land(embedded, "b1-corrected", ["p1"], replaces="b1")
    load_batch(embedded, "b1-corrected")
    with pytest.raises(LookupError, match="b1 is not in the warehouse"):  # it was embedded meanwhile
        load_embeddings(
            embedded, "ppg_teacher", embedding_rows("ppg_teacher", str(model_id), "b1", segments, people, matrix)
        )
    with pytest.raises(SupersededError):
        embed_batch(embedded, "ppg_teacher", "b1", device="cpu")
    with pytest.raises(SupersededError, match="b1 was replaced by b1-corrected"):
        segment_batch(embedded, "b1")
    assert repair(embedded, ["b1"]) == []
    assert files_of(embedded, "b1") == []
    assert query(embedded, "SELECT count(*) FROM embeddings.ppg_teacher WHERE batch_id = 'b1'") == [(0,)]


def test_whoever_came_with_a_superseded_batch_leaves_unless_trained_on(embedded: Home) -> None:
    """p1 is in the checkpoint of the fixture, p2 is not; neither is in the correction."""
    split_participants(embedded)
    side = participants_on(embedded.split, "train")
    assert "p1" in side
    land(embedded, "b1-corrected", ["p4"], replaces="b1")
    load_batch(embedded, "b1-corrected")
    assert split_participants(embedded).removed == {"b1": 1}
    assert sorted(read_split(embedded.split).column("participant_id").to_pylist()) == ["p1", "p3", "p4"]
    assert "p1" in participants_on(embedded.split, "train")
    assert split_participants(embedded).removed == {}


def test_nobody_leaves_while_it_is_not_known_whom_a_checkpoint_was_trained_on(home: Home) -> None:
    split_participants(home)
    model_id = checkpoint(home, "accel_student", seed=7)
    home.trained_on("accel_student", model_id).unlink()
    land(home, "b1-corrected", ["p4"], replaces="b1")
    load_batch(home, "b1-corrected")
    assert split_participants(home).removed == {}
    assert "p2" in read_split(home.split).column("participant_id").to_pylist()


def test_whoever_was_trained_on_never_becomes_a_test_participant(home: Home) -> None:
    """Also if they are in no ledger any more, whatever their stratum asks for."""
    people = [f"q{number:02d}" for number in range(40)]
    loaded_checkpoint(home, "ppg_teacher", ["b1"], seed=3, trained_on=[(person, "b1", 4) for person in people])
    land(home, "b5", people)
    load_batch(home, "b5")
    split_participants(home)
    assert set(people) <= participants_on(home.split, "train")


def test_a_candidate_of_a_batch_that_was_superseded_meanwhile_is_loaded_and_says_so(home: Home) -> None:
    for encoder, model_id in loaded_pair(home, ["b1", "b2"], trained_on=[("p1", "b1", 4)]).items():
        make_candidate(home, encoder, model_id, 3)
    land(home, "b1-corrected", [f"r{number}" for number in range(12)], replaces="b1")
    load_batch(home, "b1-corrected")
    split_participants(home)
    load_candidate(home, "ppg_teacher")  # does not bring b1 back
    assert loaded(home) == [("b1-corrected",), ("b2",)]
    decision = evaluate_candidate(home).decision
    assert decision.reason.endswith("; trained on b1, superseded since")
    assert not trained_on_current_batches(home).passed
    fill_tables(home)
    report = write_report(home).read_text(encoding="utf-8")
    assert "superseded since: `b1` (by `b1-corrected`)" in report


def test_a_candidate_that_saw_a_test_participant_is_not_promoted(home: Home) -> None:
    land(home, "b5", [f"q{number:02d}" for number in range(20)])
    load_batch(home, "b5")
    split_participants(home)
    seen = min(participants_on(home.split, "test"))
    for encoder, model_id in loaded_pair(home, ["b5"], trained_on=[(seen, "b5", 4)]).items():
        make_candidate(home, encoder, model_id, 20)
    with pytest.raises(SplitError, match="trained on 1 participants who are in test now"):
        evaluate_candidate(home)


def test_decisions_are_rows(embedded: Home) -> None:
    load_decisions(embedded)
    load_decisions(embedded)
    assert query(embedded, "SELECT number, action, encoder, reason FROM promotions") == [
        (1, "promoted", "ppg_teacher", "test")
    ]
