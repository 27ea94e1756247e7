"""An encoder that predicts one target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accelkd.models.encoders import AnyEncoder


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
