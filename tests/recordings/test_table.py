"""Tables of any names, units and clocks, read by a mapping."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.mapping import parse_mapping
from accelkd.recordings.readers import Recording, Unreadable, bami
from accelkd.recordings.readers.table import table_reader
from accelkd.recordings.validate import iter_recordings
from tests.support.tables import RATE_HZ, START_S, read_tables, signals, write_csv

TIME = """
[time]
column = "timestamp"
unit = "ms"
epoch = "unix"
"""
STREAMS = """
[ppg]
columns = ["green"]
unit = "counts"
polarity = -1

[accel]
columns = ["ax", "ay", "az"]
unit = "g"
"""
MAPPING = TIME + STREAMS


def land(folder: Path, mapping: str, participant_from: str | None = None) -> tuple[IngestSummary, list[dict[str, Any]]]:
    """Ingest a folder of tables, and the rows that landed."""
    chosen = parse_mapping(mapping)
    landing = folder.parent / "landing"
    source = participant_from or chosen.participant_from
    summary = ingest("table", folder, landing, "b", participant_from=source, reader=table_reader(chosen))
    rows = [row for batch, _ in iter_recordings(landing / "b") for row in batch.to_pylist()] if summary.read else []
    return summary, rows


def equal(recordings: list[Recording], columns: dict[str, Any]) -> None:
    """There is one recording, which holds just these columns at their rate."""
    (recording,) = recordings
    assert recording.ppg is not None
    assert recording.accel is not None
    np.testing.assert_array_equal(recording.ppg, columns["green"][None])
    np.testing.assert_allclose(recording.accel, np.stack([columns[axis] for axis in ("ax", "ay", "az")]), atol=1e-9)
    assert recording.ppg_rate_hz == pytest.approx(RATE_HZ)
    assert recording.accel_rate_hz == pytest.approx(RATE_HZ)


def test_a_table_becomes_a_recording_of_its_participant(tmp_path: Path) -> None:
    columns = signals()
    write_csv(tmp_path / "in/P07.csv", columns)
    summary, (row,) = land(tmp_path / "in", MAPPING)
    assert (summary.read, summary.rejections, summary.notes) == (1, (), ())
    assert (row["participant_id"], row["device_id"]) == ("table-P07", "table")
    assert row["started_at"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (row["ppg_polarity"], row["ppg_rate_hz"]) == (-1, pytest.approx(50))
    np.testing.assert_array_equal(row["ppg"][0], columns["green"])
    np.testing.assert_allclose(row["accel"][2], columns["az"], atol=1e-6)


@pytest.mark.parametrize(
    "written",
    [
        {"separator": ";", "decimal": ","},
        {"separator": "\t"},
        {"end": "\r\n"},
        {"encoding": "utf-8-sig"},
        {"encoding": "utf-16"},
        {"separator": " "},
    ],
)
def test_text_is_read_as_it_was_written(tmp_path: Path, written: dict[str, str]) -> None:
    columns = signals(20)
    equal(read_tables(MAPPING, write_csv(tmp_path / "P1.csv", columns, **written)), columns)


def test_packed_text_is_read_and_a_damaged_end_costs_the_end_alone(tmp_path: Path) -> None:
    columns = signals(20)
    plain = write_csv(tmp_path / "P1.csv", columns).read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(plain))
    for name in ("a.csv.gz", "a.csv.xz"):
        equal(read_tables(MAPPING, tmp_path / name), columns)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(plain)[:-2000])
    (cut,) = read_tables(MAPPING, tmp_path / "a.csv.gz")
    assert cut.ppg is not None
    assert 100 < cut.ppg.shape[1] < 1000
    assert "cannot be unpacked to its end" in "\n".join(cut.notes)


def test_parquet_feather_and_data_frames_indices(tmp_path: Path) -> None:
    columns = signals(20)
    index = pa.array((columns["timestamp"] * 1e6).astype(np.int64)).cast(pa.timestamp("ns", "UTC"))
    others = {name: values for name, values in columns.items() if name != "timestamp"}
    table = pa.table({**others, "__index_level_0__": index})
    pq.write_table(table, tmp_path / "P1.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "P1.feather")
    for name in ("P1.parquet", "P1.feather"):
        (recording,) = read_tables('[time]\ncolumn = "index"\n' + STREAMS, tmp_path / name)
        equal([recording], columns)
        assert recording.started_at_s == START_S
    nested = pa.table({"timestamp": columns["timestamp"], "green": columns["green"]}).append_column(
        "acc", pa.StructArray.from_arrays([pa.array(columns[axis]) for axis in ("ax", "ay", "az")], ["x", "y", "z"])
    )
    pq.write_table(nested, tmp_path / "P2.parquet")
    fields = MAPPING.replace('["ax", "ay", "az"]', '["acc.x", "acc.y", "acc.z"]')
    equal(read_tables(fields, tmp_path / "P2.parquet"), columns)


def test_names_are_found_without_case_spaces_and_units(tmp_path: Path) -> None:
    columns = signals(20)
    names = ("\ufeffTimestamp [ms]", " Green (counts)", "AX (g)", '"Ay"', "az ")
    file = write_csv(tmp_path / "P1.csv", {**dict(zip(names, columns.values(), strict=True)), "battery": columns["az"]})
    equal(read_tables(MAPPING, file), columns)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write_csv(tmp_path / "in/P1.csv", {"t": [1, 2], "x": [3, 4]})
    summary, _ = land(tmp_path / "in", MAPPING)
    (rejection,) = summary.rejections
    assert (rejection.reason, rejection.participant_id) == ("missing_column", "table-P1")
    assert rejection.detail == "P1.csv has no column 'green'; it has t, x"


def test_a_stream_that_is_not_there_does_not_cost_the_other(tmp_path: Path) -> None:
    columns = signals(20)
    del columns["az"]
    (recording,) = read_tables(MAPPING, write_csv(tmp_path / "P1.csv", columns))
    assert recording.accel is None
    assert recording.ppg is not None
    assert recording.notes == ("no acceleration: P1.csv has no column 'az'; it has timestamp, green, ax, ay",)


def test_a_name_that_stands_twice_is_no_guess(tmp_path: Path) -> None:
    columns = signals(20)
    file = write_csv(tmp_path / "P1.csv", columns)
    file.write_text(file.read_text().replace("ax,ay,az", "ax,ax,az"))
    (recording,) = read_tables(MAPPING, file)
    assert "'ax' may be 'ax#1' or 'ax#2'" in recording.notes[0]
    equal(read_tables(MAPPING.replace('"ax", "ay"', '"ax#1", "ax#2"'), file), columns)


@pytest.mark.parametrize(
    ("written", "time"),
    [
        (lambda ms: ms / 1000, 'unit = "s"\nepoch = "unix"'),
        (lambda ms: (ms * 1000).astype(np.int64), 'unit = "us"\nepoch = "unix"'),
        (lambda ms: (ms * 1000).astype(np.int64) * 1000, 'unit = "ns"\nepoch = "unix"'),
        (lambda ms: [datetime.fromtimestamp(t / 1000, UTC).isoformat() for t in ms], 'unit = "iso8601"'),
        (
            lambda ms: [f"{datetime.fromtimestamp(t / 1000 + 3600, UTC):%Y-%m-%d %H:%M:%S.%f}" for t in ms],
            'unit = "iso8601"\nzone = "Europe/Berlin"',
        ),
        (
            lambda ms: [f"{datetime.fromtimestamp(t / 1000, UTC):%d.%m.%Y %H:%M:%S.%f}" for t in ms],
            'format = "%d.%m.%Y %H:%M:%S.%f"\nzone = "UTC"',
        ),
    ],
)
def test_instants_in_their_units(tmp_path: Path, written: Any, time: str) -> None:
    columns = signals(20)
    file = write_csv(tmp_path / "P1.csv", {**columns, "timestamp": written(columns["timestamp"])})
    (recording,) = read_tables(f'[time]\ncolumn = "timestamp"\n{time}\n{STREAMS}', file)
    equal([recording], columns)
    assert recording.started_at_s == pytest.approx(START_S, abs=1e-6)


@pytest.mark.parametrize("time", ['unit = "ms"', 'unit = "iso8601"'])
def test_a_clock_that_is_not_absolute_has_no_start(tmp_path: Path, time: str) -> None:
    columns = signals(20)
    local = [f"{datetime.fromtimestamp(t / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}" for t in columns["timestamp"]]
    instants = local if "iso" in time else columns["timestamp"] - START_S * 1000
    file = write_csv(tmp_path / "P1.csv", {**columns, "timestamp": instants})
    (recording,) = read_tables(f'[time]\ncolumn = "timestamp"\n{time}\n{STREAMS}', file)
    equal([recording], columns)
    assert recording.started_at_s is None


def test_times_of_day_go_on_past_midnight(tmp_path: Path) -> None:
    columns = signals(20)
    day = [f"{datetime.fromtimestamp(t / 1000 + 6390, UTC):%H:%M:%S.%f}" for t in columns["timestamp"]]
    assert (day[0], day[-1]) == ("23:59:50.000000", "00:00:09.980000")
    file = write_csv(tmp_path / "P1.csv", {**columns, "timestamp": day})
    (recording,) = read_tables(f'[time]\ncolumn = "timestamp"\nformat = "%H:%M:%S.%f"\n{STREAMS}', file)
    equal([recording], columns)


RATED = STREAMS.replace("polarity", f"rate_hz = {RATE_HZ}\npolarity").replace(
    'unit = "g"', f'unit = "g"\nrate_hz = {RATE_HZ}'
)


def test_a_rate_stands_for_the_time_and_every_row_for_a_sample(tmp_path: Path) -> None:
    columns = signals(20)
    del columns["timestamp"]
    file = write_csv(tmp_path / "P1.csv", columns)
    lines = file.read_text().splitlines()
    lines[100], lines[200], lines[300] = "", ",,,", "50000,0.1"
    lines[400] = "dropout,x,y,z"
    file.write_text("\n".join([*lines[:-1], lines[-1][:9]]))
    (recording,) = read_tables(RATED, file)
    assert recording.ppg is not None
    assert recording.accel is not None
    assert recording.ppg.shape == (1, 999)  # the last row was cut
    assert np.flatnonzero(np.isnan(recording.ppg[0])).tolist() == [99, 199, 299, 399]
    assert recording.ppg[0, 500] == columns["green"][500]
    assert recording.started_at_s is None
    assert "P1.csv: 2 rows without 4 cells" in recording.notes
    assert "P1.csv: 1 cells of 'green' are no numbers" in recording.notes


def test_lost_rows_are_gaps_and_blank_cells_missing_samples(tmp_path: Path) -> None:
    columns = signals(60)
    columns["green"][100:110] = np.nan
    kept = np.delete(np.arange(3000), np.arange(1000, 1100))
    (recording,) = read_tables(MAPPING, write_csv(tmp_path / "P1.csv", {k: v[kept] for k, v in columns.items()}))
    assert recording.ppg is not None
    assert recording.accel is not None
    assert recording.ppg.shape == (1, 3000)
    assert np.flatnonzero(np.isnan(recording.ppg[0])).tolist() == [*range(100, 110), *range(1000, 1100)]
    assert np.flatnonzero(np.isnan(recording.accel[0])).tolist() == [*range(1000, 1100)]
    assert any("100 samples (2.000 s) lost" in note for note in recording.notes)


def test_streams_of_unlike_rates_share_a_table(tmp_path: Path) -> None:
    columns = signals(60)
    for axis in ("ax", "ay", "az"):
        columns[axis][1::2] = np.nan
    (recording,) = read_tables(MAPPING, write_csv(tmp_path / "P1.csv", columns))
    assert recording.accel is not None
    assert [recording.ppg_rate_hz, recording.accel_rate_hz] == [pytest.approx(50), pytest.approx(25)]
    np.testing.assert_allclose(recording.accel[0], columns["ax"][::2])


def test_rows_of_unlike_sensors_stand_below_each_other(tmp_path: Path) -> None:
    columns = signals(20)
    count = len(columns["green"])
    long: dict[str, Any] = {
        "timestamp": np.repeat(columns["timestamp"], 2),
        "sensor": ["PPG", "ACC"] * count,
        "x": np.stack([columns["green"], columns["ax"]], 1).ravel(),
        "y": np.stack([np.full(count, np.nan), columns["ay"]], 1).ravel(),
        "z": np.stack([np.full(count, np.nan), columns["az"]], 1).ravel(),
    }
    mapping = TIME + (
        '[ppg]\ncolumns = ["x"]\nwhere = {sensor = "PPG"}\n'
        '[accel]\ncolumns = ["x", "y", "z"]\nunit = "g"\nwhere = {sensor = "ACC"}\n'
    )
    equal(read_tables(mapping, write_csv(tmp_path / "P1.csv", long)), columns)


def test_rows_out_of_order_are_sorted_and_a_clock_that_begins_again_is_another_recording(tmp_path: Path) -> None:
    columns = signals(90)
    shuffled = np.random.default_rng(1).permutation(len(columns["green"]))
    file = write_csv(tmp_path / "P1.csv", {name: values[shuffled] for name, values in columns.items()})
    (recording,) = read_tables(MAPPING, file)
    equal([recording], columns)
    assert "PPG: rows out of order sorted by time" in recording.notes
    relative = {**columns, "timestamp": columns["timestamp"] - START_S * 1000}
    twice = {name: np.concatenate([values, values[:3000]]) for name, values in relative.items()}
    mapping = MAPPING.replace('epoch = "unix"', 'epoch = "start"')
    first, second = read_tables(mapping, write_csv(tmp_path / "P2.csv", twice))
    equal([first], columns)
    equal([second], {name: values[:3000] for name, values in columns.items()})


def test_a_time_far_from_those_around_it_costs_its_row(tmp_path: Path) -> None:
    columns = signals(60)
    columns["timestamp"][[100, 200, 300]] = [0, 9e15, 1e300]
    (recording,) = read_tables(MAPPING, write_csv(tmp_path / "P1.csv", columns))
    assert recording.ppg is not None
    assert recording.ppg.shape == (1, 3000)
    assert np.flatnonzero(np.isnan(recording.ppg[0])).tolist() == [100, 200, 300]
    assert any("far from those around" in note for note in recording.notes)


def test_participants_of_one_table_become_recordings_of_their_own(tmp_path: Path) -> None:
    people = {name: signals(90, seed) for seed, name in enumerate(("S01", "S02", ""))}
    together = {name: np.concatenate([columns[name] for columns in people.values()]) for name in signals(1)}
    names = np.repeat(list(people), 4500)
    order = np.argsort(together["timestamp"], kind="stable")  # their rows alternate
    table: dict[str, Any] = {
        "Subject ID": list(names[order]),
        **{name: values[order] for name, values in together.items()},
    }
    write_csv(tmp_path / "in/all.csv", table)
    summary, rows = land(tmp_path / "in", '[participant]\ncolumn = "subject id"\n' + MAPPING)
    assert {row["participant_id"]: row["ppg"][0][0] for row in rows} == {
        "table-S01": people["S01"]["green"][0],
        "table-S02": people["S02"]["green"][0],
    }
    assert [rejection.reason for rejection in summary.rejections] == ["participant_unknown"]


def test_numbers_that_a_table_made_of_names_lose_their_zero(tmp_path: Path) -> None:
    columns = signals(20)
    pq.write_table(pa.table({**columns, "id": [7.0] * 1000, "part": [1] * 500 + [2] * 500}), tmp_path / "a.parquet")
    mapping = MAPPING + '[participant]\ncolumn = "id"\n[session]\ncolumn = "part"\n[sensor]\ncolumn = "id"\n'
    recordings = read_tables(mapping, tmp_path / "a.parquet")
    assert [(recording.participant, recording.sensor_id) for recording in recordings] == [("7", "7")] * 2
    assert [recording.started_at_s for recording in recordings] == [START_S, START_S + 10]


PAIRED = (
    TIME
    + """
