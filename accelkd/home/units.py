"""Units of files: what several machines replace together, whole or not at all, and never by a run that is dead.

A unit is a set of files of a home, such as a batch's segments or the warehouse. With a store (`Home.store`) the truth
about it lies there, and the home's folder is this machine's cache. For each unit the store holds

- `objects/<path below the home>/<sha256>`: the files, which never change; a home has those that its warehouse reads
  below `warehouse/objects` by the same names, so that whoever made them and whoever reads them name one object;
- `index/<unit>.json`: which of them are the unit's now, and which run has claimed it. It alone is ever replaced, on
  condition that it is what the writer has read.

A step reads and writes so:

    pull(home, units)                  # brings the files that it reads into the cache
    with replacing(home, unit):        # claims the unit, and brings it into the cache
        ...                            # makes the unit's files in the cache, as in any home
                                       # uploads what is new, then replaces the index: one conditional PUT

Who claims a unit takes it from whoever claimed it before: that one's index is no longer the present one, and its commit
raises FencedError and changes nothing. So of a run that was declared dead, and still goes on, nothing arrives once
another has started; and before that, the run asks the orchestrator (`Home.is_alive`) and whether its locks are still
held. A writer killed at any point leaves the unit as it was, and at most objects that no index names, which
`sweep_objects` removes. Without a store `pull` and `replacing` do nothing: the files of the home are the truth.

In the cache a unit is locked while it is brought there, and while it is replaced: on one machine whoever pulls it waits
for whoever makes it, and whoever makes it for a dead run's process that still does. So a step pulls and replaces in its
own process, not in those that it starts.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from accelkd.home.files import DamagedFileError, sha256_file, write_json
from accelkd.home.layout import Home
from accelkd.home.locks import check_locks, file_lock
from accelkd.home.store import ConflictError, Store, open_store
from accelkd.home.version import UnusableHomeError

_INDEX, _OBJECTS = "index", "objects"
_PINNED = "warehouse/objects/"  # below the home: Home.objects
_CACHE = ".cache"  # below the home: what this machine knows of the files that it has brought here
_MAX_CLAIMS = 50  # attempts, each of which another writer of the same unit was faster than
_CONNECTIONS = 16  # to the store at once
_FILES = 4  # of one unit at once: parts of large ones are in memory
_replacing: set[tuple[Path, str]] = set()  # homes and units that this process is replacing


class FencedError(RuntimeError):
    """A write that came too late: the run is dead, or another one has taken its place."""


@dataclass(frozen=True)
class Unit:
    """Files that are replaced together."""

    name: str  # parts with slashes, as `segments/b001`
    # Globs below the home that match the unit's files, and no others; of hidden files only those that one names whole
    patterns: tuple[str, ...]
    may_be_empty: bool = False


class StoredFile(NamedTuple):
    """The content of a file, as an index names it."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Claim:
    """The right to replace a unit, until someone else claims it."""

    home: Home
    unit: Unit
    owner: str
    version: str  # of the index
    files: Mapping[str, StoredFile]  # that the unit has, by their paths below the home


@dataclass(frozen=True)
class _Index:
    """The content of `index/<unit>.json`, and its version in the store; None where there is none."""

    files: Mapping[str, StoredFile]
    owner: str | None = None
    written_by: str | None = None  # the run that claimed or replaced the unit last
    version: str | None = None


def pull(home: Home, *units: Unit) -> None:
    """Bring units' files into the cache, and remove files of theirs that the store does not name.

    What is there already is not fetched or hashed again. Any number of processes of a machine may do it at once. A unit
    that this process is replacing is left alone. Raises DamagedFileError for an object with other bytes,
    FileNotFoundError for one that is gone, and UnusableHomeError where the home's folder is not a cache of the store.
    Without a store it does nothing.
    """
    if home.store is None:
        return

    def pull_unit(unit: Unit) -> None:
        if (home.root, unit.name) not in _replacing:
            with _cache_lock(home, unit):
                _pull(home, unit)

    with ThreadPoolExecutor(_CONNECTIONS) as pool:  # of a bucket, one connection gives a part of the bandwidth
        list(pool.map(pull_unit, units))


