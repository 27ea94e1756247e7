"""The two runs of the method: train the teacher, distil the student. Each returns its checkpoint folder."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from accelkd.models.transformer import Encoder
from accelkd.segments.schema import ACCEL_AXES
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import Identity, code_version, is_complete, load_encoder, write_checkpoint
from accelkd.training.data import TrainingData
from accelkd.training.distillation import Distillation, frozen
from accelkd.training.masked_autoencoding import MaskedAutoencoder
from accelkd.training.presets import Optimisation, StudentConfig, TeacherConfig
from accelkd.training.trainer import has_bf16, pick_device, train


def train_teacher(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: TeacherConfig,
    out: Path,
    data_version: str,
    split_version: str,
    device: str = "auto",
) -> Path:
    """Pre-train the PPG teacher on the given rows of the store; `out` is the folder of the encoder's checkpoints.

    Returns the checkpoint's folder, at once where the same run is there already; continues where one was cut off.
    Raises ValueError if no participant has four segments, NonFiniteLossError if the loss diverges.
    """
    identity = Identity(
        encoder="ppg_teacher",
        modality="ppg",
        channels=store.ppg_channels,
        teacher=None,
        config=asdict(config),
        code_version=code_version(),
        data_version=data_version,
        split_version=split_version,
        segments=_segments_hash(store, rows),
    )
    folder = out / identity.model_id
    if is_complete(folder):
        return folder
    where = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optimisation.seed)
        encoder = Encoder(store.ppg_channels, config.encoder)
        objective = MaskedAutoencoder(encoder, config.decoder, config.kept_tokens, "ppg")
    data = TrainingData(store, rows, ["ppg"], where)
    _run(objective, data, config.optimisation, identity, folder, where, "PPG teacher")
    return folder


def train_student(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: StudentConfig,
    teacher: Path,
    out: Path,
    data_version: str,
    split_version: str,
    device: str = "auto",
) -> Path:
    """Distil the teacher in the checkpoint folder `teacher` into an accelerometer student; otherwise as train_teacher.

    Raises ValueError also if the teacher has another number of PPG channels than the store.
    """
    teacher_encoder, teacher_info = load_encoder(teacher)
    if teacher_info.channels != store.ppg_channels:
        raise ValueError(
            f"teacher {teacher_info.model_id} takes {teacher_info.channels} PPG channels, "
            f"the segments have {store.ppg_channels}"
        )
    identity = Identity(
        encoder="accel_student",
        modality="accel",
        channels=ACCEL_AXES,
        teacher=teacher_info.model_id,
        config=asdict(config),
        code_version=code_version(),
        data_version=data_version,
        split_version=split_version,
        segments=_segments_hash(store, rows),
    )
    folder = out / identity.model_id
    if is_complete(folder):
        return folder
    where = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optimisation.seed)
        objective = Distillation(
            frozen(teacher_encoder.to(where)),
            teacher_info.width,
            Encoder(ACCEL_AXES, config.encoder),
            config.augmentations,
            config.temperature,
            config.teacher_weight,
        )
    data = TrainingData(store, rows, ["ppg", "accel"], where)
    _run(objective, data, config.optimisation, identity, folder, where, "accelerometer student")
    return folder


def _run(
    objective: nn.Module,
    data: TrainingData,
    config: Optimisation,
    identity: Identity,
    folder: Path,
    device: torch.device,
    what: str,
) -> None:
    """Train, then write the checkpoint; the state to resume from lies beside it until then."""
    state = folder.parent / f".{folder.name}.state.safetensors"
    started = time.perf_counter()
    curve = train(objective, data, config, device, state, what)
    table = pa.table(asdict(curve))
    metrics: dict[str, Any] = {
        "participants": data.sampler.participants,
        "segments": data.sampler.segments,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "loss": curve.loss[-1],
        "segments_per_s": statistics.median(curve.segments_per_s),
        "wall_s": time.perf_counter() - started,  # of this process: a resumed run counts its last part
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": "bf16" if config.precision == "bf16" and has_bf16(device) else "fp32",
        "torch": torch.__version__,
    }
    if identity.teacher is not None:
        metrics["chance_loss"] = math.log(config.batch_size)
        table = table.append_column("chance_loss", pa.array([metrics["chance_loss"]] * table.num_rows))
    write_checkpoint(folder, identity, objective, table, metrics)
    state.unlink(missing_ok=True)


def _segments_hash(store: SegmentStore, rows: npt.NDArray[np.intp]) -> str:
    """Which segments, in which order: the sampler draws by position."""
    digest = hashlib.sha256()
    for segment_id in store.metadata.column("segment_id").take(rows).to_pylist():
        digest.update(segment_id.encode() + b"\n")
    return digest.hexdigest()[:16]
