"""Code versions change with what code does, and with nothing else."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from accelkd.home.behaviour import behaviour, code_version

SOURCE = '''
"""A module."""

from dataclasses import dataclass
from typing import ClassVar

LIMIT: int = 3  # a comment


@dataclass
class Point:
    """A point."""

    x: float
    y: float = 0.0

    def norm(self, scale: float = 1.0) -> float:
        """Its length."""
        squares: list[float] = [self.x**2, self.y**2]
        length: float
        length = sum(squares) ** 0.5 * scale
        return length  # in metres


async def text(point: Point) -> str:
    """As text."""
    return f"{point.x:.2f} and {point.y!r}" f" of {LIMIT}"
'''
GOLDEN = "6a4b1a75e5cc5369"


def reworded(*changes: tuple[str, str]) -> str:
    text = SOURCE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "changes",
    [
        [("# a comment", "# another one")],
        [('"""A module."""', '"""What this is about."""')],
        [('"""A module."""\n', "")],
        [('        """Its length."""\n', "")],
        [("LIMIT: int = 3", "LIMIT = 3")],
        [("scale: float = 1.0) -> float", "scale=1.0)")],
        [("squares: list[float] =", "squares =")],
        [("        length: float\n", "")],
        [("x: float", "x: int | float")],
        [("return length", "return (length)"), ("\n\n\n", "\n\n")],
    ],
)
def test_words_and_annotations_are_no_behaviour(changes: list[tuple[str, str]]) -> None:
    assert behaviour(reworded(*changes)) == behaviour(SOURCE)


@pytest.mark.parametrize(
    "changes",
    [
        [("LIMIT: int = 3", "LIMIT: int = 4")],
        [("    x: float\n", "")],  # a field less
        [("    x: float\n", "    x = 1.0\n")],  # no field any more
        [("x: float", "x: ClassVar[float]")],
        [("x: float", "z: float")],
        [("scale: float = 1.0", "scale: float = 2.0")],
        [("scale: float = 1.0", "*, scale: float = 1.0")],
        [("** 0.5", "** 0.25")],
        [(":.2f", ":.3f")],
        [("!r", "!s")],
        [("@dataclass\n", "")],
        [("async def", "def")],
    ],
)
def test_whatever_is_done_differently_shows(changes: list[tuple[str, str]]) -> None:
    assert behaviour(reworded(*changes)) != behaviour(SOURCE)


def test_a_string_that_is_no_docstring_counts() -> None:
    assert behaviour('x = 1\n"""words"""') != behaviour("x = 1")
    assert behaviour('def f():\n    """words"""') == behaviour('def f():\n    """other words"""')


def test_the_meaning_of_a_column_is_documentation() -> None:
    declared = 'Column("hr_bpm", float, meaning="Heart rate", unit="bpm")'
    assert behaviour(declared.replace("Heart rate", "Pulse rate")) == behaviour(declared)
    assert behaviour(declared.replace("hr_bpm", "pr_bpm")) != behaviour(declared)
    assert behaviour(declared.replace('"bpm"', '"Hz"')) != behaviour(declared)


def test_every_release_of_python_gives_the_same_version() -> None:
    """Written down with Python 3.11; a machine with another release computes the same."""
    digest = hashlib.sha256(behaviour(SOURCE).encode()).hexdigest()
    assert digest[:16] == GOLDEN


def test_modules_and_packages_have_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "reworded_package"
    (package / "inner").mkdir(parents=True)
    for name, text in {"__init__": "", "one": "x = 1  # one", "two": "y = 2", "inner/__init__": "z = 3"}.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "reworded_package", raising=False)

    def version(*names: str, exclude: tuple[str, ...] = ()) -> str:
        code_version.cache_clear()
        return code_version(*names, exclude=exclude)

    before = version("reworded_package")
    (package / "one.py").write_text('"""Now with words."""\nx: int = 1', encoding="utf-8")
    (package / "inner" / "__init__.py").write_text("z = 4", encoding="utf-8")
    assert version("reworded_package") == before
    without_two = version("reworded_package", exclude=("reworded_package.two",))
    (package / "two.py").write_text("y = 3", encoding="utf-8")
    assert version("reworded_package") != before
    assert version("reworded_package", exclude=("reworded_package.two",)) == without_two
    assert version("reworded_package.one") != version("reworded_package.two")
    with pytest.raises(ModuleNotFoundError, match=r"reworded_package\.three"):
        version("reworded_package.three")
