"""Proposed mappings of tables, and files that a reader knows."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from accelkd.recordings.describe import describe
from accelkd.recordings.mapping import parse_mapping
from tests.support.tables import START_S, read_tables, signals, write_csv


@pytest.mark.parametrize(
    ("names", "factor", "unit"),
    [
        (("ax", "ay", "az"), 1, 'unit = "g"'),
        (("Accel X (m/s²)", "Accel Y (m/s²)", "Accel Z (m/s²)"), 9.80665, 'unit = "m/s2"'),
        (("X [mg]", "Y [mg]", "Z [mg]"), 1000, 'unit = "mg"'),
        (("acc_x", "acc_y", "acc_z"), 4096, "counts_per_g = 4096"),
    ],
)
def test_a_proposed_mapping_reads_its_table(tmp_path: Path, names: tuple[str, ...], factor: float, unit: str) -> None:
    columns = signals(60)
    renamed = {"timestamp": columns["timestamp"], "PPG green": columns["green"], "gyro_x": columns["ax"]}
    renamed |= {name: columns[axis] * factor for name, axis in zip(names, ("ax", "ay", "az"), strict=True)}
    file = write_csv(tmp_path / "P1.csv", {"subject_id": ["S7"] * 3000, **renamed})
    proposed = describe(file)
    assert unit in proposed
    assert "polarity = -1" in proposed
    assert 'epoch = "unix"  # began 2023-11-14 22:13:20 UTC' in proposed
    assert "50 Hz" in proposed
    (recording,) = read_tables(proposed, file)
    assert (recording.participant, recording.ppg_polarity, recording.started_at_s) == ("S7", -1, START_S)
    assert recording.ppg is not None
    assert recording.accel is not None
    np.testing.assert_array_equal(recording.ppg[0], columns["green"])
    np.testing.assert_allclose(recording.accel[2], columns["az"], atol=1e-6)


def dates(written: str) -> list[str]:
    return [format(datetime.fromtimestamp(t / 1000, UTC), written) for t in signals(60)["timestamp"]]


@pytest.mark.parametrize(
    ("times", "lines"),
    [
        (np.arange(3000) / 50, ['unit = "s"', 'epoch = "start"']),
        (np.arange(3000) * 20_000_000, ['unit = "ns"', 'epoch = "start"']),
        (dates("%Y-%m-%dT%H:%M:%S.%f+00:00"), ['unit = "iso8601"']),
        (dates("%Y-%m-%d %H:%M:%S.%f"), ['unit = "iso8601"', '# zone = "UTC"  # FILL IN']),
        (dates("%d.%m.%Y %H:%M:%S.%f"), ['format = "%d.%m.%Y %H:%M:%S.%f"', '# zone = "UTC"  # FILL IN']),
        (dates("%m/%d/%Y %H:%M:%S.%f"), ['format = "%m/%d/%Y %H:%M:%S.%f"']),
        ([text.replace("14", "12") for text in dates("%d/%m/%Y %H:%M:%S.%f")], ["FILL IN: this or the other"]),
        (dates("%H:%M:%S.%f"), ['format = "%H:%M:%S.%f"']),
        ([f"frame {number}" for number in range(3000)], ["# format ="]),
        (np.arange(3000), ["It may be a number of the row"]),
    ],
)
def test_clocks_are_recognised_and_what_is_ambiguous_is_to_fill_in(
    tmp_path: Path, times: Any, lines: list[str]
) -> None:
    proposed = describe(write_csv(tmp_path / "P1.csv", {**signals(60), "timestamp": times}))
    for line in lines:
        assert line in proposed
    parse_mapping(proposed)


def test_what_no_value_says_is_commented_out(tmp_path: Path) -> None:
    columns = signals(60)
    flat = {axis: columns[axis] * 7.7 for axis in ("ax", "ay", "az")}
    noise = np.random.default_rng(3).normal(0, 1, 3000)
    proposed = describe(write_csv(tmp_path / "P1.csv", {"green": noise, **flat, "HR": columns["ax"] + 60}))
    for line in (
        "# rate_hz = 50  # FILL IN",
        "# polarity = 1  # FILL IN",
        "# counts_per_g = 8  # FILL IN",
        "# source =",
    ):
        assert line in proposed
    with pytest.raises(ValueError, match=r"accel.unit: is missing"):
        parse_mapping(proposed)


def test_gravity_that_is_removed_is_reported(tmp_path: Path) -> None:
    columns = signals(60)
    columns["ay"], columns["az"] = columns["ax"], columns["ax"]
    assert "gravity seems to be removed" in describe(write_csv(tmp_path / "P1.csv", columns))


def test_lines_before_the_header_are_counted(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "P1.csv", signals(60))
    table = file.read_text()
    for preamble in ("# made by a watch\n# serial 5\n\n", "Watch 3\nserial: 5\n"):
        file.write_text(preamble + table)
        (recording,) = read_tables(describe(file), file)
        assert recording.started_at_s == START_S
    assert "skip_rows = 2" in describe(file)


def test_parquet_and_mat_files_are_described_too(tmp_path: Path) -> None:
    columns = signals(60)
    frame = {name: values for name, values in columns.items() if name != "timestamp"}
    index = pa.array((columns["timestamp"] * 1e6).astype(np.int64)).cast(pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({**frame, "time": index}), tmp_path / "P1.parquet")
    (recording,) = read_tables(describe(tmp_path / "P1.parquet"), tmp_path / "P1.parquet")
    assert recording.started_at_s == START_S
    axes = np.stack([columns[axis] for axis in ("ax", "ay", "az")])
    savemat(tmp_path / "P1.mat", {"sig": {"ppg": columns["green"], "acc": axes.T, "fs": 50.0}})
    (recording,) = read_tables(describe(tmp_path / "P1.mat"), tmp_path / "P1.mat")
    assert (recording.ppg_rate_hz, recording.accel_rate_hz, recording.ppg_polarity) == (50, 50, -1)


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("stress-predict-e4/S16/BVP.csv", "e4"),
        ("bami1-watch/Subject_1.mat", "bami"),
        ("polar-verity-sense/Polar_Sense_ACC.txt", "polar"),
    ],
)
def test_a_file_that_a_reader_knows_needs_no_mapping(shared: Path, path: str, device: str) -> None:
    assert f"accelkd ingest {device} <folder> --batch <id>" in describe(shared / "data" / path)


def test_a_known_name_with_other_content_is_a_table_with_a_remark(tmp_path: Path) -> None:
    proposed = describe(write_csv(tmp_path / "BVP.csv", signals(60)))
    assert "named as a file of e4, but" in proposed
    assert 'columns = ["green"]' in proposed


def test_what_is_no_table_ends_with_one_line(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="neither of a known format nor a table"):
        describe(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"a\.csv is not text"):
        describe(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="is a folder"):
        describe(tmp_path)
    shutil.copyfile(shared / "data/wrist-ppg-exercise/s6_walk.edf", tmp_path / "walk.data")
    assert "accelkd ingest edf" in describe(tmp_path / "walk.data")
