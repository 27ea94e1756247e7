"""What turns up in a landing zone and is no batch, one entry of each kind, made with real files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from accelkd.recordings.batches import MANIFEST

GOOD = "good"  # the batch that the others are copies of
PART = "recordings/part-00000.parquet"


@dataclass(frozen=True)
class Kind:
    """One kind of odd entry."""

    shown: str  # the name that it is reported under
    problem: str  # a part of what is reported
    make: Callable[[Path], object]  # in a landing zone with the batch GOOD
    is_batch: bool = True  # a folder with a name that a batch may have


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Fail in the block after so many seconds, also where it waits for a FIFO, instead of waiting for ever."""

    def give_up(_signum: int, _frame: FrameType | None) -> None:
        pytest.fail(f"longer than {seconds} s")  # no Exception, which the block might take for its own

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def copied(landing: Path, name: str, **changes: Any) -> Path:
    """A copy of the good batch under another name, with changes to its manifest."""
    folder = Path(shutil.copytree(landing / GOOD, landing / name))
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, "batch_id": name, **changes}), encoding="utf-8")
    return folder


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _name_not_utf8(landing: Path) -> None:
    shutil.copytree(landing / GOOD, os.fsdecode(os.fsencode(landing / "caf") + b"\xe9"))


def _file_name_not_utf8(landing: Path) -> None:
    folder = copied(landing, "odd-file")
    Path(os.fsdecode(os.fsencode(folder / "caf") + b"\xe9")).symlink_to("nowhere")


def _socket(landing: Path) -> None:
    folder = copied(landing, "socket")
    before = Path.cwd()
    os.chdir(folder)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("s")
    finally:
        os.chdir(before)


def _path_of_10_kb(landing: Path) -> None:
    folder = copied(landing, "long-path")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for _ in range(40):  # longer than the kernel takes as one path
            Path("d" * 250).mkdir()
            os.chdir("d" * 250)
    finally:
        os.chdir(before)


def _large_manifest(landing: Path) -> None:
    with (copied(landing, "large-manifest") / MANIFEST).open("r+b") as file:
        file.truncate(200 * 2**20)  # sparse: takes no room


def _listed(landing: Path, name: str, **changes: Any) -> None:
    good = json.loads((landing / GOOD / MANIFEST).read_text(encoding="utf-8"))
    copied(landing, name, files=[good["files"][0] | changes])


KINDS = {
    "name-not-utf8": Kind(r"caf\xe9", "not an identifier", _name_not_utf8, False),
    "name-with-newline": Kind(r"a\nb", "not an identifier", lambda landing: (landing / "a\nb").mkdir(), False),
    "file-name-not-utf8": Kind("odd-file", r"caf\xe9: not_a_regular_file", _file_name_not_utf8),
    "stray-file": Kind("stray.zip", "a file, not the folder", lambda landing: (landing / "stray.zip").touch(), False),
    "dangling-link": Kind(
        "dangling", "a symbolic link", lambda landing: (landing / "dangling").symlink_to("nowhere"), False
    ),
    "link-to-itself": Kind("loop", "a symbolic link", lambda landing: (landing / "loop").symlink_to("loop"), False),
    "link-to-a-batch": Kind("linked", "a symbolic link", lambda landing: (landing / "linked").symlink_to(GOOD), False),
    "fifo": Kind("fifo", "a FIFO", lambda landing: os.mkfifo(landing / "fifo"), False),
    "fifo-as-manifest": Kind(
        "fifo-as-manifest",
        "manifest.json: not_a_regular_file: a FIFO",
        lambda landing: _instead(copied(landing, "fifo-as-manifest") / MANIFEST, os.mkfifo),
    ),
    "fifo-as-recordings": Kind(
        "fifo-as-recordings",
        "part-00000.parquet: not_a_regular_file: a FIFO",
        lambda landing: _instead(copied(landing, "fifo-as-recordings") / PART, os.mkfifo),
    ),
    "link-as-recordings": Kind(
        "link-as-recordings",
        "part-00000.parquet: not_a_regular_file: a symbolic link",
        lambda landing: _instead(
            copied(landing, "link-as-recordings") / PART, lambda path: path.symlink_to(landing / GOOD / PART)
        ),
    ),
    "link-as-manifest": Kind(
        "link-as-manifest",
        "manifest.json: not_a_regular_file: a symbolic link",
        lambda landing: _instead(
            copied(landing, "link-as-manifest") / MANIFEST, lambda path: path.symlink_to(landing / GOOD / MANIFEST)
        ),
    ),
    "folder-as-manifest": Kind(
        "folder-as-manifest",
        "manifest.json: not a regular file",
        lambda landing: _instead(copied(landing, "folder-as-manifest") / MANIFEST, Path.mkdir),
    ),
    "socket": Kind("socket", "s: not_a_regular_file: a socket", _socket),
    "path-of-10-kB": Kind("long-path", "too_deep", _path_of_10_kb),
    "nested-manifest": Kind(
        "nested",
        "cannot be read",
        lambda landing: (copied(landing, "nested") / MANIFEST).write_text("[" * 1_000_000),
    ),
    "large-manifest": Kind("large-manifest", "cannot be read", _large_manifest),
    "manifest-without-text": Kind(
        "not-json", "cannot be read", lambda landing: (copied(landing, "not-json") / MANIFEST).write_bytes(b"\xff\xfe")
    ),
    "listed-path-of-10-kB": Kind(
        "listed-path", "part", lambda landing: _listed(landing, "listed-path", path="part/" * 2_000)
    ),
    "listed-path-is-a-number": Kind("number", "cannot be read", lambda landing: _listed(landing, "number", path=7)),
    "listed-rows-are-text": Kind("rows", "cannot be read", lambda landing: _listed(landing, "rows", rows="many")),
    "devices-are-a-number": Kind("devices", "cannot be read", lambda landing: copied(landing, "devices", devices=7)),
    "replaces-itself": Kind("itself", "replaces itself", lambda landing: copied(landing, "itself", replaces="itself")),
    "replaces-what-never-was": Kind(
        "corrects",
        "batch 'never', which has never landed",
        lambda landing: copied(landing, "corrects", replaces="never"),
    ),
}