@contextmanager
def replacing(home: Home, unit: Unit) -> Iterator[None]:
    """Claim a unit and pull it; when the block ends well, commit what it has made of the unit's files.

    Raises what `claim`, `pull` and `commit` raise. A block that raises leaves the store as it was, and in the cache
    files that the next `pull` puts right. Without a store it does nothing.
    """
    if home.store is None:
        yield
        return
    claimed = claim(home, unit)
    with _cache_lock(home, unit):
        _pull(home, unit)
        _replacing.add((home.root, unit.name))
        try:
            yield
        finally:
            _replacing.discard((home.root, unit.name))
        _commit(claimed)


def claim(home: Home, unit: Unit) -> Claim:
    """Claim a unit for the home's run: whoever claimed it before can no longer commit.

    Raises FencedError for a run that is no longer alive, LockLostError (accelkd.home.advisory) where it has lost one of
    its locks, and ConflictError if others are faster again and again.
    """
    owner = home.run_id or "a process without a run"
    _check_alive(home, unit)
    for _ in range(_MAX_CLAIMS):
        index = _read(_store(home), unit.name)
        try:
            version = _write(_store(home), unit.name, _Index(index.files, owner, owner, index.version))
        except ConflictError:
            time.sleep(random.uniform(0, 0.1))
            continue
        return Claim(home, unit, owner, version, index.files)
    raise ConflictError(f"{unit.name}: other writers are always faster")


def commit(claimed: Claim) -> None:
    """Make the unit's files in the cache the unit's files: upload what is new, then replace the index.

    `replacing` does it; by itself, nobody else on this machine may pull the unit between its claim and its commit.
    Raises ValueError where there are no files (`delete_unit` takes them away); FencedError, and leaves the unit as it
    is, if someone else has claimed it since, or the run is no longer alive; LockLostError (accelkd.home.advisory) where
    the run has lost one of its locks; DamagedFileError for a file that changes meanwhile. The claim is used up: who
    goes on claims again.
    """
    with _cache_lock(claimed.home, claimed.unit):
        _commit(claimed)


def delete_unit(home: Home, unit: Unit) -> None:
    """Take all files from a unit, in the store and in this machine's cache. Raises as `claim` and `commit`.

    The objects stay until `sweep_objects`, and copies in other machines' caches until their `pull` or `prune_cache`.
    """
    forget_unit(home, unit)
    pull(home, unit)


def forget_unit(home: Home, unit: Unit) -> None:
    """Take all files from a unit in the store; those in this machine's cache stay. Raises as `claim` and `commit`."""
    _replace_files(claim(home, unit), {})


def stored_units(home: Home, prefix: str = "") -> dict[str, Mapping[str, StoredFile]]:
    """The files of all units that have any, by the units' names; with a prefix, those below it, as `segments`."""
    store = _store(home)
    entries = store.list(f"{_INDEX}/{prefix}".rstrip("/"))
    names = [entry.key.removeprefix(f"{_INDEX}/").removesuffix(".json") for entry in entries]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        indexes = pool.map(lambda name: _read(store, name), names)
        return {name: index.files for name, index in zip(names, indexes, strict=True) if index.files}


def cached_files(home: Home, unit: Unit) -> dict[str, StoredFile]:
    """What a unit's files in the cache hold now, by their paths below the home. A file that is known is not read."""
    with _cache_lock(home, unit):
        known = _known(home, unit)
        files = {name: _look(path, known.get(name)) for name, path in _present(home, unit).items()}
        _remember(home, unit, files)
    return {name: looked_at.stored for name, looked_at in files.items()}


def stored_files(home: Home, name: str) -> Mapping[str, StoredFile]:
    """The files of the unit of that name in the store; none without a store."""
    return {} if home.store is None else _read(_store(home), name).files


def make_cache(home: Home) -> None:
    """Mark the home's empty folder as a cache of its store. Raises UnusableHomeError where it is none."""
    if home.store is not None:
        _check_cache(home)


def sweep_objects(home: Home, *, keep_younger_than_s: float = 0) -> list[str]:
    """Remove the objects that no index names, and with them all that a withdrawal has taken from units; their keys.

    To be called under `exclusive_lock`. Writers that go on in spite of it are fenced first: whatever was claimed before
    can no longer be committed, so nothing is removed that an index may name later.
    """
    store = _store(home)
    for entry in store.list(_INDEX):
        name = entry.key.removeprefix(f"{_INDEX}/").removesuffix(".json")
        while (index := _read(store, name)).owner is not None:
            try:
                _write(store, name, _Index(index.files, None, "a sweep of the store", index.version))
            except ConflictError:
                continue
    named = {_object(name, file) for files in stored_units(home).values() for name, file in files.items()}
    limit = time.time() - keep_younger_than_s
    removed = [
        entry.key
        for entry in store.list(_OBJECTS)
        if entry.key not in named and (not keep_younger_than_s or entry.modified < limit)
    ]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(store.delete, removed))
    return removed


