"""Health read from recordings: values with 90 % intervals, from arrays or from files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from accelkd.api.encoders import Encoder, embed
from accelkd.api.preprocessing import Windows
from accelkd.home.settings import MotionGate
from accelkd.operations.predict import SEGMENT_PREDICTION, of_participants, of_segments, predict_recordings

_FROM_ARRAYS = pa.schema([field for field in SEGMENT_PREDICTION if field.name not in ("recording_id", "started_at")])
_NOBODY = "recording"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What an encoder reads.

    - `segments`: table with a row for each usable minute and target: `participant_id`, `offset_s` (from files also
      `recording_id`, `started_at`), `target`, `unit`, `value`, the 90 % interval `low` to `high`, and `typical`, which
      is false where the minute is unlike those of training: then the interval promises nothing.
    - `participants`: the same from each participant's mean embedding: age, BMI, and the probability of yes for sex
      (male) and the targets of the survey that the encoder was fitted for.
    - `left_out`: what has no prediction, with the reason.
    - `notes`: how files were understood.
    """

    segments: pa.Table
    participants: pa.Table
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Predictions({self.segments.num_rows} of minutes, {self.participants.num_rows} of participants, "
            f"{len(self.left_out)} left out)"
        )


def predict(
    encoder: Encoder,
    recording: Windows | str | os.PathLike[str],
    *,
    device: str | None = None,
    mapping: str | os.PathLike[str] | None = None,
    participant_from: str | None = None,
    motion_gate: MotionGate = "strict",
    hop_s: float = 60.0,
) -> Predictions:
    """Heart rate, SDNN and RMSSD of each minute, and what is read of the person, with 90 % intervals.

    `recording` is what `preprocess` made of arrays, of one person, or a file or folder as a device's software exported
    it. Then `device` names its row of the device table (without it, the format is recognised), `mapping` says what the
    columns of a table mean (docs/own-recordings.md; without it, what they are measured to be is used, and `notes` says
    it), `participant_from` where people are named, and gate and hop are those of `preprocess`.

    Numbers are the pipeline's: those of the table `predictions` for the same recording and encoder. Raises ValueError
    for an encoder without readouts, windows of the other modality or channels, and files that hold no recording.

        >>> import accelkd, numpy as np
        >>> noise = np.random.default_rng(0).standard_normal((3, 50 * 180))
        >>> accel = np.array([[0.1], [0.2], [0.97]]) + 0.002 * noise  # a wrist at rest: three minutes at 50 Hz
        >>> encoder = accelkd.load_encoder("accel_student")
        >>> read = accelkd.predict(encoder, accelkd.preprocess(accel=accel, rate_hz=50))
        >>> read.segments.column("target").to_pylist()[:3]
        ['hr_bpm', 'sdnn_ms', 'rmssd_ms']
        >>> read.left_out
        ()
    """
    if encoder.readouts is None:
        raise ValueError(
            f"{encoder.name} {encoder.model_id} has no readouts: materialize `readouts` in its home, or adopt "
            "an encoder that has some"
        )
    if isinstance(recording, Windows):
        return _of_windows(encoder, recording)
    done = predict_recordings(
        Path(recording),
        encoder.module,
        encoder.modality,
        encoder.readouts,
        device=device,
        mapping=None if mapping is None else Path(mapping),
        participant_from=participant_from,
        gate=motion_gate,
        hop_s=hop_s,
    )
    return Predictions(done.segments, done.participants, done.left_out, done.notes)


def _of_windows(encoder: Encoder, windows: Windows) -> Predictions:
    if windows.modality != encoder.modality:
        raise ValueError(f"{encoder.name} takes {encoder.modality}, the windows are of {windows.modality}")
    assert encoder.readouts is not None
    usable = windows.usable
    matrix = embed(encoder, windows.signals[usable]) if usable.any() else np.empty((0, encoder.width), np.float32)
    people = np.full(len(matrix), _NOBODY)
    keys = {"participant_id": pa.array(people.tolist(), pa.string()), "offset_s": pa.array(windows.offset_s[usable])}
    left_out = [
        f"at {offset:g} s: {reason}"
        for offset, reason in zip(windows.offset_s.tolist(), windows.reasons, strict=True)
        if reason is not None
    ]
    return Predictions(
        of_segments(encoder.readouts, matrix, keys, _FROM_ARRAYS),
        of_participants(encoder.readouts, matrix, people),
        tuple(left_out),
        (),
    )
