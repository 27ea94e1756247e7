"""The files of a delivery, ZIP archives unpacked, with whatever cannot be read as a reason instead of an error."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from accelkd.recordings.listing import printable

MAX_MEMBERS = 100_000  # of all archives of a delivery together
MAX_UNPACKED_BYTES = 64 << 30
MAX_EXPANSION = 200  # text of numbers packs to a tenth, runs of equal rows to a hundredth


@dataclass(frozen=True)
class Delivered:
    """The regular files of a delivery: where each lies, and what its path is below the delivered folder."""

    paths: dict[Path, Path] = field(default_factory=dict)  # relative, by the path of the file
    problems: list[tuple[str, str, str]] = field(default_factory=list)  # (printable path, reason, detail)

    def relative(self, source: Path) -> Path:
        """Path of a file, or of a folder that holds some, below the delivered folder."""
        if source in self.paths:
            return self.paths[source]
        for path, relative in self.paths.items():
            if path.is_relative_to(source):
                depth = len(path.relative_to(source).parts)
                return Path(*relative.parts[: len(relative.parts) - depth])
        raise KeyError(source)


@contextmanager
def delivered_files(folder: Path) -> Iterator[Delivered]:
    """The files below `folder`; an archive `P01/session.zip` stands as the folder `P01/session` while the block runs.

    Links are not followed. An archive that is damaged, encrypted, or larger than a delivery can be is a problem.
    """
    delivered = Delivered()
    archives: list[Path] = []

    def unlisted(error: OSError) -> None:
        delivered.problems.append((_shown(folder, Path(error.filename)), "not_readable", str(error.strerror)))

    for inside, names, files in os.walk(folder, onerror=unlisted):
        names.sort()
        for name in [*sorted(files), *(entry for entry in names if Path(inside, entry).is_symlink())]:
            path = Path(inside, name)
            try:
                regular = stat.S_ISREG(path.lstat().st_mode)
            except OSError as error:
                delivered.problems.append((_shown(folder, path), "not_readable", str(error.strerror)))
                continue
            if not regular:
                delivered.problems.append((_shown(folder, path), "not_a_regular_file", "it is not followed or opened"))
            elif path.suffix.lower() == ".zip" and not name.startswith("."):
                archives.append(path)
            else:
                delivered.paths[path] = path.relative_to(folder)
    if not archives:
        yield delivered
        return
    with TemporaryDirectory(prefix="accelkd-delivery-") as scratch:
        members, unpacked_bytes = 0, 0
        for number, archive in enumerate(archives):
            below, target = archive.relative_to(folder).with_suffix(""), Path(scratch, str(number))
            try:
                entries = _entries(archive)
                if not entries:
                    delivered.problems.append((_shown(folder, archive), "empty_file", "an archive without files"))
                members += len(entries)
                unpacked_bytes += sum(entry.file_size for entry in entries)
                if members > MAX_MEMBERS or unpacked_bytes > MAX_UNPACKED_BYTES:
                    raise _TooLargeError(f"with those before it, {members:,} files of {unpacked_bytes:,} bytes")
                with zipfile.ZipFile(archive) as source:
                    for entry in entries:
                        member = PurePosixPath(entry.filename)
                        path = target / below / member
                        path.parent.mkdir(parents=True, exist_ok=True)
                        with source.open(entry) as packed, path.open("wb") as file:
                            shutil.copyfileobj(packed, file)
                        delivered.paths[path] = below / member
            except _TooLargeError as error:
                delivered.problems.append((_shown(folder, archive), "too_large", str(error)))
            except Exception as error:  # a damaged archive makes the library raise nearly anything
                detail = f"cannot be unpacked: {printable(str(error), 200) or type(error).__name__}"
                delivered.problems.append((_shown(folder, archive), "unreadable_file", detail))
                for path in [path for path in delivered.paths if path.is_relative_to(target)]:
                    del delivered.paths[path]  # what was unpacked before the damage: part of a session is none
        yield delivered


class _TooLargeError(ValueError):
    """An archive that unpacks to more than a delivery has."""


def _entries(archive: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive. Raises ValueError for a name that leads out of it or stands twice, _TooLargeError for a
    bomb."""
    try:
        with zipfile.ZipFile(archive) as source:
            entries = [entry for entry in source.infolist() if not entry.is_dir()]
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None
    packed_bytes = max(archive.stat().st_size, 1)
    if sum(entry.file_size for entry in entries) > MAX_EXPANSION * packed_bytes + (1 << 20):
        raise _TooLargeError(f"{packed_bytes:,} bytes unpack to more than {MAX_EXPANSION} times as many")
    names = [PurePosixPath(entry.filename) for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError("two files of one name")
    for entry, name in zip(entries, names, strict=True):
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise ValueError(f"a file named {printable(entry.filename, 100)!r}")
    return entries


def _shown(folder: Path, path: Path) -> str:
    return printable(str(path.relative_to(folder))) if path.is_relative_to(folder) else printable(path.name)
