"""The wheel of accelkd is all that a user needs to read a recording: the command, weights and readouts are in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq

from accelkd.home.layout import Home
from tests.support import REPOSITORY
from tests.support.homes import simulate
from tests.support.recordings import write_acceleration_csv

MAX_ERROR_BPM = 3.0


def test_a_wheel_reads_a_file_of_acceleration(tmp_path: Path) -> None:
    uv, installed, work = str(Path(sys.executable).with_name("uv")), tmp_path / "installed", tmp_path / "work"
    build = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(REPOSITORY)]
    subprocess.run(build, check=True, timeout=300)
    home = Home(tmp_path / "home")
    simulate(home, "sim", participants=1, segments=1)
    table = pq.read_table(next((home.batch("sim") / "recordings").glob("*.parquet")))
    work.mkdir()
    accel = np.array(table["accel"][0].as_py(), np.float32)
    write_acceleration_csv(work / "walk.csv", accel, table["accel_rate_hz"][0].as_py())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELKD")}
    result = subprocess.run(
        [sys.executable, "-m", "accelkd.cli", "predict", "walk.csv", "--out", "read.csv"],
        cwd=work,
        env=environment | {"PYTHONPATH": str(installed)},
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert result.stdout == "3 values in read.csv\n"
    read = csv.read_csv(work / "read.csv").to_pylist()
    (rate,) = (row for row in read if row["target"] == "hr_bpm")
    assert abs(rate["value"] - table["hr_bpm"][0].as_py()) < MAX_ERROR_BPM
    assert rate["low"] < rate["value"] < rate["high"]
    assert sorted(path.name for path in work.iterdir()) == ["read.csv", "walk.csv"]
