"""The state of the landing zone: which batches have arrived, are still arriving, are refused or superseded.

Others write into it, so each folder is looked at by itself and within limits: what is odd about one is its own problem
and stops no other. A scan costs a listing of the landing zone and of the folders that are not known yet; it hashes no
file, opens nothing but manifests, and follows no link.
"""

from __future__ import annotations

import json
import os
import random
import stat
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from accelkd.home.files import DamagedFileError, open_below, remove_with_checksum, sha256_file, write_json
from accelkd.home.identifiers import IDENTIFIER
from accelkd.home.layout import Home
from accelkd.home.locks import batches_lock
from accelkd.home.units import stored_files
from accelkd.recordings.batches import MANIFEST, BatchFileError, Manifest, read_manifest
from accelkd.recordings.listing import Listing, fingerprint, list_folder, printable

STALLED_S = 3600.0  # without a manifest and unchanged for this long: a problem
MAX_S = 5.0  # for one folder: a local disk lists the most files that it may have in less than a second
SCAN_S = 20.0  # for all folders together: a sensor is cut off after a minute, and has more to do
_MAX_REFUSAL_BYTES = 2**20
_SHOWN = 200  # characters of what a manifest says


@dataclass(frozen=True)
class Arrival:
    """An entry of the landing zone that is not known yet, or known and refused."""

    batch_id: str  # printable: the name of the folder, escaped where it is no identifier
    fingerprint: str  # of its files' names, sizes and times: changes when files are sent again
    problem: str | None  # why it cannot be used; None if nothing is wrong
    arrived: bool  # its manifest exists, and so do the files that it lists


@dataclass(frozen=True)
class Refusal:
    """A batch that broke a rule when its contents were read."""

    batch_id: str
    fingerprint: str  # of the files that were refused; empty where that is not known
    reasons: Sequence[str]
    waits_for: str | None = None  # batch that has to be there first: then it is validated again
    also_in: Sequence[str] = ()  # batches that hold some of its recordings: without them it may be loaded


@dataclass(frozen=True)
class Supersession:
    """A batch that a correction replaced."""

    batch_id: str
    replaced_by: str


@dataclass(frozen=True)
class RemovedDeliveries:
    """Known batches whose folder is gone from the landing zone."""

    forgotten: Sequence[str]  # never loaded: nothing of them needs to be kept
    missing: Sequence[Arrival]  # loaded, or perhaps loaded: each is a problem


class SupersededError(ValueError):
    """A batch that a correction replaced: nothing is made of it any more."""


def arrived_batches(home: Home) -> list[str]:
    """Batches of the landing zone that have a manifest, without the superseded ones; the others are still arriving."""
    obsolete = superseded(home)
    names = [name for name in landed_folders(home.landing) if IDENTIFIER.fullmatch(name) and name not in obsolete]
    return [name for name in names if _has_manifest(home.landing / name)]


def landed_folders(landing: Path) -> list[str]:
    """Names of the folders of a landing zone, sorted; without hidden ones, which are being written, and links."""
    return [name for name, is_folder in _entries(landing) if is_folder]


def pending_arrivals(home: Home, known: Collection[str]) -> list[Arrival]:
    """What is in the landing zone and not `known`, and the refused batches, known or not.

    What there was no time for within SCAN_S counts as still arriving; another look begins elsewhere.
    """
    refusals, obsolete = refused(home), superseded(home)
    entries = [name for name, _ in _entries(home.landing)]
    names = [name for name in entries if name not in obsolete and (name not in known or name in refusals)]
    start = random.randrange(len(names)) if names else 0
    give_up_at = time.monotonic() + SCAN_S
    pending = []
    for name in names[start:] + names[:start]:
        remaining_s = give_up_at - time.monotonic()
        try:
            if remaining_s <= 0:
                pending.append(Arrival(printable(name), "", None, arrived=False))
            else:
                pending.append(_inspect(home, name, refusals.get(name), min(MAX_S, remaining_s)))
        except FileNotFoundError:
            continue  # it has just been removed
        except OSError as error:
            pending.append(Arrival(printable(name), "", f"cannot be looked at: {error.strerror}", arrived=False))
    return sorted(pending, key=lambda arrival: arrival.batch_id)


def refuse(
    home: Home, batch_id: str, reasons: Sequence[str], also_in: Sequence[str] = (), *, waits_for: str | None = None
) -> None:
    """Record that a batch cannot be used as it is.

    It is retried once its files change, or once one of the batches in which its recordings are `also_in` is superseded,
    or once the batch `waits_for` is there, which it corrects.
    """
    refusal = Refusal(batch_id, fingerprint(home.batch(batch_id)), list(reasons), waits_for, list(also_in))
    write_json(_refusals(home) / f"{batch_id}.json", asdict(refusal))


def accept(home: Home, batch_id: str) -> None:
    """Delete the refusal of a batch, if there is one."""
    (_refusals(home) / f"{home.batch(batch_id).name}.json").unlink(missing_ok=True)


