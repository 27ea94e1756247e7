"""BAMI-1 watch: `Subject_<N>.mat`, MATLAB v5, three green PPG channels, Holter ECG beats.

Lee, Chung & Lee, IEEE Sensors Journal 19(3):1166-1175, 2018.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from accelkd.recordings.readers import Delivery, Recording, Session, Unreadable
from accelkd.recordings.readers.matlab import read_matrices

RATE_HZ = 50.0
ACCEL_OFFSET = 32768  # unsigned file, signed quantity
COUNTS_PER_G = 4096


def find(files: Iterable[Path]) -> Delivery:
    named = ((path, re.fullmatch(r"Subject_(\d+)\.mat", path.name)) for path in files)
    return Delivery(tuple(Session(path, (path,), match[1]) for path, match in named if match))


def read(session: Session) -> list[Recording]:
    ppg, accel, beat_s, hr_bpm = read_matrices(
        session.source, {"sigPPG": (3, None), "sigAcc": (3, None), "timeECG": (None, 1), "bpmECG": (None, 1)}
    )
    if ppg.shape != accel.shape:
        raise Unreadable("unequal_lengths", f"sigPPG has {ppg.shape[1]} samples, sigAcc {accel.shape[1]}")
    recording = Recording(
        ppg=ppg,
        ppg_rate_hz=RATE_HZ,
        accel=(accel - ACCEL_OFFSET) / COUNTS_PER_G,
        accel_rate_hz=RATE_HZ,
        reference_source="ecg",
        reference_beat_s=beat_s[:, 0],
        reference_hr_s=beat_s[:, 0],  # one value per beat, not per second
        reference_hr_bpm=hr_bpm[:, 0],
    )
    return [recording]