def prune_cache(home: Home) -> list[Path]:
    """Remove from this machine's cache what the store no longer names, without fetching anything; returns the paths.

    After a withdrawal each machine does it: a unit that it does not use again would keep its old files.
    """
    _check_cache(home)
    removed: list[Path] = []
    for record in sorted((home.root / _CACHE).rglob("*.json")):
        name = record.relative_to(home.root / _CACHE).as_posix().removesuffix(".json")
        if "." in (part[0] for part in name.split("/")):  # one that is being written
            continue
        unit = Unit(name, tuple(json.loads(record.read_text(encoding="utf-8"))["patterns"]))
        with _cache_lock(home, unit):
            known, index = _known(home, unit), _read(_store(home), name)
            files = {}
            for path_name, path in _present(home, unit).items():
                looked_at = _look(path, known.get(path_name))
                if looked_at.stored == index.files.get(path_name):
                    files[path_name] = looked_at
                else:
                    path.unlink()
                    removed.append(path)
            _remember(home, unit, files)
    return removed


def _store(home: Home) -> Store:
    if home.store is None:
        raise ValueError(f"{home.root} has no store: set ACCELKD_STORE")
    return open_store(home.store)


def _pull(home: Home, unit: Unit) -> None:
    store, index, known = _store(home), _read(_store(home), unit.name), _known(home, unit)

    def bring(name: str, stored: StoredFile) -> _Known:
        path = home.root / name
        if path.is_file() and (looked_at := _look(path, known.get(name))).stored == stored:
            return looked_at
        store.fetch(_object(name, stored), path, stored.sha256)
        return _Known.of(path, stored.sha256)

    with ThreadPoolExecutor(_FILES) as pool:
        files = dict(zip(index.files, pool.map(bring, index.files, index.files.values()), strict=True))
    for name, path in _present(home, unit).items():
        if name not in index.files:
            path.unlink()
    _remember(home, unit, files)


def _commit(claimed: Claim) -> None:
    home, unit, store = claimed.home, claimed.unit, _store(claimed.home)
    known = _known(home, unit)
    files = {name: _look(path, known.get(name)) for name, path in _present(home, unit).items()}
    if not files and not unit.may_be_empty:
        raise ValueError(f"{unit.name} has no files in {home.root}: nothing replaces it")
    if (index := _read(store, unit.name)).version != claimed.version:  # before anything is uploaded in vain
        raise _fenced(claimed, index)
    with ThreadPoolExecutor(_FILES) as pool:
        for uploaded in [
            pool.submit(store.upload, _object(name, looked_at.stored), home.root / name, looked_at.sha256)
            for name, looked_at in files.items()
        ]:
            uploaded.result()
    _replace_files(claimed, {name: looked_at.stored for name, looked_at in files.items()})
    _remember(home, unit, files)


def _replace_files(claimed: Claim, files: Mapping[str, StoredFile]) -> None:
    """Replace the index of a claimed unit, if the claim still stands. Raises FencedError if not."""
    store, unit = _store(claimed.home), claimed.unit
    _check_alive(claimed.home, unit)
    try:
        _write(store, unit.name, _Index(files, None, claimed.owner, claimed.version))
    except ConflictError:
        raise _fenced(claimed, _read(store, unit.name)) from None


def _fenced(claimed: Claim, index: _Index) -> FencedError:
    since = "has claimed it since" if index.owner else "has replaced it since"
    return FencedError(f"{claimed.unit.name} is not replaced by {claimed.owner}: {index.written_by} {since}")


def _check_alive(home: Home, unit: Unit) -> None:
    check_locks(home)
    if home.is_alive is not None and not home.is_alive():
        raise FencedError(f"{unit.name} is not replaced by {home.run_id}: the run no longer counts as running")


