"""The trained encoder leaves Python: a folder that a phone, a watch or a server uses alone (docs/export.md)."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import accelkd
import rust_dsp
from accelkd.evaluation.readouts import READOUTS
from accelkd.home.files import atomic_path, sha256_file, verify_checksum, write_json
from accelkd.home.layout import Home
from accelkd.models.encoders import AnyEncoder
from accelkd.operations.portable import (
    INPUT,
    LIBRARIES,
    MODEL_FILES,
    OUTPUT,
    Format,
    convert,
    load_portable,
    needs_calibration,
)
from accelkd.recordings.limits import RATES_HZ
from accelkd.registry.history import checkpoint_folder
from accelkd.segments.schema import DURATION_S, SAMPLES, SAMPLING_RATE_HZ
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.checkpoint import EncoderInfo, load_encoder

PREPROCESSING = "preprocessing.json"
MAX_DIFFERENCE = 1e-4  # of a float model, as a share of the root mean square of the embeddings
MAX_CALIBRATION = 64  # segments
_VERIFIED = 4  # segments


@dataclass(frozen=True)
class Difference:
    """How far the embeddings of an exported model are from those of torch, as shares of their root mean square."""

    segments: int
    largest: float
    mean: float


@dataclass(frozen=True)
class Package:
    """What was exported."""

    folder: Path
    model: Path  # file of the model; of Core ML a folder
    model_bytes: int
    difference: Difference | None  # None where the format does not run here


def export_encoder(
    home: Home,
    source: str | os.PathLike[str],
    out: Path,
    *,
    to: Format,
    int8: bool = False,
    calibrate: str | None = None,
) -> Package:
    """Write the package of an encoder: its model in another format, its readouts, and how segments are prepared.

    `source` is what `accelkd.load_encoder` takes: the name of an encoder that is promoted in this home, or the folder
    of a checkpoint. The folder `out` is written atomically; a package that is there is replaced. `calibrate` is a
    segmented batch of this home, from whose segments int8 of an EfficientNet takes the ranges of its inputs.

    The model is run on random segments: one of float32 has to give torch's embeddings to within 1e-4 of their root mean
    square, of int8 the difference is recorded. Core ML is converted and not run.

    Raises FileNotFoundError where there is no such encoder or batch, DamagedFileError for damaged files, ValueError
    where the library is not installed, `calibrate` is missing or not needed, `out` holds something else, or the model
    differs.
    """
    folder = checkpoint_folder(home, source)
    encoder, info = load_encoder(folder)
    wants_segments = int8 and needs_calibration(encoder, to)
    if wants_segments != (calibrate is not None):
        raise ValueError(
            f"int8 of an EfficientNet to {to} needs --calibrate: a segmented batch of this home"
            if wants_segments
            else "--calibrate is for int8 of an EfficientNet to onnx or executorch: nothing else needs ranges"
        )
    if out.exists() and not (out / PREPROCESSING).is_file():
        raise ValueError(f"{out} is there and holds no exported encoder: name a new folder")
    calibration = None if calibrate is None else _batch_segments(home, calibrate, info)
    with atomic_path(out) as part:
        part.mkdir()
        model = part / MODEL_FILES[to]
        convert(encoder, model, to, int8=int8, calibration=calibration)
        difference = None if to == "coreml" else compare(encoder, model, to, _random_segments(info.channels))
        if difference and not int8 and not difference.largest <= MAX_DIFFERENCE:
            raise ValueError(
                f"the exported model differs from torch by {difference.largest:.2g} of the embeddings' root mean "
                f"square; at most {MAX_DIFFERENCE:g} is accepted"
            )
        if (folder / READOUTS).is_file():
            verify_checksum(folder / READOUTS)
            shutil.copyfile(folder / READOUTS, part / READOUTS)
        files = {path.relative_to(part).as_posix(): path for path in sorted(part.rglob("*")) if path.is_file()}
        description = {
            "format": to,
            "int8": int8,
            **_model_facts(encoder, info, to),
            "readouts": READOUTS if READOUTS in files else None,
            "preprocessing": preprocessing_rules(info.modality),
            "difference_from_torch": difference and asdict(difference),
            "files": {
                name: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for name, path in files.items()
            },
            "versions": {
                "accelkd": accelkd.__version__,
                "python": platform.python_version(),
                **{name: version(name) for name in ("rust_dsp", *LIBRARIES[to])},
            },
        }
        write_json(part / PREPROCESSING, description)
        model_bytes = sum(path.stat().st_size for name, path in files.items() if name.startswith(MODEL_FILES[to]))
    return Package(out, out / MODEL_FILES[to], model_bytes, difference)


def compare(encoder: AnyEncoder, model: Path, to: Format, segments: Tensor) -> Difference:
    """Run an exported model and its encoder on the same segments `[segments, channels, 3840]`.

    Raises ValueError for Core ML, which does not run here.
    """
    with torch.inference_mode():
        expected = encoder(segments)
    error = (load_portable(model, to)(segments) - expected).abs() / expected.square().mean().sqrt()
    return Difference(len(segments), float(error.max()), float(error.mean()))


def preprocessing_rules(modality: Modality) -> dict[str, Any]:
    """From raw samples to what the model takes: docs/signal-processing.md as data, with the numbers of the code."""
    accel = modality == "accel"
    rules: dict[str, Any] = {
        "sampling_rate_hz": SAMPLING_RATE_HZ,
        "window_s": DURATION_S,
        "samples": SAMPLES,
        "channels": "x, y and z in g, with gravity" if accel else "optical channels, after dark subtraction",
        "steps": [
            {
                "name": "gaps",
                "rule": "samples that are missing, not finite or at the limits of the sensor are invalid; runs of up "
                "to max_gap_s, together up to max_missing of the window, become straight lines, at the edges the "
                "nearest value; else the channel is rejected",
                "max_gap_s": rust_dsp.MAX_GAP_S,
                "max_missing": rust_dsp.MAX_MISSING,
            },
            {"name": "line", "rule": "minus the least-squares line of the window"},
            {
                "name": "resampling",
                "rule": "polyphase FIR to sampling_rate_hz: a low-pass of 2 * half_length * max(up, down) + 1 taps "
                "with a Kaiser window, ends mirrored",
                "input_rates_hz": RATES_HZ,
                "half_length": rust_dsp.FIR_HALF,
                "kaiser_beta": rust_dsp.KAISER_BETA,
            },
            {
                "name": "band_pass",
                "rule": "Butterworth of four poles, forward and backward, steady-state start, ends mirrored",
                "band_hz": rust_dsp.ACCEL_BAND_HZ if accel else rust_dsp.PPG_BAND_HZ,
                "mirrored_s": rust_dsp.MIRROR / SAMPLING_RATE_HZ,
            },
            {
                "name": "z_score",
                "rule": "zero mean and unit variance of each channel over the window; a channel whose standard "
                "deviation is at most max_flat of its largest magnitude is flat, and zeros",
                "max_flat": rust_dsp.FLAT,
            },
        ],
        "usable": "no axis is rejected by the rule of gaps, and not all are flat"
        if accel
        else "at least one channel is neither rejected nor flat; the others are zeros",
    }
    if accel:
        rules["motion_gate"] = {
            "rule": "the motion of a whole second is the root of the summed variances of the raw axes; a window is "
            "used if the statistic of its seconds is below max_g",
            "statistic": {"strict": "95th percentile", "loose": "median"},
            "default": "strict",
            "max_g": rust_dsp.MAX_STILL_G,
        }
    return rules


def _model_facts(encoder: AnyEncoder, info: EncoderInfo, to: Format) -> Mapping[str, Any]:
    batch = "batch" if to == "onnx" else 1
    return {
        "model": {
            "file": MODEL_FILES[to],
            "encoder": info.encoder,
            "model_id": info.model_id,
            "teacher": info.teacher,
            "modality": info.modality,
            "shape": asdict(encoder.shape),
            "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        },
        "input": {"name": INPUT, "shape": [batch, info.channels, SAMPLES], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": [batch, info.width], "dtype": "float32"},
    }


def _random_segments(channels: int) -> Tensor:
    """Noise, z-scored: the same at every call."""
    noise = np.random.default_rng(0).standard_normal((_VERIFIED, channels, SAMPLES))
    noise = (noise - noise.mean(2, keepdims=True)) / noise.std(2, keepdims=True)
    return torch.from_numpy(noise.astype(np.float32))


def _batch_segments(home: Home, batch_id: str, info: EncoderInfo) -> Tensor:
    """Up to MAX_CALIBRATION segments of a batch, evenly spread, `[segments, channels, 3840]`."""
    if not home.segments(batch_id).is_file():
        raise FileNotFoundError(f"no segments of batch {batch_id} in {home.root}")
    verify_segments(home, batch_id)
    store = SegmentStore([home.segments(batch_id)])
    rows = np.flatnonzero(store.counts(info.modality) >= info.channels)
    if not len(rows):
        raise ValueError(f"no segment of batch {batch_id} has {info.channels} channels of {info.modality}")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_CALIBRATION)).astype(np.intp)]
    signals = [store.signals(info.modality, rows[[number]])[:, : info.channels] for number in range(len(rows))]
    return torch.from_numpy(np.concatenate(signals).astype(np.float32))
