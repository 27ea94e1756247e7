"""The state of the landing zone: which batches have arrived, are still arriving, are refused or superseded.

A scan costs a listing of the landing zone and an inspection of the folders that are not known yet; it hashes no file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from accelkd.home.files import remove_with_checksum, write_json
from accelkd.home.identifiers import IDENTIFIER
from accelkd.home.layout import Home
from accelkd.home.locks import batches_lock
from accelkd.recordings.batches import MANIFEST, read_manifest
from accelkd.recordings.schema import SCHEMA_VERSION

STALLED_S = 3600.0  # without a manifest and unchanged for this long: a problem


@dataclass(frozen=True)
class Arrival:
    """A folder of the landing zone that is not known yet, or known and refused."""

    batch_id: str
    fingerprint: str  # of its files' names, sizes and times: changes when files are sent again
    problem: str | None  # why it cannot be used; None if nothing is wrong
    arrived: bool  # its manifest exists, and so do the files that it lists


@dataclass(frozen=True)
class Refusal:
    """A batch that broke a rule when its contents were read."""

    batch_id: str
    fingerprint: str  # of the files that were refused
    reasons: Sequence[str]
    also_in: Sequence[str] = ()  # batches that hold some of its recordings: without them it may be loaded


@dataclass(frozen=True)
class Supersession:
    """A batch that a correction replaced."""

    batch_id: str
    replaced_by: str


class SupersededError(ValueError):
    """A batch that a correction replaced: nothing is made of it any more."""


def arrived_batches(home: Home) -> list[str]:
    """Batches of the landing zone that have a manifest, without the superseded ones; the others are still arriving."""
    obsolete = superseded(home)
    names = [name for name in landed_folders(home) if IDENTIFIER.fullmatch(name) and name not in obsolete]
    return [name for name in names if (home.landing / name / MANIFEST).exists()]


def landed_folders(home: Home) -> list[str]:
    """Names of the folders of the landing zone, sorted; without hidden ones, which are being written."""
    if not home.landing.is_dir():
        return []
    return sorted(path.name for path in home.landing.iterdir() if not path.name.startswith(".") and path.is_dir())


def pending_arrivals(home: Home, known: Collection[str]) -> list[Arrival]:
    """Folders of the landing zone that are not `known`, and the refused batches, known or not."""
    refusals, obsolete = refused(home), superseded(home)
    names = [name for name in landed_folders(home) if name not in obsolete and (name not in known or name in refusals)]
    return [_inspect(home, name, refusals.get(name)) for name in names]


def refuse(home: Home, batch_id: str, reasons: Sequence[str], also_in: Sequence[str] = ()) -> None:
    """Record that a batch cannot be used as it is.

    It is retried once its files change, or once one of the batches in which its recordings are `also_in` is superseded.
    """
    refusal = Refusal(batch_id, fingerprint(home.batch(batch_id)), list(reasons), list(also_in))
    write_json(_refusals(home) / f"{batch_id}.json", asdict(refusal))


def accept(home: Home, batch_id: str) -> None:
    """Delete the refusal of a batch, if there is one."""
    (_refusals(home) / f"{home.batch(batch_id).name}.json").unlink(missing_ok=True)


def refused(home: Home) -> dict[str, Refusal]:
    """The batches that were refused, by name."""
    entries = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(_refusals(home).glob("[!.]*.json")))
    return {entry["batch_id"]: Refusal(**entry) for entry in entries}


def refused_unchanged(home: Home) -> set[str]:
    """The refused batches whose files have not changed since: a retry would give the same result."""
    return {name for name, refusal in refused(home).items() if fingerprint(home.batch(name)) == refusal.fingerprint}


def supersede(home: Home, *supersessions: Supersession) -> None:
    """Record that corrections replaced batches, and remove the files derived from those; the landed batches are kept.

    Whoever is about to put files of these batches in place does it before, so that they are removed, or is refused.
    """
    with batches_lock(home):
        before = superseded(home)
        entries = {**before, **{entry.batch_id: entry for entry in supersessions}}
        if entries != before:
            write_json(home.root / "superseded.json", [asdict(entry) for _, entry in sorted(entries.items())])
    remove_superseded(home)


def remove_superseded(home: Home) -> list[str]:
    """Remove what is still derived from superseded batches, and refusals that no longer hold; returns these batches.

    A refused batch may be loaded after all if those that had its recordings are superseded.
    """
    with batches_lock(home):
        obsolete = superseded(home).keys()
        names = [name for name in obsolete if IDENTIFIER.fullmatch(name)]  # else nothing was ever made of it
        removed = [batch_id for batch_id in names if remove_derived(home, batch_id)]
        for refusal in refused(home).values():
            if refusal.batch_id in obsolete or not obsolete.isdisjoint(refusal.also_in):
                accept(home, refusal.batch_id)
    return removed


def remove_derived(home: Home, batch_id: str) -> bool:
    """Remove the files derived from a batch, with their checksums; returns whether there were any."""
    picture = home.examples(batch_id)
    removed = [remove_with_checksum(path) for path in (home.segments(batch_id), home.quarantine(batch_id), picture)]
    return any(removed)


def check_not_superseded(home: Home, batch_id: str) -> None:
    """Raise SupersededError if a correction replaced the batch."""
    if batch_id in (replaced := superseded(home)):
        raise SupersededError(f"batch {batch_id} was replaced by {replaced[batch_id].replaced_by}")


def settled_arrivals(home: Home) -> set[str]:
    """Batches that no run has to try again: refused and unchanged since, or superseded."""
    return refused_unchanged(home) | superseded(home).keys()


def superseded(home: Home) -> dict[str, Supersession]:
    """The batches that a correction replaced, by name."""
    path, legacy = home.root / "superseded.json", home.root / "retired.json"  # its name in version 0.1.0
    if legacy.exists():
        with suppress(FileNotFoundError):  # another process has just renamed it
            legacy.rename(path)
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {entry["batch_id"]: Supersession(**entry) for entry in entries}


def fingerprint(folder: Path) -> str:
    """16 hex digits over the names, sizes and modification times of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _inspect(home: Home, name: str, refusal: Refusal | None) -> Arrival:
    folder = home.landing / name
    current = fingerprint(folder)
    if refusal is not None and refusal.fingerprint == current:
        return Arrival(name, current, "; ".join(refusal.reasons), arrived=True)
    if not IDENTIFIER.fullmatch(name):
        return Arrival(name, current, "its name is not an identifier (letters, digits, '_' and '-')", arrived=False)
    if not (folder / MANIFEST).exists():
        idle_s = time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        stalled = f"no {MANIFEST}, and no file has changed for {idle_s / 3600:.1f} h" if idle_s > STALLED_S else None
        return Arrival(name, current, stalled, arrived=False)
    problem = _manifest_problem(folder)
    return Arrival(name, current, problem, arrived=problem is None)


def _manifest_problem(folder: Path) -> str | None:
    """What is wrong with a batch as far as its manifest and its listing show; None if nothing is."""
    try:
        manifest = read_manifest(folder)
        missing = [entry.path for entry in manifest.files if not (folder / entry.path).is_file()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error!r}"
    if manifest.schema_version != SCHEMA_VERSION:
        return f"its schema version is {manifest.schema_version!r}, expected {SCHEMA_VERSION}"
    if manifest.batch_id != folder.name:
        return f"its manifest is that of batch {manifest.batch_id!r}"
    if missing:
        return f"{len(missing)} files that the manifest lists are missing, first {missing[0]}"
    return None


def _refusals(home: Home) -> Path:
    return home.root / "refused"
