"""A look at a folder that others write, bounded in files, depth and time: it follows no link and opens no file."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 110_000  # recordings/part-00000.parquet to part-99999.parquet, the tables beside them, and some to report
MAX_DEPTH = 4  # folders inside of each other; a batch has one, recordings/
MAX_NAME = 1024  # characters of a name that is shown: 255 bytes, each of them escaped

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


@dataclass(frozen=True)
class Problem:
    """Something in a folder that no batch has."""

    path: str  # relative to the folder, printable; '.' is the folder itself
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}: {self.detail}" if self.path != "." else f"{self.rule}: {self.detail}"


@dataclass(frozen=True)
class Listing:
    """What is in a folder, and what should not be."""

    files: Mapping[str, int]  # bytes of each regular file, by its path relative to the folder
    problems: Sequence[Problem]
    fingerprint: str  # 16 hex digits over names, sizes and modification times
    changed_s: float  # the latest modification time, as `time.time` counts


def list_folder(folder: Path, *, max_s: float = math.inf) -> Listing:
    """List a folder. Raises FileNotFoundError if there is none; whatever is odd inside is one of the `problems`.

    A file that vanishes meanwhile is left out. After `max_s` seconds the look is given up, which is a problem too.
    """
    give_up_at = time.monotonic() + max_s
    top = folder.lstat()
    if not stat.S_ISDIR(top.st_mode):
        problem = Problem(".", "not_a_folder", f"{_kind(top.st_mode)}, not the folder of a batch")
        return Listing({}, [problem], _digest([f"{problem} {top.st_mtime_ns}"]), top.st_mtime)
    problems: list[Problem] = []
    files: dict[str, int] = {}
    lines: dict[str, str] = {}  # of the fingerprint
    changed_s = top.st_mtime
    for number, (path, status) in enumerate(_walk(folder, problems)):
        too_many = Problem(".", "too_many_files", f"more than {MAX_FILES:,}") if number >= MAX_FILES else None
        too_slow = Problem(".", "too_slow", "cannot be listed in time") if time.monotonic() > give_up_at else None
        if beyond := too_many or too_slow:
            # Which files were seen depends on chance: the folder's own time stands for them
            return Listing({}, [beyond], _digest([f"{beyond} {top.st_mtime_ns}"]), changed_s)
        changed_s = max(changed_s, status.st_mtime)
        if stat.S_ISREG(status.st_mode):
            files[path] = status.st_size
            lines[path] = f"{path} {status.st_size} {status.st_mtime_ns}"
        elif not stat.S_ISDIR(status.st_mode):
            problems.append(Problem(printable(path), "not_a_regular_file", _kind(status.st_mode)))
    problems.sort(key=lambda problem: problem.path)
    digest = _digest([*(line for _, line in sorted(lines.items())), *map(str, problems)])
    return Listing(files, problems, digest, changed_s)


def fingerprint(folder: Path) -> str:
    """16 hex digits over the names, sizes and modification times of a folder's files; of nothing where it is gone."""
    try:
        return list_folder(folder).fingerprint
    except FileNotFoundError:
        return _digest([])


def printable(name: str, limit: int = MAX_NAME) -> str:
    r"""A name that any log takes: bytes that are not UTF-8 and control characters are escaped, as in `b\xff`.

    A backslash is doubled, so that no two names are shown alike. What is longer than `limit` characters is cut.
    """
    shown = "".join(map(_escaped, name[:limit]))
    return shown if len(shown) <= limit and len(name) <= limit else f"{shown[:limit]}… ({len(name):,} characters)"


def printable_text(text: str) -> str:
    """A text that any log takes. Names in it may be printable already: a backslash stays as it is."""
    return "".join(character if character == "\\" else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is not UTF-8, as Python keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _walk(folder: Path, problems: list[Problem]) -> Iterator[tuple[str, os.stat_result]]:
    """Relative path and status of everything below a folder; what cannot be listed is added to `problems`."""
    unread = [""]
    while unread:
        inside = unread.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    path = inside + entry.name
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # it has just vanished
                    yield path, status
                    if stat.S_ISDIR(status.st_mode):
                        if path.count("/") < MAX_DEPTH:
                            unread.append(f"{path}/")
                        else:
                            problems.append(Problem(printable(path, 100), "too_deep", f"below {MAX_DEPTH} folders"))
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(Problem(printable(inside) or ".", "not_readable", error.strerror or type(error).__name__))


def _kind(mode: int) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "of an unknown kind")


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(os.fsencode(f"{line}\n"))
    return digest.hexdigest()[:16]
