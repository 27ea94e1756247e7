"""Speed of rust_dsp against careful NumPy/SciPy and against NeuroKit2: `make bench-dsp`.

Everything is timed in this process on one thread, the contestants in turn, by CPU time; the tables have the medians.
A recording is 60 s of 4 PPG channels, 1 dark slot and 3 accelerometer axes at one rate.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import neurokit2
import numpy as np
import numpy.typing as npt
from scipy import signal
from threadpoolctl import threadpool_limits

import rust_dsp

OUTPUT_RATE_HZ, OUTPUT_SAMPLES = 64, 3840
RATE_HZ = 256
FULL_SCALE = (-1.0, float(1 << 22))
RECORDINGS = 64
SCIPY_RECORDINGS = 32
LONG_BATCH = 1024
REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
ROUNDS = 9

Name = TypeVar("Name")
Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]


def recordings(count: int, rate_hz: float) -> Batch:
    """Raw recordings with a pulse, breathing, changing daylight and noise; every one another."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(60 * rate_hz)) / rate_hz
    ppg = np.empty((count, 4, time_s.size), np.int32)
    dark = np.empty((count, 1, time_s.size), np.int32)
    accel = np.empty((count, 3, time_s.size), np.float32)
    for recording in range(count):
        heart_hz = rng.uniform(0.8, 1.6) + 0.03 * np.sin(2 * np.pi * 0.25 * time_s)
        phase = 2 * np.pi * np.cumsum(heart_hz) / rate_hz
        pulse = np.cos(phase) + 0.5 * np.cos(2 * phase + 0.8) + 0.25 * np.cos(3 * phase + 1.7)
        daylight = 5e3 * (1.5 + np.sin(2 * np.pi * rng.uniform(0.1, 1) * time_s))
        dark[recording, 0] = daylight + 20 * rng.standard_normal(time_s.size)
        for channel in range(4):
            level = 2e5 + 4e4 * channel + 1500 * np.sin(2 * np.pi * 0.25 * time_s)
            noise = 40 * rng.standard_normal(time_s.size)
            ppg[recording, channel] = level - 800 * (1 + 0.3 * channel) * pulse + daylight + noise
        for axis in range(3):
            recoil = 0.002 * (axis + 1) * np.sin(12 * phase) * np.maximum(pulse, 0)
            accel[recording, axis] = (0.2, -0.4, 0.88)[axis] + recoil + 0.0008 * rng.standard_normal(time_s.size)
    return ppg, dark, accel


