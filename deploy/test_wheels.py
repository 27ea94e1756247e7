"""What an installed wheel must do on every platform: the golden vectors, and the public functions without a home.

python deploy/test_wheels.py            compare with golden.json
python deploy/test_wheels.py --write    write golden.json (where the tests of rust_dsp against its reference pass)
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

import accelkd
import rust_dsp

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 2e-6  # of the z-scored samples
EVERY = 97  # samples of each signal that are compared
RATES_HZ = (64.0, 50.0, 256.0)


def recording(rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """A pulse of 75 beats a minute in one PPG channel, and acceleration in g: made of integers, the same everywhere."""
    n = np.arange(int(rate_hz * 60))
    beat = (n * 75) % int(60 * rate_hz)  # phase within a beat, in samples times 75
    ppg = 40_000 + 900 * np.abs(2 * beat - int(60 * rate_hz)) // int(60 * rate_hz) + (n * 7919) % 23
    breath = 20 * np.abs(2 * (n % int(4 * rate_hz)) - int(4 * rate_hz)) // int(4 * rate_hz)
    accel = (
        np.stack([100 + breath + (n * 7919) % 5, 200 - breath + (n * 104_729) % 7, 970 + (n * 1_299_709) % 11]) / 1000
    )
    accel[1, 500:506] = np.nan
    return ppg[None].astype(np.int32), accel


def measured() -> dict[str, dict[str, list[float]]]:
    """Every 97th z-scored sample and the labels, by sampling rate."""
    values = {}
    for rate_hz in RATES_HZ:
        ppg, accel = recording(rate_hz)
        plan = rust_dsp.Plan(ppg_rate_hz=rate_hz, accel_rate_hz=rate_hz)
        segments = plan.preprocess(ppg[None], None, accel[None])
        labels = rust_dsp.label(segments.ppg[0])
        values[f"{rate_hz:g} Hz"] = {
            "ppg": segments.ppg[0, :, ::EVERY].ravel().tolist(),
            "accel": segments.accel[0, :, ::EVERY].ravel().tolist(),
            "hr_bpm": labels.hr_bpm.tolist(),
        }
    return values


def read_from_a_file() -> None:
    """`accelkd predict` on a CSV of acceleration, by the encoder in the wheel, in a folder without a home."""
    _, accel = recording(50.0)
    rows = np.nan_to_num(accel.T, nan=0.2).tolist()
    command = Path(sysconfig.get_path("scripts")) / "accelkd"
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{number / 50:.2f},{x},{y},{z}\n" for number, (x, y, z) in enumerate(rows)]
        (Path(folder) / "walk.csv").write_text("time,x,y,z\n" + "".join(lines), encoding="utf-8")
        words = [str(command), "predict", "walk.csv", "--out", "read.csv"]
        subprocess.run(words, cwd=folder, check=True, timeout=600)
        read = (Path(folder) / "read.csv").read_text(encoding="utf-8")
    for target in ("hr_bpm", "sdnn_ms", "rmssd_ms"):
        assert target in read, read


def main(words: list[str]) -> int:
    values = measured()
    if words == ["--write"]:
        GOLDEN.write_text(json.dumps(values) + "\n", encoding="utf-8")
        return 0
    for rate, expected in json.loads(GOLDEN.read_text(encoding="utf-8")).items():
        for name, golden in expected.items():
            difference = np.abs(np.asarray(values[rate][name]) - np.asarray(golden)).max()
            assert difference <= TOLERANCE * (100 if name == "hr_bpm" else 1), (rate, name, difference)
    _, accel = recording(50.0)
    windows = accelkd.preprocess(accel=accel, rate_hz=50.0)
    assert windows.usable.all(), windows.reasons
    encoder = accelkd.load_encoder("accel-kd-xs")
    embeddings = accelkd.embed(encoder, windows.signals, device="cpu")
    assert embeddings.shape == (1, encoder.width)
    assert np.isfinite(embeddings).all()
    read_from_a_file()
    path = rust_dsp.Plan(ppg_rate_hz=64.0).instruction_set
    print(f"accelkd {accelkd.__version__}, rust_dsp on {path}: golden vectors reproduced, a minute read")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
