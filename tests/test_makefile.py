"""What `make` says on a machine that lacks something: one line for each, before anything is made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import REPOSITORY

TOOLS = ("sh", "make", "cp", "cut", "expand", "find", "grep", "head", "mkdir", "nproc", "sed", "sort", "touch")
NEW_PYTHON = f'exec "{sys.executable}" "$@"'
OLD_PYTHON = "exit 1"  # as one that finds its version too low
# Takes the place of `uv`, and of the one that it would install: says what it was asked for
UV = 'echo "uv $*"; mkdir -p .venv/bin; cp "$0" .venv/bin/uv; touch .venv/bin/python'

Make = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make` in a copy of what it reads, on a machine that has nothing but the given programs and shell's own tools."""
    checkout, path = tmp_path / "checkout", tmp_path / "bin"
    for name in ("Makefile", ".ci/check", "pyproject.toml", "constraints.txt", "dagster.yaml", "rust_dsp/Cargo.toml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, checkout / name)
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(str(shutil.which(tool)))

    def run(*arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
        for name, script in programs.items():
            program = path / name.replace("_", ".")
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        return subprocess.run(
            ["make", "--silent", *arguments],
            cwd=checkout,
            env={"PATH": str(path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


RUST = {"cargo": "exit 0", "rustc": "echo 'rustc 99.0.0 (0123abc 2099-01-01)'", "cc": "exit 0"}


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def test_the_first_python_that_is_new_enough_is_taken(make: Make) -> None:
    done = make("check", **RUST, python3=OLD_PYTHON, python3_12=NEW_PYTHON, uv=UV)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "python3.12", "")


def test_the_named_python_is_taken(make: Make) -> None:
    done = make("check", f"BASE_PYTHON={sys.executable}", **RUST, python3=NEW_PYTHON)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)


def test_a_named_python_that_is_too_old_is_not_replaced(make: Make) -> None:
    done = make("check", "BASE_PYTHON=python3", **RUST, python3=OLD_PYTHON, python3_12=NEW_PYTHON)
    assert done.returncode != 0
    (python,) = complaints(done)
    assert re.fullmatch(r"accelkd needs Python 3\.11 or newer .*BASE_PYTHON=python3: unset BASE_PYTHON .*", python)


def test_everything_missing_is_said_at_once_and_nothing_is_made(make: Make, tmp_path: Path) -> None:
    done = make("setup", python3=OLD_PYTHON)
    assert done.returncode != 0
    rust, compiler, python = complaints(done)
    assert re.fullmatch(r"accelkd needs Rust \d.* or newer: curl .*rustup.*", rust)
    assert re.fullmatch(r"accelkd needs a C compiler, .*: sudo apt-get install build-essential", compiler)
    assert re.fullmatch(r"accelkd needs Python 3\.11 .*, or uv, .*: curl .*uv/install.sh .*pip install uv.*", python)
    assert not (tmp_path / "checkout/.venv").exists()


def test_a_rust_that_is_too_old_is_named(make: Make) -> None:
    old = RUST | {"rustc": "echo 'rustc 1.9.0 (0123abc 2016-01-01)'"}  # 9 is less than any two digits
    done = make("check", **old, python3=NEW_PYTHON)
    assert done.returncode != 0
    assert [line.partition(", ")[2] for line in complaints(done)] == ["not 1.9.0: rustup update stable"]


def test_uv_fetches_a_python_where_there_is_none(make: Make) -> None:
    done = make("setup", **RUST, python3=OLD_PYTHON, uv=UV)
    assert done.returncode == 0, done.stderr
    fetched, itself, packages = (line for line in done.stdout.splitlines() if line.startswith("uv "))
    assert re.fullmatch(r"uv venv .*--python >=3\.11,<3\.\d+ \.venv", fetched)
    assert re.fullmatch(r"uv pip install .*--python \.venv/bin/python uv==[\d.]+", itself)
    assert re.fullmatch(r"uv pip install .*--constraints constraints\.txt .*\./rust_dsp --editable \.\[.*\]", packages)


def test_the_environment_that_is_there_needs_no_other_python(make: Make, tmp_path: Path) -> None:
    make("setup", **RUST, uv=UV)
    (tmp_path / "bin/uv").unlink()
    (tmp_path / "checkout/.venv/.ready").unlink()
    done = make("setup", **RUST)
    assert done.returncode == 0, done.stderr


def test_help_lists_every_target(make: Make) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    assert [line.split()[0] for line in make("help").stdout.splitlines()] == targets[1].split()
