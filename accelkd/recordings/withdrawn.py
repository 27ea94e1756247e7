"""The register of withdrawn participants: recognises one who is delivered again without storing a pseudonym.

It holds keyed hashes (HMAC-SHA-256) of pseudonyms; the key is stored next to it, readable by its owner alone. With
both, a name can be tested, so protect the key like the data; without them a withdrawn participant is ingested again.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from accelkd.home.files import write_json

_REGISTER = ".withdrawn.json"  # in the landing zone; hidden, so that it is not taken for a batch
_KEY = ".withdrawn.key"


def enrol(landing: Path, participant_id: str) -> bool:
    """Add a participant to the register; returns False if they are in it already."""
    if participant_id in Withdrawn(landing):
        return False
    landing.mkdir(parents=True, exist_ok=True)
    if not (landing / _KEY).exists():
        descriptor = os.open(landing / _KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            os.fsync(file.fileno())
    register = _read(landing)
    register.append({"who": _hash(landing, participant_id), "on": datetime.now(UTC).date().isoformat()})
    write_json(landing / _REGISTER, sorted(register, key=lambda entry: (entry["on"], entry["who"])))
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
    path = landing / _REGISTER
    register: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return register


def _hash(landing: Path, participant_id: str) -> str:
    return hmac.digest((landing / _KEY).read_bytes(), participant_id.encode(), "sha256").hex()
