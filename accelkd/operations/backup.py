"""Backup of a home and its restore. A home is backed up while runs go on, and comes back as one that lost its power.

What a step has made is copied after what says that it was made: Dagster's databases first, then the staging file, then
the files, the landing zone last. So everything that the copy says is done lies in it, and the next catch-up repeats the
rest. Not copied: locks, folders that are being written, and the published file, which is a copy of the staging file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import accelkd
from accelkd.home.files import DamagedFileError, atomic_path, scratch_folder, sha256_file, sweep, write_json
from accelkd.home.identifiers import IDENTIFIER
from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock, file_lock, shared_lock
from accelkd.home.version import LAYOUT, UnusableHomeError, layout_version, restore_journal
from accelkd.operations.withdraw import Withdrawal, unfinished_withdrawals, withdraw
from accelkd.recordings.withdrawn import REGISTER_FILES, Register, Withdrawn, enrol, read_register, write_register
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging_lock

MANIFEST = "backup.json"
CONTENT = "home"  # folder of a backup in which the files lie as they lay in the home
FORMAT = 1
_ORDER = (
    "dagster",
    "warehouse",
    "reports",
    "embeddings",
    "checkpoints",
    "cohort",
    "quarantine",
    "segments",
)  # then the rest
_SQLITE = b"SQLite format 3\0"
_OF_OPEN_FILES = (".lock", ".wal", "-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Backup:
    """One backup: a folder with `backup.json` and a copy of the home."""

    folder: Path
    number: int
    made_at: str
    layout: int
    files: Mapping[str, str]  # SHA-256 by path relative to the home
    copied_bytes: int = 0  # those of files that were not in the backup before, when it was made


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    backup: Path
    files: int
    kept_batches: list[str]  # landed since the backup
    withdrawals: list[Withdrawal]  # of participants whom the backup still held


def backup(home: Home, destination: Path, *, keep: int | None = None) -> Backup:
    """Copy a home into a new folder `backup-<number>` below `destination`, while runs go on.

    A file that the backup before holds too, undamaged, is linked to it and takes no space. The folder appears when it
    is complete. With `keep`, only so many of the newest backups are kept. Withdrawals are refused meanwhile.

    Raises FileNotFoundError where there is no home, ValueError for a destination inside it, BlockingIOError while
    another backup is written there.
    """
    destination = destination.resolve()
    if not home.root.is_dir():
        raise FileNotFoundError(f"there is no home {home.root}")
    if home.root in (destination, *destination.parents):
        raise ValueError(f"{destination} lies inside the home: what damages one would damage both")
    busy = f"another backup is being written to {destination}"
    with shared_lock(home), file_lock(destination / ".backup.lock", busy=busy):
        sweep(destination)
        earlier = _numbered(destination)
        previous = _readable(earlier[-1]) if earlier else None
        number = int(earlier[-1].name.removeprefix("backup-")) + 1 if earlier else 1
        target = destination / f"backup-{number:06d}"
        with atomic_path(target) as part:
            part.mkdir(mode=0o700)
            writer = _Writer(home.root, part / CONTENT, previous)
            _copy_home(home, writer)
            made = Backup(
                target,
                number,
                f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                layout_version(home),
                writer.files,
                writer.bytes,
            )
            write_json(
                part / MANIFEST,
                {**asdict(made), "folder": target.name, "format": FORMAT, "accelkd": accelkd.__version__},
            )
        for old in _numbered(destination)[: -keep if keep else 0]:
            with scratch_folder(old) as scratch:
                old.rename(scratch / old.name)
    return made


class _Writer:
    """Copies single files of a home into a backup, or links those that the backup before holds."""

    def __init__(self, root: Path, target: Path, previous: Backup | None) -> None:
        self.root, self.target, self.previous = root, target, previous
        self.files: dict[str, str] = {}
        self.bytes = 0

    def add(self, source: Path, name: str) -> None:
        """Add a file under a name, with its times and permissions."""
        target = self._place(name)
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if not self._linked(name, sha256, target):
                file.seek(0)  # the file that was hashed, also if another has taken its name since
                digest = hashlib.sha256()
                with target.open("wb") as copy:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
                        self.bytes += copy.write(chunk)
                sha256 = digest.hexdigest()
                shutil.copystat(source, target)
        self.files[name] = sha256

    def _place(self, name: str) -> Path:
        target = self.target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _linked(self, name: str, sha256: str, target: Path) -> bool:
        if self.previous is None or self.previous.files.get(name) != sha256:
            return False
        copy = self.previous.folder / CONTENT / name
        try:
            if sha256_file(copy) != sha256:  # damaged since
                return False
            os.link(copy, target)
        except OSError:  # gone, or a file system without links
            return False
        return True


def _copy_home(home: Home, writer: _Writer) -> None:
    with scratch_folder(writer.target) as scratch:
        for path in _files(home):
            for last in (False, True):
                try:
                    _copy(home, path, writer, scratch)
                    break
                except FileNotFoundError:  # removed since it was listed, or its folder is just being replaced
                    if last and path.exists():
                        raise


def _copy(home: Home, path: Path, writer: _Writer, scratch: Path) -> None:
    name = home.relative(path)
    if path == home.staging:
        with staging_lock(home):
            with duckdb.connect(str(path)) as connection:  # what a writer left in the log beside it goes in
                connection.execute("FORCE CHECKPOINT")
            writer.add(path, name)
    elif _is_sqlite(path):
        copy = scratch / path.name
        with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        shutil.copystat(path, copy)
        writer.add(copy, name)
        copy.unlink()
    else:
        writer.add(path, name)


def _files(home: Home) -> Iterator[Path]:
    """What is backed up of a home, in this order; each folder is listed when its turn comes."""
    names = sorted(path.name for path in home.root.iterdir() if not path.name.startswith("."))
    parts = [*(name for name in _ORDER if name in names), *(name for name in names if name not in _ORDER)]
    parts.sort(key=lambda name: name == home.landing.name)
    for part in parts:
        top = home.root / part
        if top.is_file():
            yield from [] if _is_of_open_file(top) else [top]
            continue
        for folder, folders, files in os.walk(top, followlinks=True):
            # Of Dagster's, what says that a run was requested before the runs
            folders[:] = sorted(
                (name for name in folders if not name.startswith(".")), key=lambda name: (name != "schedules", name)
            )
            for name in sorted(files):
                path = Path(folder) / name
                if _is_of_open_file(path) or (path.parent == home.staging.parent and path != home.staging):
                    continue  # of the warehouse, the staging file is the original
                if not name.startswith(".") or (path.parent == home.landing and name in REGISTER_FILES):
                    yield path


def _is_of_open_file(path: Path) -> bool:
    return path.name.endswith(_OF_OPEN_FILES)


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".db" and file.read(len(_SQLITE)) == _SQLITE


def _numbered(destination: Path) -> list[Path]:
    """The backups in a folder, oldest first."""
    return sorted(path.parent for path in destination.glob(f"backup-[0-9]*/{MANIFEST}"))


def find_backup(source: Path) -> Backup:
    """The backup in a folder, or the newest of those below it. Raises ValueError where none is readable."""
    folder = source if (source / MANIFEST).exists() else next(reversed(_numbered(source)), None)
    if folder is None:
        raise ValueError(
            f"{source} holds no backup: `accelkd backup` writes folders named backup-<number> with {MANIFEST}"
        )
    made = _readable(folder)
    if made is None:
        raise ValueError(f"{folder / MANIFEST} cannot be read, or is of another format than {FORMAT}")
    return made


def _readable(folder: Path) -> Backup | None:
    try:
        values: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            return None
        return Backup(folder, values["number"], values["made_at"], values["layout"], values["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verify_backup(made: Backup) -> None:
    """Read every file of a backup. Raises DamagedFileError that counts and names those that are not what was copied."""
    damaged = []
    for name, sha256 in made.files.items():
        path = made.folder / CONTENT / name
        if not path.is_file() or sha256_file(path) != sha256:
            damaged.append(name)
    if damaged:
        raise DamagedFileError(
            f"{made.folder}: {len(damaged)} of {len(made.files)} files are missing or damaged: {', '.join(damaged[:3])}"
        )


def restore(home: Home, source: Path, *, replace: bool = False) -> Restored:
    """Bring a home to the state of a backup; what has landed and who has withdrawn since is kept.

    Everything but the landing zone is replaced, which `replace` has to allow where there is anything. Batches that are
    not in the backup stay and are taken up again by the next catch-up. The register of withdrawn participants is that
    of the home, together with the backup's; whoever is in it is withdrawn again from what was restored. An interrupted
    restore is finished by asking for it again; until then nothing else runs in the home. A withdrawal that cannot read
    everything is unfinished, as any other.

    Raises DamagedFileError before anything is changed, UnusableHomeError for a backup of a newer version, ValueError
    for a home that may not be replaced and for registers with different keys, BlockingIOError while runs are in
    progress.
    """
    made = find_backup(source)
    if made.layout > LAYOUT:
        raise UnusableHomeError(f"{made.folder} has layout {made.layout}, this accelkd knows {LAYOUT}")
    verify_backup(made)
    journal = restore_journal(home)
    with exclusive_lock(home, any_layout=True):
        going_on = json.loads(journal.read_text(encoding="utf-8")) if journal.exists() else {}
        present = sorted(path.name for path in home.root.iterdir() if not path.name.startswith("."))
        if present and not going_on and not replace:
            raise ValueError(f"{home.root} holds {', '.join(present[:3])}: `--replace` allows to replace them")
        for participant_id in unfinished_withdrawals(home):  # their first step, so that the register knows them
            enrol(home.landing, participant_id)
        register = _register(home, made, going_on)
        sweep(home.root)
        kept = _replace(home, made, register)
    withdrawn = Withdrawn(home.landing)
    names = {name for name in _restored_participants(home) if name in withdrawn}
    withdrawals = [withdraw(home, name) for name in sorted(names.union(unfinished_withdrawals(home)))]
    with exclusive_lock(home):
        if home.staging.exists():
            publish(home)
        journal.unlink()
    return Restored(made.folder, len(made.files), kept, withdrawals)


def _register(home: Home, made: Backup, going_on: Mapping[str, Any]) -> Register:
    """The home's register with the entries that only the backup has."""
    current = Register.of_stored(going_on) if going_on else read_register(home.landing)
    older = read_register(made.folder / CONTENT / home.landing.name)
    if not older.entries or not current.entries:
        return current if current.entries else older
    if current.key != older.key:
        raise ValueError(
            f"the registers of withdrawn participants of {home.root} and {made.folder} have different keys, so that "
            "neither can be tested against the other: restore into another folder, and withdraw there who is in the "
            "register of this home"
        )
    return Register(
        current.key, [*current.entries, *(entry for entry in older.entries if entry not in current.entries)]
    )


