"""The trained encoders that come with the package: a checkpoint folder for each, weights in float16.

Each has its readouts, a card (`README.md`), and an input with its expected output (`example.safetensors`).
`benches/bundled.py` trains and packs them.
"""

from __future__ import annotations

from pathlib import Path

TEACHER = "ppg-teacher-xs"
STUDENT = "accel-kd-xs"
EXAMPLE = "example.safetensors"
NAMES = (TEACHER, STUDENT, "accel-kd-transformer-xs")


def bundled_folder(name: str) -> Path:
    """The checkpoint folder of a bundled encoder. Raises LookupError that lists the names there are."""
    if name not in NAMES:
        raise LookupError(f"no encoder {name!r} comes with the package; there are {', '.join(NAMES)}")
    return Path(__file__).parent / name
