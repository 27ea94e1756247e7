"""Supervised training from scratch on one target (section 5.2): the baseline of distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accelkd.models.encoders import AnyEncoder
from accelkd.segments.store import Modality
from accelkd.training.objective import Batch, Objective


class Regressor(nn.Module):
    """An encoder and a linear head: `[batch, channels, 3840]` to predictions `[batch]` in the target's unit."""

    def __init__(self, encoder: AnyEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.shape.width, 1)
        self.mean: Tensor
        self.sd: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("sd", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        standardised: Tensor = self.head(self.encoder(x))[:, 0]
        return standardised.float() * self.sd + self.mean


class Supervised(Objective):
    """Squared error of the standardised target."""

    def __init__(self, encoder: AnyEncoder, modality: Modality, mean: float, sd: float) -> None:
        super().__init__()
        self.regressor = Regressor(encoder)
        self.regressor.mean.fill_(mean)
        self.regressor.sd.fill_(sd)
        self.modality = modality

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:  # noqa: ARG002  (nothing is random here)
        predicted: Tensor = self.regressor(batch[self.modality])
        return F.mse_loss(predicted / self.regressor.sd, batch["target"] / self.regressor.sd)
