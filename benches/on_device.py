"""What an encoder costs on a device: the table of docs/export.md. One core, one segment, the runtimes of each format.

    pip install -e '.[export]' && python benches/on_device.py
    python benches/on_device.py --only XS stem
    python benches/on_device.py --trained accel-kd-xs accel-kd-transformer-xs --home path/to/home

Encoders have random weights, and statistics of batch normalisation as after a training on noise: neither time nor
memory depends on them. With `--trained` (names or folders of checkpoints) and `--home` trained ones are exported
instead: int8 is calibrated on segments of that home's training participants, and what the readouts make of each format
is compared with the labels of its test participants. Every format is measured in a process of its own on one core
(Linux): the median CPU time of 50 segments, and what loading and running the model adds to the process's memory at its
peak. The classical estimator, which needs no model, stands below.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tables
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import rust_dsp
from accelkd.api.encoders import load_encoder
from accelkd.cohort.split import read_split
from accelkd.evaluation.readouts import Readouts, predict
from accelkd.home.layout import Home
from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.operations.export import compare
from accelkd.operations.portable import Format, convert, load_portable
from accelkd.recordings.labels import LABELS
from accelkd.segments.schema import ACCEL_AXES, DURATION_S, SAMPLES
from accelkd.segments.store import SegmentStore

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
MEASURED = 400  # labelled segments
RAW_HZ = 50.0


@dataclass(frozen=True)
class Cost:
    """Of one segment on one core."""

    ms: float
    memory_mb: float  # that the model adds at its peak

    def __str__(self) -> str:
        return f"{self.ms:.2f} ms, {self.memory_mb:.0f} MB"


@dataclass(frozen=True, eq=False)
class Labelled:
    """Segments that nobody was trained or fitted on, with what was measured."""

    segments: Tensor  # [segments, 3, 3840]
    labels: Mapping[str, npt.NDArray[np.float64]]
    classical_mae: float  # bpm
    people: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the encoders' names")
    parser.add_argument("--trained", nargs="+", default=[], help="trained accelerometer encoders instead")
    parser.add_argument("--home", type=Path, help="whose segments int8 is calibrated and compared on")
    arguments = parser.parse_args()
    if bool(arguments.trained) != bool(arguments.home):
        parser.error("--trained and --home go together")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that measure
    home = arguments.home and Home(arguments.home.resolve())
    segments = noise(2 * COMPARED) if home is None else training_segments(home)
    labelled = home and labelled_segments(home)
    errors: list[tuple[object, ...]] = []
    tables.header(
        "encoder",
        "parameters",
        "MFLOP",
        "torch",
        *(f"{name}: file, time, memory" for name, *_ in FORMATS),
        "largest and mean difference of int8: ONNX; ExecuTorch",
    )
    for name, encoder, build, readouts in encoders(arguments.trained, arguments.only):
        if readouts and labelled:
            errors.append((name, "torch", *errors_of(partial(_embedded, encoder), readouts, labelled)))
        with tempfile.TemporaryDirectory() as scratch:
            cells, differences = [], []
            for title, to, int8 in FORMATS:
                path = Path(scratch) / f"{to}-{int8}"
                convert(encoder, path, to, int8=int8, calibration=segments[COMPARED:])
                cost = measured(partial(load_portable, path, to, threads=1), RUNTIMES[to])
                cells.append(f"{path.stat().st_size / 1e6:.2f} MB, {cost}")
                if int8:
                    difference = compare(encoder, path, to, segments[:COMPARED])
                    differences.append(f"{difference.largest:.1%}, {difference.mean:.2%}")
                if readouts and labelled:
                    errors.append((name, title, *errors_of(load_portable(path, to), readouts, labelled)))
            parameters = sum(parameter.numel() for parameter in encoder.parameters())
            mflop = flop(encoder) / 1e6
            tables.row(
                name, f"{parameters:,}", f"{mflop:,.0f}", f"{measured(build).ms:.2f} ms", *cells, "; ".join(differences)
            )
    if labelled:
        tables.header(
            f"MAE over {len(labelled.segments)} minutes of {labelled.people} test participants",
            "format",
            *(f"{label.title} ({label.unit})" for label in LABELS.values()),
        )
        for row in errors:
            tables.row(*row)
        tables.row("classical estimator", "", f"{labelled.classical_mae:.2f}", "", "")
        medians = (np.median(values) for values in labelled.labels.values())
        constants = (np.abs(values - median) for values, median in zip(labelled.labels.values(), medians, strict=True))
        tables.row("their median", "", *(f"{error.mean():.2f}" for error in constants))
    tables.header("without a model, of one raw minute at 50 Hz", "time")
    raw = np.random.default_rng(0).standard_normal((ACCEL_AXES, round(RAW_HZ * DURATION_S))).astype(np.float32)
    plan = rust_dsp.Plan(accel_rate_hz=RAW_HZ)
    tables.row("heart rate (`rust_dsp.recoil_rate`)", f"{median_ms(lambda: rust_dsp.recoil_rate(raw, RAW_HZ)):.2f} ms")
    tables.row(
        "preprocessing for an encoder (`rust_dsp.Plan.preprocess`)",
        f"{median_ms(lambda: plan.preprocess(None, None, raw[None], threads=1)):.2f} ms",
    )


def encoders(
    trained: list[str], only: list[str]
) -> Iterator[tuple[str, AnyEncoder, Callable[[], Callable[[Tensor], Tensor]], Readouts | None]]:
    """Name, encoder, what builds it again in another process, and its readouts."""
    if trained:
        for name in trained:
            loaded = load_encoder(name)
            yield name, loaded.module, partial(trained_encoder, name), loaded.readouts
        return
    for name, shape in SHAPES.items():
        if any(part in name for part in only):
            yield name, random_encoder(shape), partial(random_encoder, shape), None


def trained_encoder(name: str) -> AnyEncoder:
    return load_encoder(name).module


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


def training_segments(home: Home) -> Tensor:
    """Random segments of training participants, `[2 × COMPARED, 3, 3840]`."""
    store, rows = _drawn(home, "train", 2 * COMPARED)
    segments = torch.from_numpy(store.signals("accel", rows).astype(np.float32))
    return segments[torch.randperm(len(segments), generator=torch.Generator().manual_seed(0))]


def labelled_segments(home: Home) -> Labelled:
    """Random segments of test participants that have labels."""
    store, rows = _drawn(home, "test", MEASURED)
    chosen = store.metadata.take(rows)
    labels = {name: chosen.column(name).to_numpy().astype(np.float64) for name in LABELS}
    classical = chosen.column("accel_hr_bpm").to_numpy().astype(np.float64)
    return Labelled(
        torch.from_numpy(store.signals("accel", rows).astype(np.float32)),
        labels,
        float(np.nanmean(np.abs(classical - labels["hr_bpm"]))),
        len(set(chosen.column("participant_id").to_pylist())),
    )


def _drawn(home: Home, side: str, count: int) -> tuple[SegmentStore, npt.NDArray[np.intp]]:
    """So many rows of one side of the split, all with labels and acceleration, sorted."""
    store = SegmentStore(sorted((home.root / "segments").glob("*.arrow")))
    split = read_split(home.split).to_pylist()
    people = {row["participant_id"] for row in split if row["split"] == side}
    on_side = np.array([name in people for name in store.metadata.column("participant_id").to_pylist()])
    whole = np.logical_and.reduce([store.metadata.column(name).is_valid().to_numpy() for name in LABELS])
    rows = np.flatnonzero(on_side & whole & (store.counts("accel") == ACCEL_AXES))
    return store, np.sort(np.random.default_rng(0).permutation(rows)[:count])


def errors_of(run: Callable[[Tensor], Tensor], readouts: Readouts, labelled: Labelled) -> list[str]:
    """Mean absolute error of each label, as a device would read it: segment by segment, by the readouts as they are."""
    with torch.inference_mode():
        embeddings = torch.cat([run(segment[None]) for segment in labelled.segments]).numpy()
    return [
        f"{np.abs(predict(readouts.of[name], embeddings).value - measured).mean():.2f}"
        for name, measured in labelled.labels.items()
    ]


def _embedded(encoder: AnyEncoder, segments: Tensor) -> Tensor:
    embeddings: Tensor = encoder(segments)
    return embeddings


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
