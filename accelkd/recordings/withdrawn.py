"""The register of withdrawn participants: recognises one who is delivered again without storing a pseudonym.

It holds keyed hashes (HMAC-SHA-256) of pseudonyms; the key is stored next to it, readable by its owner alone. With
both, a name can be tested, so protect the key like the data; without them a withdrawn participant is ingested again.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelkd.home.files import DamagedFileError, open_below, write_json

_REGISTER = ".withdrawn.json"  # in the landing zone; hidden, so that it is not taken for a batch
_KEY = ".withdrawn.key"
_KEY_BYTES = 32
REGISTER_FILES = (_REGISTER, _KEY)


def enrol(landing: Path, participant_id: str) -> bool:
    """Add a participant to the register; returns False if they are in it already."""
    if participant_id in Withdrawn(landing):
        return False
    landing.mkdir(parents=True, exist_ok=True)
    if not (landing / _KEY).exists():
        _write_key(landing, secrets.token_bytes(_KEY_BYTES))
    register = _read(landing)
    register.append({"who": _hash(landing, participant_id), "on": datetime.now(UTC).date().isoformat()})
    _write(landing, register)
    return True


class Withdrawn:
    """The register of a landing zone as it is now: `participant_id in Withdrawn(landing)`."""

    def __init__(self, landing: Path) -> None:
        self._landing = landing
        self._hashes = {entry["who"] for entry in _read(landing)}

    def __contains__(self, participant_id: str) -> bool:
        return bool(self._hashes) and _hash(self._landing, participant_id) in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)


def _read(landing: Path) -> list[dict[str, str]]:
    """The entries of the register. Raises DamagedFileError: without it withdrawn participants would be used again."""
    try:
        with open_below(landing, _REGISTER) as file:
            register: list[dict[str, str]] = json.loads(file.read())
        if not all({"who", "on"} == entry.keys() and all(map(_is_text, entry.values())) for entry in register):
            raise ValueError("not a list of entries")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(landing / _REGISTER, error) from None
    return register


def _hash(landing: Path, participant_id: str) -> str:
    return hmac.digest(_read_key(landing), participant_id.encode(), "sha256").hex()


def _read_key(landing: Path) -> bytes:
    try:
        with open_below(landing, _KEY) as file:
            key = file.read()
        if len(key) != _KEY_BYTES:
            raise ValueError(f"it has {len(key)} bytes, not {_KEY_BYTES}")
    except (OSError, ValueError) as error:
        raise _damaged(landing / _KEY, error) from None
    return key


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _damaged(path: Path, error: Exception) -> DamagedFileError:
    return DamagedFileError(
        f"the register of withdrawn participants cannot be read: {path.name}: {error}; restore {_REGISTER} and {_KEY} "
        "from a backup: without them whoever withdrew would be used again"
    )


def _write(landing: Path, register: Sequence[Mapping[str, str]]) -> None:
    write_json(landing / _REGISTER, sorted(register, key=lambda entry: (entry["on"], entry["who"])))


def _write_key(landing: Path, key: bytes) -> None:
    descriptor = os.open(landing / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        os.fsync(file.fileno())


@dataclass(frozen=True)
class Register:
    """A register with its key, as a backup carries it."""

    key: bytes | None
    entries: Sequence[Mapping[str, str]]

    def stored(self) -> dict[str, Any]:
        """As JSON: as sensitive as the files themselves."""
        return {"key": self.key.hex() if self.key else None, "entries": list(self.entries)}

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> Register:
        return cls(bytes.fromhex(stored["key"]) if stored["key"] else None, stored["entries"])


def read_register(landing: Path) -> Register:
    """The register of a landing zone, empty where it has none. Raises DamagedFileError where it cannot be read."""
    entries = _read(landing)
    return Register(_read_key(landing) if entries else None, entries)


def write_register(landing: Path, register: Register) -> None:
    """Make a register that of a landing zone."""
    landing.mkdir(parents=True, exist_ok=True)
    if register.key is None:
        return
    key = landing / _KEY
    if not key.exists() or key.read_bytes() != register.key:
        key.unlink(missing_ok=True)
        _write_key(landing, register.key)
    _write(landing, register.entries)
