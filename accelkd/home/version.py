"""The version of a home's layout, kept in `layout.json`: a home that is newer than the code is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

from accelkd.home.layout import Home

LAYOUT = 2  # raised with every step of accelkd.operations.upgrade; homes of 0.1.0 have no file and count as 1


class UnusableHomeError(ValueError):
    """A home that must not be worked on as it is."""


def layout_file(home: Home) -> Path:
    return home.root / "layout.json"


def restore_journal(home: Home) -> Path:
    """A file that exists while a restore is under way: what lies in the home is not whole."""
    return home.root / "restore.json"


def layout_version(home: Home) -> int:
    """The layout that a home has; 1 where it does not say. Raises UnusableHomeError for a file that says no number."""
    path = layout_file(home)
    if not path.exists():
        return 1
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["layout"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableHomeError(f"{path} names no layout: {error!r}") from None


def check_layout(home: Home) -> None:
    """Raise UnusableHomeError for a home of a newer version."""
    if (version := layout_version(home)) > LAYOUT:
        raise UnusableHomeError(
            f"{home.root} has layout {version}, this accelkd knows {LAYOUT}: install the version that wrote it"
        )


def check_usable(home: Home) -> None:
    """Raise UnusableHomeError for a home of a newer version, or one whose restore was interrupted."""
    check_layout(home)
    if restore_journal(home).exists():
        raise UnusableHomeError(f"{home.root} is being restored; if that was interrupted, `accelkd restore` it again")


def write_layout(home: Home, version: int = LAYOUT) -> None:
    """Record the layout that a home has."""
    home.root.mkdir(parents=True, exist_ok=True)
    part = home.root / f".layout.{os.getpid()}"
    part.write_text(json.dumps({"layout": version}) + "\n", encoding="utf-8")
    part.replace(layout_file(home))


def mark_new(home: Home) -> None:
    """Record the layout of a home in which nothing has been made yet; an older home gets its own by an upgrade."""
    made = (home.published, home.split, home.root / "checkpoints")
    if not layout_file(home).exists() and not any(path.exists() for path in made):
        write_layout(home)
