"""Recordings of accelerometers that write blocks of samples with one stamp each: pages, sectors, packets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.timeline import MAX_BACK_S, assemble, place

CHUNK_SAMPLES = 1 << 22  # placed together: half a day at 100 Hz
_TOLERANCE = 1.5  # sampling periods that a stamp may be late without samples lost
_MIN_STEPS = 3  # between blocks, from which the sampling period is measured


@dataclass(frozen=True)
class Blocks:
    """Blocks in the order written, each with a stamp and at least one sample."""

    stamp_s: Times
    stamped: npt.NDArray[np.int64]  # sample that the stamp belongs to, from the block's first on
    count: npt.NDArray[np.int64]  # samples
    decode: Callable[[slice], Signals]  # the samples of some blocks, `[3, samples]` in g
    resolution_s: float = 0.0  # of the stamps


def files_with(session_files: Sequence[Path], is_format: Callable[[Path], bool]) -> tuple[Session, ...]:
    """A session for each file of a format."""
    return tuple(Session(path, (path,)) for path in session_files if is_format(path))


def starts_with(path: Path, magic: bytes) -> bool:
    """Whether a file begins with these bytes; False where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def recordings_of(
    name: str, blocks: Blocks, nominal_rate_hz: float, facts: Recording, *, utc: bool, notes: Sequence[str] = ()
) -> list[Recording]:
    """Recordings of an accelerometer, in the order recorded, each of at most `CHUNK_SAMPLES` samples.

    The stamps are interpolated: the clock of the sensor, which is a percent off at times, is not the one that stamps. A
    stamp that is too late for the samples before it leaves a gap. Notes go with the first recording. Raises Unreadable
    if there are no two samples.
    """
    if not len(blocks.count):
        raise Unreadable("unreadable_file", f"{name} has no readable block of samples")
    if not 0 < nominal_rate_hz < np.inf:
        raise Unreadable("rate", f"{name} says a sampling rate of {nominal_rate_hz:g} Hz")
    first = np.cumsum(blocks.count) - blocks.count
    at, stamp_s = _line(blocks, first, 1 / nominal_rate_hz)
    kept = list(notes)
    recordings: list[Recording] = []
    chunk = first // CHUNK_SAMPLES
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(first)]
    for start, stop in pairwise(edges):
        number = np.arange(first[start], first[stop - 1] + blocks.count[stop - 1])
        try:
            pieces, corrected = place(
                np.interp(number, at, stamp_s), blocks.decode(slice(start, stop)), name="acceleration"
            )
        except Unreadable as error:
            if error.reason != "empty_file":
                raise
            kept.append(f"{len(number)} samples at one instant left out")
            continue
        kept += corrected
        for piece in pieces:  # each by itself: where the clock was set back, they may overlap
            recordings += assemble((), (piece,), facts, utc=utc)
    if not recordings:
        raise Unreadable("empty_file", f"{name} has less than two samples")
    return [replace(recordings[0], notes=(*facts.notes, *kept)), *recordings[1:]]


def _line(blocks: Blocks, first: npt.NDArray[np.int64], period_s: float) -> tuple[npt.NDArray[np.int64], Times]:
    """Samples and their instants, on the line through which all others lie.

    These are the samples that have a stamp, and the first and last one of each run of blocks without a gap or a reset
    of the clock between them. The sampling period is measured by the stamps.
    """
    stamp_s, at, last = blocks.stamp_s, first + blocks.stamped, first + blocks.count - 1
    step_s, steps = np.diff(stamp_s), np.diff(at)
    usual = (step_s > 0) & (steps > 0)
    if usual.sum() >= _MIN_STEPS:
        period_s = float(np.median(step_s[usual] / steps[usual]))
    late_s = step_s - steps * period_s
    broken = (late_s > _TOLERANCE * period_s + blocks.resolution_s) | (step_s < -MAX_BACK_S) | (steps <= 0)
    starts = np.concatenate([[0], np.flatnonzero(broken) + 1])
    ends = np.concatenate([np.flatnonzero(broken), [len(at) - 1]])
    run = np.repeat(np.arange(len(starts)), ends - starts + 1)
    inside = (at > first[starts][run]) & (at < last[ends][run])
    places = np.concatenate([first[starts], at[inside], last[ends]])
    instants = np.concatenate(
        [
            stamp_s[starts] - (at[starts] - first[starts]) * period_s,
            stamp_s[inside],
            stamp_s[ends] - (at[ends] - last[ends]) * period_s,
        ]
    )
    order = np.argsort(places, kind="stable")
    return places[order], instants[order]
