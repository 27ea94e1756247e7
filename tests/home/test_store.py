"""One contract for both kinds of store, and what only a network does."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from accelkd.home.files import DamagedFileError
from accelkd.home.store import BucketStore, ConflictError, Store, open_store
from tests.support.network import LossyNetwork, lossy_network
from tests.support.services import HOST, S3Server

LARGE = 40 * 2**20  # three parts


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_content_comes_back_with_its_version(store: Store) -> None:
    version = store.put_if_absent("index/a.json", b"1")
    assert store.get("index/a.json") == (b"1", version)
    newer = store.put_if_match("index/a.json", b"2", version)
    assert newer != version
    assert store.get("index/a.json") == (b"2", newer)


def test_what_exists_is_not_made_again(store: Store) -> None:
    version = store.put_if_absent("a", b"1")
    with pytest.raises(ConflictError, match="a exists already"):
        store.put_if_absent("a", b"1")
    with pytest.raises(ConflictError):
        store.put_if_absent("a", b"2")
    assert store.get("a") == (b"1", version)


def test_a_version_is_replaced_once(store: Store) -> None:
    version = store.put_if_absent("a", b"1")
    newer = store.put_if_match("a", b"2", version)
    with pytest.raises(ConflictError, match="a has been changed since it was read"):
        store.put_if_match("a", b"3", version)
    assert store.get("a") == (b"2", newer)
    store.delete("a")
    with pytest.raises(ConflictError):
        store.put_if_match("a", b"3", newer)
    assert store.list() == []


def test_of_writers_at_once_one_wins(store: Store) -> None:
    def put(content: bytes) -> bool:
        try:
            store.put_if_match("a", content, version) if version else store.put_if_absent("a", content)
        except ConflictError:
            return False
        return True

    version = ""
    with ThreadPoolExecutor(4) as pool:
        for turn in range(4):
            contents = [f"{turn} {writer}".encode() for writer in range(4)]
            won = list(pool.map(put, contents))
            content, version = store.get("a")
            assert won.count(True) == 1
            assert content == contents[won.index(True)]


def test_what_is_missing_is_said_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="index/none"):
        store.get("index/none")
    with pytest.raises(FileNotFoundError):
        store.fetch("index/none", tmp_path / "none", sha256(b""))
    assert not (tmp_path / "none").exists()
    store.delete("index/none")
    assert store.list("index") == []


@pytest.mark.parametrize("size", [0, 1, 2**20, LARGE])
def test_files_come_back(store: Store, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    store.upload("objects/x", file(tmp_path / "x", content), sha256(content))
    store.fetch("objects/x", tmp_path / "below" / "y", sha256(content))
    assert (tmp_path / "below" / "y").read_bytes() == content
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["y"]
    assert [entry[:2] for entry in store.list()] == [("objects/x", size)]
    (tmp_path / "x").write_bytes(b"")
    if size:
        store.delete("objects/x")
        with pytest.raises(FileNotFoundError):
            store.fetch("objects/x", tmp_path / "below" / "y", sha256(content))


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_file_that_changes_while_it_is_uploaded_is_not_put(store: Store, tmp_path: Path, size: int) -> None:
    with pytest.raises(DamagedFileError, match="x is damaged"):
        store.upload("objects/x", file(tmp_path / "x", bytes(size)), sha256(b"before"))
    assert store.list() == []


def test_wrong_bytes_replace_nothing(store: Store, tmp_path: Path) -> None:
    store.put_if_absent("objects/x", b"damaged")
    target = file(tmp_path / "target", b"old")
    with pytest.raises(DamagedFileError, match="objects/x is damaged"):
        store.fetch("objects/x", target, sha256(b"new"))
    assert target.read_bytes() == b"old"


def test_what_is_there_is_not_uploaded_again(store: Store, tmp_path: Path) -> None:
    content = b"content"
    store.upload("objects/x", file(tmp_path / "x", content), sha256(content))
    before = store.list()
    time.sleep(0.01)
    store.upload("objects/x", tmp_path / "x", sha256(content))
    assert store.list() == before


def test_lists_by_whole_parts_of_keys(store: Store) -> None:
    start = time.time()
    for key in ("index/b", "index/a/b", "indexed/c", "index/a.json"):
        store.put_if_absent(key, b"12")
    assert [entry.key for entry in store.list("index")] == ["index/a.json", "index/a/b", "index/b"]
    assert [entry.key for entry in store.list("index/a")] == ["index/a/b"]
    assert len(store.list()) == 4
    assert all(entry.bytes == 2 and abs(entry.modified - start) < 60 for entry in store.list())


def test_lists_more_than_a_page(store: Store) -> None:
    keys = [f"many/{number:04}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put_if_absent(key, b""), keys))
    assert [entry.key for entry in store.list("many")] == keys


@pytest.mark.parametrize("key", ["a b", "ü", "50%", "a+b", "a#b?c", "a=b,c", "~a", "a:b", "a'b\"", "[a]", "{a}"])
def test_names_of_files_are_keys(store: Store, key: str) -> None:
    version = store.put_if_absent(f"odd/{key}/x", b"1")
    assert store.get(f"odd/{key}/x") == (b"1", version)
    assert [entry.key for entry in store.list("odd")] == [f"odd/{key}/x"]


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", ".lock", "a/.x.scratch/y", "a\\b"])
def test_other_keys_are_refused(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        store.put_if_absent(key, b"")
    with pytest.raises(ValueError, match="no key"):
        store.get(key)


@pytest.mark.parametrize(
    "address", ["", "accelkd", "file://host/a", "file:a", "s3://", "gs://a", "s3://key:secret@bucket", "s3://b?secret"]
)
def test_other_addresses_are_refused_without_their_secrets(address: str) -> None:
    with pytest.raises(ValueError, match="address") as refusal:
        open_store(address)
    assert "secret" not in str(refusal.value)


def test_a_store_says_where_it_is(store: Store) -> None:
    assert open_store(store.address) is store
    assert repr(store) == store.address


@pytest.fixture
def network(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyNetwork]:
    """Between the server and the stores that are opened from now on."""
    with lossy_network(int(s3_server.endpoint.rpartition(":")[2])) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{network.port}")
        yield network


def test_a_writer_whose_answer_is_lost_recognises_its_own_content(bucket: str, network: LossyNetwork) -> None:
    store = open_store(bucket)
    network.answers_to_lose = 1
    version = store.put_if_absent("a", b"1")
    assert store.get("a") == (b"1", version)
    network.answers_to_lose = 2
    version = store.put_if_match("a", b"2", version)
    assert store.get("a") == (b"2", version)
    assert network.requests.count("PUT") == 5
    assert not network.answers_to_lose


def test_a_writer_whose_answer_is_lost_recognises_the_content_of_others(bucket: str, network: LossyNetwork) -> None:
    store = open_store(bucket)
    version = store.put_if_absent("a", b"1")
    store.put_if_match("a", b"of another", version)
    network.answers_to_lose = 1
    with pytest.raises(ConflictError):
        store.put_if_match("a", b"2", version)
    network.answers_to_lose = 1
    with pytest.raises(ConflictError):
        store.put_if_absent("a", b"2")
    assert store.get("a")[0] == b"of another"
    assert not network.answers_to_lose


def test_a_store_that_refuses_says_so_without_its_credentials(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(PermissionError, match="refuses to list"):
        open_store(bucket).list()
    with pytest.raises(PermissionError, match="refuses to read a") as refusal:
        open_store(bucket).get("a")
    said = str(refusal.value) + repr(refusal.value.__cause__) + repr(open_store(bucket))
    assert "secret" not in said
    assert s3_server.secret_access_key not in said


def test_a_bucket_that_is_missing_is_named(bucket: str) -> None:
    store = open_store(bucket.replace("accelkd", "elsewhere"))
    for action in (store.list, lambda: store.get("a")):
        with pytest.raises(ConnectionError, match="no bucket elsewhere"):
            action()


def test_a_server_that_stays_away_is_an_error(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:1")
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    store = BucketStore(name, prefix, patience_s=0.5)
    actions: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.put_if_absent("a", b"1"),
        lambda: store.put_if_match("a", b"1", "version"),
        lambda: store.upload("a", file(tmp_path / "x", b"1"), sha256(b"1")),
        lambda: store.fetch("a", tmp_path / "y", sha256(b"1")),
        lambda: store.delete("a"),
        store.list,
    ]
    for action in actions:
        with pytest.raises(ConnectionError, match=f"could not (read|write|delete|list) {bucket}"):
            action()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def outage(server: S3Server, after_s: float) -> threading.Thread:
    """Kill the server after a while, start it again half a second later."""

    def run() -> None:
        time.sleep(after_s)
        server.kill()
        time.sleep(0.5)
        server.start()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_outage_of_the_server_is_waited_for(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    store, large = open_store(bucket), os.urandom(LARGE)
    version = store.put_if_absent("a", b"0")
    restarted = outage(s3_server, 0.05)
    try:
        number = 0
        while restarted.is_alive() or number < 10:
            number += 1
            version = store.put_if_match("a", f"{number}".encode(), version)
            store.put_if_absent(f"b/{number}", b"")
            store.upload(f"objects/{number}", file(tmp_path / "x", large[:number]), sha256(large[:number]))
            assert store.get("a") == (f"{number}".encode(), version)
    finally:
        restarted.join()
    assert len(store.list("b")) == number


def test_large_files_survive_an_outage(bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    store, large = open_store(bucket), os.urandom(LARGE)
    restarted = outage(s3_server, 0.1)
    store.upload("objects/large", file(tmp_path / "x", large), sha256(large))
    restarted.join()
    restarted = outage(s3_server, 0.1)
    store.fetch("objects/large", tmp_path / "y", sha256(large))
    restarted.join()
    assert (tmp_path / "y").read_bytes() == large
