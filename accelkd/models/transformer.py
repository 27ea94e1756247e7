"""The Transformer encoder of a segment, in the five sizes of the paper's table 7."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accelkd.segments.schema import SAMPLES

PATCH_SAMPLES = 20  # 0.3125 s at 64 Hz (table 4)
TOKENS = SAMPLES // PATCH_SAMPLES  # 192
STEM_STRIDE = 4  # of the convolutional stem


@dataclass(frozen=True)
class TransformerShape:
    """Width of the tokens (and of the embedding), depth, attention heads, width of the hidden MLP layer.

    `stem` is how segments become tokens: the paper's linear projection of patches, or convolutions before it.
    """

    width: int
    layers: int
    heads: int
    mlp: int
    architecture: Literal["transformer"] = "transformer"
    stem: Literal["linear", "convolutional"] = "linear"


# Table 7. With four PPG channels: 0.80, 1.20, 3.28, 4.76 and 6.34 million parameters.
SIZES = {
    "XS": TransformerShape(width=128, layers=4, heads=4, mlp=512),
    "S": TransformerShape(width=128, layers=6, heads=4, mlp=512),
    "M": TransformerShape(width=192, layers=6, heads=6, mlp=1024),
    "L": TransformerShape(width=256, layers=6, heads=8, mlp=1024),
    "XL": TransformerShape(width=256, layers=8, heads=8, mlp=1024),
}


def patches(x: Tensor, patch_samples: int = PATCH_SAMPLES) -> Tensor:
    """Split `[batch, channels, 192 × patch_samples]` into the patches of the tokens: `[batch, 192, channels × patch]`.

    A patch holds all channels, one after the other. Raises ValueError for signals of another length.
    """
    batch, channels, samples = x.shape
    if samples != TOKENS * patch_samples:
        raise ValueError(f"a segment has {TOKENS * patch_samples} samples per channel, not {samples}")
    return x.reshape(batch, channels, TOKENS, patch_samples).transpose(1, 2).flatten(2)


def sinusoidal_positions(width: int) -> Tensor:
    """Fixed position code of each token, `[192, width]`: sines and cosines of geometrically spaced wavelengths."""
    wavelength = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(TOKENS)[:, None] * wavelength
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


class Block(nn.Module):
    """One pre-norm layer: self-attention, then a GELU MLP, each added to its input."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.mlp_norm = nn.LayerNorm(shape.width)
        self.mlp_in = nn.Linear(shape.width, shape.mlp)
        self.mlp_out = nn.Linear(shape.mlp, shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        packed: Tensor = self.query_key_value(self.attention_norm(tokens))
        query, key, value = packed.view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.attention_out(attended.transpose(1, 2).reshape(batch, count, width))
        update: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(tokens))))
        return tokens + update


class Transformer(nn.Module):
    """A stack of blocks and a last layer norm: `[batch, tokens, width]` to the same shape.

    Raises ValueError if the width does not divide into heads of even width.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        if shape.width % (2 * shape.heads):
            raise ValueError(f"width {shape.width} does not divide into {shape.heads} heads of even width")
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.norm(self.blocks(tokens))
        return out


class ConvolutionalStem(nn.Sequential):
    """Three convolutions before the tokenizer, stride 4 in all: `[batch, channels, 3840]` to `[batch, width, 960]`.

    Our own variant, not the paper's: small Transformers learn much faster behind it, as Xiao et al. (2021), "Early
    convolutions help Transformers see better", found for images. Strides 2, 2, 1; kernels of 7, 5 and 3 samples.
    """

    def __init__(self, channels: int, width: int) -> None:
        narrow = max(8, width // 2)
        super().__init__(
            *_convolution(channels, narrow, kernel=7, stride=2),
            *_convolution(narrow, width, kernel=5, stride=2),
            *_convolution(width, width, kernel=3, stride=1),
        )


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv1d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm1d(out_channels),
        nn.GELU(),
    )


class Encoder(nn.Module):
    """Segments to embeddings: tokenizer, positions, Transformer, mean over the tokens (table 4).

    `tokenize` and `transformer` are used separately in masked autoencoding, where only the kept tokens are encoded.
    """

    def __init__(self, channels: int, shape: TransformerShape) -> None:
        super().__init__()
        self.channels = channels
        self.shape = shape
        self.stem = ConvolutionalStem(channels, shape.width) if shape.stem == "convolutional" else None
        self.patch_samples = PATCH_SAMPLES if self.stem is None else PATCH_SAMPLES // STEM_STRIDE
        self.tokenizer = nn.Linear((channels if self.stem is None else shape.width) * self.patch_samples, shape.width)
        self.transformer = Transformer(shape)
        self.positions: Tensor
        self.register_buffer("positions", sinusoidal_positions(shape.width), persistent=False)

    def tokenize(self, x: Tensor) -> Tensor:
        """`[batch, channels, 3840]` to tokens with their positions added, `[batch, 192, width]`."""
        tokens: Tensor = self.tokenizer(patches(x if self.stem is None else self.stem(x), self.patch_samples))
        return tokens + self.positions

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings `[batch, width]` of z-scored segments `[batch, channels, 3840]`."""
        encoded: Tensor = self.transformer(self.tokenize(x))
        return encoded.mean(dim=1)
