"""Files below a folder that others write to: nothing is read or written through a link, and nothing waited for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from accelkd.home.files import open_below, replace_below, sweep

Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with `a/b/file`, and `outside/file` beside it."""
    for folder in ("root/a/b", "outside"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_bytes(folder.encode())
    return tmp_path / "root"


@pytest.fixture(params=["by descriptors", "by paths"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the calls that open a file relative to an open folder, which Windows lacks."""
    if request.param == "by paths":
        monkeypatch.setattr(os, "supports_dir_fd", set())


def link_the_file(root: Path) -> None:
    (root / "a/b/file").unlink()
    (root / "a/b/file").symlink_to(root.parent / "outside/file")


def link_a_folder(root: Path) -> None:
    (root / "a/b").rename(root / "a/moved")
    (root / "a/b").symlink_to(root.parent / "outside")


def link_the_first_folder(root: Path) -> None:
    (root.parent / "outside/b").mkdir()
    (root.parent / "outside/b/file").write_bytes(b"outside")
    (root / "a").rename(root / "moved")
    (root / "a").symlink_to(root.parent / "outside")


@pytest.mark.usefixtures("system")
def test_a_file_is_read_and_replaced(root: Path) -> None:
    replace_below(root, "a/b/file", b"new")
    with open_below(root, "a/b/file") as file:
        assert file.read() == b"new"
    assert sorted(path.name for path in root.rglob("*")) == ["a", "b", "file"]
    with pytest.raises(FileNotFoundError):
        open_below(root, "a/b/none")
    (root.parent / "link").symlink_to(root)
    with open_below(root.parent / "link", "a/b/file") as file:  # a home's own folder may be on another disk
        assert file.read() == b"new"


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("change", [link_a_folder, link_the_first_folder])
def test_no_folder_that_is_a_link_is_entered(root: Path, change: Change) -> None:
    change(root)
    outside = {path: path.read_bytes() for path in (root.parent / "outside").rglob("file")}
    with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
        open_below(root, "a/b/file")
    with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
        replace_below(root, "a/b/file", b"new")
    assert {path: path.read_bytes() for path in outside} == outside


def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(root: Path) -> None:
    link_the_file(root)
    with pytest.raises(OSError, match="symbolic link"):
        open_below(root, "a/b/file")
    replace_below(root, "a/b/file", b"new")
    assert (root / "a/b/file").read_bytes() == b"new"
    assert not (root / "a/b/file").is_symlink()
    assert (root.parent / "outside/file").read_bytes() == b"outside"


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fsync_late(descriptor: int) -> None:
        if (root / "a/b").is_dir() and not (root / "a/b").is_symlink():
            link_a_folder(root)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_late)
    replace_below(root, "a/b/file", b"new")
    assert (root / "a/moved/file").read_bytes() == b"new"  # the folder that was opened
    assert (root.parent / "outside/file").read_bytes() == b"outside"


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    "name", ["", "/", "/a/b/file", "..", "../outside/file", "a/../a/b/file", "a//b/file", "a/b/", "a\0"]
)
def test_a_name_that_is_no_path_below_is_refused(root: Path, name: str) -> None:
    for call in (lambda: open_below(root, name), lambda: replace_below(root, name, b"")):
        with pytest.raises(OSError, match="not a path below"):
            call()


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for name in ("pipe", "a/b"):
        with pytest.raises(OSError, match="not a regular file"):
            open_below(root, name)


def test_a_sweep_enters_folders_of_any_depth_and_no_link(root: Path) -> None:
    outside = root.parent / "outside/.x.scratch"
    outside.mkdir()
    (root / "a/linked").symlink_to(root.parent / "outside")
    (root / "a/.linked.scratch").symlink_to(outside)
    (root / "a/b/.killed.scratch").mkdir()
    folder = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert sweep(root) == [root / "a/b/.killed.scratch"]
    assert outside.is_dir()
    subprocess.run(["rm", "-r", str(root)], check=True)  # Python's own removal recurses
