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


@dataclass(frozen=True)
class TransformerShape:
    """Width of the tokens (and of the embedding), depth, attention heads, width of the hidden MLP layer."""

    width: int
    layers: int
    heads: int
    mlp: int
    architecture: Literal["transformer"] = "transformer"


# Table 7. With four PPG channels: 0.80, 1.20, 3.28, 4.76 and 6.34 million parameters.
SIZES = {
    "XS": TransformerShape(width=128, layers=4, heads=4, mlp=512),
    "S": TransformerShape(width=128, layers=6, heads=4, mlp=512),
    "M": TransformerShape(width=192, layers=6, heads=6, mlp=1024),
    "L": TransformerShape(width=256, layers=6, heads=8, mlp=1024),
    "XL": TransformerShape(width=256, layers=8, heads=8, mlp=1024),
}


def patches(x: Tensor) -> Tensor:
    """Cut `[batch, channels, 3840]` into non-overlapping patches of all channels: `[batch, 192, channels × 20]`."""
    batch, channels, samples = x.shape
    if samples != SAMPLES:
        raise ValueError(f"a segment has {SAMPLES} samples per channel, not {samples}")
    return x.reshape(batch, channels, TOKENS, PATCH_SAMPLES).transpose(1, 2).flatten(2)


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
    """A stack of blocks and a last layer norm: `[batch, tokens, width]` to the same shape."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        if shape.width % (2 * shape.heads):
            raise ValueError(f"width {shape.width} does not divide into {shape.heads} heads of even width")
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.norm(self.blocks(tokens))
        return out


class Encoder(nn.Module):
    """Segments to embeddings: linear tokenizer, positions, Transformer, mean over the tokens (table 4).

    `tokenize` and `transformer` are used one by one in masked autoencoding, where only the kept tokens are encoded.
    """

    def __init__(self, channels: int, shape: TransformerShape) -> None:
        super().__init__()
        self.channels = channels
        self.shape = shape
        self.tokenizer = nn.Linear(channels * PATCH_SAMPLES, shape.width)
        self.transformer = Transformer(shape)
        self.positions: Tensor
        self.register_buffer("positions", sinusoidal_positions(shape.width), persistent=False)

    def tokenize(self, x: Tensor) -> Tensor:
        """`[batch, channels, 3840]` to tokens with their positions added, `[batch, 192, width]`."""
        tokens: Tensor = self.tokenizer(patches(x))
        return tokens + self.positions

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings `[batch, width]` of z-scored segments `[batch, channels, 3840]`."""
        encoded: Tensor = self.transformer(self.tokenize(x))
        return encoded.mean(dim=1)
