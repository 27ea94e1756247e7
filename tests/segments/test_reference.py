"""Reference labels from beats, intervals, a rate over time and totals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from accelkd.segments.reference import Reference, references, window_reference

NOTHING: dict[str, Any] = dict.fromkeys(
    (
        "hr_bpm",
        "sdnn_ms",
        "rmssd_ms",
        "reference_beat_s",
        "reference_hr_s",
        "reference_hr_bpm",
        "reference_ibi_s",
        "reference_ibi_end_s",
    )
)


def test_no_reference_gives_no_labels() -> None:
    assert window_reference(references(NOTHING), 0.0, only_window=True) == Reference()


@pytest.mark.parametrize("beats", [[], [3.0], [3.0, 40.0]])
def test_too_few_beats_give_no_labels(beats: list[float]) -> None:
    assert window_reference(references({**NOTHING, "reference_beat_s": beats}), 0.0, only_window=False) == Reference()


def test_only_beats_inside_the_window_count() -> None:
    rng = np.random.default_rng(0)
    ibi = np.concatenate([np.full(100, 0.6), 0.9 + 0.03 * rng.standard_normal(200)])
    beats = 0.3 + np.concatenate([[0], np.cumsum(ibi)])
    recording = {**NOTHING, "reference_beat_s": beats.tolist(), "hr_bpm": 1.0, "sdnn_ms": 1.0, "rmssd_ms": 1.0}
    inside = [b - a for a, b in pairwise(beats) if a >= 120 and b <= 180]
    labels = window_reference(references(recording), 120.0, only_window=False)
    assert labels.hr_bpm == pytest.approx(60 / np.mean(inside))
    assert labels.sdnn_ms == pytest.approx(1e3 * np.std(inside, ddof=1))
    assert labels.rmssd_ms == pytest.approx(1e3 * np.sqrt(np.mean(np.diff(inside) ** 2)))
    assert window_reference(references(recording), 0.0, only_window=False).hr_bpm == pytest.approx(100)
    assert window_reference(references(recording), 120.0, only_window=True) == Reference(1.0, 1.0, 1.0)
    assert window_reference(references(recording), 1000.0, only_window=False) == Reference()


def test_an_extra_beat_is_left_out() -> None:
    beats = np.arange(0, 60, 0.8)
    with_early_beat = np.sort(np.append(beats, 20.3))
    labels = window_reference(
        references({**NOTHING, "reference_beat_s": with_early_beat.tolist()}), 0.0, only_window=False
    )
    assert labels.hr_bpm == pytest.approx(75)
    assert labels.sdnn_ms == pytest.approx(0, abs=1e-6)


def test_intervals_with_holes_give_pairs_of_neighbours_only() -> None:
    # Two stretches of 32 intervals; between them the device lost track for some seconds
    interval_s = 0.7 + 0.02 * (-1.0) ** np.arange(32)
    end_s = np.concatenate([1 + np.cumsum(interval_s), 33.5 + np.cumsum(interval_s)])
    recording = {**NOTHING, "reference_ibi_s": [*interval_s, *interval_s], "reference_ibi_end_s": end_s.tolist()}
    labels = window_reference(references(recording), 0.0, only_window=False)
    assert labels.hr_bpm == pytest.approx(60 / 0.7)
    assert labels.rmssd_ms == pytest.approx(40)  # the jump over the hole would be no multiple of it
    few = {**recording, "reference_ibi_s": list(interval_s[:6]), "reference_ibi_end_s": end_s[:6].tolist()}
    assert window_reference(references(few), 0.0, only_window=False).hr_bpm == pytest.approx(60 / 0.7, rel=0.01)
    assert window_reference(references(few), 0.0, only_window=False).sdnn_ms is None


def test_the_mean_rate_fills_in_for_the_heart_rate_alone() -> None:
    recording = {
        **NOTHING,
        "reference_hr_s": list(np.arange(10.0, 120.0)),
        "reference_hr_bpm": list(np.arange(10.0, 120.0)),
    }
    assert window_reference(references(recording), 0.0, only_window=False) == Reference(hr_bpm=np.arange(10, 60).mean())
    assert window_reference(references(recording), 60.0, only_window=True) == Reference(
        hr_bpm=np.arange(60, 120).mean()
    )
    assert window_reference(references(recording), 100.0, only_window=False) == Reference()  # 20 s are too short
