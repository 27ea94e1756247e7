"""EfficientNet in one dimension: the convolutional encoder of the paper's table 5 (after Tan and Le, 2019).

The paper gives blocks, kernels and expansion, but neither widths nor strides: those are EfficientNet-B0's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

# Of each stage of EfficientNet-B0: blocks, channels, stride of the first block. 16 blocks in all.
_STAGES = ((1, 16, 1), (2, 24, 2), (2, 40, 2), (3, 80, 2), (3, 112, 1), (4, 192, 2), (1, 320, 1))
_STEM_CHANNELS = 32
_EXPANSION = 7
_SMALL_KERNEL_BLOCKS = 8  # kernel 3 in these, 5 in the others
_SQUEEZE = 4  # the squeezed layer has a quarter of the block's input channels


@dataclass(frozen=True)
class EfficientNetShape:
    """Width of the embedding, and the multiplier of the channels of all blocks."""

    width: int = 256
    width_multiplier: float = 1.0
    architecture: Literal["efficientnet"] = "efficientnet"


class EfficientNet(nn.Module):
    """Segments to embeddings: `[batch, channels, samples]` to `[batch, width]`.

    4.1 million parameters at the default shape with four PPG channels.
    """

    def __init__(self, channels: int, shape: EfficientNetShape) -> None:
        super().__init__()
        self.channels = channels
        self.shape = shape
        in_channels = _rounded(_STEM_CHANNELS * shape.width_multiplier)
        layers: list[nn.Module] = [_convolution(channels, in_channels, kernel=3, stride=2)]
        number = 0
        for blocks, width, first_stride in _STAGES:
            out_channels = _rounded(width * shape.width_multiplier)
            for block in range(blocks):
                kernel = 3 if number < _SMALL_KERNEL_BLOCKS else 5
                layers.append(MBConv1D(in_channels, out_channels, kernel, first_stride if block == 0 else 1))
                in_channels = out_channels
                number += 1
        layers.append(_convolution(in_channels, shape.width, kernel=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings `[batch, width]` of z-scored segments `[batch, channels, 3840]`."""
        features: Tensor = self.layers(x)
        return features.mean(dim=2)


class MBConv1D(nn.Module):
    """Mobile inverted bottleneck of five convolutions: expand, depthwise, squeeze, excite, project.

    `[batch, in_channels, samples]` to `[batch, out_channels, samples / stride]`, rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        expanded = in_channels * _EXPANSION
        squeezed = max(1, in_channels // _SQUEEZE)
        self.expand = _convolution(in_channels, expanded, kernel=1)
        self.depthwise = _convolution(expanded, expanded, kernel, stride, groups=expanded)
        self.squeeze = nn.Conv1d(expanded, squeezed, 1)
        self.excite = nn.Conv1d(squeezed, expanded, 1)
        self.project = nn.Sequential(nn.Conv1d(expanded, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels))
        self.residual = in_channels == out_channels and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.depthwise(self.expand(x))
        gate: Tensor = self.excite(nn.functional.silu(self.squeeze(y.mean(dim=2, keepdim=True))))
        out: Tensor = self.project(y * gate.sigmoid())
        return x + out if self.residual else out


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, Swish."""
    return nn.Sequential(
        nn.Conv1d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm1d(out_channels),
        nn.SiLU(),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and no less than nine tenths of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
