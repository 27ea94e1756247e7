"""Encoders that come with the package: small checkpoints, each in a folder of its own, with a card (README.md)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TEACHER = "ppg-teacher-xs"
STUDENT = "accel-kd-xs"  # what predicts where no encoder is named
NAMES = (TEACHER, STUDENT, "accel-kd-s", "accel-kd-transformer-xs")


def folder(name: str) -> Path:
    """The checkpoint folder of an encoder. Raises LookupError that lists the names there are."""
    if name not in NAMES:
        raise LookupError(f"no encoder {name!r} comes with the package; there are {', '.join(NAMES)}")
    return Path(str(files("accelkd.models.bundled"))) / name
