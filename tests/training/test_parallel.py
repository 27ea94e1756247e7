"""Two processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from accelkd.models.encoders import build_encoder
from accelkd.models.transformer import TransformerShape
from accelkd.segments.store import SegmentStore
from accelkd.training.configs import (
    ContrastiveConfig,
    DistillationConfig,
    EncoderConfig,
    MaskedAutoencodingConfig,
    Optimisation,
)
from accelkd.training.contrastive import Contrastive
from accelkd.training.distillation import Distillation, frozen
from accelkd.training.objective import Objective
from accelkd.training.parallel import local_share, rank, world_size
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


def train_all(store: SegmentStore, out: Path) -> dict[str, Path]:
    """Train each configuration, and a student of the first."""

    def run(name: str, config: EncoderConfig, teacher: Path | None = None) -> Path:
        versions = {"data_version": "data-1", "split_version": "split-1"}
        rows = np.arange(len(store))
        return train_encoder(store, rows, config, out, name=name, **versions, teacher=teacher, device="cpu")

    folders = {name: run(name, config) for name, config in CONFIGS.items()}
    return {**folders, "distilled": run("distilled", DistillationConfig(SHAPE, OPTIMISATION), folders["masked"])}


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


PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from accelkd.segments.store import SegmentStore
from accelkd.training.parallel import process_group
from tests.training.test_parallel import train_all, write_gradients
out = Path(sys.argv[2])
with process_group(torch.device("cpu")):
    write_gradients(out)
    train_all(SegmentStore([Path(sys.argv[1])]), out)
"""


@pytest.fixture(scope="module")
def of_two(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "process.py"
    script.write_text(PROCESS)
    root = Path(__file__).parents[2]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(store_path), str(folder)], cwd=root, env=environment, check=True)
    return folder


def test_loss_and_gradient_are_those_of_one_process(of_two: Path, tmp_path: Path) -> None:
    write_gradients(tmp_path)
    for name in ("contrastive", "distilled", "simultaneous"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, of_two))
        assert one.keys() == two.keys()
        torch.testing.assert_close(two.pop("loss"), one.pop("loss"))
        largest = max(float(gradient.abs().max()) for gradient in one.values())
        for key, expected in one.items():
            torch.testing.assert_close(two[key], expected, rtol=1e-3, atol=1e-4 * largest, msg=f"{name}: {key}")


def test_training_curves_and_checkpoints_are_those_of_one_process(
    store: SegmentStore, of_two: Path, tmp_path: Path
) -> None:
    for folder in train_all(store, tmp_path).values():
        curves = [pq.read_table(one / "training.parquet")["loss"].to_numpy() for one in (folder, of_two / folder.name)]
        np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)
