"""Training throughput of each method, against plain eager fp32 PyTorch of the same model.

    python benches/throughput.py                  the paper's sizes: for a GPU
    python benches/throughput.py --miniature      small sizes and few steps: the same code anywhere, in a minute

Signals are random; what is timed is the trainer itself, with its augmentations, batches and optimiser. The first half
of each run, in which a GPU's kernels are compiled, is left out. MFU is against the device's dense bfloat16 peak.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.segments.schema import ACCEL_AXES, SAMPLES, SEGMENT
from accelkd.segments.store import SegmentStore, write_segments
from accelkd.training.augment import Augmentations, augment
from accelkd.training.contrastive import ContrastiveConfig
from accelkd.training.distillation import DistillationConfig
from accelkd.training.masked_autoencoding import MaskedAutoencodingConfig
from accelkd.training.method import EncoderConfig
from accelkd.training.optimisation import Optimisation, efficientnet_optimisation
from accelkd.training.randomness import step_keys
from accelkd.training.runs import measure_speed, train_encoder
from accelkd.training.signals import ResidentSignals
from accelkd.training.throughput import measure_ceilings

PPG_CHANNELS = 4
METHODS = ("KD", "MAE", "CL", "KD-stem", "CL-EfficientNet")
VARIANTS: dict[str, dict[str, Any]] = {
    "eager fp32": {"precision": "fp32", "compile": False},
    "accelkd": {},
}


def random_store(path: Path, participants: int, segments: int) -> SegmentStore:
    """Segments of noise: what a step costs does not depend on what is in them."""
    rng = np.random.default_rng(0)
    schema = SEGMENT.arrow()
    rows = participants * segments
    columns = []
    for field in schema:
        if pa.types.is_list(field.type):
            channels = PPG_CHANNELS if field.name.startswith("ppg") else ACCEL_AXES
            width = channels * (SAMPLES if field.name in ("ppg", "accel") else 1)
            noise = field.name in ("ppg", "accel")
            values = rng.standard_normal(rows * width, np.float32) if noise else np.zeros(rows * width)
            flat = pa.array(values.astype(field.type.value_type.to_pandas_dtype()))
            columns.append(pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * width), flat))
        elif field.name == "participant_id":
            columns.append(pa.array([f"p{row // segments}" for row in range(rows)]))
        elif pa.types.is_string(field.type):
            columns.append(pa.array([f"{field.name}-{row}" for row in range(rows)]))
        elif field.nullable:
            columns.append(pa.nulls(rows, field.type))
        else:
            columns.append(pa.array(np.zeros(rows)).cast(field.type))
    write_segments(path, [pa.RecordBatch.from_arrays(columns, schema=schema)])
    assert len(columns[-1].values) == rows * 3 * SAMPLES
    return SegmentStore([path])


def methods(encoder: TransformerShape, efficientnet: EfficientNetShape) -> dict[str, EncoderConfig]:
    """One configuration of each kind with the paper's batch sizes; the others of a kind cost the same."""
    decoder = replace(encoder, layers=max(1, encoder.layers // 2))
    convolutional = efficientnet_optimisation(1_000, 256, 1e-4)
    return {
        "KD": DistillationConfig(encoder, Optimisation(1_000, 256, 1e-4)),
        "MAE": MaskedAutoencodingConfig("ppg", encoder, decoder, Optimisation(1_000, 512, 1e-4)),
        "CL": ContrastiveConfig("ppg", encoder, Optimisation(1_000, 256, 1e-4)),
        "KD-stem": DistillationConfig(replace(encoder, stem="convolutional"), Optimisation(1_000, 256, 1e-4)),
        "CL-EfficientNet": ContrastiveConfig("ppg", efficientnet, convolutional),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniature", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--steps", type=int, default=10, help="of which each takes three times as many")
    parser.add_argument("--profile", action="store_true", help="also list the kernels that take most time")
    arguments = parser.parse_args()
    chosen = methods(SIZES["XL"], EfficientNetShape())
    participants = 1_000
    if arguments.miniature:
        small = methods(TransformerShape(64, 2, 2, 128), EfficientNetShape(64, 0.125))
        chosen = {
            name: replace(config, optimisation=replace(config.optimisation, batch_size=16))
            for name, config in small.items()
        }
        participants = 32
    if unknown := set(arguments.only) - set(chosen):
        parser.error(f"there is no method {', '.join(sorted(unknown))}; there are {', '.join(chosen)}")
    print(f"{measure_ceilings()}\n{augmentations_agree()}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "noise.arrow", participants, segments=4)
        on_gpu = torch.cuda.is_available()
        resident = ResidentSignals(store, torch.device("cuda")) if on_gpu else None
        teacher = untrained(store, replace_steps(chosen["MAE"], 1), Path(folder), resident)
        print("| method | batch | | segments/s | against eager fp32 | MFU | device |\n|---|---|---|---|---|---|---|")
        for name in arguments.only or chosen:
            config = chosen[name]
            measured = {}
            for variant, changes in VARIANTS.items():
                changed = replace(config, optimisation=replace(config.optimisation, **changes))
                measure = partial(
                    measure_speed,
                    store,
                    np.arange(len(store)),
                    changed,
                    teacher=teacher if isinstance(config, DistillationConfig) else None,
                    resident=resident,
                    steps=arguments.steps,
                )
                speed = measured[variant] = measure()
                mfu = "" if speed.mfu is None else f"{speed.mfu:.1%}"
                ratio = speed.segments_per_s / measured["eager fp32"].segments_per_s
                size = config.optimisation.batch_size
                device = torch.cuda.get_device_name() if on_gpu else "cpu"
                how = "; ".join([variant, *speed.notes])
                print(
                    f"| {name} | {size} | {how} | {speed.segments_per_s:,.0f} | {ratio:.2f} | {mfu} | {device} |",
                    flush=True,
                )
            if arguments.profile:
                print(f"\n{profile(measure)}\n", flush=True)


def augmentations_agree() -> str:
    """How far the device's augmentations, compiled there, are from the processor's: integers are hashed in both."""
    if not torch.cuda.is_available():
        return "augmentations: there is no GPU to compare with the processor"
    x, keys = torch.randn(256, 4, SAMPLES), step_keys(0, 0, 256)
    expected = augment(x, keys, Augmentations())
    difference = (augment(x.cuda(), keys, Augmentations()).cpu() - expected).abs().max().item()
    return f"augmentations: the GPU's differ from the processor's by at most {difference:.1e}"


def replace_steps(config: EncoderConfig, steps: int) -> EncoderConfig:
    return replace(config, optimisation=config.optimisation.with_steps(steps))


def untrained(store: SegmentStore, config: EncoderConfig, out: Path, resident: ResidentSignals | None) -> Path:
    """A teacher of one step: what it costs does not depend on what it has learned."""
    return train_encoder(
        store,
        np.arange(len(store)),
        config,
        out,
        name="teacher",
        data_version="bench",
        split_version="bench",
        resident=resident,
    )


def profile(work: Callable[[], object]) -> str:
    """The operations that take most time of the device."""
    with torch.profiler.profile() as profiler:
        work()
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table: str = profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60)
    return table


if __name__ == "__main__":
    main()
