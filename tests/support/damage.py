"""Ways to damage a file."""

from __future__ import annotations

from pathlib import Path

_BLOCK = 4096
_HEADER = 3 * _BLOCK  # of a DuckDB file


def flip(path: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_all(path: Path) -> None:
    """Flip a bit in every block but the header's."""
    content = bytearray(path.read_bytes())
    for place in range(_HEADER + 100, len(content), _BLOCK):
        content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Keep the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
