"""Trainings that other processes run too: one to be killed in the middle, and some to be divided between two."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from accelkd.models.encoders import build_encoder
from accelkd.models.transformer import TransformerShape
from accelkd.segments.store import SegmentStore
from accelkd.training.contrastive import Contrastive, ContrastiveConfig
from accelkd.training.distillation import Distillation, DistillationConfig, frozen
from accelkd.training.masked_autoencoding import MaskedAutoencodingConfig
from accelkd.training.method import EncoderConfig
from accelkd.training.objective import Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.parallel import local_share, rank, world_size
from accelkd.training.presets import PRESETS
from accelkd.training.randomness import step_keys
from accelkd.training.runs import train_encoder

SHAPE = TransformerShape(width=16, layers=1, heads=2, mlp=32)
OPTIMISATION = Optimisation(
    steps=3, batch_size=8, learning_rate=1e-3, warmup_steps=1, decay_steps=1, log_every=1, precision="fp32"
)
CONFIGS: dict[str, EncoderConfig] = {
    "masked": MaskedAutoencodingConfig("ppg", SHAPE, SHAPE, OPTIMISATION),
    "contrastive": ContrastiveConfig("accel", SHAPE, OPTIMISATION),
    "participants": ContrastiveConfig("accel", SHAPE, OPTIMISATION, positives="participant"),
    "simultaneous": DistillationConfig(SHAPE, OPTIMISATION, teacher="trainable", teacher_encoder=SHAPE),
}
_TEACHER = PRESETS["smoke"].teacher
LONG = replace(
    _TEACHER,
    encoder=TransformerShape(width=16, layers=1, heads=2, mlp=16),
    optimisation=replace(_TEACHER.optimisation, steps=60, log_every=2, save_every=4),
)


def train(
    store: SegmentStore, config: EncoderConfig, out: Path, *, rows: npt.NDArray[np.intp] | None = None, **options: Any
) -> Path:
    """A checkpoint of the given rows, else of the whole store, trained on the processor; options of `train_encoder`."""
    defaults: dict[str, Any] = {"name": "encoder", "data_version": "data-1", "split_version": "split-1"}
    rows = np.arange(len(store)) if rows is None else rows
    return train_encoder(store, rows, config, out, device="cpu", **{**defaults, **options})


def train_all(store: SegmentStore, out: Path) -> dict[str, Path]:
    """Train each of CONFIGS, and a student of the first."""
    folders = {name: train(store, config, out, name=name) for name, config in CONFIGS.items()}
    student = DistillationConfig(SHAPE, OPTIMISATION)
    return {**folders, "distilled": train(store, student, out, name="distilled", teacher=folders["masked"])}


def write_gradients(folder: Path) -> None:
    """Loss and gradients of one step of the contrastive objectives, each process with its share of the batch."""
    torch.manual_seed(0)
    objectives: dict[str, Objective] = {
        "contrastive": Contrastive(build_encoder(3, SHAPE), ContrastiveConfig("accel", SHAPE, OPTIMISATION)),
        "distilled": Distillation(
            frozen(build_encoder(2, SHAPE)), 16, build_encoder(3, SHAPE), DistillationConfig(SHAPE, OPTIMISATION)
        ),
        "simultaneous": Distillation(
            build_encoder(2, SHAPE), 16, build_encoder(3, SHAPE), DistillationConfig(SHAPE, OPTIMISATION)
        ),
    }
    signals = {"ppg": torch.randn(8, 2, 3840), "accel": torch.randn(8, 3, 3840)}
    share = local_share(8)
    for name, objective in objectives.items():
        module = DistributedDataParallel(objective) if world_size() > 1 else objective
        loss = module({modality: x[share] for modality, x in signals.items()}, step_keys(0, 0, 8)[share])
        loss.backward()
        if rank() == 0:
            gradients = {key: value.grad for key, value in objective.named_parameters() if value.grad is not None}
            save_file({"loss": loss.detach(), **gradients}, folder / f"{name}.safetensors")


def train_long(store_path: Path, out: Path, *, rank_to_kill: int | None = None) -> Path:
    """A training of some steps, whose process of that rank dies once, as soon as the training can be resumed.

    Each process of each attempt leaves a file `started-*` in `out`.
    """
    (out / f"started-{rank()}-{os.getpid()}").touch()
    if rank() == rank_to_kill and len(list(out.glob(f"started-{rank()}-*"))) == 1:
        threading.Thread(target=_die_when_resumable, args=(out,), daemon=True).start()
    torch.set_num_threads(1)
    config = replace(LONG, optimisation=LONG.optimisation.with_steps(20))
    return train(SegmentStore([store_path]), config, out)


def _die_when_resumable(out: Path) -> None:
    while not list(out.glob(".*.state.safetensors.sha256")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