def refused(home: Home) -> dict[str, Refusal]:
    """The batches that were refused, by name; one whose refusal is damaged is refused for that, until its next run."""
    refusals = {}
    for path in sorted(_refusals(home).glob("[!.]*.json")):
        if IDENTIFIER.fullmatch(path.stem):
            with suppress(FileNotFoundError):  # it has just been accepted
                refusals[path.stem] = _read_refusal(path)
    return refusals


def refused_unchanged(home: Home) -> set[str]:
    """The refused batches of which a retry would give the same result, since nothing that they broke has changed."""
    return {name for name, refusal in refused(home).items() if _holds(home, refusal, fingerprint(home.batch(name)))}


def supersede(home: Home, *supersessions: Supersession) -> None:
    """Record that corrections replaced batches, and remove the files derived from those; the landed batches are kept.

    Whoever is about to put files of these batches in place does it before, so that they are removed, or is refused.
    """
    with batches_lock(home):
        before = superseded(home)
        entries = {**before, **{entry.batch_id: entry for entry in supersessions}}
        if entries != before:
            rows = [asdict(entry) for _, entry in sorted(entries.items())]
            path, copy = _superseded_files(home)
            write_json(copy, rows)  # first: at any time one of the two is whole
            write_json(path, rows)
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
    derived = (home.segments(batch_id), home.quarantine(batch_id), home.examples(batch_id), *home.embedded(batch_id))
    return bool([path for path in derived if remove_with_checksum(path)])


def check_not_superseded(home: Home, batch_id: str) -> None:
    """Raise SupersededError if a correction replaced the batch."""
    if batch_id in (replaced := superseded(home)):
        raise SupersededError(f"batch {batch_id} was replaced by {replaced[batch_id].replaced_by}")


def settled_arrivals(home: Home) -> set[str]:
    """Batches that no run has to try again: refused and unchanged since, or superseded."""
    return refused_unchanged(home) | superseded(home).keys()


def landed_versions(home: Home) -> dict[str, str]:
    """SHA-256 of the manifest of every batch in the landing zone, which lists the hashes of its files.

    A batch never changes; where one does, because it landed again or a withdrawal rewrote it, all that was made of it
    is stale. A manifest is read again only once its time or size has changed.
    """
    versions = {}
    for batch_id in arrived_batches(home):
        path = home.landing / batch_id / MANIFEST
        with suppress(OSError):  # it is just being replaced
            status = path.lstat()
            versions[batch_id] = _version(path, status.st_mtime_ns, status.st_size)
    return versions


@lru_cache(maxsize=10_000)
def _version(path: Path, modified_ns: int, size: int) -> str:  # noqa: ARG001  (they tell whether it has changed)
    return sha256_file(path)


