"""The interface of training objectives."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

Batch = Mapping[str, Tensor]  # 'ppg' and 'accel' `[batch, channels, samples]`; 'target' `[batch]`


class Objective(nn.Module):
    """An encoder with its training heads, and the loss of a batch as `forward(batch, keys)`.

    `keys` `[batch]` (int64, on the CPU) determine everything that is random in a step. If `views` is 2, the signals
    hold two segments of each participant, `[batch, 2, channels, samples]`.
    """

    views = 1

    def after_step(self) -> None:
        """Called when the optimiser has moved the parameters."""
