"""Who the participant of a session is: by the rule of its format, by its path, or by what its files say.

A guess would put one person on both sides of the split, or merge two. So a path counts only where it can be read in one
way, and what is not clear is refused with the ways to make it so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from accelkd.recordings.listing import printable

SOURCES = ("path", "path:N", "column", "file")
ADVICE = (
    "say where it stands: --participant-from path (the first folder or file name below the delivered folder), path:2 "
    "(the second), file (what the files say) or column (of a table), or put the files of each person into "
    "a folder of their own"
)
_DATE = r"(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)"
_WORDS = (
    "session|sess|ses|recording|rec|record|run|trial|task|visit|vis|day|night|week|month|part|segment|seg|file|data"
    "|raw|raw[-_ ]?data|export|exports|download|downloads|input|output|upload|baseline|rest|resting|walk|walking|stress"
    "|test|sleep|first|second|again|copy|new|old|left|right|wrist|chest|arm|hand|hip|waist|watch|phone|device|sensor|e4"
    "|ppg|acc|accel|accelerometer|imu|ecg|signals?|sensors?|untitled|unknown|default|site|cent(?:er|re)|wave|cohort"
    "|study|group|batch|data[-_ ]?set|wearables?|zips?|csv|edf|bin"
)
_EVERYBODY = (
    "all|everybody|participants?|subjects?|subs?|people|persons?|patients?|users?|studies"  # with a number: one
)
# Names that say when, where or what was recorded, not of whom
_SESSION = re.compile(
    rf"(?:\d{{9,}}(?:[-_].*)?|.*(?<!\d){_DATE}.*|(?:{_WORDS})(?:[-_ .]?(?:\d+|[a-z]))?|{_EVERYBODY})", re.IGNORECASE
)


def looks_like_session(name: str) -> bool:
    """Whether a name says when or what was recorded: a time, a date, `session_2`, `Recording_001`, `left`."""
    return _SESSION.fullmatch(name) is not None


def level_of(participant_from: str | None) -> int | None:
    """The level below the delivered folder that `path` or `path:N` names, from 0; None for the other sources.

    Raises ValueError for a source that is none.
    """
    match = re.fullmatch(r"path(?::([1-9]\d?))?", participant_from or "")
    if match:
        return int(match[1] or 1) - 1
    if participant_from not in (None, "column", "file"):
        raise ValueError(f"participant_from is {participant_from!r}, expected one of {', '.join(SOURCES)}")
    return None


def by_path(paths: Sequence[PurePath], delivered: str, level: int | None = None) -> list[tuple[str | None, str]]:
    """For each session's path below the delivered folder: the participant's name, or None and why it is not clear.

    A file counts by its name without suffixes. With `level` that part of the path is the name. Without, it is the only
    part that neither looks like a session nor stands at the front of all paths; a name below several folders is
    refused, since it may be a session of one person or two people. A session that lies in the folder `delivered` itself
    is named after it.
    """
    parts = [path.parts for path in paths]
    if level is not None:
        return [
            (names[level], "") if level < len(names) else (None, f"its path has {len(names)} parts below the folder")
            for names in parts
        ]
    shared = 0  # parts at the front of all paths
    while len(parts) > 1 and len({names[: shared + 1] for names in parts}) == 1 and len(parts[0]) > shared:
        shared += 1
    named = [_only_candidate(names or (delivered,), shared) for names in parts]
    parents: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for names, (name, _) in zip(parts, named, strict=True):
        if name is not None and names:
            parents[name].add(names[: names.index(name)])
    return [
        (None, f"{printable(name)!r} stands below several folders; {ADVICE}")
        if name is not None and len(parents[name]) > 1
        else (name, why)
        for name, why in named
    ]


def _only_candidate(names: tuple[str, ...], shared: int) -> tuple[str | None, str]:
    """The part that may be a participant; one of the first `shared` ones, which all paths have, only if no other is."""
    candidates = [name for name in names[shared:] if not looks_like_session(name)] or [
        name for name in names[: min(shared, len(names) - 1)] if not looks_like_session(name)
    ]
    if len(candidates) == 1:
        return candidates[0], ""
    if not candidates:
        shown = printable("/".join(names))
        return None, f"{shown!r} looks like a session, not like a participant; {ADVICE}"
    return None, f"it may be {' or '.join(repr(printable(name)) for name in candidates)}; {ADVICE}"
