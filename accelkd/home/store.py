"""Where the files of a home lie when several machines work on it: a folder that all of them mount, or a bucket.

`open_store("file:///shared/accelkd")` or `open_store("s3://bucket/prefix")`. Credentials, region and endpoint of a
bucket come from the standard variables (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
or the machine's role); they are in no text that a store makes. Both kinds do the same (class `Store`):

- Small content that changes is replaced on condition: `put_if_absent`, or `put_if_match` with the version that was
  read. Of two writers one gets ConflictError. The content must differ from everything that was ever under the key, by
  a unique token in it: a version is then never seen twice, and a writer whose answer the network lost recognises its
  own content.
- Files never change: `upload` puts one under a key that names its content, `fetch` brings it back, and both compare its
  SHA-256.

A network that fails, or a server that is started again, is waited for up to `PATIENCE_S` seconds.
How steps use it: `accelkd.home.units`.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from accelkd.home.files import DamagedFileError, atomic_path
from accelkd.home.locks import file_lock

if TYPE_CHECKING:
    from obstore.store import S3Store

PATIENCE_S = 60.0  # without any progress, before a failing network or server becomes an error
_PART_BYTES = 16 * 2**20  # of larger files; S3 allows 10,000 parts, so files up to 160 GB
_CHUNK_BYTES = 2**20
# Answers that are the same the next time; 408, 409 and 429 are not
_REFUSED = re.compile(r"non-2xx status code: 4(?!08|09|29)\d\d")
_FORBIDDEN = "non-2xx status code: 403"
_URL = re.compile(r"https?://\S+")
_HIDDEN = "."  # begins no part of a key: locks and files that are being written are hidden
_T = TypeVar("_T")


class ConflictError(RuntimeError):
    """Another writer was first: the key exists already, or its content is not the one that was read."""


class Entry(NamedTuple):
    """One object of a store."""

    key: str
    bytes: int
    modified: float  # seconds since 1970, by the clock of the store


class Store(Protocol):
    """Objects by their keys, which are relative paths with slashes. No part of a key begins with a dot.

    All methods raise ValueError for another key, PermissionError where the store refuses, and ConnectionError if it
    cannot be reached for PATIENCE_S seconds.
    """

    @property
    def address(self) -> str:
        """What `open_store` was given."""

    def get(self, key: str) -> tuple[bytes, str]:
        """Content and version. Raises FileNotFoundError."""

    def put_if_absent(self, key: str, content: bytes) -> str:
        """Make an object; returns its version. Raises ConflictError if there is one."""

    def put_if_match(self, key: str, content: bytes, version: str) -> str:
        """Replace an object of the given version; returns the new one. Raises ConflictError if it has another."""

    def upload(self, key: str, path: Path, sha256: str) -> None:
        """Put a file under a key that its content determines; does nothing if it is there, by its size.

        Raises DamagedFileError, and puts nothing, if the file's hash is not `sha256`.
        """

    def fetch(self, key: str, path: Path, sha256: str) -> None:
        """Replace the file at `path` by an object in one rename.

        Raises FileNotFoundError, or DamagedFileError if the object's hash is not `sha256`, and leaves the file alone.
        """

    def list(self, prefix: str = "") -> list[Entry]:
        """All objects below a prefix, which is a key's whole parts, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""


@cache
def open_store(address: str) -> Store:
    """The store of an address, without asking it for anything. Raises ValueError for no address of a store.

    One of a bucket has threads from its first request on: a process that is forked after that must not use it.
    """
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("the address of a store holds no credentials or options: set AWS_ACCESS_KEY_ID and the like")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return BucketStore(parts.netloc, parts.path.strip("/"))
    raise ValueError(f"{address!r} is no address of a store: file:///folder or s3://bucket/prefix")