class SciPyBaseline:
    """The same mathematics for gap-free 256 Hz recordings, vectorised in float64 as SciPy is meant to be used.

    The LEDs fire half a frame after the dark slot, so the ambient light is the mean of two dark samples.
    """

    down = RATE_HZ // OUTPUT_RATE_HZ
    half = 10 * down
    mirror = 256
    bands_hz = ((0.5, 12.0), (1.0, 20.0))

    def __init__(self) -> None:
        self.taps = signal.firwin(2 * self.half + 1, 1 / self.down, window=("kaiser", 7.857))
        self.sections = [signal.butter(2, band, "bandpass", fs=OUTPUT_RATE_HZ, output="sos") for band in self.bands_hz]
        self.ramp = np.arange(60 * RATE_HZ) - (60 * RATE_HZ - 1) / 2

    def __call__(self, ppg: Any, dark: Any, accel: Any) -> npt.NDArray[np.float32]:
        low, high = FULL_SCALE
        if not ((ppg > low) & (ppg < high)).all() or not (dark > low).all() or not np.isfinite(accel).all():
            raise ValueError("the baseline has no rules for gaps")
        light = dark.astype(np.float64)
        light = (light + np.concatenate([light[..., 1:], light[..., -1:]], axis=-1)) / 2
        rows = [self.rows(ppg - light, self.sections[0]), self.rows(accel.astype(np.float64), self.sections[1])]
        return np.concatenate(rows, axis=1, dtype=np.float32, casting="same_kind")

    def rows(self, x: npt.NDArray[np.float64], sections: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        peak = np.abs(x).max(-1, keepdims=True)
        slope = (x @ self.ramp)[..., None] / (self.ramp @ self.ramp)
        x = x - x.mean(-1, keepdims=True) - self.ramp * slope
        edge = self.half + self.down
        x = np.concatenate([x[..., edge:0:-1], x, x[..., -2 : -edge - 2 : -1]], axis=-1)
        first = (edge + self.half) // self.down
        y = signal.upfirdn(self.taps, x, 1, self.down)[..., first : first + OUTPUT_SAMPLES]
        y = signal.sosfiltfilt(sections, y, padtype="even", padlen=self.mirror)
        std = y.std(-1, keepdims=True)
        alive = std > 1e-6 * peak
        z: npt.NDArray[np.float64] = (y - y.mean(-1, keepdims=True)) / np.where(alive, std, 1) * alive
        return z


def times_s(
    contestants: dict[Name, tuple[Callable[[], object], int]],
    clock: Callable[[], float] = time.process_time,
    summary: Callable[[list[float]], float] = statistics.median,
) -> dict[Name, float]:
    """Time per item of each (function, items it works on), taken in turn after one round to warm up."""
    times: dict[Name, list[float]] = {name: [] for name in contestants}
    for warm in [False] + [True] * ROUNDS:
        for name, (function, items) in contestants.items():
            start = clock()
            function()
            if warm:
                times[name].append((clock() - start) / items)
    return {name: summary(values) for name, values in times.items()}


def plan_at(rate_hz: float, instruction_set: Any = None) -> rust_dsp.Plan:
    return rust_dsp.Plan(
        ppg_rate_hz=rate_hz,
        accel_rate_hz=rate_hz,
        led_offsets_s=(0.5 / rate_hz,) * 4,
        ppg_range=FULL_SCALE,
        instruction_set=instruction_set,
    )


def instruction_sets() -> list[str]:
    names = []
    for name in ("avx512", "avx2", "portable"):
        try:
            plan_at(64, name)
        except ValueError:
            continue
        names.append(name)
    return names


def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def whole_preprocessing(streams: Batch) -> None:
    baseline = SciPyBaseline()
    few: Any = [stream[:SCIPY_RECORDINGS] for stream in streams]
    segments = plan_at(RATE_HZ).preprocess(*few, threads=1)
    difference = np.abs(baseline(*few) - np.concatenate([segments.ppg, segments.accel], axis=1)).max()
    sets = instruction_sets()
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "SciPy float64": (lambda: baseline(*few), SCIPY_RECORDINGS)
    }
    if (REFERENCE / "baseline_scipy.py").exists():
        sys.path.append(str(REFERENCE))
        specified = importlib.import_module("baseline_scipy")
        contestants["SciPy float64, the specification's"] = (lambda: specified.process(*few), SCIPY_RECORDINGS)
    for name in sets:
        plan = plan_at(RATE_HZ, name)
        contestants[name] = (partial(plan.preprocess, *streams, threads=1), RECORDINGS)
    best = plan_at(RATE_HZ, sets[0])
    out = best.preprocess(*streams, threads=1)
    given = partial(best.preprocess, *streams, threads=1, ppg_out=out.ppg, accel_out=out.accel)
    contestants[f"{sets[0]}, output given by the caller"] = (given, RECORDINGS)  # no page faults of new output
    singles = [tuple(stream[i : i + 1] for stream in streams) for i in range(RECORDINGS)]
    contestants["one recording a call"] = (
        lambda: [best.preprocess(*single, threads=1) for single in singles],
        RECORDINGS,
    )
    medians = times_s(contestants)

    read_bytes = sum(stream[0].nbytes for stream in streams)
    moved_bytes = read_bytes + 7 * OUTPUT_SAMPLES * 4
    big = np.ones(1 << 24)
    other = np.empty_like(big)
    copy_s = times_s({"copy": (lambda: np.copyto(other, big), 1)})["copy"]
    bandwidth = 2 * big.nbytes / copy_s
    table(
        f"`preprocess`, {RATE_HZ} Hz (largest difference from SciPy: {difference:.1e})",
        ("", "µs per recording", "ratio", "recordings/s", "MB/s in", "share of memory bandwidth"),
        [
            (
                name,
                f"{s * 1e6:.0f}",
                f"{medians['SciPy float64'] / s:.1f}×",
                f"{1 / s:.0f}",
                f"{read_bytes / s / 1e6:.0f}",
                f"{moved_bytes / s / bandwidth:.0%}",
            )
            for name, s in medians.items()
        ],
    )
    print(f"\nMemory bandwidth (copy of {big.nbytes / 1e6:.0f} MB): {bandwidth / 1e9:.1f} GB/s.")


