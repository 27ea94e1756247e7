"""Units of files in a store: caches that follow it, writers of which one wins, dead writers that change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from accelkd.home.advisory import LockLostError
from accelkd.home.files import DamagedFileError, sha256_file
from accelkd.home.layout import Home
from accelkd.home.locks import home_lock
from accelkd.home.store import Store, open_store
from accelkd.home.units import (
    FencedError,
    Unit,
    claim,
    commit,
    delete_unit,
    make_cache,
    prune_cache,
    pull,
    replacing,
    stored_units,
    sweep_objects,
)
from accelkd.home.version import UnusableHomeError
from tests.support import REPOSITORY, committing
from tests.support.services import Postgres, S3Server

BATCH = Unit("segments/b001", ("segments/b001.*", "quarantine/b001.*"))
OTHER = Unit("segments/b002", ("segments/b002.*",))


@pytest.fixture
def node1(store: Store, tmp_path: Path) -> Home:
    return Home(tmp_path / "node1", run_id="run A", store=store.address)


@pytest.fixture
def node2(store: Store, tmp_path: Path) -> Home:
    return Home(tmp_path / "node2", run_id="run B", store=store.address)


def write(home: Home, **files: str) -> None:
    """Make files of the batch: `arrow` and `sha256` of its segments, its `quarantine`."""
    for kind, text in files.items():
        path = home.root / ("quarantine/b001.parquet" if kind == "quarantine" else f"segments/b001.{kind}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(home: Home) -> dict[str, str]:
    """The files of a home that are not hidden."""
    paths = {home.relative(path): path for path in sorted(home.root.rglob("*")) if path.is_file()}
    return {name: path.read_text() for name, path in paths.items() if not name.startswith(".")}


def replace_batch(home: Home, **files: str) -> None:
    with replacing(home, BATCH):
        write(home, **files)


def test_what_a_node_makes_the_others_pull(node1: Home, node2: Home) -> None:
    pull(node2, BATCH)
    assert contents(node2) == {}
    replace_batch(node1, arrow="1", sha256="hash", quarantine="q")
    pull(node2, BATCH, OTHER)
    assert contents(node2) == contents(node1)
    assert contents(node2) == {
        "segments/b001.arrow": "1",
        "segments/b001.sha256": "hash",
        "quarantine/b001.parquet": "q",
    }
    with replacing(node2, BATCH):
        write(node2, arrow="22")
        (node2.root / "quarantine/b001.parquet").unlink()
    pull(node1, BATCH)
    assert contents(node1) == {"segments/b001.arrow": "22", "segments/b001.sha256": "hash"}


def test_a_cache_forgets_what_was_never_committed(node1: Home, node2: Home) -> None:
    replace_batch(node1, arrow="1")

    def fail() -> None:
        with replacing(node2, BATCH):
            write(node2, arrow="2", quarantine="q")
            raise RuntimeError("the step")

    with pytest.raises(RuntimeError, match="the step"):
        fail()
    assert contents(node2) != contents(node1)
    pull(node2, BATCH)
    assert contents(node2) == contents(node1)


def test_only_what_has_changed_is_fetched_hashed_and_uploaded(
    node1: Home, node2: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr("accelkd.home.units.sha256_file", counted)
    replace_batch(node1, arrow="1", quarantine="q")
    pull(node2, BATCH)
    before = (node2.root / "quarantine/b001.parquet").stat()
    hashed.clear()
    replace_batch(node1, arrow="2")
    assert hashed == ["b001.arrow"]
    pull(node1, BATCH)
    pull(node2, BATCH)
    assert hashed == ["b001.arrow"]
    assert (node2.root / "quarantine/b001.parquet").stat() == before
    assert contents(node2) == contents(node1)


def test_a_damaged_file_of_a_cache_is_fetched_again(node1: Home) -> None:
    replace_batch(node1, arrow="1")
    write(node1, arrow="2")
    pull(node1, BATCH)
    assert contents(node1) == {"segments/b001.arrow": "1"}


def test_a_damaged_object_is_an_error_and_made_again(node1: Home, node2: Home, store: Store) -> None:
    replace_batch(node1, arrow="1")
    (entry,) = store.list("objects")
    store.delete(entry.key)
    with pytest.raises(FileNotFoundError, match=entry.key):
        pull(node2, BATCH)
    store.put_if_absent(entry.key, b"2")
    with pytest.raises(DamagedFileError, match=entry.key):
        pull(node2, BATCH)
    assert contents(node2) == {}
    store.delete(entry.key)
    replace_batch(node1, arrow="1")
    pull(node2, BATCH)
    assert contents(node2) == {"segments/b001.arrow": "1"}


def test_of_two_writers_exactly_one_wins(node1: Home, node2: Home, tmp_path: Path) -> None:
    pull(node1, BATCH)
    pull(node2, BATCH)
    write(node1, arrow="1")
    write(node2, arrow="2")
    first, second = claim(node1, BATCH), claim(node2, BATCH)
    with pytest.raises(FencedError, match=r"segments/b001 is not replaced by run A: run B has claimed it since"):
        commit(first)
    commit(second)
    with pytest.raises(FencedError, match=r"segments/b001 is not replaced by run A: run B has replaced it since"):
        commit(first)
    reader = replace(node1, root=tmp_path / "reader")
    pull(reader, BATCH)
    assert contents(reader) == {"segments/b001.arrow": "2"}


def test_writers_at_the_same_moment(node1: Home, tmp_path: Path) -> None:
    """All claim, all commit: who claimed last has replaced it, all others know that they have not."""

    def attempt(number: int) -> str | None:
        home = Home(tmp_path / f"writer {number}", run_id=f"run {number}", store=node1.store)
        try:
            replace_batch(home, arrow=f"{number}")
        except FencedError:
            return None
        return f"{number}"

    with ThreadPoolExecutor(4) as pool:
        committed = [number for number in pool.map(attempt, range(4)) if number is not None]
    pull(node1, BATCH)
    assert contents(node1)["segments/b001.arrow"] in committed


def test_a_run_that_was_declared_dead_writes_nothing(node1: Home, store: Store) -> None:
    alive = True
    home = replace(node1, is_alive=lambda: alive)
    replace_batch(home, arrow="1")
    before = stored_units(home)

    def die() -> None:
        nonlocal alive
        with replacing(home, BATCH):
            write(home, arrow="2")
            alive = False

    with pytest.raises(
        FencedError, match="segments/b001 is not replaced by run A: the run no longer counts as running"
    ):
        die()
    assert stored_units(home) == before
    index = store.get("index/segments/b001.json")
    with pytest.raises(FencedError):
        claim(home, BATCH)
    assert store.get("index/segments/b001.json") == index


def test_the_commit_of_a_dead_run_after_that_of_its_retry_changes_nothing(
    node1: Home, node2: Home, store: Store
) -> None:
    def go_on_after_the_retry() -> None:
        with replacing(node1, BATCH):
            replace_batch(node2, arrow="retry")
            write(node1, arrow="dead")

    with pytest.raises(FencedError):
        go_on_after_the_retry()
    assert len(store.list("objects")) == 1, "nothing of the dead run was uploaded"
    pull(node1, BATCH)
    assert contents(node1) == {"segments/b001.arrow": "retry"}


def test_a_run_that_claims_again_fences_its_own_former_attempt(node1: Home, store: Store) -> None:
    pull(node1, BATCH)
    write(node1, arrow="1")
    former = claim(node1, BATCH)
    claim(node1, BATCH)
    with pytest.raises(FencedError):
        commit(former)
    assert store.list("objects") == []


def test_a_run_that_lost_a_lock_writes_nothing(node1: Home, postgres: Postgres) -> None:
    home = replace(node1, locks=postgres.dsn)

    def lose_the_lock() -> None:
        with home_lock(home, ".home.lock", shared=True), replacing(home, BATCH):
            write(home, arrow="1")
            with psycopg.connect(postgres.dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accelkd lock'"
                )

    with pytest.raises(LockLostError):
        lose_the_lock()
    assert stored_units(node1) == {}


def test_on_one_machine_whoever_pulls_waits_for_whoever_writes(node1: Home) -> None:
    replace_batch(node1, arrow="1")
    with ThreadPoolExecutor(1) as pool:
        with replacing(node1, BATCH):
            write(node1, arrow="2")
            pull(node1, BATCH)  # its own is left alone
            program = (
                "import sys; from pathlib import Path; from accelkd.home.layout import Home; "
                "from accelkd.home.units import Unit, pull; "
                f"pull(Home(Path(sys.argv[1]), store=sys.argv[2]), Unit({BATCH.name!r}, {BATCH.patterns!r}))"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(node1.root), str(node1.store)], cwd=REPOSITORY
            )
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
        assert pool.submit(process.wait, 60).result() == 0
    assert contents(node1) == {"segments/b001.arrow": "2"}


def test_a_pinned_file_is_the_object_of_the_path_that_it_names(node1: Home, node2: Home, store: Store) -> None:
    make_cache(node1)
    write(node1, arrow="first")
    commit(claim(node1, BATCH))
    sha256 = sha256_file(node1.root / "segments/b001.arrow")
    pinned = Unit("pinned", (f"warehouse/objects/segments/b001.arrow/{sha256}",))
    path = node1.root / pinned.patterns[0]
    path.parent.mkdir(parents=True)
    os.link(node1.root / "segments/b001.arrow", path)
    commit(claim(node1, pinned))
    assert [entry.key for entry in store.list("objects")] == [f"objects/segments/b001.arrow/{sha256}"]
    (node1.root / "segments/b001.arrow").unlink()
    write(node1, arrow="second")
    commit(claim(node1, BATCH))
    assert sweep_objects(node1) == []  # one unit names the first, the other the second
    pull(node2, pinned)
    assert (node2.root / pinned.patterns[0]).read_text() == "first"
    path.write_text("damaged")
    with pytest.raises(DamagedFileError, match=sha256):
        commit(claim(node1, pinned))


def test_many_processes_pull_at_once(node1: Home, node2: Home) -> None:
    replace_batch(node1, arrow="1" * 10**6, quarantine="q")
    program = (
        "import sys; from pathlib import Path; from accelkd.home.layout import Home; "
        "from accelkd.home.units import Unit, pull; "
        f"pull(Home(Path(sys.argv[1]), store=sys.argv[2]), Unit({BATCH.name!r}, {BATCH.patterns!r}))"
    )
    command = [sys.executable, "-c", program, str(node2.root), str(node2.store)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert contents(node2) == contents(node1)


def test_a_unit_is_not_replaced_by_nothing(node1: Home) -> None:
    replace_batch(node1, arrow="1")
    with pytest.raises(ValueError, match="no files"), replacing(node1, BATCH):
        (node1.root / "segments/b001.arrow").unlink()
    pull(node1, BATCH)
    assert contents(node1) == {"segments/b001.arrow": "1"}


def test_a_withdrawal_leaves_no_copy(node1: Home, node2: Home, store: Store, tmp_path: Path) -> None:
    write_other = replace(node1, root=tmp_path / "node3")
    with replacing(write_other, OTHER):
        (write_other.root / "segments").mkdir()
        (write_other.root / "segments" / "b002.arrow").write_text("stays")
    replace_batch(node1, arrow="with the participant", quarantine="the participant")
    pull(node2, BATCH, OTHER)
    dead = claim(node2, BATCH)
    replace_batch(node1, arrow="without")
    delete_unit(node1, Unit("nothing", ("nothing/*",)))
    with replacing(node1, BATCH):
        (node1.root / "quarantine/b001.parquet").unlink()
    removed = sweep_objects(node1)
    assert sorted(key.rpartition("/")[0] for key in removed) == [
        "objects/quarantine/b001.parquet",
        "objects/segments/b001.arrow",
    ]
    assert [path.name for path in prune_cache(node2)] == ["b001.parquet", "b001.arrow"]
    assert contents(node2) == {"segments/b002.arrow": "stays"}
    write(node2, arrow="with the participant")
    with pytest.raises(FencedError):
        commit(dead)
    reader = replace(node2, root=tmp_path / "reader")
    pull(reader, BATCH, OTHER)
    assert contents(reader) == {"segments/b001.arrow": "without", "segments/b002.arrow": "stays"}
    delete_unit(node1, BATCH)
    sweep_objects(node1)
    assert contents(node1) == {}
    assert [entry.key.rpartition("/")[0] for entry in store.list("objects")] == ["objects/segments/b002.arrow"]
    assert list(stored_units(node1)) == ["segments/b002"]


def test_a_sweep_fences_who_writes_in_spite_of_it(node1: Home, node2: Home, store: Store) -> None:
    pull(node1, BATCH)
    write(node1, arrow="1")
    dead = claim(node1, BATCH)
    assert sweep_objects(node2) == []
    with pytest.raises(FencedError, match="a sweep of the store has replaced it since"):
        commit(dead)
    assert stored_units(node1) == {}
    store.put_if_absent("objects/segments/b001.arrow/0123", b"of a writer that was killed")
    (orphan,) = store.list("objects")
    assert sweep_objects(node2, keep_younger_than_s=3600) == []
    assert sweep_objects(node2) == [orphan.key]


def test_units_are_listed_by_their_prefix(node1: Home) -> None:
    replace_batch(node1, arrow="1")
    claim(node1, OTHER)  # has no files yet
    assert list(stored_units(node1)) == ["segments/b001"]
    assert stored_units(node1, "segments").keys() == stored_units(node1).keys()
    assert stored_units(node1, "embeddings") == {}
    (stored,) = stored_units(node1)["segments/b001"].values()
    assert stored.bytes == 1


def test_a_home_of_its_own_is_never_taken_for_a_cache(node1: Home, tmp_path: Path) -> None:
    write(node1, arrow="the only copy")
    for action in (lambda: pull(node1, BATCH), lambda: replace_batch(node1, arrow="1"), lambda: prune_cache(node1)):
        with pytest.raises(UnusableHomeError, match="a home of its own"):
            action()
    assert contents(node1) == {"segments/b001.arrow": "the only copy"}
    cache = replace(node1, root=tmp_path / "cache")
    pull(cache, BATCH)
    with pytest.raises(UnusableHomeError, match="is a cache of"):
        pull(replace(cache, store=f"{cache.store}x"), BATCH)


def test_without_a_store_nothing_happens(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write(home, arrow="1")
    pull(home, BATCH)
    replace_batch(home, arrow="2")
    assert [path.name for path in tmp_path.iterdir()] == ["segments", "quarantine"][:1]
    assert contents(home) == {"segments/b001.arrow": "2"}
    with pytest.raises(ValueError, match="has no store"):
        claim(home, BATCH)


def test_a_writer_killed_at_any_point_leaves_the_old_or_the_new(store: Store, tmp_path: Path) -> None:
    seeds = range(30)
    home = Home(tmp_path / "writer", run_id="first", store=store.address)
    with ThreadPoolExecutor(4) as pool:

        def prepare(seed: int) -> None:
            with replacing(home, committing.unit(seed)):
                committing.write(home, seed, "old")

        list(pool.map(prepare, seeds))
    arguments = {
        "root": str(home.root),
        "store": store.address,
        "seeds": [*seeds],
        "max_delay_s": 0.006 if store.address.startswith("s3:") else 0.0003,  # what a request takes
    }
    command = [sys.executable, "-m", "tests.support.committing", json.dumps(arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=300)
    reader = replace(home, root=tmp_path / "reader")
    pull(reader, *map(committing.unit, seeds))
    states = []
    for seed in seeds:
        present = {path.name: path.read_text() for path in (reader.root / "units" / str(seed)).iterdir()}
        version = "new" if "new" in present else "old"
        assert present == {"a": f"{version} a", "b": f"{version} b", "same": "same", version: version}, seed
        states.append(version)
    ends = json.loads(done.stdout)
    assert ends.count(-9) > 15, "most die"
    assert all(state == "new" for state, end in zip(states, ends, strict=True) if end == 0)
    assert states.count("old") > 10
    # Whoever comes next finishes, and the objects that nobody names go
    prepared = replace(home, run_id="next")
    for seed in seeds:
        with replacing(prepared, committing.unit(seed)):
            committing.write(prepared, seed, "new")
    sweep_objects(home)
    assert len(store.list("objects")) == 4 * len(seeds)


def test_a_commit_waits_for_a_server_that_is_started_again(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    home = Home(tmp_path / "node1", run_id="run A", store=bucket)

    def restart() -> None:
        time.sleep(0.03)
        s3_server.kill()
        time.sleep(0.3)
        s3_server.start()

    thread = threading.Thread(target=restart)
    with replacing(home, Unit("large", ("large/*",))):
        (home.root / "large").mkdir()
        for number in range(4):
            (home.root / "large" / str(number)).write_bytes(os.urandom(2**22))
        thread.start()
    thread.join()
    reader = replace(home, root=tmp_path / "reader")
    pull(reader, Unit("large", ("large/*",)))
    for number in range(4):
        name = f"large/{number}"
        assert (reader.root / name).read_bytes() == (home.root / name).read_bytes()
    assert len(open_store(bucket).list("objects")) == 4
