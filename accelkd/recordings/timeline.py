"""From time stamps to streams of equally spaced samples: samples are placed by their time, never counted.

A lost packet becomes a gap of NaN of the right length, a clock that was set back or stood still for long begins
another piece, and jitter moves nothing. What was corrected is said in notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Recording, Signals, Times, Unreadable

MAX_BACK_S = 1.0  # packets that arrive out of order; a clock that goes back further was reset
MAX_RESETS = 20  # of a clock; if it goes back more often, rows are not in the order of time
MAX_SPAN_S = 100 * 365.25 * 86400.0  # between instants of a recording: what is further from the others is no time
MAX_GAP_S = 600.0  # a longer one begins another recording instead of ten minutes of NaN
_REACH, _LEAST = 32, 8  # samples on both sides of a long step that tell a lost packet from a late one
MIN_RATE_HZ, MAX_RATE_HZ = 1.0, 10_000.0  # of any sensor; other steps come from damaged times
_MAX_PERIODS = 1e15  # between two samples: more than a million years at any rate, where clocks hold noise
MIN_PART_S = 60.0  # of a recording that is cut: a shorter part holds no window
MAX_RECORDING_S = 6 * 3600.0  # of one row of a batch; a longer recording is cut


@dataclass(frozen=True)
class Piece:
    """Equally spaced samples of one stream, from one instant of its clock on."""

    start_s: float
    rate_hz: float
    samples: Signals  # [channels, samples]; NaN where samples were lost
    epoch: int = 0  # how often the clock had been reset before

    @property
    def end_s(self) -> float:
        """The instant after the last sample."""
        return self.start_s + float(self.samples.shape[1]) / self.rate_hz


def place(
    time_s: Times, samples: Signals, *, name: str = "", max_gap_s: float = MAX_GAP_S
) -> tuple[list[Piece], list[str]]:
    """Place samples `[channels, samples]` by their instants; returns the pieces in the order recorded, and notes.

    The rate is measured: sampling periods between first and last sample over the time between them. `name` stands
    before each note. Raises Unreadable if fewer than two samples have a time.
    """
    notes = []
    time_s = np.asarray(time_s, np.float64)
    timed = np.isfinite(time_s)
    timed[timed] = np.abs(time_s[timed] - np.median(time_s[timed])) < MAX_SPAN_S if timed.any() else False
    if not timed.all():
        notes.append(f"{(~timed).sum()} samples without a time left out")
        time_s, samples = time_s[timed], samples[:, timed]
    if len(time_s) < 2:
        raise Unreadable("empty_file", f"{name or 'the stream'} has less than two samples")
    lone = _lone_jumps(time_s)
    if lone.any():
        notes.append(f"{lone.sum()} samples whose time is far from those before and after left out")
        time_s, samples = time_s[~lone], samples[:, ~lone]
    pieces: list[Piece] = []
    resets = np.flatnonzero(np.diff(time_s) < -MAX_BACK_S) + 1
    if len(resets) > MAX_RESETS:
        notes.append(f"{len(resets)} times rows went back in time: sorted by it")
        order, resets = np.argsort(time_s, kind="stable"), resets[:0]
        time_s, samples = time_s[order], samples[:, order]
    for epoch, (first, last) in enumerate(pairwise([0, *resets.tolist(), len(time_s)])):
        placed, corrected = _place_run(time_s[first:last], samples[:, first:last], max_gap_s)
        pieces += [replace(piece, epoch=epoch) for piece in placed]
        notes += corrected
    if len(resets):
        notes.append(f"the clock went back {len(resets)} times: {len(pieces)} recordings")
    if not pieces:
        why = f": {'; '.join(notes)}" if notes else ""
        raise Unreadable("rate", f"{name or 'the stream'} has no samples at {MIN_RATE_HZ:g} Hz and more{why}")
    return pieces, [f"{name}: {note}" if name else note for note in notes]


def _lone_jumps(time_s: Times) -> npt.NDArray[np.bool_]:
    """Single samples whose time was damaged: both neighbours are close to each other, and far from it."""
    lone = np.zeros(len(time_s), bool)
    if len(time_s) > 2:
        before, at, after = time_s[:-2], time_s[1:-1], time_s[2:]
        step_s = after - before
        close = (step_s >= 0) & (step_s < MAX_BACK_S)
        lone[1:-1] = close & ((at < before - MAX_BACK_S) | (at > after + MAX_BACK_S))
    return lone


def _place_run(time_s: Times, samples: Signals, max_gap_s: float) -> tuple[list[Piece], list[str]]:
    """Pieces of a run of samples whose clock was not reset."""
    notes = []
    if (np.diff(time_s) < 0).any():
        order = np.argsort(time_s, kind="stable")
        notes.append(f"{(np.diff(time_s) < 0).sum()} samples out of order sorted by time")
        time_s, samples = time_s[order], samples[:, order]
    again = _again(time_s, samples)
    # A device that stamps whole packets repeats times; one that sends rows twice repeats the samples as well
    if again.any() and not again.mean() > 0.5:
        notes.append(f"{again.sum()} samples that came twice left out")
        time_s, samples = time_s[~again], samples[:, ~again]
    if len(time_s) < 2 or time_s[-1] <= time_s[0]:
        return [], [*notes, f"{len(time_s)} samples at one instant left out"]
    time_s = _spread_packets(time_s)
    period_s = _period_s(time_s)
    lost = _lost_samples(time_s, period_s)
    period_s = (time_s[-1] - time_s[0]) / (len(time_s) - 1 + lost.sum())
    lost = _lost_samples(time_s, period_s)
    pieces = []
    far = np.flatnonzero(lost * period_s > max_gap_s) + 1
    for first, last in pairwise([0, *far.tolist(), len(time_s)]):
        start_s, span_s = float(time_s[first]), float(time_s[last - 1] - time_s[first])
        if last - first < 2 or span_s <= 0:
            notes.append(f"{last - first} samples between two long gaps left out")
            continue
        inside = lost[first : last - 1]
        missing = int(inside.sum())
        rate_hz = (last - first - 1 + missing) / span_s
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            notes.append(f"{last - first} samples within {span_s:.6f} s left out")
            continue
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which counts as a missing sample
            placed: Signals = samples[:, first:last].astype(np.float32)
        if missing:
            longest_s = time_s[first + inside.argmax()] - start_s
            notes.append(
                f"{(inside > 0).sum()} gaps, {missing} samples ({missing / rate_hz:.3f} s) lost, the longest after "
                f"{longest_s:.1f} s"
            )
            filled = np.full((len(samples), last - first + missing), np.nan, np.float32)
            filled[:, np.concatenate([[0], np.cumsum(1 + inside)])] = placed
            placed = filled
        pieces.append(Piece(start_s, rate_hz, placed))
    if len(far):
        notes.append(f"{len(far)} interruptions of more than {max_gap_s:g} s: {len(pieces)} recordings")
    return pieces, notes


def _again(time_s: Times, samples: Signals) -> npt.NDArray[np.bool_]:
    """Rows that repeat the one before, time and samples."""
    again = np.zeros(len(time_s), np.bool_)
    rows = np.flatnonzero(np.diff(time_s) == 0) + 1
    before, after = samples[:, rows - 1], samples[:, rows]
    again[rows] = ((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=0)
    return again


def _spread_packets(time_s: Times) -> Times:
    """Times where the samples of a packet share one stamp, its last sample's: spread evenly back to the one before."""
    first = np.concatenate([[True], np.diff(time_s) > 0])
    if first.mean() > 0.5:
        return time_s
    stamps, size = time_s[first], np.diff(np.append(np.flatnonzero(first), len(time_s)))
    period_s = float(np.median(np.diff(stamps) / size[1:]))
    back = np.concatenate([np.arange(n - 1, -1, -1) for n in size]) * period_s
    spread: Times = np.maximum.accumulate(np.repeat(stamps, size) - back)
    return spread