def two_threads_and_memory(streams: Batch) -> None:
    """On a batch that takes a tenth of a second: shorter ones end before the second thread has a core of its own."""
    plan = plan_at(RATE_HZ)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many: Any = [np.concatenate([stream] * (LONG_BATCH // RECORDINGS)) for stream in streams]
    with_input_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    segments = plan.preprocess(*many, threads=1)
    extra_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - with_input_kb
    output_kb = (segments.ppg.nbytes + segments.accel.nbytes) / 1024

    block = bytes(1 << 26)  # hashing needs little memory bandwidth and no interpreter lock
    with ThreadPoolExecutor(2) as pool:
        contenders: dict[str, list[Callable[[], object]]] = {
            "`preprocess`, output given by the caller": [
                partial(plan.preprocess, *many, threads=threads, ppg_out=segments.ppg, accel_out=segments.accel)
                for threads in (1, 2)
            ],
            "`preprocess`, output allocated": [partial(plan.preprocess, *many, threads=threads) for threads in (1, 2)],
            "only hashing: what the machine allows": [
                lambda: [hashlib.sha256(block) for _ in range(2)],
                lambda: list(pool.map(hashlib.sha256, [block] * 2)),
            ],
        }
        functions = {(name, threads): (pair[threads - 1], 1) for name, pair in contenders.items() for threads in (1, 2)}
        best = times_s(functions, time.perf_counter, min)
    table(
        f"Two threads: {LONG_BATCH} recordings, wall time, fastest of {ROUNDS} rounds",
        ("", "1 thread (ms)", "2 threads (ms)", "ratio"),
        [
            (name, f"{serial * 1e3:.0f}", f"{parallel * 1e3:.0f}", f"{serial / parallel:.2f}×")
            for name in contenders
            for serial, parallel in [(best[name, 1], best[name, 2])]
        ],
    )
    if with_input_kb > before_kb:  # else an earlier peak hides this one
        extra_mb = (extra_kb - output_kb) / 1024
        print(f"\nPeak memory of {LONG_BATCH} recordings beyond input and output: {extra_mb:.1f} MB.")


def other_rates() -> None:
    contestants: dict[str, tuple[Callable[[], object], int]] = {}
    for rate_hz in (64, 125, 50, 32):
        streams = recordings(RECORDINGS, rate_hz)
        for name in instruction_sets():
            plan = plan_at(rate_hz, name)
            contestants[f"{rate_hz} Hz, {name}"] = (partial(plan.preprocess, *streams, threads=1), RECORDINGS)
    table(
        "`preprocess` at other rates",
        ("", "µs per recording", "recordings/s"),
        [(name, f"{s * 1e6:.0f}", f"{1 / s:.0f}") for name, s in times_s(contestants).items()],
    )


def labels(streams: Batch) -> None:
    z = plan_at(RATE_HZ).preprocess(*streams).ppg.reshape(-1, OUTPUT_SAMPLES)
    few = z[:8].astype(np.float64)

    def neurokit() -> None:
        for channel in few:
            _, peaks = neurokit2.ppg_peaks(channel, sampling_rate=OUTPUT_RATE_HZ)
            neurokit2.hrv_time(peaks["PPG_Peaks"], sampling_rate=OUTPUT_RATE_HZ)

    medians = times_s(
        {
            "NeuroKit2 `ppg_peaks` + `hrv_time`": (neurokit, len(few)),
            "`label`": (lambda: rust_dsp.label(z, threads=1), len(z)),
        }
    )
    slowest = next(iter(medians.values()))
    table(
        "`label`",
        ("", "µs per channel", "ratio"),
        [(name, f"{s * 1e6:.0f}", f"{slowest / s:.0f}×") for name, s in medians.items()],
    )


def main() -> None:
    print(f"{processor()}; NumPy {np.__version__}; instruction set {plan_at(RATE_HZ).instruction_set}")
    with threadpool_limits(1):
        streams = recordings(RECORDINGS, RATE_HZ)
        whole_preprocessing(streams)
        two_threads_and_memory(streams)
        other_rates()
        labels(streams)


if __name__ == "__main__":
    main()
