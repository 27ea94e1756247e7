"""A home on several machines, each with a folder of its own: the head, workers, an analyst; the store is a folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import pytest

from accelkd.cli import main
from accelkd.home.layout import Home
from accelkd.home.store import open_store
from accelkd.home.units import FencedError, stored_units
from accelkd.home.version import UnusableHomeError
from accelkd.operations.embed import embed_batch, embed_into_file
from accelkd.operations.promote import fill_tables
from accelkd.operations.remnants import find_remnants
from accelkd.operations.share import (
    bring_published,
    collect_trained,
    embeddings_unit,
    hand_in_trained,
    landing_unit,
    refresh_worker,
    segments_unit,
    share_home,
    share_published,
    shared_step,
    take_back,
    verdict_unit,
)
from accelkd.operations.withdraw import withdraw
from accelkd.recordings.arrivals import refused, refused_unchanged
from accelkd.recordings.validate import validate_arrival
from accelkd.registry.history import decide
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support.homes import checkpoint, land, land_two_batches, loaded_pair, simulate

Open = Callable[[str], Home]


@pytest.fixture
def head(machine: Open) -> Home:
    home = machine("head")
    for number, batch_id in enumerate(("b1", "b2")):
        deliver(home, batch_id, number)
    share_home(home)
    return home


def deliver(home: Home, batch_id: str, number: int) -> None:
    """A batch of two participants, `sim<number>-000000` and the next."""
    simulate(home, batch_id, participants=2, segments=2, seed=number)


def step(home: Home, batch_id: str) -> AbstractContextManager[None]:
    """What a worker does before and after it makes segments."""
    refresh_worker(home)
    return shared_step(home, segments_unit(batch_id), reads=[landing_unit(batch_id)])


def segment(home: Home, batch_id: str) -> None:
    with step(home, batch_id):
        segment_batch(home, batch_id)


def test_a_worker_makes_what_the_head_would_make(head: Home, machine: Open, tmp_path: Path) -> None:
    worker = machine("worker")
    segment(worker, "b1")
    take_back(head, "b1")
    own = Home(tmp_path / "alone")
    deliver(own, "b1", 0)
    segment_batch(own, "b1")
    for path in (Home.segments, Home.quarantine):
        assert path(head, "b1").read_bytes() == path(own, "b1").read_bytes()
    assert not worker.segments("b2").exists()
    assert not worker.batch("b2").exists()  # of which it has brought nothing


def test_embeddings_of_two_workers_are_loaded_on_the_head(head: Home, machine: Open) -> None:
    for batch_id in ("b1", "b2"):
        segment(head, batch_id)
        load_batch(head, batch_id)
    models = loaded_pair(head, ["b1", "b2"], channels=4)
    decide(head, "promoted", models, "test")
    share_home(head)
    for batch_id, name in (("b1", "worker-1"), ("b2", "worker-2")):
        worker = machine(name)
        refresh_worker(worker)
        for encoder, model_id in models.items():
            with shared_step(worker, embeddings_unit(encoder, model_id, batch_id), reads=[segments_unit(batch_id)]):
                embed_into_file(worker, encoder, batch_id, device="cpu")
        take_back(head, batch_id)
    before = {path: path.stat().st_mtime_ns for batch_id in ("b1", "b2") for path in head.embedded(batch_id)}
    assert len(before) == 4
    fill_tables(head)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # embedded by nobody again
    with staging(head) as connection:
        assert connection.execute("SELECT count(DISTINCT batch_id) FROM embeddings.ppg_teacher").fetchall() == [(2,)]


def test_a_refusal_by_a_worker_holds_on_the_head_until_files_change(head: Home, machine: Open) -> None:
    (head.batch("b1") / "participants.parquet").write_bytes(b"damaged")
    share_home(head)
    worker = machine("worker")
    refresh_worker(worker)
    with shared_step(worker, verdict_unit("b1"), reads=[landing_unit("b1")]):
        assert validate_arrival(worker, "b1")
    take_back(head, "b1")
    assert list(refused(head)) == ["b1"]
    assert refused_unchanged(head) == {"b1"}
    deliver(head, "b3", 9)
    share_home(head)
    with shared_step(worker, verdict_unit("b3"), reads=[landing_unit("b3")]):
        assert not validate_arrival(worker, "b3")
    take_back(head, "b3")
    assert list(refused(head)) == ["b1"]


def test_a_correction_is_known_to_replace_a_batch_that_the_worker_does_not_have(head: Home, machine: Open) -> None:
    land(head, "b1-again", ["p1"], replaces="b1")
    share_home(head)
    worker = machine("worker")
    refresh_worker(worker)
    with shared_step(worker, verdict_unit("b1-again"), reads=[landing_unit("b1-again")]):
        assert not [violation for violation in validate_arrival(worker, "b1-again") if violation.fatal]


def test_of_two_workers_on_one_batch_the_later_one_wins(head: Home, machine: Open) -> None:
    dead, retry = machine("dead"), machine("retry")

    def go_on_after_the_retry() -> None:
        with step(dead, "b1"):
            segment(retry, "b1")
            segment_batch(dead, "b1", hop_s=30.0)

    with pytest.raises(FencedError, match="segments/b1 is not replaced by dead: retry has replaced it since"):
        go_on_after_the_retry()
    take_back(head, "b1")
    assert head.segments("b1").read_bytes() == retry.segments("b1").read_bytes()


@pytest.mark.usefixtures("head")
def test_a_worker_has_no_warehouse_and_withdraws_nobody(machine: Open) -> None:
    worker = machine("worker")
    segment(worker, "b1")
    with pytest.raises(UnusableHomeError, match="this machine is a worker"), staging(worker):
        pass
    assert not worker.staging.exists()
    with pytest.raises(UnusableHomeError, match="this machine is a worker"):
        withdraw(worker, "sim0-000000")


def test_withdrawal_leaves_nothing_in_the_store_and_nothing_in_a_worker_s_cache(head: Home, machine: Open) -> None:
    worker = machine("worker")
    for batch_id in ("b1", "b2"):
        segment(worker, batch_id)
        take_back(head, batch_id)
        load_batch(head, batch_id)
    publish(head)
    share_published(head)
    name = "sim0-000000"
    assert find_remnants(worker.root, {name}, []).places

    assert withdraw(head, name).finished
    refresh_worker(worker)
    assert not find_remnants(worker.root, {name}, []).places
    store = Path(str(head.store).removeprefix("file://"))
    assert not find_remnants(store, {name}, []).places
    segment(worker, "b1")
    take_back(head, "b1")
    load_batch(head, "b1")
    with staging(head) as connection:
        people = connection.execute("SELECT DISTINCT participant_id FROM segments WHERE batch_id = 'b1'").fetchall()
    assert people == [("sim0-000001",)]


def test_who_takes_over_has_the_whole_home_and_the_former_head_stops(
    machine: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = machine("head")
    land_two_batches(head)
    models = loaded_pair(head, ["b1", "b2"])
    decide(head, "promoted", models, "test")
    share_home(head)
    for batch_id in ("b1", "b2"):
        with shared_step(head, segments_unit(batch_id), reads=[]):
            pass
        for encoder, model_id in models.items():
            with shared_step(head, embeddings_unit(encoder, model_id, batch_id), reads=[segments_unit(batch_id)]):
                embed_batch(head, encoder, batch_id, device="cpu")
    content = publish(head).rows["embeddings.ppg_teacher"]
    share_published(head)

    other = machine("head-2")
    with pytest.raises(UnusableHomeError, match=r"another machine is the head of .*take-over"):
        share_home(other)
    for name, value in (("HOME", other.root), ("STORE", other.store), ("HEAD", "1")):
        monkeypatch.setenv(f"ACCELKD_{name}", str(value))
    assert main(["take-over"]) == 0, capsys.readouterr().err
    with duckdb.connect(str(other.published), read_only=True) as published:
        assert published.execute("SELECT count(*) FROM embeddings.ppg_teacher").fetchall() == [(content,)]
    share_home(other)
    with pytest.raises(UnusableHomeError, match="another machine is the head"):
        share_home(head)


def test_an_analyst_pulls_what_is_published_and_reads_on_while_it_moves(
    head: Home, machine: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    analyst = machine("analyst")
    for name, value in (("HOME", analyst.root), ("STORE", analyst.store)):
        monkeypatch.setenv(f"ACCELKD_{name}", str(value))
    assert main(["pull"]) == 2
    assert "nothing is published" in capsys.readouterr().err
    segment(head, "b1")
    load_batch(head, "b1")
    publish(head)
    share_published(head)
    assert main(["pull"]) == 0
    assert capsys.readouterr().out.strip() == str(analyst.published)
    with duckdb.connect(str(analyst.published), read_only=True) as before:
        segment(head, "b2")
        load_batch(head, "b2")
        publish(head)
        share_published(head)
        bring_published(analyst)
        assert before.execute("SELECT count(*) FROM batches").fetchall() == [(1,)]
    with duckdb.connect(str(analyst.published), read_only=True) as after:
        assert after.execute("SELECT count(*) FROM batches").fetchall() == [(2,)]


def test_a_checkpoint_that_a_worker_trained_is_collected_once(head: Home, machine: Open) -> None:
    worker = machine("worker")
    refresh_worker(worker)
    model_id = checkpoint(worker, "ppg_teacher")
    hand_in_trained(worker, "ppg_teacher", model_id)
    collect_trained(head, "ppg_teacher")
    folder = head.checkpoint("ppg_teacher", model_id)
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in worker.checkpoint("ppg_teacher", model_id).iterdir()
    }
    assert not [name for name in stored_units(head) if name.startswith("trained")]
    assert any("model.safetensors" in name for name in stored_units(head)["state"])
    collect_trained(head, "ppg_teacher")
    assert folder.exists()
    assert open_store(str(head.store)).list("index")
