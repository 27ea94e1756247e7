"""The table reader on what devices, apps and spreadsheets write."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from accelkd.recordings.readers import Unreadable
from accelkd.recordings.readers.text import plain, read_table, unit

ROWS = "time [s];X [mg];y\r\n0;1.5;-2\r\n1;;3e1\r\n2;4;5\r\n"
VALUES = [[0.0, 1.0, 2.0], [1.5, np.nan, 4.0], [-2.0, 30.0, 5.0]]


def values(path: Path) -> list[list[float]]:
    table = read_table(path)
    return [table.named(name).tolist() for name in ("time", "x", "y")]


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        ROWS.replace("\r\n", "\n"),
        ROWS.replace("\r\n", "\r"),
        ROWS.removesuffix("\r\n"),
        ROWS.replace(";", ","),
        ROWS.replace(";", "\t"),
        ROWS.replace(".", ","),
        "sep=;\r\n" + ROWS,
        "# a logger\r\n\r\n" + ROWS,
        ROWS.replace("\r\n", ";\r\n"),
        ROWS.replace("\r\n", ";\r\n").replace("y;", "y"),
        ROWS.replace("\r\n", "\r\n\r\n"),
        ROWS.replace(";", " ; "),
        '"time [s]";"X [mg]";"y"\r\n"0";"1.5";"-2"\r\n"1";"";"3e1"\r\n"2";"4";"5"\r\n',
        ROWS.replace("1;;", "1;NaN;"),
        ROWS.replace("1;;", "1;error;"),
    ],
    ids=[
        "as it is",
        "LF",
        "CR",
        "no last line end",
        "commas",
        "tabs",
        "decimal commas",
        "a spreadsheet's first line",
        "comments",
        "trailing separators",
        "trailing separators but in the header",
        "blank lines",
        "spaces",
        "quotes",
        "NaN",
        "words",
    ],
)
def test_the_same_table_in_many_spellings(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    np.testing.assert_array_equal(values(tmp_path / "a.csv"), VALUES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(ROWS.replace("mg", "m/s²").encode(encoding))
    np.testing.assert_array_equal(values(tmp_path / "a.csv"), VALUES)
    assert unit(read_table(tmp_path / "a.csv").names[1]) == "m/s²"


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)])
def test_packed_files(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.csv.{suffix}"
    path.write_bytes(pack(ROWS.encode()))
    np.testing.assert_array_equal(values(path), VALUES)
    path.write_bytes(pack(ROWS.encode()) + pack(b"3;6;7\r\n"))
    assert values(path)[0] == [0, 1, 2, 3]
    rng = np.random.default_rng(0)
    long = ROWS + "".join(f"{n};{x};1\r\n" for n, x in enumerate(rng.uniform(size=50_000), start=3))
    whole = pack(long.encode())
    path.write_bytes(whole[: len(whole) // 2])
    if suffix != "bz2":  # whose blocks are larger than this file
        table = read_table(path)
        assert 1000 < table.rows < 50_000
        np.testing.assert_array_equal(table.named("time"), np.arange(table.rows))
        assert "the packed file is damaged" in table.notes[0]
    path.write_bytes(b"not packed at all")
    with pytest.raises(Unreadable, match="cannot be unpacked"):
        read_table(path)


def test_rows_of_any_length_keep_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x,y\n0,1,2\n1\n2,3,4,5,6\n3,4\n4,5,6\n")
    table = read_table(tmp_path / "a.csv")
    assert table.named("t").tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(table.named("y"), [2, np.nan, 4, np.nan, 6])
    assert table.notes == ("3 rows with another number of cells",)
    (tmp_path / "a.csv").write_text("t,x,y\n0,1,2\n3,4,5\n5,6")
    table = read_table(tmp_path / "a.csv")
    assert (table.named("t").tolist(), table.notes) == ([0, 3], ("the last row, which is cut, left out",))


def test_a_late_fault_is_found_after_the_first_block(tmp_path: Path) -> None:
    rows = [f"{n},{n / 8}" for n in range(200_000)]
    rows[150_000] = "150000,\0\0"
    rows[150_001] = "150001"
    (tmp_path / "a.csv").write_text("t,x\n" + "\n".join(rows) + "\n")
    table = read_table(tmp_path / "a.csv")
    assert table.rows == 200_000
    x = table.named("x")
    assert np.flatnonzero(np.isnan(x)).tolist() == [150_000, 150_001]
    assert x[-1] == 199_999 / 8


def test_times_of_nanoseconds_and_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "time,Phone timestamp\n1728120522020157200,2024-10-05T09:28:42\n1728120522030212000,x\n"
    )
    table = read_table(tmp_path / "a.csv")
    assert np.diff(table.named("time"))[0] == pytest.approx(10_054_800, abs=300)
    column = table.index("phone timestamp")
    assert column is not None
    assert table.texts(column) == ["2024-10-05T09:28:42", "x"]
    assert table.text(column, 0) == "2024-10-05T09:28:42"


def test_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,2,3\n4,5,6\n7,8\n")
    table = read_table(path, header=False, width=3)
    assert [table.numbers(column).tolist() for column in range(3)] == [[1, 4], [2, 5], [3, 6]]
    path.write_text("1,5\n2,25\n-3,0\n")
    assert read_table(path, header=False, width=1).numbers(0).tolist() == [1.5, 2.25, -3.0]
    path.write_text("1;2;3\n4,5;6;7\n")
    assert read_table(path, header=False, width=3).numbers(0).tolist() == [1.0, 4.5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf\r\n\r\n", "empty_file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "unreadable_file"),
        (b"1,2,3\n4,5,6\n", "bad_header"),
        (bytes(5000), "unreadable_file"),
    ],
    ids=["empty", "blank", "an image", "no header", "zeros"],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(Unreadable) as error:
        read_table(tmp_path / "a.csv")
    assert error.value.reason == reason


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,x\n")
    table = read_table(tmp_path / "a.csv")
    assert (table.rows, table.named("x").tolist()) == (0, [])
    with pytest.raises(Unreadable, match=r"bad_header: a.csv has no column 'z'"):
        table.named("z")


def test_names_of_columns() -> None:
    assert plain("\ufeffSensor_timestamp [ns] ".strip("\ufeff")) == "sensor timestamp"
    assert plain("Linear Acceleration x (m/s^2)") == "linear acceleration x"
    assert plain("PP-interval [ms]") == "pp interval"
    assert (unit("X [mg]"), unit("Acceleration x (m/s^2)"), unit("hr")) == ("mg", "m/s^2", "")