class FolderStore:
    """A store in a folder, which several machines may mount if its file system knows `flock` for all of them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return self.root.as_uri()

    def get(self, key: str) -> tuple[bytes, str]:
        content = self._path(key).read_bytes()
        return content, hashlib.sha256(content).hexdigest()

    def put_if_absent(self, key: str, content: bytes) -> str:
        return self._put(key, content, None)

    def put_if_match(self, key: str, content: bytes, version: str) -> str:
        return self._put(key, content, version)

    def _put(self, key: str, content: bytes, expected: str | None) -> str:
        path = self._path(key)
        with file_lock(self.root / ".lock"):
            version = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
            if version != expected:
                raise _conflict(self, key, expected)
            with atomic_path(path) as part:
                part.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def upload(self, key: str, path: Path, sha256: str) -> None:
        target = self._path(key)
        if not (target.exists() and target.stat().st_size == path.stat().st_size):
            _copy(path, target, sha256)

    def fetch(self, key: str, path: Path, sha256: str) -> None:
        _copy(self._path(key), path, sha256)

    def list(self, prefix: str = "") -> list[Entry]:
        entries = []
        for folder, folders, names in os.walk(self._path(prefix) if prefix else self.root):
            folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
            for path in (Path(folder) / name for name in names if not name.startswith(_HIDDEN)):
                try:
                    status = path.stat()
                except FileNotFoundError:  # deleted meanwhile
                    continue
                entries.append(Entry(path.relative_to(self.root).as_posix(), status.st_size, status.st_mtime))
        return sorted(entries)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / _checked(key)


class BucketStore:
    """A store in an S3 bucket, or one of a compatible server that honours If-Match and If-None-Match."""

    def __init__(self, bucket: str, prefix: str = "", *, patience_s: float = PATIENCE_S) -> None:
        self.bucket, self.prefix, self.patience_s = bucket, prefix, patience_s
        # Answers that a library repeats by itself hide whether a request may have arrived
        self._bucket = _s3_store(bucket, prefix, retries=0, patience_s=patience_s)
        self._bucket_of_parts = _s3_store(bucket, prefix, retries=10, patience_s=patience_s)

    def __repr__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def get(self, key: str) -> tuple[bytes, str]:
        return self._patiently("read", key, lambda: self._get(_checked(key)))

    def _get(self, key: str) -> tuple[bytes, str]:
        result = self._bucket.get(key)
        return bytes(result.bytes()), str(result.meta["e_tag"])

    def put_if_absent(self, key: str, content: bytes) -> str:
        return self._put(key, content, None)

    def put_if_match(self, key: str, content: bytes, version: str) -> str:
        return self._put(key, content, version)

    def _put(self, key: str, content: bytes, expected: str | None) -> str:
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        _checked(key)
        answer_lost = False

        def put() -> str:
            nonlocal answer_lost
            try:
                mode = "create" if expected is None else {"e_tag": expected}
                return str(self._bucket.put(key, content, mode=mode)["e_tag"])  # type: ignore[arg-type]  # is a mode
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                pass
            except BaseError:
                answer_lost = True
                raise
            try:
                present, version = self._get(key)
            except FileNotFoundError:
                present, version = b"", None
            if answer_lost and present == content:
                return str(version)
            if version == expected:  # refused because of a request at the same moment that did not succeed either
                raise _AgainError("refused, although nobody has changed it")
            raise _conflict(self, key, expected)

        return self._patiently("write", key, put)

    def upload(self, key: str, path: Path, sha256: str) -> None:
        size = path.stat().st_size

        def put() -> None:
            try:
                if self._bucket.head(_checked(key))["size"] == size:
                    return
            except FileNotFoundError:
                pass
            # Whoever puts the same key puts the same bytes: nothing is lost if this one is there by now
            self._bucket_of_parts.put(
                key, _read(path, sha256), use_multipart=size > _PART_BYTES, chunk_size=_PART_BYTES, max_concurrency=4
            )

        self._patiently("write", key, put)

    def fetch(self, key: str, path: Path, sha256: str) -> None:
        _checked(key)
        with atomic_path(path) as part, part.open("wb") as file:
            digest = hashlib.sha256()
            size: int | None = None

            def receive() -> None:  # what has come before a failure stays
                nonlocal size
                if size is not None and file.tell() >= size:
                    return
                result = self._bucket.get(key, options={"range": {"offset": file.tell()}} if file.tell() else None)
                size = result.meta["size"]
                for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)

            self._patiently("read", key, receive, progress=file.tell)
            _compare(f"{self}/{key}", digest.hexdigest(), sha256)

    def list(self, prefix: str = "") -> list[Entry]:
        def entries() -> list[Entry]:
            chunks = self._bucket.list(_checked(prefix) if prefix else None, chunk_size=1000)
            return sorted(
                Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())
                for chunk in chunks
                for meta in chunk
            )

        return self._patiently("list", prefix, entries)

    def delete(self, key: str) -> None:
        def delete() -> None:
            with suppress(FileNotFoundError):
                self._bucket.delete(_checked(key))

        self._patiently("delete", key, delete)

    def _patiently(self, doing: str, key: str, action: Callable[[], _T], progress: Callable[[], int] = lambda: 0) -> _T:
        """What `action` returns, repeated while the network or the server fails, until there is no progress."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        delay_s, reached, deadline = 0.1, progress(), time.monotonic() + self.patience_s
        while True:
            try:
                return action()
            except (FileNotFoundError, BaseError, _AgainError) as error:
                said = str(error)
                if "NoSuchBucket" in said:
                    raise ConnectionError(f"there is no bucket {self.bucket}") from None
                if isinstance(error, FileNotFoundError):
                    raise FileNotFoundError(f"{self}/{key}") from None
                if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _FORBIDDEN in said:
                    raise PermissionError(
                        f"{self} refuses to {doing} {key}: look at its rules and the credentials"
                    ) from None
                if progress() != reached:
                    delay_s, reached, deadline = 0.1, progress(), time.monotonic() + self.patience_s
                if time.monotonic() + delay_s > deadline or _REFUSED.search(said):
                    reason = _URL.sub("the server", said.partition("\n")[0])  # what follows repeats it at length
                    raise ConnectionError(f"could not {doing} {self}/{key}: {reason}") from None
            time.sleep(delay_s * random.uniform(0.5, 1))  # not all nodes at the same moments
            delay_s = min(2 * delay_s, 5)


