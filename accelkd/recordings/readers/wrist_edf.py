"""Wrist PPG During Exercise: `s<N>_<activity>.edf` with 15 signals, and a file with the beats of the chest ECG.

Jarchi & Casson, Data 2(1):1, 2017; distributed by PhysioNet.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import edfio
import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Recording, Session, Times, Unreadable

STANDARD_GRAVITY_M_S2 = 9.80665
RATE_HZ = 256.0
# By position: labels are truncated to 16 characters, so the three axes of a sensor share one
PPG, ACCEL, CLOCK = 1, slice(5, 8), 14
WRIST = slice(1, 14)
_LABELS = {1: "wrist_ppg", 5: "wrist_low_noise_", 6: "wrist_low_noise_", 7: "wrist_low_noise_", 14: "sample_times_for"}
MAX_CLOCK_JUMP_S = 0.25  # genuine recordings: up to 0.09 s about once a minute


def find(files: Iterable[Path]) -> Delivery:
    present = set(files)
    sessions = []
    for path in sorted(present):
        if match := re.fullmatch(r"(s\d+)_\w+\.edf", path.name):
            beats = path.with_suffix(".atr.txt")
            sessions.append(Session(path, (path, beats) if beats in present else (path,), match[1]))
    return Delivery(tuple(sessions))


def read(session: Session) -> list[Recording]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # raised for a file shorter than its header says
            signals = edfio.read_edf(session.source).signals
            _check_layout(signals)
            digital = np.stack([signal.digital for signal in signals])
    except Unreadable:
        raise
    except Exception as error:  # a damaged header makes the library raise nearly anything
        raise Unreadable("unreadable_file", f"{session.source.name}: {error}") from error

    # The last data record is padded: every channel of the wrist sits at its minimum
    lowest = np.array([[signal.digital_min] for signal in signals[WRIST]])
    recorded = np.flatnonzero((digital[WRIST] != lowest).any(axis=0))
    if not recorded.size:
        raise Unreadable("empty_stream", f"{session.source.name} holds nothing but fill samples")
    samples = int(recorded[-1]) + 1
    jumps_s = _clock_jumps_s(signals[CLOCK].data[:samples])
    if jumps_s.size and np.abs(jumps_s).max() > MAX_CLOCK_JUMP_S:
        raise Unreadable(
            "clock_jump", f"{session.source.name}: the sample clock jumps by up to {np.abs(jumps_s).max():.3f} s"
        )
    notes = [f"{digital.shape[1] - samples} fill samples cut from the end"]
    if jumps_s.size:
        notes.append(f"{jumps_s.size} jumps of the sample clock, {jumps_s.sum():.3f} s lost in all")

    beat_s = None
    if len(session.files) == 2:
        beat_sample = _beats(session.files[1])
        if beat_sample.size and beat_sample[-1] >= digital.shape[1]:
            raise Unreadable("reference_outside", f"{session.files[1].name} has beats after the end of the signals")
        beat_s = beat_sample[beat_sample < samples] / RATE_HZ
    else:
        notes.append("no beat list")
    recording = Recording(
        ppg=signals[PPG].data[None, :samples],
        ppg_rate_hz=RATE_HZ,
        accel=np.stack([s.data[:samples] / STANDARD_GRAVITY_M_S2 for s in signals[ACCEL]]),
        accel_rate_hz=RATE_HZ,
        reference_source=None if beat_s is None else "ecg",
        reference_beat_s=beat_s,
        notes=tuple(notes),
    )
    return [recording]


def _check_layout(signals: tuple[edfio.EdfSignal, ...]) -> None:
    if len(signals) != 15:
        raise Unreadable("wrong_signals", f"expected 15 signals, found {len(signals)}")
    for position, label in _LABELS.items():
        if signals[position].label != label:
            raise Unreadable(
                "wrong_signals", f"signal {position + 1} is {signals[position].label!r}, expected {label!r}"
            )
    for signal in signals:
        if signal.sampling_frequency != RATE_HZ:
            raise Unreadable("rate", f"{signal.label} at {signal.sampling_frequency} Hz, expected {RATE_HZ:g}")
    for signal in signals[ACCEL]:
        if signal.physical_dimension != "ms^-2":
            raise Unreadable("accel_unit", f"{signal.label} in {signal.physical_dimension!r}, expected 'ms^-2'")


def _clock_jumps_s(clock_s: Times) -> Times:
    """Jumps of the sample clock, which wraps at 60 s: steps beyond one sample, less that sample."""
    excess_s: Times = np.mod(np.diff(clock_s) - 1 / RATE_HZ + 30, 60) - 30
    return excess_s[np.abs(excess_s) > 1 / RATE_HZ]


def _beats(path: Path) -> npt.NDArray[np.int64]:
    """Sample numbers of the heart beats (rows of type N) of a beat list."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].split()[:3] != ["Time", "Sample", "#"]:
        raise Unreadable("bad_header", f"{path.name} does not start with the names of the columns")
    beats = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split()
        if len(fields) < 5 or not fields[1].isdecimal():
            raise Unreadable("bad_row", f"{path.name}: row {number} is not a row of a beat list")
        if fields[2] == "N":
            beats.append(int(fields[1]))
    return np.array(beats, np.int64)
