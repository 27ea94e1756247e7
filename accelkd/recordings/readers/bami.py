"""BAMI watch: `Subject_<N>.mat`, MATLAB v5, three green PPG channels, Holter ECG beats.

Lee, Chung & Lee, IEEE Sensors Journal 19(3):1166-1175, 2018.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Times, Unreadable
from accelkd.recordings.readers.matlab import Matrices, read_matrices, rows_of

RATE_HZ = 50.0
PPG_CHANNELS = 3
ACCEL_OFFSET = 32768  # unsigned file, signed quantity
COUNTS_PER_G = 4096
_NAME = re.compile(r"Subject[_ -]?(\d+)\.mat", re.IGNORECASE)


def find(files: Iterable[Path]) -> Delivery:
    named = ((path, _NAME.fullmatch(path.name)) for path in files)
    return Delivery(tuple(Session(path, (path,), str(int(match[1]))) for path, match in named if match))


def read(session: Session) -> list[Recording]:
    matrices, problems = read_matrices(session.source, ("sigPPG", "sigAcc", "timeECG", "bpmECG"))
    notes = []
    streams = {}
    errors = []
    for name, channels in (("sigPPG", PPG_CHANNELS), ("sigAcc", 3)):
        if name not in matrices:
            errors.append(
                Unreadable("missing_variable" if "no variable" in problems[name] else "wrong_variable", problems[name])
            )
            continue
        try:
            streams[name] = rows_of(matrices[name], (channels,), f"{session.source.name}: {name}")
        except Unreadable as error:
            errors.append(error)
    if not streams:
        raise errors[0]
    notes += [f"left out: {error}" for error in errors]
    ppg, accel = streams.get("sigPPG"), streams.get("sigAcc")
    beat_s, hr_bpm = _reference(matrices, problems, notes)
    recording = Recording(
        ppg=ppg,
        ppg_rate_hz=None if ppg is None else RATE_HZ,
        accel=None if accel is None else (accel - ACCEL_OFFSET) / COUNTS_PER_G,
        accel_rate_hz=None if accel is None else RATE_HZ,
        reference_source=None if beat_s is None else "ecg",
        reference_beat_s=beat_s,
        reference_hr_s=None if hr_bpm is None else beat_s,  # one value per beat, not per second
        reference_hr_bpm=hr_bpm,
        notes=tuple(notes),
    )
    return [recording]


def _reference(matrices: Matrices, problems: dict[str, str], notes: list[str]) -> tuple[Times | None, Times | None]:
    """Instants of the beats, and the heart rate at each; what is missing or does not match is left out."""
    if "timeECG" not in matrices:
        notes.append(f"no reference: {problems['timeECG']}")
        return None, None
    beat_s = matrices["timeECG"].ravel()
    if "bpmECG" not in matrices:
        notes.append(f"no heart rate: {problems['bpmECG']}")
        return beat_s, None
    hr_bpm = matrices["bpmECG"].ravel()
    if len(hr_bpm) != len(beat_s):
        notes.append(f"no heart rate: timeECG has {len(beat_s)} values, bpmECG {len(hr_bpm)}")
        return beat_s, None
    order = np.argsort(beat_s, kind="stable")
    if (np.diff(order) < 0).any():
        notes.append("beats that are not in the order of time sorted")
    return beat_s[order], hr_bpm[order]