class _AgainError(Exception):
    """An answer that may be another one the next time."""


def _s3_store(bucket: str, prefix: str, *, retries: int, patience_s: float) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise ImportError(f"a store in a bucket needs the extra `cluster`: {error}") from None
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=20),
            "timeout": timedelta(minutes=10),
        },
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=patience_s)},
    )


def _checked(key: str) -> str:
    if any(not part or part.startswith(_HIDDEN) or "\\" in part or "\0" in part for part in key.split("/")):
        raise ValueError(f"{key!r} is no key of a store: parts between slashes, none of which begins with a dot")
    return key


def _conflict(store: Store, key: str, expected: str | None) -> ConflictError:
    if expected is None:
        return ConflictError(f"{store.address}/{key} exists already")
    return ConflictError(f"{store.address}/{key} has been changed since it was read")


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Replace `target` by a copy of `source` in one rename, if its hash is the expected one."""
    if not source.is_file():
        raise FileNotFoundError(source)
    with atomic_path(target) as part, part.open("wb") as file:
        file.writelines(_read(source, sha256))


def _read(path: Path, sha256: str) -> Iterator[bytes]:
    """The content of a file; instead of the end, raises DamagedFileError where its hash is another."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            yield chunk
    _compare(str(path), digest.hexdigest(), sha256)


def _compare(name: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise DamagedFileError(f"{name} is damaged: its SHA-256 is {actual}, expected {expected}")
