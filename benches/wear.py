"""How still a worn sensor lies: `python benches/wear.py path/to/shared/data`.

The wear check takes a window for not worn if the means of whole seconds move no axis by more than 3 mg, or than the
noise of the sensor does (`rust_dsp.Plan.windows`, `lies_still`). Here are these ranges for the still minutes of real
and simulated people, who all wore their sensors, beside a thing at rest: noise of several sizes about gravity.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

import rust_dsp
from accelkd.home.settings import MotionGate
from accelkd.recordings.ingest import ingest
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.validate import iter_recordings

DEVICES = {
    "e4": "stress-predict-e4",
    "polar": "polar-verity-sense",
    "nilspod": "biopsykit-nilspod-chest",
    "embraceplus": "empatica-embraceplus",
    "phone": "mscardio-phone-scg",
    "matrix": "accelerometer-formats",
}
NOISE_MG = (0.0, 1.0, 2.0, 5.0)  # standard deviation of each axis
RESTING_MINUTES = 1000
Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the real recordings")
    arguments = parser.parse_args()
    print("| still minutes of | number | people | smallest (mg) | 1 % | median | counted as not worn |")
    print("|---|---|---|---|---|---|---|")
    for device, folder in DEVICES.items():
        with tempfile.TemporaryDirectory() as landing:
            ingest(device, arguments.data / folder, Path(landing), "b")
            show(device, still_minutes(Path(landing) / "b"))
    for profile in ("easy", "realistic", "hard"):
        with tempfile.TemporaryDirectory() as landing:
            simulate_batch(Path(landing), "b", participants=60, segments=4, seed=1, profile=profile, rate_hz=64)
            show(f"simulated, {profile}", still_minutes(Path(landing) / "b"))
    for noise_mg in NOISE_MG:
        show(f"a thing at rest, noise of {noise_mg:g} mg", resting(noise_mg))


def show(what: str, minutes: Iterator[tuple[str, float, bool]]) -> None:
    rows = list(minutes)
    ranges_mg = 1e3 * np.array([range_g for _, range_g, _ in rows])
    lying = sum(lies_still for _, _, lies_still in rows)
    if not rows:
        return
    low, percent, middle = np.percentile(ranges_mg, (0, 1, 50))
    people = len({person for person, _, _ in rows} - {""}) or ""
    print(f"| {what} | {len(rows)} | {people} | {low:.1f} | {percent:.1f} | {middle:.1f} | {lying} |", flush=True)


def still_minutes(batch: Path) -> Iterator[tuple[str, float, bool]]:
    """Participant, largest range of second means over the axes (g), and the verdict, of each window that is still."""
    for rows, _ in iter_recordings(batch):
        for row in rows.to_pylist():
            accel = np.asarray(row["accel"], np.float32)
            if not len(accel):
                continue
            for range_g, lies_still in ranges(accel, row["accel_rate_hz"], "strict"):
                yield row["participant_id"], range_g, lies_still


def resting(noise_mg: float) -> Iterator[tuple[str, float, bool]]:
    rng = np.random.default_rng(0)
    for _ in range(RESTING_MINUTES):
        accel = np.array([[0.0], [0.6], [0.8]]) + 1e-3 * noise_mg * rng.standard_normal((3, 60 * 64))
        for range_g, lies_still in ranges(accel.astype(np.float32), 64.0, "off"):
            yield "", range_g, lies_still


def ranges(accel: npt.NDArray[np.float32], rate_hz: float, gate: MotionGate) -> Iterator[tuple[float, bool]]:
    """Range of second means (g) and verdict of each window that the gate keeps."""
    windows = rust_dsp.Plan(accel_rate_hz=rate_hz).windows(None, accel, gate=gate)
    edges = np.round(np.arange(61) * rate_hz).astype(int)
    for start in windows.accel_start[windows.kept].tolist():
        window = accel[:, start : start + edges[-1]].astype(np.float64)
        spans = [(begin, end) for begin, end in pairwise(edges.tolist()) if begin < window.shape[1]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a second without a sample
            means = np.array([np.nanmean(window[:, begin:end], axis=1) for begin, end in spans])
        alone = rust_dsp.Plan(accel_rate_hz=rate_hz).windows(None, accel[:, start : start + edges[-1]], gate="off")
        yield float(np.nanmax(np.nanmax(means, axis=0) - np.nanmin(means, axis=0))), bool(alone.lies_still[0])


if __name__ == "__main__":
    main()
