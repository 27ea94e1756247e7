"""TROIKA / IEEE Signal Processing Cup 2015: pairs of MATLAB v5 files that hold no names, rates or times.

Zhang, Pi & Liu, IEEE Transactions on Biomedical Engineering 62(2):522-531, 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Unreadable
from accelkd.recordings.readers.matlab import read_matrices

RATE_HZ = 125.0
HR_WINDOW_S, HR_STEP_S = 8, 2


def find(files: Iterable[Path]) -> Delivery:
    present = set(files)
    sessions = []
    for path in sorted(present):
        if regular := re.fullmatch(r"DATA_(\d+)_TYPE\d+\.mat", path.name):
            number, trace = regular[1], path.with_name(f"{path.stem}_BPMtrace.mat")
        elif extra := re.fullmatch(r"DATA_S(\d+)_T\d+\.mat", path.name):
            number, trace = extra[1], path.with_name(path.name.replace("DATA", "BPM", 1))
        else:
            continue
        sessions.append(Session(path, (path, trace) if trace in present else (path,), str(int(number))))
    return Delivery(tuple(sessions))


def read(session: Session) -> list[Recording]:
    (rows,) = read_matrices(session.source, {"sig": (6, None)})  # ECG, two PPG channels, acceleration in g
    hr_s = hr_bpm = None
    if len(session.files) == 2:
        (trace,) = read_matrices(session.files[1], {"BPM0": (None, 1)})
        windows = int((rows.shape[1] / RATE_HZ - HR_WINDOW_S) // HR_STEP_S) + 1
        if len(trace) != windows:
            raise Unreadable("reference_lengths", f"{session.files[1].name}: {len(trace)} windows, expected {windows}")
        hr_s = HR_WINDOW_S / 2 + HR_STEP_S * np.arange(float(windows))  # middles of the windows
        hr_bpm = trace[:, 0]
    recording = Recording(
        ppg=rows[1:3],
        ppg_rate_hz=RATE_HZ,
        accel=rows[3:6],
        accel_rate_hz=RATE_HZ,
        reference_source=None if hr_bpm is None else "ecg",
        reference_hr_s=hr_s,
        reference_hr_bpm=hr_bpm,
        notes=() if hr_bpm is not None else ("no file with a heart-rate trace",),
    )
    return [recording]
