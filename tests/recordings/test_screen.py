"""A first look at recordings calls no recording sound that breaks a rule, and recognises those that break none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from accelkd.recordings.references import clean_references
from accelkd.recordings.schema import RECORDING
from accelkd.recordings.screen import screen
from accelkd.recordings.validate import duration_s, recording_errors
from tests.support.recordings import RATE_HZ, SECONDS, WITHOUT_PPG, recording

NAN, INF, SAMPLES = float("nan"), float("inf"), SECONDS * RATE_HZ


def ones(channels: int, samples: int = SAMPLES, value: float = 1.0) -> list[list[float]]:
    return [[value] * samples] * channels


def axes(*values: float) -> list[list[float]]:
    return [[0.0] * len(values), [0.0] * len(values), list(values)]


SERIES: list[Any] = [None, [], [1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, NAN], [1.0, None], [1.0, INF], [0.0]]
VALUES: dict[str, list[Any]] = {
    "recording_id": ["r1", "", "r 1", "-r", "r" * 129],
    "participant_id": ["p1", "ü"],
    "device_id": ["sim-wrist-64", "sim-chest-64", "e4", "phone", "table", "watch"],
    "started_at": [None, datetime(2026, 1, 1, tzinfo=UTC), datetime(1984, 1, 1, tzinfo=UTC), 2**62],
    "ppg": [ones(4), ones(3), ones(1), [], ones(4, 0), [*ones(3), [1.0] * 9], [*ones(3), None], [[None] * SAMPLES] * 4],
    "ppg_rate_hz": [64.0, None, NAN, 20.0, 19.9, 2048.0, 2049.0, 0.0, -1.0, INF],
    "ppg_polarity": [None, 1, -1, 0],
    "dark": [None, [], ones(1), ones(2), [[1.0], [1.0, 2.0]]],
    "dark_rate_hz": [64.0, None, NAN, 1.0],
    "dark_offsets_s": [None, [], [0.0], [0.01], [1 / 64], [-0.001], [None], [NAN], [0.0, 0.0]],
    "accel": [
        ones(3, value=0.6), ones(3, value=5.0), ones(3, value=NAN), ones(2), [], ones(3, 0), axes(0.5, 0.5, 0.5),
        axes(2.0), axes(0.5, 1.5), axes(0.4, 1.6), axes(0.1, 0.5), axes(INF, 0.5), axes(1.0, 1.0, 9.0), axes(1e20, 1.0),
    ],
    "accel_rate_hz": [64.0, None, NAN, 20.0, 1e9],
    "accel_start_s": [0.0, -0.0, 1.0, -1.0, 5.0, -5.0, NAN, INF],
    "hr_bpm": [None, 60.0, 0.0, -1.0, NAN, INF],
    "rmssd_ms": [None, 40.0, -1.0],
    "reference_source": [None, "ecg", "guess", ""],
    **dict.fromkeys(("reference_beat_s", "reference_hr_s", "reference_hr_bpm", "event_s"), SERIES),
    **dict.fromkeys(("reference_ibi_end_s", "reference_ibi_s"), SERIES),
}  # fmt: skip
CHANGES = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})
FEW = st.sets(st.sampled_from(sorted(VALUES)), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(VALUES[name]) for name in names})
)


def columns(recordings: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(recordings, RECORDING.arrow())


@settings(max_examples=400)
@given(changes=st.lists(FEW | CHANGES, min_size=1, max_size=6), first=st.integers(0, 3))
def test_only_recordings_that_break_no_rule_are_sound(changes: list[dict[str, Any]], first: int) -> None:
    rows = columns([recording(number, **changed) for number, changed in enumerate(changes)])[first:]
    screened = screen(rows)
    assert len(screened.sound) == len(rows)
    for number in np.flatnonzero(screened.sound).tolist():
        row = rows.slice(number, 1)
        cleaned, dropped = clean_references(row)
        assert (list(recording_errors(cleaned)), dropped) == ([], [])
        assert screened.end_s[number] == duration_s(row)


def test_sound_recordings_are_recognised() -> None:
    nothing_known = {name: None for name in recording() if name.startswith(("reference", "event", "hr", "sd", "rm"))}
    rows = columns(
        [
            recording(0),
            recording(1, device_id="sim-chest-64", **WITHOUT_PPG),
            recording(2, accel=[], accel_rate_hz=None),
            recording(3, **nothing_known),
            recording(4, accel=ones(3, value=NAN), accel_start_s=-1.0, started_at=datetime(2026, 1, 1, tzinfo=UTC)),
            recording(5, reference_beat_s=[], event_s=[], ppg_polarity=-1),
            recording(6, device_id="table", ppg=ones(2)),
        ]
    )
    assert screen(rows).sound.tolist() == [True] * 7
    assert screen(rows.slice(2, 3)).sound.tolist() == [True] * 3
    assert screen(rows.slice(0, 0)).sound.tolist() == []
