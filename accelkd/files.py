"""Writing and identifying files: atomic replacement and content hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target` in one rename.

    A killed or failing writer leaves the old (or nothing), never half of the new. `target` is a file or a folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    part = scratch / target.name
    try:
        yield part
        if part.is_dir():
            for file in sorted(part.rglob("*")):
                if file.is_file():
                    _flush(file)
            if target.exists():
                target.rename(scratch / "replaced")
            part.rename(target)
        else:
            _flush(part)
            part.replace(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    """Force a file or a folder's entries to the disk, so that the rename never outruns the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Replace `target` by `text` (UTF-8) atomically."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Replace `target` by `value` as indented JSON with sorted keys: equal values give equal bytes."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_version(package: str) -> str:
    """A package's name and the hash of its modules' source text, such as `accelkd.segments@0123456789ab`."""
    digest = hashlib.sha256()
    for source in sorted(files(package).iterdir(), key=lambda source: source.name):
        if source.name.endswith(".py"):
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{package}@{digest.hexdigest()[:12]}"


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`: the identity of a configuration."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