def _replace(home: Home, made: Backup, register: Register) -> list[str]:
    """Put the files of a backup into the place of the home's; returns the batches that stay as they landed.

    From the first change on, a journal keeps what must not be lost of the home: its register of withdrawn participants.
    """
    with scratch_folder(home.root / "restored") as scratch:
        new, old = scratch / "new", scratch / "old"
        for name in made.files:
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(made.folder / CONTENT / name, target)
        old.mkdir()
        with atomic_path(restore_journal(home)) as part:
            part.touch(0o600)
            part.write_text(json.dumps(register.stored()), encoding="utf-8")
        write_register(home.landing, register)
        (new / home.landing.name).mkdir(parents=True, exist_ok=True)
        batches = {path.name for path in (new / home.landing.name).iterdir() if not path.name.startswith(".")}
        for batch_id in sorted(batches):
            with atomic_path(home.landing / batch_id) as part:
                shutil.move(new / home.landing.name / batch_id, part)  # the landing zone may be another disk
        for path in list(home.root.iterdir()):
            if not path.name.startswith(".") and path not in (home.landing, restore_journal(home)):
                path.rename(old / path.name)
        for path in list(new.iterdir()):
            if path.name != home.landing.name:
                with atomic_path(home.root / path.name) as part:
                    path.rename(part)
    kept = (path.name for path in home.landing.iterdir() if not path.name.startswith("."))
    return sorted(name for name in kept if name not in batches)


def _restored_participants(home: Home) -> set[str]:
    """Everybody whom a landed batch, the split or the quarantine names."""
    names: set[str] = set()
    for folder in (home.landing, home.split.parent, home.root / "quarantine"):
        for path in folder.rglob("*.parquet"):
            with suppress(pa.ArrowException, OSError):  # not of a batch that was whole: the withdrawals report it
                if "participant_id" in pq.read_schema(path).names:
                    names.update(pc.unique(pq.read_table(path, columns=["participant_id"]).column(0)).to_pylist())
    return {name for name in names if name and IDENTIFIER.fullmatch(name)}
