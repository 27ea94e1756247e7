"""Training throughput of each method, against plain eager fp32 PyTorch of the same model.

    python benches/throughput.py                  the paper's sizes: for a GPU
    python benches/throughput.py --miniature      small sizes and few steps: the same code anywhere, in a minute

Signals are random; what is timed is the trainer itself, with its augmentations, batches and optimiser. The first half
of each run, in which a GPU's kernels are compiled, is left out. MFU is against the device's dense bfloat16 peak.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.transformer import SIZES, TransformerShape
from accelkd.segments.schema import SAMPLES, segment_schema
from accelkd.segments.store import SegmentStore, write_segments
from accelkd.training.checkpoint import CURVE, read_metrics
from accelkd.training.configs import (
    ContrastiveConfig,
    DistillationConfig,
    EncoderConfig,
    MaskedAutoencodingConfig,
    Optimisation,
    efficientnet_optimisation,
)
from accelkd.training.runs import train_encoder

PPG_CHANNELS = 4
VARIANTS = {
    "accelkd": {},
    "eager fp32": {"precision": "fp32", "compile": False},
}


def random_store(path: Path, participants: int, segments: int) -> SegmentStore:
    """Segments of noise: what a step costs does not depend on what is in them."""
    rng = np.random.default_rng(0)
    schema = segment_schema(PPG_CHANNELS)
    rows = participants * segments
    columns = []
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            width = field.type.list_size
            noise = field.name in ("ppg", "accel")
            values = rng.standard_normal(rows * width, np.float32) if noise else np.zeros(rows * width)
            flat = pa.array(values.astype(field.type.value_type.to_pandas_dtype()))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
        elif field.name == "participant_id":
            columns.append(pa.array([f"p{row // segments}" for row in range(rows)]))
        elif pa.types.is_string(field.type):
            columns.append(pa.array([f"{field.name}-{row}" for row in range(rows)]))
        elif field.nullable:
            columns.append(pa.nulls(rows, field.type))
        else:
            columns.append(pa.array(np.zeros(rows)).cast(field.type))
    write_segments(path, PPG_CHANNELS, [pa.RecordBatch.from_arrays(columns, schema=schema)])
    assert len(columns[-1].values) == rows * 3 * SAMPLES
    return SegmentStore([path])


def methods(encoder: TransformerShape, efficientnet: EfficientNetShape, steps: int) -> dict[str, EncoderConfig]:
    """One configuration of each kind with the paper's batch sizes; the others of a kind cost the same."""

    def optimisation(batch_size: int) -> Optimisation:
        return Optimisation(steps, batch_size, 1e-4, log_every=max(1, steps // 10))

    decoder = replace(encoder, layers=max(1, encoder.layers // 2))
    convolutional = replace(efficientnet_optimisation(steps, 256, 1e-4), log_every=max(1, steps // 10))
    return {
        "MAE, Transformer": MaskedAutoencodingConfig("ppg", encoder, decoder, optimisation(512)),
        "CL, Transformer": ContrastiveConfig("ppg", encoder, optimisation(256)),
        "CL, EfficientNet": ContrastiveConfig("ppg", efficientnet, convolutional),
        "KD, Transformer": DistillationConfig(encoder, optimisation(256)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniature", action="store_true")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    chosen = methods(SIZES["XL"], EfficientNetShape(), arguments.steps)
    participants = 1_000
    if arguments.miniature:
        small = methods(TransformerShape(64, 2, 2, 128), EfficientNetShape(64, 0.125), steps=10)
        chosen = {
            name: replace(config, optimisation=replace(config.optimisation, batch_size=16))
            for name, config in small.items()
        }
        participants = 32
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "noise.arrow", participants, segments=4)
        rows = np.arange(len(store))
        teacher = _train(store, rows, chosen["MAE, Transformer"], Path(folder) / "teacher")
        print("| method | batch | | segments/s | against eager fp32 | MFU | device |\n|---|---|---|---|---|---|---|")
        for name, config in chosen.items():
            speeds = {}
            for variant, changes in VARIANTS.items():
                changed = replace(config, optimisation=replace(config.optimisation, **changes))
                distils = isinstance(config, DistillationConfig)
                done = _train(store, rows, changed, Path(folder) / variant, teacher if distils else None)
                speeds[variant] = (_steady_speed(done), read_metrics(done))
            for variant, (speed, metrics) in speeds.items():
                mfu = f"{metrics['mfu'] * speed / metrics['segments_per_s']:.1%}" if "mfu" in metrics else ""
                ratio = speed / speeds["eager fp32"][0]
                how = f"{variant} ({metrics['precision']})"
                size = config.optimisation.batch_size
                print(f"| {name} | {size} | {how} | {speed:,.0f} | {ratio:.2f} | {mfu} | {metrics['device']} |")


def _train(
    store: SegmentStore, rows: np.ndarray, config: EncoderConfig, out: Path, teacher: Path | None = None
) -> Path:
    versions = {"data_version": "bench", "split_version": "bench"}
    return train_encoder(store, rows, config, out, name="bench", **versions, teacher=teacher)


def _steady_speed(checkpoint: Path) -> float:
    """Segments per second, the median over the second half of the curve."""
    rates = pq.read_table(checkpoint / CURVE).column("segments_per_s").to_pylist()
    return statistics.median(rates[len(rates) // 2 :])


if __name__ == "__main__":
    main()