[ppg]
pattern = "*ppg*.csv"
columns = ["green"]

[accel]
pattern = "*acc*.csv"
columns = ["ax", "ay", "az"]
unit = "m/s2"
"""
)


def write_pair(ppg: Path, accel: Path, seed: int = 0, seconds: float = 90) -> None:
    columns = signals(seconds, seed)
    write_csv(ppg, {name: columns[name] for name in ("timestamp", "green")})
    write_csv(
        accel, {name: columns[name] * (1 if name == "timestamp" else 9.80665) for name in columns if name != "green"}
    )


def test_files_of_their_own_are_paired_by_folder(tmp_path: Path) -> None:
    for seed, name in enumerate(("P1", "P2")):
        write_pair(tmp_path / "in" / name / "ppg.csv", tmp_path / "in" / name / "acc.csv", seed)
    (tmp_path / "in/P2/acc.csv").unlink()
    summary, rows = land(tmp_path / "in", PAIRED)
    assert (summary.read, summary.rejections) == (2, ())
    assert {row["participant_id"]: len(row["accel"]) for row in rows} == {"table-P1": 3, "table-P2": 0}


def test_files_of_their_own_are_paired_by_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("P1", "P2")):
        write_pair(tmp_path / f"in/{name}_ppg.csv", tmp_path / f"in/{name}_acc.csv", seed)
    (tmp_path / "in/notes.csv").write_text("when,what\n")
    naming = PAIRED + '[participant]\nfile = "{participant}_*.csv"\n'
    summary, rows = land(tmp_path / "in", naming)
    assert [(rejection.source_file, rejection.reason) for rejection in summary.rejections] == [
        ("notes.csv", "not_recognised")
    ]
    assert sorted((row["participant_id"], len(row["accel"])) for row in rows) == [("table-P1", 3), ("table-P2", 3)]
    unnamed, _ = land(tmp_path / "in", PAIRED)  # two people in one folder are not one recording
    assert {rejection.reason for rejection in unnamed.rejections} == {"not_recognised", "participant_unknown"}


def test_folders_and_sessions_pair_too_and_a_name_that_splits_in_two_ways_is_refused(tmp_path: Path) -> None:
    for seed, (name, session) in enumerate((("P1", "a"), ("P1", "b"), ("P2", "a"))):
        write_pair(tmp_path / f"in/{name}/ppg/{session}.csv", tmp_path / f"in/{name}/acc/{session}.csv", seed)
    naming = PAIRED.replace("*ppg*.csv", "ppg/*.csv").replace("*acc*.csv", "acc/*.csv")
    summary, rows = land(tmp_path / "in", naming + '[participant]\nfile = "{participant}/*/{session}.csv"\n')
    # The second session of P1 has the times of its first
    assert (summary.read, [rejection.reason for rejection in summary.rejections]) == (2, ["overlap"])
    assert {row["participant_id"] for row in rows} == {"table-P1", "table-P2"}
    write_csv(tmp_path / "odd/P_1_ppg.csv", signals(20))
    (odd,) = (
        table_reader(parse_mapping(PAIRED + '[participant]\nfile = "{participant}_*.csv"\n'))
        .find([tmp_path / "odd/P_1_ppg.csv"])
        .sessions
    )
    assert odd.participant is None
    assert odd.contradiction is not None
    assert "in more than one way" in odd.contradiction


def test_units_ranges_and_offsets_of_the_raw_values(tmp_path: Path) -> None:
    columns = signals(20)
    raw = {**columns, **{axis: np.round(columns[axis] * 4096 + 32768) for axis in ("ax", "ay", "az")}}
    raw["ax"][50], raw["green"][60] = 65535, 65535
    mapping = TIME + (
        '[ppg]\ncolumns = ["green"]\nrange = [0, 65535]\n[accel]\ncolumns = ["ax", "ay", "az"]\n'
        'unit = "counts"\ncounts_per_g = 4096\noffset = 32768\nrange = [0, 65535]\n'
    )
    (recording,) = read_tables(mapping, write_csv(tmp_path / "P1.csv", raw))
    assert recording.ppg is not None
    assert recording.accel is not None
    assert np.flatnonzero(np.isnan(recording.ppg[0])).tolist() == [60]
    assert np.flatnonzero(np.isnan(recording.accel).any(axis=0)).tolist() == [50]
    np.testing.assert_allclose(recording.accel[1], columns["ay"], atol=1e-3)


def test_counts_beyond_float32_lose_a_constant_and_keep_the_pulse(tmp_path: Path) -> None:
    columns = signals(20)
    columns["green"] += 2e9
    (recording,) = read_tables(MAPPING, write_csv(tmp_path / "P1.csv", columns))
    assert recording.ppg is not None
    assert np.ptp(recording.ppg.astype(np.float32)) == np.ptp(columns["green"])
    assert "PPG: above 2^24 counts, its median subtracted" in recording.notes


def test_dark_slots_travel_with_the_ppg(tmp_path: Path) -> None:
    columns = {**signals(20), "ambient": np.arange(1000.0)}
    mapping = MAPPING.replace("polarity", 'dark = ["ambient"]\npolarity')
    (recording,) = read_tables(mapping, write_csv(tmp_path / "P1.csv", columns))
    assert recording.dark is not None
    assert (recording.ppg is not None and recording.ppg.shape, recording.dark_offsets_s) == ((1, 1000), (0.0,))
    np.testing.assert_array_equal(recording.dark[0], np.arange(1000.0))


def test_references_and_marks_in_the_table_itself(tmp_path: Path) -> None:
    columns: dict[str, Any] = dict(signals(60))
    seconds = np.floor(np.arange(3000) / 50)
    columns["HR"] = 60 + seconds
    columns["HR"][:50] = 0
    columns["RR"] = np.where(np.arange(3000) % 40 == 0, 800, np.nan)
    columns["mark"] = ["1" if 500 <= row < 510 else "0" for row in range(3000)]
    mapping = MAPPING + (
        '[reference]\nsource = "ecg"\nhr = "hr"\nibi = "rr"\nibi_unit = "ms"\n[events]\ncolumn = "mark"\n'
    )
    (recording,) = read_tables(mapping, write_csv(tmp_path / "P1.csv", columns))
    assert recording.reference_source == "ecg"
    assert recording.reference_hr_s is not None
    assert recording.reference_hr_bpm is not None
    assert recording.reference_ibi_s is not None
    assert recording.event_s is not None
    assert recording.reference_hr_s.tolist() == pytest.approx(list(range(1, 60)))
    assert recording.reference_hr_bpm[:2].tolist() == [61, 62]
    assert set(recording.reference_ibi_s) == {0.8}
    assert recording.event_s.tolist() == pytest.approx([10.0])


def test_references_in_a_file_of_their_own_never_cost_the_signals(tmp_path: Path) -> None:
    mapping = MAPPING + '[reference]\npattern = "hr.csv"\nsource = "device"\nhr = "bpm"\n'
    file = write_csv(tmp_path / "P1/data.csv", signals(60))
    other = write_csv(
        tmp_path / "P1/hr.csv", {"timestamp": [(START_S + t) * 1000 for t in (-9, 5, 6)], "bpm": [50, 60, 61]}
    )
    (recording,) = read_tables(mapping, file, other)
    assert recording.reference_hr_s is not None
    assert recording.reference_hr_s.tolist() == pytest.approx([5, 6])
    for content in ("", "timestamp,pulse\n1,2\n", "timestamp,bpm\n"):
        other.write_text(content)
        (recording,) = read_tables(mapping, file, other)
        assert recording.reference_hr_s is None
        assert recording.ppg is not None
        assert recording.ppg.shape == (1, 3000)
        assert recording.notes or "bpm" in content


BAMI = """
[files]
pattern = "Subject_*.mat"
[participant]
file = "Subject_{participant}.mat"
[ppg]
columns = ["sigPPG"]
unit = "counts"
rate_hz = 50
[accel]
columns = ["sigAcc"]
unit = "counts"
counts_per_g = 4096
offset = 32768
rate_hz = 50
[reference]
source = "ecg"
hr = "bpmECG"
beat = "timeECG"
time = {column = "timeECG", unit = "s"}
"""


def test_a_mapping_reads_what_the_reader_of_a_format_reads(shared: Path) -> None:
    path = shared / "data/bami1-watch/Subject_1.mat"
    (expected,) = bami.read(next(iter(bami.find([path]).sessions)))
    reader = table_reader(parse_mapping(BAMI))
    (session,) = reader.find([path]).sessions
    assert session.participant == "1"
    (recording,) = reader.read(session)
    for name in ("ppg", "accel", "reference_hr_s", "reference_hr_bpm", "reference_beat_s"):
        np.testing.assert_allclose(getattr(recording, name), getattr(expected, name), err_msg=name)
    assert (recording.ppg_rate_hz, recording.accel_rate_hz) == (50, 50)


MAT = """
[participant]
column = "who"
[ppg]
columns = ["data.ppg(2)"]
rate_hz = "data.fs"
[accel]
columns = ["data.acc"]
unit = "g"
rate_hz = 25
"""


def mat_content() -> dict[str, Any]:
    columns = signals(20)
    accel = np.stack([columns[axis][::2] for axis in ("ax", "ay", "az")])
    return {"who": "P9", "data": {"ppg": np.stack([columns["ax"], columns["green"]]), "acc": accel.T, "fs": 50.0}}


def test_fields_of_structures_and_channels_of_matrices(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", mat_content())
    (recording,) = read_tables(MAT, tmp_path / "a.mat")
    assert recording.participant == "P9"
    assert recording.ppg is not None
    assert recording.accel is not None
    np.testing.assert_array_equal(recording.ppg[0], signals(20)["green"])
    np.testing.assert_array_equal(recording.accel[0], signals(20)["ax"][::2])
    assert (recording.ppg_rate_hz, recording.accel_rate_hz) == (50, 25)
    with pytest.raises(Unreadable, match=r"a.mat has no column 'data.gre'; it has who, data.ppg, data.acc, data.fs"):
        read_tables(
            MAT.replace("data.ppg(2)", "data.gre")
            .replace("[accel]", "[session]\ncolumn='who'\n[accel]")
            .replace("data.acc", "x"),
            tmp_path / "a.mat",
        )


def test_matlab_7_3(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    content = mat_content()
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        name = file.create_dataset("who", data=np.array([[ord(letter)] for letter in content["who"]], np.uint16))
        name.attrs["MATLAB_class"] = np.bytes_("char")
        for field, value in content["data"].items():
            file[f"data/{field}"] = np.asarray(value).T if np.ndim(value) else [[value]]
        people = [file.create_dataset(f"#refs#/{number}", data=[[number]]) for number in (1, 2)]
        file.create_dataset("list/age", (2, 1), dtype=h5py.ref_dtype)[:, 0] = [person.ref for person in people]
    with (tmp_path / "a.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(128))
    (recording,) = read_tables(MAT, tmp_path / "a.mat")
    assert recording.participant == "P9"
    assert recording.ppg is not None
    assert recording.accel is not None
    np.testing.assert_array_equal(recording.ppg[0], signals(20)["green"])
    np.testing.assert_array_equal(recording.accel[0], signals(20)["ax"][::2])
    (tmp_path / "a.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:3000])
    with pytest.raises(Unreadable, match=r"v7\.3"):
        read_tables(MAT, tmp_path / "a.mat")


def test_without_a_mapping_there_is_a_clear_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "in/P1.csv", signals(1))
    with pytest.raises(ValueError, match="a table needs a mapping"):
        ingest("table", tmp_path / "in", tmp_path / "landing", "b")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "empty_file"),
        ("a.csv", b"timestamp,green,ax,ay,az\n", "empty_file"),
        ("a.csv", b"1,2,3\n4,5,6\n", "no_header"),
        ("a.csv", bytes(range(256)) * 10, "unreadable_file"),
        ("a.csv", b"timestamp,green\n1,2,3,4,5\n1,2,3,4,5\n", "bad_header"),
        ("a.csv", b"timestamp,green\n1700000000000,5\n", "empty_file"),
        ("a.csv", b"timestamp,green\nnoon,5\nevening,6\n", "no_time"),
        ("a.csv", b"timestamp,green\n" + b"".join(b"%d.%d,5\n" % (n % 3, n) for n in range(50)) + b"9e12,5\n", "rate"),
        ("a.csv.gz", b"\x1f\x8b broken", "unreadable_file"),
        ("a.parquet", b"PAR1 broken", "unreadable_file"),
        ("a.feather", b"ARROW1 broken", "unreadable_file"),
        ("a.mat", b"MATLAB 5.0 broken", "unreadable_file"),
    ],
)
def test_damage_ends_with_a_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read_tables(MAPPING, tmp_path / name)
    assert caught.value.reason == reason
    assert name in caught.value.detail


@pytest.mark.parametrize("kind", [21, 25, 60])
def test_a_file_that_kills_its_parser_costs_itself_alone(tmp_path: Path, kind: int) -> None:
    """SciPy looks up the type of an element without a look at its number."""
    (tmp_path / "in").mkdir()
    columns = {name: np.asarray(values, np.float64) for name, values in signals(70).items()}
    for name in ("P1", "P2"):
        savemat(tmp_path / f"in/{name}.mat", columns)
    content = (tmp_path / "in/P1.mat").read_bytes()
    place = content.index(struct.pack("<II", 9, 8 * len(columns["green"])))
    (tmp_path / "in/P1.mat").write_bytes(content[:place] + struct.pack("<I", kind) + content[place + 4 :])
    summary, rows = land(tmp_path / "in", MAPPING)
    assert [row["participant_id"] for row in rows] == ["table-P2"]
    assert [(entry.source_file, entry.reason) for entry in summary.rejections] == [("P1.mat", "unreadable_file")]
    assert "died" in summary.rejections[0].detail


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".mat", ".csv"])
def test_names_of_files_are_bytes(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    columns = signals(70)
    whole = tmp_path / f"P1{suffix}"
    if suffix == ".csv":
        write_csv(whole, columns)
    elif suffix == ".mat":
        savemat(whole, columns)
    else:
        write = pq.write_table if suffix == ".parquet" else pa.feather.write_feather
        write(pa.table(columns), str(whole))
    folder = os.fsencode(tmp_path / "in")
    shutil.copytree(tmp_path, tmp_path / "in/S1", ignore=shutil.ignore_patterns("in"))
    Path(tmp_path / f"in/S1/P1{suffix}").rename(os.fsdecode(folder + b"/S1/caf\xe9\x01" + suffix.encode()))
    (tmp_path / "in/S2").mkdir()
    (tmp_path / f"in/S2/\u202eend{suffix}").write_bytes(b"ARROW1 broken")
    summary, rows = land(tmp_path / "in", MAPPING, "path:1")
    assert [row["participant_id"] for row in rows] == ["table-S1"]
    assert len(summary.rejections) == 1
    assert all(letter.isprintable() for letter in f"{summary.rejections[0]}")


def test_a_million_rows_are_read_in_seconds(tmp_path: Path) -> None:
    columns = signals(4_000)
    five = {name: np.tile(values, 5) for name, values in columns.items()}
    names = np.repeat([f"S{number}" for number in range(5)], len(columns["green"]))
    table = pa.table({"id": names, **five})
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    recordings = read_tables('[participant]\ncolumn = "id"\n' + MAPPING, tmp_path / "a.csv")
    assert len(recordings) == 5
    assert all(recording.ppg is not None and recording.ppg.shape == (1, 200_000) for recording in recordings)


def examples() -> dict[str, str]:
    """The mappings of docs/own-recordings.md, by the heading before them."""
    text = (Path(__file__).parents[2] / "docs/own-recordings.md").read_text(encoding="utf-8")
    pieces = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {
        title: mapping[1]
        for title, body in zip(pieces[1::2], pieces[2::2], strict=True)
        if (mapping := re.search(r"```toml\n(.*?)```", body, re.DOTALL))
    }


def test_every_documented_mapping_is_valid() -> None:
    assert len(examples()) == 4
    for mapping in examples().values():
        parse_mapping(mapping)


def test_the_documented_mappings_read_what_they_describe(tmp_path: Path) -> None:
    columns = signals(60)
    axes = {axis: columns[axis] for axis in ("ax", "ay", "az")}
    marker = ["1" if row == 500 else "" for row in range(3000)]
    plain = {"timestamp": columns["timestamp"], "green": columns["green"], "red": columns["green"], "marker": marker}
    file = write_csv(tmp_path / "P01.csv", {**plain, **{axis: axes[axis] * 9.80665 for axis in axes}})
    (recording,) = read_tables(examples()["One file per person"], file)
    assert recording.ppg is not None
    assert (recording.ppg.shape, recording.started_at_s) == ((2, 3000), START_S)
    assert recording.event_s is not None
    assert recording.event_s.tolist() == pytest.approx([10.0])

    local = [f"{datetime.fromtimestamp(t / 1000 + 3600, UTC):%Y-%m-%d %H:%M:%S.%f}" for t in columns["timestamp"]]
    imu = {
        "time": np.repeat(local, 2),
        "sensor": ["accelerometer", "gyroscope"] * 3000,
        **{name: np.repeat(values, 2) for name, values in zip("xyz", axes.values(), strict=True)},
    }
    files = (
        write_csv(tmp_path / "S01_1_ppg.csv", {"time": local, "value": columns["green"]}),
        write_csv(tmp_path / "S01_1_imu.csv", imu),
        write_csv(tmp_path / "S01_1_ecg.csv", {"time": local[::50], "hr": [60] * 60, "rr": [1000] * 60}),
    )
    (recording,) = read_tables(examples()["Files for each stream, all people in one folder"], *files)
    equal([recording], columns)
    assert recording.started_at_s == pytest.approx(START_S)
    assert recording.reference_hr_s is not None
    assert recording.reference_ibi_s is not None
    assert (len(recording.reference_hr_s), set(recording.reference_ibi_s)) == (60, {1.0})

    content = {
        "info": {"subject": "P9"},
        "data": {
            "ppg": np.stack([columns["green"]] * 3),
            "acc": (np.stack(list(axes.values())) * 4096 + 32768).T,
            "fs": 50.0,
        },
        "ecg": {"r_peaks": np.arange(1.0, 50.0)},
    }
    savemat(tmp_path / "x.mat", content)
    (recording,) = read_tables(examples()["A MAT file with structures"], tmp_path / "x.mat")
    equal([replace(recording, ppg=recording.ppg[:1] if recording.ppg is not None else None)], columns)
    assert recording.participant == "P9"
    assert recording.reference_beat_s is not None
    assert recording.reference_beat_s[:2].tolist() == [1.0, 2.0]
