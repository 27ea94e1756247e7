"""Figures: PNGs, the same bytes for the same input, drawn also from little or damaged data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from accelkd.evaluation.probes import ProbeResult
from accelkd.reports.example_segments import Example
from accelkd.reports.figures import (
    labels_figure,
    loss_figure,
    map_figure,
    probe_figure,
    retrieval_figure,
    segments_figure,
    split_figure,
)

RNG = np.random.default_rng(0)
RAW = RNG.standard_normal((4, 15360))
RAW[1] = np.nan
RAW[2, 40:300] = np.nan
EXAMPLE = Example(None, RAW, 256.0, RAW[:3, :3840], 64.0, RNG.standard_normal((4, 3840)), np.zeros((3, 3840)))
RESULT = ProbeResult(
    "hr_bpm", "bpm", 2, 9, 1, 5, 1.0, 2.0, None, None, 3.0, None, 4.0, 5.0, "not_decidable", "too few people"
)
Y = np.linspace(50, 90, 5)
LABELS = ("hr_bpm", "sdnn_ms", "rmssd_ms", "motion_p95_g")
LEDGER = {"sex": ["female", "unknown"], "age_band": ["30 to 39", "unknown"], "device_id": ["e4", "e4"]}

DRAWN: dict[str, Callable[[], bytes]] = {
    "segments": lambda: segments_figure([EXAMPLE]),
    "labels": lambda: labels_figure(pa.table({name: [71.0] for name in LABELS})),
    "labels of nothing": lambda: labels_figure(pa.table({name: pa.nulls(2, pa.float64()) for name in LABELS})),
    "split": lambda: split_figure(pa.table({**LEDGER, "split": ["train", "test"]})),
    "loss": lambda: loss_figure(
        pa.table({"step": [0, 9], "loss": [4.2, 1.0], "chance_loss": [4.1, 4.1]}), "accel_student"
    ),
    "probe": lambda: probe_figure("ppg_teacher", [(RESULT, Y, Y + 1)]),
    "probe of one value": lambda: probe_figure("other", [(RESULT, np.full(3, 70.0), np.full(3, 70.0))]),
    "retrieval": lambda: retrieval_figure({"a": np.array([1.0, 2.5, 4.0])}, 4),
    "map": lambda: map_figure({"a": np.zeros((3, 2)), "b": np.eye(3)[:, :2]}, ["p", "p", "q"]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figure(name: str) -> None:
    png = DRAWN[name]()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) > 1_500
    assert DRAWN[name]() == png
