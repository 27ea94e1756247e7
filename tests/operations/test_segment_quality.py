"""What checks measure of a batch's segments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from accelkd.home.layout import Home
from accelkd.operations.segment_quality import label_quality, schema_differences, signals_not_finite
from accelkd.segments.schema import SAMPLES
from tests.support.homes import land


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    land(home, "b", ["p", "q"], minutes=2)
    return home


def rewrite(home: Home, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace the store by what `change` makes of it."""
    with pa.OSFile(str(home.segments("b"))) as source:
        table = change(pa.ipc.open_file(source).read_all())
    with pa.ipc.new_file(str(home.segments("b")), table.schema) as writer:
        writer.write_table(table)


def put(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.names.index(name), table.schema.field(name), values)


def test_a_good_batch(home: Home) -> None:
    assert schema_differences(home, "b") == []
    assert signals_not_finite(home, "b") == {"ppg": 0, "accel": 0}
    quality = label_quality(home, "b")
    assert (quality.segments, quality.good, quality.implausible, quality.with_reference) == (4, 4, 0, 4)


def test_labels_outside_life_are_counted_once(home: Home) -> None:
    rewrite(home, put("hr_bpm", pa.array([20.0, 70.0, None, 300.0])))
    rewrite(home, put("sdnn_ms", pa.array([-1.0, 50.0, 50.0, 50.0])))
    quality = label_quality(home, "b")
    assert quality.implausible == 2
    assert quality.hr_bpm_median == 70.0
    assert quality.hr_bpm_error_median == 50.0  # the reference says 70


def test_labels_that_nobody_has(home: Home) -> None:
    rewrite(home, put("hr_bpm", pa.nulls(4, pa.float64())))
    quality = label_quality(home, "b")
    assert quality.hr_bpm_median is None
    assert quality.hr_bpm_error_median is None


def test_signals_that_are_not_finite_are_counted(home: Home) -> None:
    signals = np.zeros((4, 3 * SAMPLES), np.float16)
    signals[1, 7] = np.nan
    signals[3, 7] = np.inf
    rewrite(
        home,
        put(
            "accel",
            pa.ListArray.from_arrays(pa.array(np.arange(5, dtype=np.int32) * 3 * SAMPLES), pa.array(signals.ravel())),
        ),
    )
    assert signals_not_finite(home, "b") == {"ppg": 0, "accel": 2}


def test_columns_that_differ_are_named(home: Home) -> None:
    rewrite(home, lambda table: table.drop_columns(["motion_p95_g"]).append_column("extra", pa.nulls(4)))
    assert schema_differences(home, "b") == [
        "motion_p95_g: double expected, nothing found",
        "extra: nothing expected, null found",
    ]
