"""Wrist PPG During Exercise: `s<N>_<activity>.edf` with 15 signals, and a file with the beats of the chest ECG.

Jarchi & Casson, Data 2(1):1, 2017; distributed by PhysioNet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_opening, median_filter

from accelkd.recordings.readers import Delivery, Recording, Session, Times, Unreadable
from accelkd.recordings.readers.ecg import reference_beats
from accelkd.recordings.readers.edf import EdfFile, open_edf
from accelkd.recordings.readers.signals import g_per_unit, in_g
from accelkd.recordings.timeline import assemble, place

RATE_HZ = 256.0
# By position: labels are truncated to 16 characters, so the three axes of a sensor share one
ECG, PPG, ACCEL, CLOCK = 0, 1, (5, 6, 7), 14
WRIST = range(1, 14)
_LABELS = {1: "wrist_ppg", 5: "wrist_low_noise_", 6: "wrist_low_noise_", 7: "wrist_low_noise_", 14: "sample_times_for"}
MAX_CLOCK_JUMP_S = 0.25  # genuine recordings: up to 0.09 s about once a minute; a longer one is a gap
MAX_STILL = 4  # samples for which a running clock stands still
MEDIAN_SAMPLES = 9  # more than twice as many as a damaged byte or two may spoil
_WRAP_S = 60.0


def find(files: Iterable[Path]) -> Delivery:
    present = set(files)
    sessions = []
    for path in sorted(present):
        if match := re.fullmatch(r"(s\d+)_\w+\.edf", path.name, re.IGNORECASE):
            beat_list = path.with_suffix(".atr.txt")
            paths = (path, beat_list) if beat_list in present else (path,)
            sessions.append(Session(path, paths, match[1].lower()))
    return Delivery(tuple(sessions))


def read(session: Session) -> list[Recording]:
    file = open_edf(session.source)
    _check_layout(file)
    notes = list(file.notes)
    # The last data record is padded: every channel of the wrist sits at its minimum
    end_s = file.fill_start_s(WRIST)
    samples = round(end_s * RATE_HZ)
    if samples < 2:
        raise Unreadable("empty_stream", f"{session.source.name} holds nothing but fill samples")
    total = round(file.duration_s * RATE_HZ)
    if samples < total:
        notes.append(f"{total - samples} fill samples cut from the end")
    time_s, recorded = _sample_times_s(file, samples, notes)

    beat_s: Times | None = None
    if len(session.files) == 2:
        beat_s = _listed(session.files[1], round(file.declared_s * RATE_HZ), time_s, notes)
    if beat_s is None:
        beat_s = reference_beats(place(time_s, file.physical([ECG])[:, :samples])[0], notes)
    streams = [file.physical([PPG])[:, :samples]]
    unknown = [f"{file.labels[axis]} in {file.units[axis]!r}" for axis in ACCEL if g_per_unit(file.units[axis]) is None]
    if unknown:
        notes.append(f"accel_unit: {', '.join(unknown)}, expected g, mg or m/s^2: the acceleration left out")
    else:
        scales = [g_per_unit(file.units[axis]) or np.nan for axis in ACCEL]
        streams += in_g([file.physical(ACCEL)[:, :samples]], scales, notes)
    placed = [place(time_s, np.where(recorded, stream, np.nan), name=session.source.name) for stream in streams]
    (ppg, corrected), (accel, _) = placed[0], placed[1] if len(placed) > 1 else ([], [])
    facts = Recording(
        reference_source=None if beat_s is None else "ecg", reference_beat_s=beat_s, notes=(*notes, *corrected)
    )
    return assemble(ppg, accel, facts, utc=False)  # the header has the date of the conversion


def _check_layout(file: EdfFile) -> None:
    if len(file.labels) != 15:
        raise Unreadable("wrong_signals", f"expected 15 signals, {file.name} has {len(file.labels)}")
    for position, label in _LABELS.items():
        if file.labels[position] != label:
            raise Unreadable("wrong_signals", f"signal {position + 1} is {file.labels[position]!r}, expected {label!r}")
    for label, rate_hz in zip(file.labels, file.rates_hz, strict=True):
        if rate_hz != RATE_HZ:
            raise Unreadable("rate", f"{label} at {rate_hz} Hz, expected {RATE_HZ:g}")


def _sample_times_s(file: EdfFile, samples: int, notes: list[str]) -> tuple[Times, npt.NDArray[np.bool_]]:
    """When each sample was taken, and which were: the nominal rate, later by what the clock jumped over in long gaps.

    The clock wraps at 60 s; it stands still where a block of the file is lost. Raises Unreadable where it goes back:
    records are in another order.
    """
    clock_s = file.physical([CLOCK])[0, :samples]
    regular_s = np.arange(samples) / RATE_HZ
    stands = binary_opening(np.diff(clock_s, prepend=np.nan) == 0, np.ones(MAX_STILL))
    if stands.mean() > 0.5:
        return regular_s, np.ones(samples, bool)  # the clock was not recorded
    ticks = np.flatnonzero(~stands)
    late_s = np.unwrap(clock_s[ticks] - regular_s[ticks], period=_WRAP_S)
    if (np.abs(np.diff(late_s)) > MAX_CLOCK_JUMP_S).any():
        late_s = median_filter(late_s, MEDIAN_SAMPLES)  # a damaged sample jumps and comes back
    jumps_s = np.diff(late_s)
    large = np.abs(jumps_s) > 1 / RATE_HZ
    if (jumps_s < -MAX_CLOCK_JUMP_S).any():
        raise Unreadable("clock_jump", f"{file.name}: the sample clock goes back by {-jumps_s.min():.3f} s")
    if large.any():
        notes.append(f"{large.sum()} jumps of the sample clock, {jumps_s[large].sum():.3f} s lost in all")
    if stands.any():
        notes.append(f"{stands.sum()} samples of unreadable blocks")
    gap_s = np.concatenate([[0.0], np.cumsum(np.where(jumps_s > MAX_CLOCK_JUMP_S, jumps_s, 0.0))])
    time_s: Times = regular_s + np.interp(np.arange(samples), ticks, gap_s)
    return time_s, ~stands


def _listed(path: Path, total: int, time_s: Times, notes: list[str]) -> Times | None:
    """Instants of the beats of a list; None, with a note, where it is none or belongs to another recording."""
    try:
        beat_sample = _beat_samples(path, notes)
    except (Unreadable, OSError) as error:
        notes.append(f"beat list left out: {error}")
        return None
    if beat_sample.size and beat_sample.max() >= total:
        notes.append(f"beat list left out: {path.name} has beats after the end of the signals")
        return None
    return time_s[np.unique(beat_sample[beat_sample < len(time_s)])]


def _beat_samples(path: Path, notes: list[str]) -> npt.NDArray[np.int64]:
    """Sample numbers of the heart beats (rows of type N) of a beat list. Raises Unreadable."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    known = [row for row in rows if len(row) >= 3 and row[1].isascii() and row[1].isdecimal()]
    if not known:
        raise Unreadable("bad_header", f"{path.name} has no rows of a beat list")
    odd = len(rows) - len(known) - (rows[0][:1] == ["Time"])
    if odd:
        notes.append(f"{path.name}: {odd} rows that are none of a beat list left out")
    return np.array([int(row[1]) for row in known if row[2] == "N" and len(row[1]) < 16], np.int64)