def _read(store: Store, name: str) -> _Index:
    """The index of a unit; one without files where the store has none."""
    try:
        content, version = store.get(_index_key(name))
    except FileNotFoundError:
        return _Index({})
    raw = json.loads(content)
    files = {path: StoredFile(**stored) for path, stored in raw["files"].items()}
    return _Index(files, raw["owner"], raw["written_by"], version)


def _write(store: Store, name: str, index: _Index) -> str:
    """Replace the index that has the given version; returns the new one. Raises ConflictError."""
    files = {path: stored._asdict() for path, stored in sorted(index.files.items())}
    # Without the token two contents could be equal, and an old version be valid again
    raw = {"owner": index.owner, "written_by": index.written_by, "token": uuid4().hex, "files": files}
    content = json.dumps(raw, indent=1).encode()
    if index.version is None:
        return store.put_if_absent(_index_key(name), content)
    return store.put_if_match(_index_key(name), content, index.version)


def _index_key(name: str) -> str:
    return f"{_INDEX}/{name}.json"


def _object(name: str, stored: StoredFile) -> str:
    """The key of a file's content; below `warehouse/objects` files are named as their keys are.

    Raises DamagedFileError where such a file holds something else.
    """
    if name.startswith(_PINNED):
        if not name.endswith(f"/{stored.sha256}"):
            raise DamagedFileError(f"{name} is damaged: its SHA-256 is {stored.sha256}")
        return f"{_OBJECTS}/{name.removeprefix(_PINNED)}"
    shown = "/".join(part.replace(".", "%2E", 1) if part.startswith(".") else part for part in name.split("/"))
    return f"{_OBJECTS}/{shown}/{stored.sha256}"


def _check_cache(home: Home) -> None:
    """Raise UnusableHomeError unless the home's folder is a cache of its store: a pull removes what others made."""
    made = ("layout.json", "landing", "segments", "cohort", "checkpoints", "warehouse")
    has_files = any((home.root / name).exists() for name in made)  # asked first: others may make the cache just now
    marker = home.root / _CACHE / "store"
    if marker.exists():
        if (cached := marker.read_text(encoding="utf-8")) != home.store:
            raise UnusableHomeError(f"{home.root} is a cache of {cached}, not of {home.store}")
        return
    if has_files:
        raise UnusableHomeError(f"{home.root} is a home of its own, not a cache: ACCELKD_STORE needs an empty one")
    marker.parent.mkdir(parents=True, exist_ok=True)
    part = marker.with_name(uuid4().hex)
    part.write_text(home.store or "", encoding="utf-8")
    part.replace(marker)


def _cache_lock(home: Home, unit: Unit) -> AbstractContextManager[None]:
    _check_cache(home)
    return file_lock(home.root / _CACHE / f"{unit.name}.lock")


def _present(home: Home, unit: Unit) -> dict[str, Path]:
    """The unit's files in the cache, by their paths below the home."""
    paths = {path for pattern in unit.patterns for path in home.root.glob(pattern) if path.is_file()}
    named = {home.relative(path): path for path in sorted(paths)}
    return {
        name: path
        for name, path in named.items()
        if name in unit.patterns or not any(part.startswith(".") for part in name.split("/"))
    }


class _Known(NamedTuple):
    """A file of the cache whose content is known, for as long as it looks the same."""

    sha256: str
    bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> _Known:
        status = path.stat()  # before its content: what is changed meanwhile looks different
        return cls(sha256 or sha256_file(path), status.st_size, status.st_mtime_ns, status.st_ino)

    @property
    def stored(self) -> StoredFile:
        return StoredFile(self.sha256, self.bytes)


def _look(path: Path, known: _Known | None) -> _Known:
    """What a file of the cache holds; it is read only if it does not look as it did when it was known."""
    if known is not None and known == _Known.of(path, known.sha256):
        return known
    return _Known.of(path)


def _known(home: Home, unit: Unit) -> dict[str, _Known]:
    record = home.root / _CACHE / f"{unit.name}.json"
    if not record.exists():
        return {}
    files = json.loads(record.read_text(encoding="utf-8"))["files"]
    return {name: _Known(*known) for name, known in files.items()}


def _remember(home: Home, unit: Unit, files: Mapping[str, _Known]) -> None:
    record = home.root / _CACHE / f"{unit.name}.json"
    if not record.exists() or files != _known(home, unit):
        write_json(record, {"patterns": unit.patterns, "files": files})
