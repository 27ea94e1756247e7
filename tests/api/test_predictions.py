"""`accelkd.predict` and `accelkd predict`: the numbers of the table `predictions`, for files and arrays."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import accelkd
from accelkd.cli import main
from accelkd.home.layout import Home
from tests.support.recordings import write_acceleration_csv

NAME, BATCH = "accel_student", "sim-a"
KEYS = ["target", "value", "low", "high", "typical"]


def stored(home: Home, recording_id: str) -> list[tuple[object, ...]]:
    """What the warehouse says of one recording's segments and of its participant."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        return connection.execute(
            f"SELECT {', '.join(KEYS)} FROM predictions JOIN segments USING (segment_id) "
            "WHERE recording_id = ? ORDER BY offset_s, target",
            [recording_id],
        ).fetchall()


def recording(home: Home) -> tuple[str, float, npt.NDArray[np.float32]]:
    table = pq.read_table(sorted((home.batch(BATCH) / "recordings").glob("*.parquet"))[0]).slice(0, 1)
    return (
        table["recording_id"][0].as_py(),
        table["accel_rate_hz"][0].as_py(),
        np.array(table["accel"][0].as_py(), np.float32),
    )


@pytest.fixture(scope="module")
def file(read_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first recording as somebody's logger would write it."""
    _, rate_hz, accel = recording(read_home)
    return write_acceleration_csv(tmp_path_factory.mktemp("files") / "walk.csv", accel, rate_hz)


def values(table: pa.Table) -> list[tuple[object, ...]]:
    rows = table.select(KEYS).to_pylist()
    return sorted(tuple(row.values()) for row in rows)


def test_arrays_and_files_give_the_numbers_of_the_table(read_home: Home, file: Path) -> None:
    encoder = accelkd.load_encoder(NAME, home=read_home.root)
    recording_id, rate_hz, accel = recording(read_home)
    expected = sorted(stored(read_home, recording_id))
    assert [row[0] for row in expected] == ["hr_bpm", "rmssd_ms", "sdnn_ms"]
    from_arrays = accelkd.predict(encoder, accelkd.preprocess(accel=accel, rate_hz=rate_hz))
    from_file = accelkd.predict(encoder, file)
    for read in (from_arrays, from_file):
        for row, wanted in zip(values(read.segments), expected, strict=True):
            assert row[0] == wanted[0]
            np.testing.assert_allclose(np.array(row[1:4], float), np.array(wanted[1:4], float), rtol=1e-5)
        assert read.participants.column("target").to_pylist() == ["age", "sex"]
        assert read.participants.column("low").null_count == 1  # sex has a probability alone
        assert read.left_out == ()
    assert from_file.notes[0].startswith("understood: [files]")
    assert 'unit = "g"' in from_file.notes[0]


def test_the_command_prints_and_writes_the_same(
    read_home: Home, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(read_home.root)]
    assert main([*home, "predict", str(file), "--encoder", NAME]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split()[:4] == ["participant_id", "recording_id", "offset_s", "hr_bpm"]
    assert "understood: " in shown.err
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"read.{suffix}"
        assert main([*home, "predict", str(file), "--encoder", NAME, "--out", str(out)]) == 0
        table = csv.read_csv(out) if suffix == "csv" else pq.read_table(out)
        assert table.column("target").to_pylist() == ["hr_bpm", "sdnn_ms", "rmssd_ms", "age", "sex"]
    assert main([*home, "predict", str(file), "--encoder", NAME, "--out", str(tmp_path / "read.txt")]) == 2
    assert "must end in .csv or .parquet" in capsys.readouterr().err


def test_what_cannot_be_read_is_said(read_home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = accelkd.load_encoder(NAME, home=read_home.root)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        accelkd.predict(encoder, tmp_path / "nothing.csv")
    noise = tmp_path / "notes.csv"
    noise.write_text("when,what\nmonday,rest\ntuesday,rest\n")
    with pytest.raises(ValueError, match=r"notes\.csv"):
        accelkd.predict(encoder, noise)
    short = tmp_path / "short.csv"
    short.write_text(
        "time,x,y,z\n" + "".join(f"{number / 50},0.01,0.02,{1 + number % 3 / 999}\n" for number in range(500))
    )
    read = accelkd.predict(encoder, short)
    assert read.segments.num_rows == 0
    assert "too_short" in read.left_out[0]
    assert main(["--home", str(read_home.root), "predict", str(short), "--encoder", NAME]) == 1
    assert "left out: " in capsys.readouterr().err


def test_movement_has_no_prediction_and_says_why(read_home: Home) -> None:
    encoder = accelkd.load_encoder(NAME, home=read_home.root)
    rng = np.random.default_rng(0)
    still = np.array([[0.0], [0.1], [0.99]]) + 0.002 * rng.standard_normal((3, 50 * 120))
    still[:, : 50 * 60] += rng.standard_normal((3, 50 * 60))
    read = accelkd.predict(encoder, accelkd.preprocess(accel=still, rate_hz=50))
    assert read.segments.column("offset_s").unique().to_pylist() == [60.0]
    assert read.left_out == ("at 0 s: motion",)


def test_an_encoder_without_readouts_cannot_predict(home: Home) -> None:
    encoder = accelkd.load_encoder(NAME, home=home.root)
    assert encoder.readouts is None
    windows = accelkd.preprocess(accel=np.random.default_rng(0).normal(0.5, 0.002, (3, 6000)), rate_hz=50)
    with pytest.raises(ValueError, match="has no readouts: materialize `readouts`"):
        accelkd.predict(encoder, windows)
