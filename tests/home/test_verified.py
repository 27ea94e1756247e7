"""The record of what was verified: it spares reading a file again, and never vouches for other bytes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from accelkd.home import files, verified
from accelkd.home.files import DamagedFileError, atomic_path, move_with_checksum, write_checksum
from accelkd.home.layout import Home
from accelkd.home.verified import MAX_AGE_S, verified_once


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, from now on; files count as settled at once."""
    names: list[str] = []
    read = files.sha256_file

    def counting(path: Path) -> str:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(files, "sha256_file", counting)
    monkeypatch.setattr(verified, "SETTLED_S", 0.0)
    return names


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    for name in ("a", "b"):
        write(home, name, f"content of {name}")
    time.sleep(0.02)  # more than a step of the file system's clock
    return home


def write(home: Home, name: str, text: str) -> Path:
    path = home.segments(name)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")
    write_checksum(path)
    return path


def check(home: Home, *names: str) -> list[str]:
    with verified_once(home) as verify:
        return [verify(home.segments(name)) for name in names]


def test_a_file_is_read_once_and_then_vouched_for(home: Home, hashed: list[str]) -> None:
    first = check(home, "a", "b")
    assert hashed == ["a.arrow", "b.arrow"]
    assert check(home, "b", "a") == first[::-1]
    (record,) = (home.root / ".verified").glob("*.json")
    written = record.stat().st_mtime_ns
    assert check(home, "a") == first[:1]
    assert check(home, "b") == first[1:]  # what was not asked for the last time stays recorded
    assert hashed == ["a.arrow", "b.arrow"]
    assert record.stat().st_mtime_ns == written


def in_place(path: Path) -> None:
    """Other bytes of the same length in the same file, and its time of modification set back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"C")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file of the same name, length and times."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"C" + path.read_bytes()[1:])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def other_checksum(path: Path) -> None:
    checksum = path.with_name(path.name + ".sha256")
    checksum.write_text("0" * 64 + checksum.read_text(encoding="utf-8")[64:], encoding="utf-8")


def no_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def cut(path: Path) -> None:
    os.truncate(path, 3)


@pytest.mark.parametrize("damage", [in_place, replaced, other_checksum, no_checksum, cut, Path.unlink])
def test_damage_is_noticed_although_the_file_was_vouched_for(
    home: Home, hashed: list[str], damage: Callable[[Path], None]
) -> None:
    check(home, "a", "b")
    damage(home.segments("a"))
    for _ in range(2):  # and nothing wrong is recorded
        with pytest.raises(DamagedFileError, match=r"a\.arrow"):
            check(home, "b", "a")
    assert hashed.count("b.arrow") == 1


def test_a_rebuilt_or_moved_file_is_read_again(home: Home, hashed: list[str]) -> None:
    first = check(home, "a", "b")
    write(home, "a", "rebuilt")
    assert check(home, "a") != first[:1]
    move_with_checksum(home.segments("b"), home.segments("a"))
    assert check(home, "a") == first[1:]
    assert hashed == ["a.arrow", "b.arrow", *["a.arrow"] * 3]  # the first of them to write its checksum


def test_a_file_that_was_written_just_now_is_read_again(
    home: Home, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change within the same step of the file system's clock would not show in its times."""
    monkeypatch.setattr(verified, "SETTLED_S", 60.0)
    assert check(home, "a") == check(home, "a")
    assert hashed == ["a.arrow"] * 2


@pytest.mark.parametrize("later_s", [MAX_AGE_S + 1, -MAX_AGE_S])
def test_a_record_vouches_for_a_day_and_not_where_the_clock_was_set_back(
    home: Home, hashed: list[str], monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    check(home, "a")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + MAX_AGE_S / 2)
    check(home, "a")
    assert hashed == ["a.arrow"]
    monkeypatch.setattr(time, "time", lambda: now() + later_s)
    check(home, "a")
    assert hashed == ["a.arrow"] * 2


def test_another_boot_of_the_machine_verifies_again(
    home: Home, hashed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for boot in ("first", "second", "first"):
        (tmp_path / "boot").write_text(boot, encoding="ascii")
        monkeypatch.setattr(verified, "_BOOT", tmp_path / "boot")
        check(home, "a")
    assert hashed == ["a.arrow"] * 2
    old = home.root / ".verified" / "first.json"
    os.utime(old, (0, 0))
    (tmp_path / "boot").write_text("second", encoding="ascii")
    check(home, "a")
    assert sorted(path.name for path in old.parent.iterdir()) == ["second.json", "second.lock"]


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"segments/a.arrow": 1}', '{"segments/a.arrow": {"sha256": ""}}']
)
def test_a_damaged_record_vouches_for_nothing(home: Home, hashed: list[str], content: str) -> None:
    expected = check(home, "a")
    (record,) = (home.root / ".verified").glob("*.json")
    assert json.loads(record.read_text(encoding="utf-8")).keys() == {"segments/a.arrow"}
    record.write_text(content, encoding="utf-8")
    assert check(home, "a") == expected
    assert hashed == ["a.arrow"] * 2
    assert check(home, "a") == expected
    assert hashed == ["a.arrow"] * 2


def test_of_several_that_begin_together_one_reads(home: Home, hashed: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:  # each opens the lock by itself, as processes do
        results = list(pool.map(lambda _: check(home, "a", "b"), range(4)))
    assert results == results[:1] * 4
    assert sorted(hashed) == ["a.arrow", "b.arrow"]
