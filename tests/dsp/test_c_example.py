"""The C example, built with the C compiler of the machine: the rates of the Python batch form on simulated minutes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

import rust_dsp
from accelkd.recordings.simulator import simulate_batch
from tests.support import REPOSITORY

COMPILER = shutil.which("cc") or shutil.which("gcc")
RATE_HZ, COUNTS_PER_G, HOP_S = 64, 16384, 20
LINE = re.compile(r"([\d.]+) s: ([\d.]+|-?nan) bpm, peak ([\d.]+|-?nan), (\w+)")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked with the static library."""
    if COMPILER is None:
        pytest.skip("no C compiler (cc or gcc) on this machine")
    crate = REPOSITORY / "rust_dsp/c"
    target = Path(os.environ.get("CARGO_TARGET_DIR", crate / "target"))
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    cargo = shutil.which("cargo") or Path.home() / ".cargo/bin/cargo"
    build: list[str | Path] = [cargo, "build", "--quiet", "--locked", "--release", "--target-dir", target]
    subprocess.run(build, check=True, cwd=crate, env=environment, timeout=900)
    program = tmp_path_factory.mktemp("example") / "heart_rate"
    sources = [crate / "examples/heart_rate.c", target / "release/librust_dsp_c.a"]
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    link: list[str | Path] = [
        COMPILER,
        *warnings,
        f"-I{crate / 'include'}",
        *sources,
        "-lm",
        "-lpthread",
        "-ldl",
        "-o",
        program,
    ]
    subprocess.run(link, check=True, timeout=60)
    return program


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[np.int32]:
    """Three simulated minutes of one chest, one after the other, as a sensor's integers `[samples, 3]`."""
    landing = tmp_path_factory.mktemp("landing")
    simulate_batch(landing, "minutes", participants=1, segments=3, seed=4, profile="easy", rate_hz=RATE_HZ)
    rows = pq.read_table(landing / "minutes/recordings", columns=["accel"])["accel"].to_pylist()
    accel = np.concatenate([np.array(minute, np.float64) for minute in rows], axis=1)
    return np.round(accel.T * COUNTS_PER_G).astype(np.int32)


def run(example: Path, lines: list[str], *arguments: object) -> list[tuple[float, float, float, str]]:
    """Start, heart rate, peak and verdict of each segment that the program prints."""
    command: list[str | Path] = [example, *map(str, arguments)]
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60, check=True
    )
    matches = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(matches), done.stdout
    return [(float(match[1]), float(match[2]), float(match[3]), match[4]) for match in matches if match]


def test_rates_are_those_of_the_batch_form(example: Path, counts: npt.NDArray[np.int32]) -> None:
    lost = slice(5000, 5008)
    lines = [",".join(map(str, frame)) for frame in counts.tolist()]
    lines[lost] = ["lost"] * 8
    segments = run(example, lines, RATE_HZ, COUNTS_PER_G, HOP_S)

    accel = np.ascontiguousarray(counts.T, np.float32) * np.float32(1 / COUNTS_PER_G)
    accel[:, lost] = np.nan
    plan = rust_dsp.Plan(accel_rate_hz=RATE_HZ)
    windows = plan.windows(None, accel, hop_s=HOP_S)
    cut = [accel[:, start : start + 60 * RATE_HZ] for start in windows.accel_start.tolist()]
    batch = plan.preprocess(None, None, cut)
    rates, peaks = rust_dsp.recoil_rates(batch.accel, scale=batch.accel_ac_level)
    assert len(segments) == len(rates) == 7
    assert np.isfinite(rates).all()
    np.testing.assert_array_equal([start_s for start_s, *_ in segments], windows.offset_s)
    np.testing.assert_allclose([hr_bpm for _, hr_bpm, *_ in segments], rates, atol=0.1)
    np.testing.assert_allclose([peak for *_, peak, _ in segments], peaks, atol=1e-3)
    assert [reason == "motion" for *_, reason in segments] == (~windows.kept).tolist()


def test_what_the_library_refuses_is_printed(example: Path) -> None:
    done = subprocess.run([example, "5", "1000"], input="", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "accel rate 5 Hz is not supported: 20 to 2048 Hz\n")
