"""What an encoder costs on a device: the table of docs/export.md. One core, one segment, the runtimes of each format.

    pip install -e '.[export]' && python benches/on_device.py
    python benches/on_device.py --only XS stem
    python benches/on_device.py --checkpoint path/to/checkpoint --home path/to/home

Encoders have random weights, and statistics of batch normalisation as after a training on noise: neither time nor
memory depends on them. With `--checkpoint` and `--home` trained ones are exported instead, and int8 is calibrated and
compared with float on segments of that home. Every format is measured in a process of its own on one core (Linux): the
median CPU time of 50 segments, and what loading and running the model adds to the process's memory at its peak. The
classical estimator, which needs no model, stands below.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import tables
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import rust_dsp
from accelkd.home.layout import Home
from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.operations.export import compare
from accelkd.operations.portable import Format, convert, load_portable
from accelkd.segments.schema import ACCEL_AXES, DURATION_S, SAMPLES
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import load_encoder

SHAPES: dict[str, EncoderShape] = {
    **{f"Transformer {name}": shape for name, shape in SIZES.items()},
    "Transformer 64 × 3, convolutional stem": TransformerShape(64, 3, 4, 256, stem="convolutional"),
    "EfficientNet 64 × 0.125": EfficientNetShape(64, 0.125),
    "EfficientNet 128 × 0.25": EfficientNetShape(128, 0.25),
    "EfficientNet 256 × 1": EfficientNetShape(),
}
RUNTIMES = {"onnx": "onnxruntime", "executorch": "executorch.runtime"}
FORMATS: tuple[tuple[str, Format, bool], ...] = (
    ("ONNX Runtime", "onnx", False),
    ("ONNX Runtime int8", "onnx", True),
    ("ExecuTorch", "executorch", False),
    ("ExecuTorch int8", "executorch", True),
)
REPEATS, WARM_UP = 50, 5
COMPARED = 16  # segments, and as many others to calibrate with
RAW_HZ = 50.0


@dataclass(frozen=True)
class Cost:
    """Of one segment on one core."""

    ms: float
    memory_mb: float  # that the model adds at its peak

    def __str__(self) -> str:
        return f"{self.ms:.2f} ms, {self.memory_mb:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the encoders' names")
    parser.add_argument("--checkpoint", nargs="+", type=Path, default=[], help="trained accelerometer encoders instead")
    parser.add_argument("--home", type=Path, help="whose segments int8 is calibrated and compared on")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that measure
    segments = noise(2 * COMPARED) if arguments.home is None else segments_of(Home(arguments.home.resolve()))
    tables.header(
        "encoder",
        "parameters",
        "MFLOP",
        "torch",
        *(f"{name}: file, time, memory" for name, *_ in FORMATS),
        "largest and mean difference of int8: ONNX; ExecuTorch",
    )
    for name, encoder, build in encoders(arguments.checkpoint, arguments.only):
        with tempfile.TemporaryDirectory() as scratch:
            cells, differences = [], []
            for _, to, int8 in FORMATS:
                path = Path(scratch) / f"{to}-{int8}"
                convert(encoder, path, to, int8=int8, calibration=segments[COMPARED:])
                cost = measured(partial(load_portable, path, to, threads=1), RUNTIMES[to])
                cells.append(f"{path.stat().st_size / 1e6:.2f} MB, {cost}")
                if int8:
                    difference = compare(encoder, path, to, segments[:COMPARED])
                    differences.append(f"{difference.largest:.1%}, {difference.mean:.2%}")
            parameters = sum(parameter.numel() for parameter in encoder.parameters())
            mflop = flop(encoder) / 1e6
            tables.row(
                name, f"{parameters:,}", f"{mflop:,.0f}", f"{measured(build).ms:.2f} ms", *cells, "; ".join(differences)
            )
    tables.header("without a model, of one raw minute at 50 Hz", "time")
    raw = np.random.default_rng(0).standard_normal((ACCEL_AXES, round(RAW_HZ * DURATION_S))).astype(np.float32)
    plan = rust_dsp.Plan(accel_rate_hz=RAW_HZ)
    tables.row("heart rate (`rust_dsp.recoil_rate`)", f"{median_ms(lambda: rust_dsp.recoil_rate(raw, RAW_HZ)):.2f} ms")
    tables.row(
        "preprocessing for an encoder (`rust_dsp.Plan.preprocess`)",
        f"{median_ms(lambda: plan.preprocess(None, None, raw[None], threads=1)):.2f} ms",
    )


def encoders(
    checkpoints: list[Path], only: list[str]
) -> Iterator[tuple[str, AnyEncoder, Callable[[], Callable[[Tensor], Tensor]]]]:
    """Name, encoder, and what builds it again in another process."""
    if checkpoints:
        for folder in checkpoints:
            encoder, info = load_encoder(folder)
            yield f"{info.encoder} {info.model_id}", encoder, partial(trained_encoder, folder)
        return
    for name, shape in SHAPES.items():
        if any(part in name for part in only):
            yield name, random_encoder(shape), partial(random_encoder, shape)


def trained_encoder(folder: Path) -> AnyEncoder:
    return load_encoder(folder)[0]


def random_encoder(shape: EncoderShape) -> AnyEncoder:
    """Random weights, with the statistics of batch normalisation that noise gives them."""
    torch.manual_seed(0)
    encoder = build_encoder(ACCEL_AXES, shape)
    for part in encoder.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = None  # of all batches alike
    with torch.no_grad():
        encoder.train()(noise(8))
    return encoder.eval()


def noise(count: int) -> Tensor:
    return torch.randn(count, ACCEL_AXES, SAMPLES, generator=torch.Generator().manual_seed(0))


def segments_of(home: Home) -> Tensor:
    """Random segments of a home, `[2 × COMPARED, 3, 3840]`."""
    store = SegmentStore(sorted((home.root / "segments").glob("*.arrow")))
    rows = np.flatnonzero(store.counts("accel") == ACCEL_AXES)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[: 2 * COMPARED])
    segments = torch.from_numpy(store.signals("accel", rows).astype(np.float32))
    return segments[torch.randperm(len(segments), generator=torch.Generator().manual_seed(0))]


def flop(encoder: AnyEncoder) -> float:
    """Floating-point operations of one segment: what energy goes with, before memory does."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(noise(1))
    return float(counter.get_total_flops())


def measured(load: Callable[[], Callable[[Tensor], Tensor]], library: str | None = None) -> Cost:
    """Cost of what `load` loads, in a new process on one core."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, load, library).result()


def _measure(load: Callable[[], Callable[[Tensor], Tensor]], library: str | None) -> Cost:
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    if library:
        import_module(library)  # what Python adds to a runtime is no cost of the model
    segment = noise(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = _resident_mb("VmRSS")
    run = load()
    with torch.inference_mode():
        ms = median_ms(lambda: run(segment))
    return Cost(ms, _resident_mb("VmHWM") - before)


def median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.process_time()  # which other programs of the machine do not add to
        work()
        times.append(time.process_time() - began)
    return float(np.median(times[WARM_UP:])) * 1e3


def _resident_mb(field: str) -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


if __name__ == "__main__":
    main()
