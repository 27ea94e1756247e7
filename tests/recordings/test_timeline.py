"""Samples placed by their instants: gaps, jitter, resets, and the recordings that come of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelkd.recordings.readers import Recording, Unreadable
from accelkd.recordings.timeline import Piece, assemble, cut, pieces_of, place


def numbered(samples: int) -> np.ndarray:
    return np.arange(samples, dtype=np.float64)[None]


def test_evenly_spaced_samples_stay_as_they_are() -> None:
    time_s = 5.0 + np.arange(1000) / 54.75
    ((piece,), notes) = place(time_s, numbered(1000))
    assert piece.start_s == 5.0
    assert piece.rate_hz == pytest.approx(54.75)
    assert (piece.samples == numbered(1000)).all()
    assert notes == []


def test_a_lost_packet_is_a_gap_of_its_length() -> None:
    kept = np.concatenate([np.arange(500), np.arange(544, 3000)])
    ((piece,), notes) = place(kept / 55.0, numbered(3000)[:, kept], name="PPG")
    assert piece.rate_hz == pytest.approx(55.0)
    assert np.flatnonzero(np.isnan(piece.samples[0])).tolist() == list(range(500, 544))
    assert (piece.samples[0, kept] == kept).all()
    assert notes == ["PPG: 1 gaps, 44 samples (0.800 s) lost, the longest after 9.1 s"]


@given(st.integers(0, 2**32 - 1), st.sampled_from([25.0, 64.0, 99.544, 208.0]), st.integers(0, 3))
def test_jitter_moves_nothing_and_gaps_are_seen_through_it(seed: int, rate_hz: float, gaps: int) -> None:
    rng = np.random.default_rng(seed)
    kept = np.ones(2000, np.bool_)
    for start in rng.choice(np.arange(100, 1900, 100), gaps, replace=False):
        kept[start : start + rng.integers(3, 50)] = False
    index = np.flatnonzero(kept)
    time_s = index / rate_hz + rng.uniform(-0.4, 0.4, len(index)) / rate_hz
    ((piece,), _) = place(time_s, numbered(2000)[:, index])
    assert piece.rate_hz == pytest.approx(rate_hz, rel=1e-3)
    assert piece.samples.shape == (1, 2000)
    assert (piece.samples[0, index] == index).all()
    assert np.isnan(piece.samples[0, ~kept]).all()


def test_a_sample_that_comes_late_is_no_gap() -> None:
    time_s = np.arange(1000) / 100
    time_s[500:504] += [0.018, 0.014, 0.010, 0.006]  # the next ones catch up
    ((piece,), notes) = place(time_s, numbered(1000))
    assert (piece.samples == numbered(1000)).all()
    assert notes == []


def test_clocks_of_whole_milliseconds_are_averaged() -> None:
    time_s = np.floor(np.arange(10_000) / 64 * 1000) / 1000
    ((piece,), notes) = place(time_s, numbered(10_000))
    assert piece.rate_hz == pytest.approx(64, rel=1e-5)
    assert (piece.samples.shape, notes) == ((1, 10_000), [])


def test_the_samples_of_a_packet_share_its_stamp() -> None:
    time_s = np.repeat(np.arange(1, 101) * 0.5, 25)  # 25 samples each half second
    ((piece,), notes) = place(time_s, numbered(2500))
    assert piece.rate_hz == pytest.approx(50, rel=1e-3)
    assert (piece.samples.shape, notes) == ((1, 2500), [])


def test_a_clock_that_was_set_back_begins_another_piece() -> None:
    time_s = np.concatenate([1000 + np.arange(600) / 10, 3 + np.arange(400) / 10])
    (first, second), notes = place(time_s, numbered(1000))
    assert (first.start_s, second.start_s, first.epoch, second.epoch) == (1000, 3, 0, 1)
    assert second.samples[0].tolist() == list(range(600, 1000))
    assert notes == ["the clock went back 1 times: 2 recordings"]


def test_a_long_interruption_begins_another_piece() -> None:
    time_s = np.concatenate([np.arange(100) / 10, 5000 + np.arange(100) / 10])
    pieces, notes = place(time_s, numbered(200))
    assert [piece.start_s for piece in pieces] == [0, 5000]
    assert notes == ["1 interruptions of more than 600 s: 2 recordings"]


def test_what_has_no_time_or_came_twice_is_left_out() -> None:
    time_s = np.arange(100) / 10
    twice = np.insert(np.arange(100), 50, 49)
    stamped = time_s[twice].copy()
    stamped[70] = np.nan
    ((piece,), notes) = place(stamped, numbered(100)[:, twice])
    assert piece.samples.shape == (1, 100)
    assert np.isnan(piece.samples).sum() == 1
    assert notes[:2] == ["1 samples without a time left out", "1 samples that came twice left out"]


def test_samples_at_one_instant_are_no_stream() -> None:
    with pytest.raises(Unreadable, match="5 samples at one instant left out"):
        place(np.full(5, 3.0), numbered(5))
    with pytest.raises(Unreadable, match="ACC has less than two samples"):
        place(np.array([1.0]), numbered(1), name="ACC")


FACTS = Recording(
    reference_source="device",
    reference_hr_s=np.array([5.0, 65.0, 1005.0]),
    reference_hr_bpm=np.array([60.0, 61.0, 62.0]),
    event_s=np.array([130.0]),
)


def test_streams_that_overlap_become_one_recording_with_its_own_references() -> None:
    ppg = [Piece(2.0, 10.0, np.zeros((4, 1000))), Piece(1000.0, 10.0, np.ones((4, 200)))]
    accel = [Piece(0.0, 20.0, np.zeros((3, 1000))), Piece(60.0, 20.0, np.ones((3, 1000)))]
    first, second = assemble(ppg, accel, FACTS, dark_channels=1, utc=True)
    assert first.ppg is not None
    assert first.dark is not None
    assert first.accel is not None
    assert (first.ppg.shape, first.dark.shape) == ((3, 1000), (1, 1000))
    assert (first.started_at_s, first.accel_start_s) == (2.0, -2.0)
    assert first.accel.shape == (3, 2200)
    assert np.flatnonzero(np.isnan(first.accel[0])).tolist() == list(range(1000, 1200))
    assert first.reference_hr_s is not None
    assert first.reference_hr_bpm is not None
    assert (first.reference_hr_s.tolist(), first.reference_hr_bpm.tolist()) == ([3.0, 63.0], [60.0, 61.0])
    assert (second.started_at_s, second.accel, second.accel_rate_hz) == (1000.0, None, None)
    assert second.reference_hr_s is not None
    assert second.reference_hr_s.tolist() == [5.0]


def test_acceleration_alone_counts_from_its_own_start() -> None:
    (alone,) = assemble([], [Piece(100.0, 20.0, np.zeros((3, 1000)))], FACTS, utc=False)
    assert (alone.ppg, alone.ppg_rate_hz, alone.accel_start_s, alone.started_at_s) == (None, None, 0.0, None)
    assert alone.event_s is not None
    assert alone.event_s.tolist() == [30.0]


def test_pieces_from_before_and_after_a_reset_are_never_merged() -> None:
    ppg = [Piece(0.0, 10.0, np.zeros((1, 1000))), Piece(50.0, 10.0, np.ones((1, 1000)), epoch=1)]
    first, second = assemble(ppg, [], Recording(), utc=False)
    assert first.ppg is not None
    assert second.ppg is not None
    assert (first.ppg.max(), second.ppg.min()) == (0, 1)


def recording(ppg_s: float, accel_s: float, accel_start_s: float = 0.0) -> Recording:
    return Recording(
        ppg=numbered(round(ppg_s * 10)),
        ppg_rate_hz=10.0,
        accel=np.repeat(numbered(round(accel_s * 20)), 3, axis=0),
        accel_rate_hz=20.0,
        accel_start_s=accel_start_s,
        started_at_s=1000.0,
        reference_beat_s=np.arange(0.0, ppg_s, 1.0),
    )


def test_a_part_has_its_own_time() -> None:
    part = cut(recording(200, 200, 0.5), 60.0, 120.0)
    assert part.ppg is not None
    assert part.accel is not None
    assert (part.ppg[0, 0], part.ppg.shape[1], part.started_at_s) == (600, 600, 1060.0)
    assert part.accel[0, 0] / 20 + 0.5 - part.accel_start_s == pytest.approx(60.0)
    assert part.reference_beat_s is not None
    assert part.reference_beat_s.tolist() == list(range(61))


def test_what_one_modality_covers_alone_is_a_recording_of_it_alone() -> None:
    parts = pieces_of(recording(600, 300, -100))
    assert [(part.started_at_s, part.duration_s) for part in parts] == [(900, 100), (1000, 200), (1200, 400)]
    assert [(part.ppg is None, part.accel is None) for part in parts] == [(True, False), (False, False), (False, True)]
    assert pieces_of(recording(600, 580)) != []
    assert len(pieces_of(recording(600, 580))) == 1  # 20 s are no window


def test_a_long_recording_is_cut_at_whole_minutes() -> None:
    parts = pieces_of(recording(1000, 1000), max_s=300)
    assert [part.duration_s for part in parts] == [300, 300, 300, 100]
    assert sum(part.ppg.shape[1] for part in parts if part.ppg is not None) == 10_000