def _period_s(time_s: Times) -> float:
    """The sampling period: the median over spans of samples, which averages jitter and passes over gaps."""
    span = min(2 * _REACH, max((len(time_s) - 1) // 4, 1))
    period_s = float(np.median(time_s[span:] - time_s[:-span])) / span
    return period_s if period_s > 0 else float(time_s[-1] - time_s[0]) / (len(time_s) - 1)


def _lost_samples(time_s: Times, period_s: float) -> npt.NDArray[np.int64]:
    """How many samples are missing after each one.

    A long step is a gap by as much as the samples after it are later than those before it, in the median: a few samples
    that are late, and that the next ones catch up with, are no gap.
    """
    step_s = np.diff(time_s)
    lost = np.zeros(len(step_s), np.int64)
    late_s = time_s - np.arange(len(time_s)) * period_s
    edges = np.concatenate([[0], np.flatnonzero(step_s > 2.5 * period_s) + 1, [len(time_s)]])  # of runs without a gap
    for i in np.flatnonzero(step_s > 1.5 * period_s):
        run = np.searchsorted(edges, i, side="right")
        begin, end = edges[run - 1], edges[min(run + (edges[run] == i + 1), len(edges) - 1)]
        before, after = late_s[max(i + 1 - _REACH, begin) : i + 1], late_s[i + 1 : min(i + 1 + _REACH, end)]
        if step_s[i] < 2.5 * period_s and min(len(before), len(after)) < _LEAST:
            continue  # beside a gap that is certain: jitter
        gap_s = float(np.median(after) - np.median(before))
        if gap_s > _MAX_PERIODS * period_s:
            raise Unreadable("rate", f"a gap of {gap_s:g} s at {period_s:g} s between samples")
        lost[i] = max(round(gap_s / period_s), 0)
    return lost


def assemble(
    ppg: Sequence[Piece],
    accel: Sequence[Piece],
    facts: Recording,
    *,
    dark_channels: int = 0,
    utc: bool,
) -> list[Recording]:
    """Recordings from the pieces of one session's streams, whose clocks agree, in the order recorded.

    Pieces that overlap in time, after equally many resets of the clock, become one recording; where one stream has
    several pieces meanwhile, NaN stands between them. `facts` holds everything else; its references and events, on the
    same clock, go to the recording in whose time they are. The last `dark_channels` rows of `ppg` are dark slots. With
    `utc` the clock counts seconds since 1970.
    Raises Unreadable for a rate that no sensor has.
    """
    for piece in (*ppg, *accel):
        if not MIN_RATE_HZ <= piece.rate_hz <= MAX_RATE_HZ:
            raise Unreadable("rate", f"{piece.rate_hz:g} Hz is not in {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g}")
    groups: list[tuple[list[Piece], list[Piece]]] = []
    epoch, end_s = -1, -np.inf
    tagged = [(piece, 0) for piece in ppg] + [(piece, 1) for piece in accel]
    for piece, stream in sorted(tagged, key=lambda entry: (entry[0].epoch, entry[0].start_s)):
        if piece.epoch != epoch or piece.start_s >= end_s:
            groups.append(([], []))
            end_s = -np.inf
        groups[-1][stream].append(piece)
        epoch, end_s = piece.epoch, max(end_s, piece.end_s)
    return [_recording(_joined(optical), _joined(inertial), facts, dark_channels, utc) for optical, inertial in groups]


def _joined(pieces: Sequence[Piece]) -> Piece | None:
    """Pieces of one stream on the grid of the first, with NaN between them; later samples stand where they overlap."""
    if not pieces:
        return None
    first = pieces[0]
    if len(pieces) == 1:
        return first
    starts = [round((piece.start_s - first.start_s) * first.rate_hz) for piece in pieces]
    length = max(start + piece.samples.shape[1] for start, piece in zip(starts, pieces, strict=True))
    samples = np.full((len(first.samples), length), np.nan, first.samples.dtype)
    for start, piece in zip(starts, pieces, strict=True):
        samples[:, start : start + piece.samples.shape[1]] = piece.samples
    return replace(first, samples=samples)


def _recording(ppg: Piece | None, accel: Piece | None, facts: Recording, dark_channels: int, utc: bool) -> Recording:
    start = ppg or accel
    assert start is not None
    start_s = start.start_s
    channels = None if ppg is None else len(ppg.samples) - dark_channels
    moved = replace(
        facts,
        ppg=None if ppg is None else ppg.samples[:channels],
        ppg_rate_hz=None if ppg is None else ppg.rate_hz,
        dark=ppg.samples[channels:] if ppg is not None and dark_channels else None,
        dark_offsets_s=facts.dark_offsets_s if ppg is not None and dark_channels else None,
        accel=None if accel is None else accel.samples,
        accel_rate_hz=None if accel is None else accel.rate_hz,
        accel_start_s=0.0 if accel is None else accel.start_s - start_s,
        started_at_s=start_s if utc else None,
    )
    return between(moved, start_s, start_s + moved.duration_s)


def between(recording: Recording, from_s: float, to_s: float) -> Recording:
    """References and events of `from_s` to `to_s` of a recording, counted from `from_s`; the signals stay."""

    def inside(instants_s: Times | None, values: Times | None = None) -> tuple[Times | None, Times | None]:
        if instants_s is None:
            return None, None
        kept = (instants_s >= from_s) & (instants_s <= to_s)
        return instants_s[kept] - from_s, None if values is None else values[kept]

    beat_s, _ = inside(recording.reference_beat_s)
    hr_s, hr_bpm = inside(recording.reference_hr_s, recording.reference_hr_bpm)
    ibi_end_s, ibi_s = inside(recording.reference_ibi_end_s, recording.reference_ibi_s)
    event_s, _ = inside(recording.event_s)
    return replace(
        recording,
        reference_beat_s=beat_s,
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        reference_ibi_end_s=ibi_end_s,
        reference_ibi_s=ibi_s,
        event_s=event_s,
    )


def cut(recording: Recording, from_s: float, to_s: float) -> Recording:
    """The part of a recording from `from_s` to `to_s` after its start, on its own time."""
    streams: dict[str, tuple[Signals | None, float]] = {}
    for name, start_s in (("ppg", 0.0), ("dark", 0.0), ("accel", recording.accel_start_s)):
        samples: Signals | None = getattr(recording, name)
        rate_hz = recording.accel_rate_hz if name == "accel" else recording.ppg_rate_hz
        if samples is None or rate_hz is None:
            streams[name] = (None, 0.0)
            continue
        first = max(int(np.ceil((from_s - start_s) * rate_hz - 1e-6)), 0)
        last = min(max(int(np.ceil((to_s - start_s) * rate_hz - 1e-6)), first), samples.shape[1])
        part = samples[:, first:last]
        streams[name] = (part if part.shape[1] else None, start_s + first / rate_hz)
    (ppg, ppg_s), (dark, _), (accel, accel_s) = streams["ppg"], streams["dark"], streams["accel"]
    start_s = ppg_s if ppg is not None else accel_s
    moved = replace(
        recording,
        ppg=ppg,
        ppg_rate_hz=None if ppg is None else recording.ppg_rate_hz,
        dark=dark,
        dark_offsets_s=None if dark is None else recording.dark_offsets_s,
        accel=accel,
        accel_rate_hz=None if accel is None else recording.accel_rate_hz,
        accel_start_s=0.0 if accel is None else accel_s - start_s,
        started_at_s=None if recording.started_at_s is None else recording.started_at_s + start_s,
    )
    return between(moved, start_s, to_s)


def pieces_of(recording: Recording, max_s: float = MAX_RECORDING_S) -> list[Recording]:
    """A recording in parts: where one modality lasts a minute longer than the other, and of at most `max_s`.

    `max_s` is a multiple of a minute. What one modality covers alone is a recording of it alone, and memory is bounded.
    """
    edges_s = [min(recording.accel_start_s, 0.0), recording.duration_s]
    if recording.ppg is not None and recording.ppg_rate_hz and recording.accel is not None and recording.accel_rate_hz:
        ends_s = (
            recording.ppg.shape[1] / recording.ppg_rate_hz,
            recording.accel_start_s + recording.accel.shape[1] / recording.accel_rate_hz,
        )
        edges_s += [max(recording.accel_start_s, 0.0), min(ends_s)]
    edges_s = _apart(sorted(edges_s), MIN_PART_S)
    parts = []
    for from_s, to_s in pairwise(edges_s):
        count = max(int(np.ceil((to_s - from_s - MIN_PART_S) / max_s)), 1)
        inner = [from_s + number * max_s for number in range(count)]
        parts += [cut(recording, *edges) for edges in pairwise([*inner, to_s])]
    if len(parts) == 1:
        return [recording]
    return [part for part in parts if part.ppg is not None or part.accel is not None]


def _apart(edges_s: list[float], least_s: float) -> list[float]:
    """First and last edge, and those between that are at least `least_s` from the one kept before and from the last."""
    kept = edges_s[:1]
    for edge_s in edges_s[1:-1]:
        if edge_s - kept[-1] >= least_s and edges_s[-1] - edge_s >= least_s:
            kept.append(edge_s)
    return [*kept, edges_s[-1]]
