"""Mapping files: what they may say, and how errors name what they say wrongly."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from accelkd.recordings.mapping import matches, named_by, parse_mapping, read_mapping
from accelkd.recordings.readers.table import table_reader

PPG = '[ppg]\ncolumns = ["green"]\nrate_hz = 64\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[ppg]\ncolums = ["a"]\nrate_hz = 1',
            "ppg.colums: unknown key; allowed: pattern, time, where, rate_hz, columns",
        ),
        ("[pgg]\na = 1", "pgg: unknown key; allowed: files, participant, session"),
        ('[ppg.time]\ncolumn = "t"\nunits = "s"', "ppg.time.units: unknown key; allowed: column, unit, format"),
        ('[ppg]\ncolumns = ["a"]', r"\[ppg\] has neither a time nor rate_hz"),
        ('[ppg]\ncolumns = ["a"]\nrate_hz = 64\npolarity = 2', "ppg.polarity: 1 or -1"),
        ('[ppg]\ncolumns = ["a"]\nrate_hz = -1', "ppg.rate_hz: greater than 0"),
        ('[time]\ncolumn = "t"\nunit = "min"', "time.unit: 's', 'ms', 'us', 'ns' or 'iso8601'"),
        ('[time]\ncolumn = "t"\nunit = "iso8601"\nzone = "Mars"', "time: zone 'Mars' is not known"),
        ('[time]\ncolumn = "t"\nunit = "iso8601"\nepoch = "unix"', "time: an epoch is one of numbers"),
        ('[accel]\ncolumns = ["x", "y", "z"]\nrate_hz = 50', "accel.unit: is missing"),
        ('[accel]\ncolumns = ["x", "y"]\nunit = "g"\nrate_hz = 50', "accel: columns are three"),
        ('[accel]\ncolumns = ["x"]\nunit = "counts"\nrate_hz = 50', 'accel: unit = "counts" goes with counts_per_g'),
        ('[participant]\ncolumn = "a"\npath = 1', "participant: name one of column, path and file"),
        ('[participant]\nfile = "*.csv"', "participant: file is a pattern with {participant} once"),
        ('[reference]\nhr = "hr"', "reference.source: is missing"),
        ('[reference]\nsource = "ecg"\nibi = "rr"', "reference: ibi goes with ibi_unit"),
        ('[participants]\nbirth_year = "b"', "participants: an age from birth needs measured_on"),
        ("[ppg", "Expected ']'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_mapping(tmp_path / "m.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'm.toml'}: ")
    assert "\n" not in str(caught.value)


def test_a_reader_of_tables_needs_a_stream() -> None:
    assert table_reader(parse_mapping(PPG))
    with pytest.raises(ValueError, match=r"neither \[ppg\] nor \[accel\]"):
        table_reader(parse_mapping('[participants]\nage = "a"'))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.csv", "/d/P1/a.csv", True),
        ("*.csv", "/d/P1/a.CSV", True),
        ("*.csv", "/d/P1/a.tsv", False),
        ("ppg/*.csv", "/d/P1/ppg/a.csv", True),
        ("ppg/*.csv", "/d/P1/xppg/a.csv", False),
        ("ppg/**/*.csv", "/d/ppg/1/2/a.csv", True),
        ("**/ppg*.csv", "/d/ppg1.csv", True),
        ("[!_]*.csv", "/d/_a.csv", False),
    ],
)
def test_patterns_match_the_ends_of_paths(pattern: str, path: str, expected: bool) -> None:
    assert matches([pattern], PurePath(path)) is expected


def test_names_are_split_in_one_way_only() -> None:
    assert named_by(["{participant}_{session}.csv"], PurePath("/d/P1_a.csv")) == {"participant": "P1", "session": "a"}
    assert named_by(["{participant}/*/{session}.csv"], PurePath("/d/P1/x/a.csv")) == {
        "participant": "P1",
        "session": "a",
    }
    assert named_by(["{participant}_ppg.csv"], PurePath("/d/P1.csv")) is None
    assert named_by(["{participant}_ppg.csv"], PurePath("/d/P_1_ppg.csv")) == {"participant": "P_1"}
    with pytest.raises(ValueError, match="in more than one way"):
        named_by(["{participant}_{session}.csv"], PurePath("/d/P_1_a.csv"))
