"""Adding a training method is one class: runs, checkpoints and cards follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accelkd.evaluation.extract import embed
from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.transformer import TransformerShape
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.checkpoint import CARD, load_encoder, read_metrics
from accelkd.training.method import EncoderConfig, Inputs, Prepared
from accelkd.training.objective import Batch, Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.runs import train_encoder


@dataclass(frozen=True)
class SpreadConfig:
    """Learn the standard deviation of a segment's first ten seconds."""

    encoder: EncoderShape
    optimisation: Optimisation

    start: ClassVar[None] = None
    chance_is_log_batch_size: ClassVar[bool] = False
    modality: ClassVar[Modality] = "accel"
    modalities: ClassVar[Sequence[Modality]] = ["accel"]
    method: ClassVar[str] = "spread"
    description: ClassVar[str] = "to predict the spread of ten seconds"
    needs_teacher: ClassVar[bool] = False

    def channels(self, store: SegmentStore) -> int:
        return store.channels(self.modality)

    def prepare(self, inputs: Inputs) -> Prepared:
        objective = Spread(build_encoder(self.channels(inputs.store), self.encoder))
        return Prepared(objective, inputs.data(self.modalities))


class Spread(Objective):
    def __init__(self, encoder: AnyEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.shape.width, 3)

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:  # noqa: ARG002  (nothing is random here)
        x = batch["accel"]
        predicted: Tensor = self.head(self.encoder(x))
        return F.mse_loss(predicted, x[:, :, :640].std(dim=2))


def test_a_new_method_is_one_class(store: SegmentStore, tmp_path: Path) -> None:
    optimisation = Optimisation(
        steps=4, batch_size=8, learning_rate=1e-3, warmup_steps=1, log_every=1, precision="fp32"
    )
    config: EncoderConfig = SpreadConfig(TransformerShape(width=16, layers=1, heads=2, mlp=32), optimisation)
    folder = train_encoder(
        store,
        np.arange(len(store)),
        config,
        tmp_path,
        name="spread_encoder",
        data_version="d",
        split_version="s",
        device="cpu",
    )
    encoder, info = load_encoder(folder)
    assert (info.encoder, info.modality, info.channels, info.width) == ("spread_encoder", "accel", 3, 16)
    assert embed(encoder, store, "accel", device="cpu").shape == (len(store), 16)
    assert "Trained to predict the spread of ten seconds" in (folder / CARD).read_text(encoding="utf-8")
    assert "chance_loss" not in read_metrics(folder)
    assert torch.isfinite(torch.tensor(read_metrics(folder)["loss"]))
