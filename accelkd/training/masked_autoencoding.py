"""Masked autoencoding (section 3.1; He et al., 2021): encode a fifth of the tokens, predict the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accelkd.models.transformer import PATCH_SAMPLES, TOKENS, Encoder, Transformer, TransformerShape, patches
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.method import Inputs, Prepared
from accelkd.training.objective import Batch, Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.randomness import bits, derive


@dataclass(frozen=True)
class MaskedAutoencodingConfig:
    """Pre-training by masked autoencoding (section 3.1)."""

    modality: Modality
    encoder: TransformerShape
    decoder: TransformerShape
    optimisation: Optimisation
    kept_tokens: int = 38  # of 192: four fifths are dropped
    ppg_channels: int | None = None  # number of first channels to use (table 15); None: all
    start: str | None = None  # bundled encoder to go on from; None: random weights

    chance_is_log_batch_size: ClassVar[bool] = False

    @property
    def modalities(self) -> Sequence[Modality]:
        return [self.modality]

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def method(self) -> str:
        return "masked_autoencoding"

    @property
    def description(self) -> str:
        return "without labels by masked autoencoding (section 3.1 of the paper)"

    def channels(self, store: SegmentStore) -> int:
        channels = store.channels(self.modality)
        if self.modality != "ppg" or self.ppg_channels is None:
            return channels
        if self.ppg_channels > channels:
            raise ValueError(f"{self.ppg_channels} PPG channels requested, the segments have {channels}")
        return self.ppg_channels

    def prepare(self, inputs: Inputs) -> Prepared:
        encoder = Encoder(self.channels(inputs.store), self.encoder)
        objective = MaskedAutoencoder(encoder, self.decoder, self.kept_tokens, self.modality)
        return Prepared(objective, inputs.data(self.modalities))


class MaskedAutoencoder(Objective):
    """An encoder that sees `kept` of the 192 tokens, and a decoder that reconstructs the patches of the others.

    The decoder has the encoder's width, because mask tokens and the encoder's outputs form one sequence. Raises
    ValueError for another width, a number of kept tokens out of range and an encoder with a convolutional stem.
    """

    def __init__(self, encoder: Encoder, decoder: TransformerShape, kept: int, modality: Modality) -> None:
        super().__init__()
        if not 0 < kept < TOKENS:
            raise ValueError(f"kept tokens must be between 1 and {TOKENS - 1}, not {kept}")
        if decoder.width != encoder.shape.width:
            raise ValueError(f"decoder width {decoder.width} differs from encoder width {encoder.shape.width}")
        if encoder.stem is not None:  # its convolutions cross the borders of the patches
            raise ValueError("masked autoencoding needs a linear stem: a convolutional stem leaks dropped patches")
        self.modality = modality
        self.kept = kept
        self.encoder: Encoder = encoder
        self.mask_token = nn.Parameter(torch.rand(decoder.width))
        self.decoder = Transformer(decoder)
        self.projection = nn.Linear(decoder.width, encoder.channels * PATCH_SAMPLES)

    def split_tokens(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Kept and dropped positions of each segment, `[batch, kept]` and `[batch, 192 − kept]`."""
        order = bits(derive(keys, 0), TOKENS).argsort(dim=1)
        return order[:, : self.kept], order[:, self.kept :]

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:
        """Mean squared error over the dropped patches of z-scored segments `[batch, channels, 3840]`."""
        x = batch[self.modality][:, : self.encoder.channels]
        kept, dropped = self.split_tokens(keys.to(x.device, non_blocking=True))
        encoded: Tensor = self.encoder.transformer(_take(self.encoder.tokenize(x), kept))
        tokens = self.mask_token.to(encoded.dtype).expand(len(x), TOKENS, -1)
        tokens = tokens.scatter(1, kept[:, :, None].expand_as(encoded), encoded)
        decoded: Tensor = self.decoder(tokens + self.encoder.positions)
        reconstructed: Tensor = self.projection(_take(decoded, dropped))
        return F.mse_loss(reconstructed.float(), _take(patches(x), dropped))


def _take(tokens: Tensor, positions: Tensor) -> Tensor:
    """The tokens `[batch, positions, width]` at the given positions of each segment."""
    return tokens.gather(1, positions[:, :, None].expand(-1, -1, tokens.shape[2]))
