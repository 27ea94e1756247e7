"""Writing and identifying files: atomic replacement and content hashes."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from accelkd.home.locks import folder_lock

_SCRATCH = ".scratch"  # suffix of a folder that is being written
_CHECKSUM_SUFFIX = ".sha256"
_NO_LINK, _NO_WAITING, _BINARY = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class DamagedFileError(ValueError):
    """A file that is missing, or whose content is not what was written."""


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A hidden folder in the folder of `target`, deleted when the block ends.

    It is locked meanwhile, so that `sweep` recognises one that a killed process left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SCRATCH, dir=target.parent))
    with folder_lock(scratch):
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def sweep(root: Path) -> list[Path]:
    """Remove the scratch folders that killed processes left below `root`; returns their paths. No link is followed."""
    removed, folders = [], [root]
    while folders:  # not by recursion: what is delivered may be nested as deeply as the file system allows
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                if not entry.is_dir(follow_symlinks=False):
                    continue
                if not (entry.name.startswith(".") and entry.name.endswith(_SCRATCH)):
                    folders.append(path)
                    continue
                # Missing: its writer has just finished
                expected = suppress(BlockingIOError, FileNotFoundError, RecursionError)
                with expected, folder_lock(path, busy="it is being written"):
                    shutil.rmtree(path, ignore_errors=True)
                    removed.append(path)
    return sorted(removed)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; on success it replaces `target` in one rename.

    A killed or failing writer leaves the old (or nothing), never a part of the new. `target` is a file or a folder.
    """
    with scratch_folder(target) as scratch:
        part = scratch / target.name
        yield part
        flush(part)
        if part.is_dir():
            if target.exists():
                target.rename(scratch / "replaced")
            part.rename(target)
        else:
            part.replace(target)
        _flush(target.parent)


def flush(path: Path) -> None:
    """Force a file, or a folder with its contents, to the disk."""
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _flush(entry)


def _flush(path: Path) -> None:
    """Force a file or a folder's entries to the disk, so that the content is there before the rename."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and writes their entries by itself
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_below(root: Path, name: str) -> io.BufferedReader:
    """Open a regular file for reading by its name relative to `root`, following no link below it, waiting for no pipe.

    Raises OSError, with ELOOP or ENOTDIR where a link is on the way, ENXIO for what is no regular file, and EINVAL for
    a name that is no path below `root`.
    """
    with _parent_below(root, name) as (parent, path):
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAITING | _BINARY, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "not a regular file", name)
    return os.fdopen(descriptor, "rb")


def replace_below(root: Path, name: str, content: bytes) -> None:
    """Replace a file atomically by its name relative to `root`, following no link below it. Raises as `open_below`."""
    with _parent_below(root, name) as (parent, path), scratch_folder(root / name.split("/")[0]) as scratch:
        part = scratch / "part"
        with part.open("xb") as file:
            file.write(content)
        flush(part)
        os.replace(part, path, dst_dir_fd=parent)
        if parent is not None:
            os.fsync(parent)


@contextmanager
def _parent_below(root: Path, name: str) -> Iterator[tuple[int | None, str | Path]]:
    """The open folder of a file below `root`, and the file's name in it; on Windows None and the file's path.

    Each folder on the way is opened from the one before it, so no link can be put in its place meanwhile.
    """
    *folders, last = name.split("/")
    if {"", ".", ".."} & {*folders, last} or "\0" in name:
        raise OSError(errno.EINVAL, "not a path below the folder", name)
    if os.open not in os.supports_dir_fd:
        paths = [root.joinpath(*folders[:depth]) for depth in range(1, len(folders) + 1)]
        if any(path.is_symlink() for path in (*paths, root / name)):
            raise OSError(errno.ELOOP, "a symbolic link", name)
        yield None, root / name
        return
    with ExitStack() as opened:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, parent)
        for folder in folders:
            parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=parent)
            opened.callback(os.close, parent)
        yield parent, last


def write_text(target: Path, text: str) -> None:
    """Replace `target` by `text` (UTF-8) atomically."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Replace `target` by `value` as indented JSON with sorted keys: equal values give equal bytes."""
    write_text(target, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is only ever replaced a second name. Raises FileNotFoundError."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links; where there is no file, this says so
        shutil.copyfile(source, target)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksum(path: Path) -> None:
    """Write a file's hash to a checksum file next to it, in the format of `sha256sum --check`."""
    write_text(path.with_name(path.name + _CHECKSUM_SUFFIX), f"{sha256_file(path)}  {path.name}\n")


def recorded_checksum(path: Path) -> str:
    """Hex SHA-256 in a file's checksum file. Raises FileNotFoundError if there is none."""
    return path.with_name(path.name + _CHECKSUM_SUFFIX).read_text(encoding="utf-8")[:64]


def verify_checksum(path: Path) -> str:
    """Hex SHA-256 of a file, compared with its checksum. Raises DamagedFileError if they differ or one is missing."""
    try:
        actual = sha256_file(path)
        expected = path.with_name(path.name + _CHECKSUM_SUFFIX).read_text(encoding="utf-8")[:64]
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path}: the file or its checksum is missing: {error}") from None
    if actual != expected:
        raise DamagedFileError(f"{path} is damaged: its SHA-256 is {actual}, expected {expected}")
    return actual


def remove_with_checksum(path: Path) -> bool:
    """Remove a file and its checksum; returns whether one of them was there."""
    existing = [entry for entry in (path, path.with_name(path.name + _CHECKSUM_SUFFIX)) if entry.exists()]
    for entry in existing:
        entry.unlink(missing_ok=True)
    return bool(existing)


def move_with_checksum(path: Path, target: Path) -> None:
    """Replace `target` and its checksum by the finished file at `path` and its checksum, on the same disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", _CHECKSUM_SUFFIX):
        path.with_name(path.name + suffix).replace(target.with_name(target.name + suffix))
    _flush(target.parent)


def is_intact(path: Path) -> bool:
    """Whether a file exists and matches its checksum."""
    try:
        verify_checksum(path)
    except DamagedFileError:
        return False
    return True


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`: the identity of a configuration."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