def superseded(home: Home) -> dict[str, Supersession]:
    """The batches that a correction replaced, by name; from the copy where the file is damaged.

    Raises DamagedFileError if neither can be read: a superseded batch must not come back.
    """
    path, copy = _superseded_files(home)
    legacy = home.root / "retired.json"  # its name in version 0.1.0
    if legacy.exists():
        with suppress(FileNotFoundError):  # another process has just renamed it
            legacy.rename(path)
    if not path.exists() and not copy.exists():
        return {}
    for file in (path, copy):
        with suppress(OSError, ValueError, TypeError, RecursionError):
            entries = [Supersession(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
            if all(isinstance(name, str) for entry in entries for name in (entry.batch_id, entry.replaced_by)):
                return {entry.batch_id: entry for entry in entries}
    raise DamagedFileError(
        f"{path} and {copy.name} cannot be read, and a superseded batch must not come back: put one of them back from "
        "a backup, or write it from the table superseded_batches of the published warehouse"
    )


def was_there(home: Home, batch_id: str) -> bool:
    """Whether a batch has landed, was segmented (as all that were loaded), or is superseded."""
    if not IDENTIFIER.fullmatch(batch_id):
        return False
    files = (home.batch(batch_id), home.segments(batch_id), home.quarantine(batch_id))
    here = any(not _is_gone(path) for path in files) or batch_id in superseded(home)
    return here or bool(stored_files(home, f"landing/{batch_id}"))


def removed_deliveries(home: Home, known: Collection[str], loaded: Collection[str] | None) -> RemovedDeliveries:
    """The `known` batches, and the refused ones, whose folder is gone from the landing zone.

    `loaded` are the batches that the warehouse holds; None if that is not known, as while it cannot be read. Those that
    it does not hold may be forgotten (`forget`). Superseded batches are neither. While there is no landing zone, as
    when its disk is not mounted, nothing may be forgotten.
    """
    forgotten, missing = [], []
    sure = loaded is not None and home.landing.is_dir()
    for name in sorted({*known, *refused(home)} - superseded(home).keys()):
        if not IDENTIFIER.fullmatch(name) or not _is_gone(home.batch(name)):
            continue
        held = name in (loaded or ())
        if sure and not held:
            forgotten.append(name)
        else:
            holder = "the warehouse holds it" if held else "the warehouse may hold it"
            problem = f"its folder is gone from the landing zone, and {holder}: put the folder back"
            missing.append(Arrival(name, "", problem, arrived=False))
    return RemovedDeliveries(forgotten, missing)


def forget(home: Home, batch_id: str) -> None:
    """Delete the refusal of a removed delivery and the files derived from it. Raises ValueError while it is landed."""
    if not _is_gone(home.batch(batch_id)):
        raise ValueError(f"batch {batch_id} is in the landing zone: only a removed delivery is forgotten")
    with batches_lock(home):
        remove_derived(home, batch_id)
        accept(home, batch_id)


def replacement_error(manifest: Manifest, home: Home | None) -> str | None:
    """Why a batch cannot replace the one that its manifest names; None if it can, as far as is known without `home`."""
    if manifest.replaces is None:
        return None
    if manifest.replaces == manifest.batch_id:
        return "it says that it replaces itself"
    if home is not None and not was_there(home, manifest.replaces):
        return f"it replaces batch {_quoted(manifest.replaces)}, which has never landed"
    return None


def _entries(landing: Path) -> list[tuple[str, bool]]:
    """Names of what is in a landing zone and whether it is a folder, sorted; without what is hidden."""
    if not landing.is_dir():
        return []
    with os.scandir(landing) as entries:
        return sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of the landing zone is a folder, and no link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_gone(path: Path) -> bool:
    """Whether there is certainly nothing at a path."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _has_manifest(folder: Path) -> bool:
    try:
        return stat.S_ISREG((folder / MANIFEST).lstat().st_mode)
    except OSError:
        return False


def _inspect(home: Home, name: str, refusal: Refusal | None, max_s: float) -> Arrival:
    listing = list_folder(home.landing / name, max_s=max_s)
    shown, current = printable(name), listing.fingerprint
    if refusal is not None and (not refusal.fingerprint or _holds(home, refusal, current)):
        return Arrival(shown, current, "; ".join(refusal.reasons), arrived=True)
    problem = _problem(home, name, listing)
    return Arrival(shown, current, problem, arrived=problem is None and MANIFEST in listing.files)


def _problem(home: Home, name: str, listing: Listing) -> str | None:
    """What is wrong with a folder as far as its listing and its manifest show; None if nothing is."""
    if listing.problems and (listing.problems[0].rule == "not_a_folder" or IDENTIFIER.fullmatch(name)):
        more = f" (and {len(listing.problems) - 1:,} more)" if len(listing.problems) > 1 else ""
        return f"{listing.problems[0]}{more}"
    if not IDENTIFIER.fullmatch(name):
        return "its name is not an identifier (letters, digits, '_' and '-')"
    try:
        manifest = read_manifest(home.landing / name)
    except FileNotFoundError:
        idle_s = time.time() - listing.changed_s
        return f"no {MANIFEST}, and no file has changed for {idle_s / 3600:.1f} h" if idle_s > STALLED_S else None
    except BatchFileError as error:
        return f"{MANIFEST}: {error.detail}"
    if manifest.batch_id != name:
        return f"its manifest is that of batch {_quoted(manifest.batch_id)}"
    missing = [entry.path for entry in manifest.files if entry.path not in listing.files]
    if missing:
        return f"{len(missing):,} files that the manifest lists are missing, first {printable(missing[0], _SHOWN)}"
    return replacement_error(manifest, home)


def _quoted(name: str) -> str:
    return f"'{printable(name, _SHOWN)}'"


def _holds(home: Home, refusal: Refusal, current: str) -> bool:
    """Whether a batch would be refused again: its files are the same, and the batch that it corrects is not there."""
    return refusal.fingerprint == current and not (refusal.waits_for and was_there(home, refusal.waits_for))


def _read_refusal(path: Path) -> Refusal:
    """A refusal. Raises FileNotFoundError; one that is damaged says so itself."""
    try:
        with open_below(path.parent, path.name) as file:
            raw = json.loads(file.read(_MAX_REFUSAL_BYTES))
        refusal = Refusal(
            path.stem, raw["fingerprint"], tuple(raw["reasons"]), raw.get("waits_for"), tuple(raw.get("also_in", ()))
        )
        if not all(
            isinstance(text, str)
            for text in (refusal.fingerprint, *refusal.reasons, *refusal.also_in, refusal.waits_for or "")
        ):
            raise TypeError("not a text")
        if not refusal.reasons:
            raise ValueError("no reason")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        why = f"it was refused, and {path.parent.name}/{path.name}, which says why, is damaged: "
        return Refusal(path.stem, "", (f"{why}the next catch-up validates it again",))
    return refusal


def _refusals(home: Home) -> Path:
    return home.root / "refused"


def _superseded_files(home: Home) -> tuple[Path, Path]:
    """The list of superseded batches, and its copy."""
    return home.root / "superseded.json", home.root / "superseded.copy.json"
