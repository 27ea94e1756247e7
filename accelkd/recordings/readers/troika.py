"""TROIKA / IEEE Signal Processing Cup 2015: pairs of MATLAB v5 files that hold no names, rates or times.

Zhang, Pi & Liu, IEEE Transactions on Biomedical Engineering 62(2):522-531, 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Times, Unreadable
from accelkd.recordings.readers.ecg import reference_beats
from accelkd.recordings.readers.matlab import read_matrices, rows_of
from accelkd.recordings.timeline import Piece
from accelkd.recordings.validate import accel_unit_error

RATE_HZ = 125.0
HR_WINDOW_S, HR_STEP_S = 8, 2
_TRAINING = re.compile(r"DATA_(\d+)_TYPE\d+\.mat", re.IGNORECASE)
_EXTRA = re.compile(r"DATA_S(\d+)_T\d+\.mat", re.IGNORECASE)
_TEST = re.compile(r"TEST_S(\d+)_T\d+\.mat", re.IGNORECASE)
_TRACE = re.compile(r"(?:DATA_\d+_TYPE\d+_BPMtrace|(?:BPM|True)_S\d+_T\d+)\.mat", re.IGNORECASE)


def find(files: Iterable[Path]) -> Delivery:
    present = sorted(files)
    traces: dict[str, list[Path]] = {}
    for path in present:
        if _TRACE.fullmatch(path.name):
            traces.setdefault(path.name.lower(), []).append(path)
    sessions, used = [], set()
    for path in present:
        if match := _TRAINING.fullmatch(path.name):
            participant, trace_name = str(int(match[1])), f"{path.stem}_BPMtrace.mat"
        elif match := _EXTRA.fullmatch(path.name):
            participant, trace_name = str(int(match[1])), f"BPM{path.name[4:]}"
        elif match := _TEST.fullmatch(path.name):
            # Others than those of the training part, but for the fourth, whose other recording is there
            participant, trace_name = f"S{int(match[1])}", f"True{path.name[4:]}"
            participant = "4" if participant == "S4" else participant
        else:
            continue
        # The published archive keeps signals and traces of the test part in two folders
        named = traces.get(trace_name.lower(), [])
        near = [trace for trace in named if trace.parent == path.parent] or (named if len(named) == 1 else [])
        used.update(near)
        sessions.append(Session(path, (path, *near[:1]), participant))
    unpaired = {path for paths in traces.values() for path in paths} - used
    return Delivery(tuple(sessions), tuple(sorted(unpaired)))


def read(session: Session) -> list[Recording]:
    matrices, problems = read_matrices(session.source, ("sig",))
    if "sig" not in matrices:
        missing = "no variable" in problems["sig"]
        raise Unreadable("missing_variable" if missing else "wrong_variable", problems["sig"])
    # The test part has no ECG; in the training part five rows mean that a row was lost
    counts = (5, 6) if _TEST.fullmatch(session.source.name) else (6,)
    rows = rows_of(matrices["sig"], counts, f"{session.source.name}: sig")
    ecg, rows = (None, rows) if len(rows) == 5 else (rows[0], rows[1:])
    if error := accel_unit_error(rows[2:].astype(np.float32)):  # rows have no names: any of them may be another signal
        raise Unreadable("accel_unit", f"{session.source.name}: {error}; the rows may be in another order")
    notes: list[str] = []
    hr_s, hr_bpm = _trace(session, rows.shape[1], notes)
    beat_s = None
    if hr_bpm is None and ecg is not None:
        beat_s = reference_beats([Piece(0.0, RATE_HZ, ecg[None])], notes)
    recording = Recording(
        ppg=rows[:2],  # two PPG channels, then the acceleration in g
        ppg_rate_hz=RATE_HZ,
        accel=rows[2:],
        accel_rate_hz=RATE_HZ,
        reference_source=None if hr_bpm is None and beat_s is None else "ecg",
        reference_beat_s=beat_s,
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        notes=tuple(notes),
    )
    return [recording]


def _trace(session: Session, samples: int, notes: list[str]) -> tuple[Times | None, Times | None]:
    """Middles of the windows and the heart rates; a trace of another length belongs to another recording."""
    if len(session.files) < 2:
        notes.append("no file with a heart-rate trace")
        return None, None
    path = session.files[1]
    try:
        matrices, problems = read_matrices(path, ("BPM0",))
    except Unreadable as error:
        notes.append(f"heart-rate trace left out: {error}")
        return None, None
    if "BPM0" not in matrices:
        notes.append(f"heart-rate trace left out: {problems['BPM0']}")
        return None, None
    trace = matrices["BPM0"].ravel()
    windows = int((samples / RATE_HZ - HR_WINDOW_S) // HR_STEP_S) + 1
    if len(trace) != windows:
        notes.append(f"heart-rate trace left out: {path.name} has {len(trace)} windows, expected {windows}")
        return None, None
    return HR_WINDOW_S / 2 + HR_STEP_S * np.arange(float(windows)), trace
