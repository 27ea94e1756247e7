"""What was verified on this node: a file that several trainings and ranks read is hashed once, not by each of them.

The record vouches for a file while its size, times, inode and checksum are those of when its bytes were hashed, on this
boot of the machine, and for a day. Whatever writes a file through the operating system changes the time of its last
change (ctime), which no program can set back; a file that is replaced has another inode, too. What goes unnoticed for
up to a day is what no system call did: bits that flip on the disk.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accelkd.home.files import recorded_checksum, verify_checksum, write_json
from accelkd.home.layout import Home
from accelkd.home.locks import file_lock

# A day: nightly trainings of all encoders read the disk once a night, and a flipped bit is noticed the next one
MAX_AGE_S = 86_400.0
# Of a file that was written last: some file systems keep times in steps of two seconds, within which a change is hidden
SETTLED_S = 2.0
_FORGOTTEN_S = 30 * MAX_AGE_S  # since when nothing was verified on that boot
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def verified_once(home: Home) -> Iterator[Callable[[Path], str]]:
    """A `verify_checksum` for files of the home that reads only those that the record of this node does not vouch for.

    Held by one process of a node at a time: the others wait, and then find recorded what the first has hashed. May be
    called from several threads. Raises as `verify_checksum`.
    """
    record = home.root / ".verified" / f"{_node()}.json"
    with file_lock(record.with_suffix(".lock")):
        recorded = _read(record)
        verified: dict[str, dict[str, Any]] = {}

        def verify(path: Path) -> str:
            name, state, now = home.relative(path), _state(path), time.time()
            known = recorded.get(name, {})
            vouched = state is not None and state == known.get("state") and 0 <= now - known["verified_at"] < MAX_AGE_S
            if vouched and known["sha256"] == _recorded_checksum(path):
                verified[name] = known
                return str(known["sha256"])
            actual = verify_checksum(path)
            settled = state is not None and max(state["mtime_ns"], state["ctime_ns"]) <= (now - SETTLED_S) * 1e9
            if settled and state == _state(path):
                verified[name] = {"sha256": actual, "state": state, "verified_at": now}
            return actual

        try:
            yield verify
        finally:
            young = {name: of for name, of in recorded.items() if 0 <= time.time() - of["verified_at"] < MAX_AGE_S}
            if {**young, **verified} != recorded:
                write_json(record, {**young, **verified})
            _forget_other_boots(record.parent)


def _read(record: Path) -> dict[str, dict[str, Any]]:
    """Entries by name; none where the record is missing or damaged: then all is verified again."""
    try:
        entries = json.loads(record.read_text(encoding="utf-8"))
        return {
            name: {"sha256": str(of["sha256"]), "state": dict(of["state"]), "verified_at": float(of["verified_at"])}
            for name, of in entries.items()
        }
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _state(path: Path) -> dict[str, int] | None:
    """What changes with a file's bytes; None without the file."""
    try:
        of = path.stat()
    except FileNotFoundError:
        return None
    return {
        "size": of.st_size,
        "mtime_ns": of.st_mtime_ns,
        "ctime_ns": of.st_ctime_ns,
        "device": of.st_dev,
        "inode": of.st_ino,
    }


def _recorded_checksum(path: Path) -> str | None:
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return recorded_checksum(path)
    return None


def _node() -> str:
    """A name of this machine since it was started, the same in all of its containers; without Linux its host name."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return platform.node() or "node"


def _forget_other_boots(folder: Path) -> None:
    for record in folder.glob("*.json"):
        with suppress(FileNotFoundError):
            if time.time() - record.stat().st_mtime > _FORGOTTEN_S:
                record.unlink()
                record.with_suffix(".lock").unlink()
