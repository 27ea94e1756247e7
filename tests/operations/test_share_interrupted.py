"""A home on several machines: what a process that is killed between two steps leaves to the next one."""

from __future__ import annotations

from pathlib import Path

import pytest

import accelkd.operations.share
from accelkd.home.files import scratch_folder
from accelkd.home.layout import Home
from accelkd.home.units import make_cache, pull, replacing
from accelkd.operations.share import (
    landing_unit,
    refresh_worker,
    segments_unit,
    share_everything,
    share_home,
    take_back_missing,
    verdict_unit,
)
from accelkd.recordings.arrivals import refused
from accelkd.recordings.withdrawn import enrol


@pytest.fixture
def head(tmp_path: Path) -> Home:
    home = Home(tmp_path / "head", store=(tmp_path / "store").as_uri(), head=True)
    make_cache(home)
    write(home, "landing/b1/manifest.json", "{}")
    share_home(home)
    return home


@pytest.fixture
def worker(head: Home, tmp_path: Path) -> Home:
    home = Home(tmp_path / "worker", store=head.store)
    refresh_worker(home)
    pull(home, landing_unit("b1"))
    return home


def write(home: Home, name: str, text: str) -> None:
    path = home.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_worker_that_was_killed_before_it_pruned_prunes_when_it_is_used_again(
    head: Home, worker: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scratch_folder(worker.root / "landing" / "b1" / "recordings.parquet") as scratch:
        pass
    scratch.mkdir()  # as a run leaves it that is killed while it fetches
    (scratch / "recordings.parquet").write_text("half of what p1 has recorded")
    enrol(head.landing, "p1")
    write(head, "landing/b1/manifest.json", '{"without": "p1"}')
    share_everything(head)

    with monkeypatch.context() as killed:
        killed.setattr(accelkd.operations.share, "prune_cache", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            refresh_worker(worker)
    assert (worker.root / "landing/b1/manifest.json").exists()
    refresh_worker(worker)
    assert not (worker.root / "landing/b1/manifest.json").exists()
    assert not scratch.exists()


def test_a_head_takes_back_what_one_that_was_killed_has_not(head: Home, worker: Home) -> None:
    for unit, name in ((segments_unit("b1"), "segments/b1.arrow"), (verdict_unit("b1"), "refused/b1.json")):
        with replacing(worker, unit):
            write(worker, name, '{"batch_id": "b1", "fingerprint": "", "reasons": ["bad"]}')
    write(head, "segments/b1.arrow", "with other settings")
    take_back_missing(head, ["b1"])
    assert head.segments("b1").read_text() == worker.segments("b1").read_text()
    assert refused(head)["b1"].reasons == ("bad",)
