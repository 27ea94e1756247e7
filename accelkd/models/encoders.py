"""Any encoder from its shape: what training builds, and what a checkpoint is loaded into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelkd.models.efficientnet import EfficientNet, EfficientNetShape
from accelkd.models.transformer import Encoder, TransformerShape

EncoderShape = TransformerShape | EfficientNetShape
AnyEncoder = Encoder | EfficientNet


def build_encoder(channels: int, shape: EncoderShape) -> AnyEncoder:
    """An encoder with fresh weights: `[batch, channels, 3840]` to `[batch, shape.width]`."""
    return Encoder(channels, shape) if isinstance(shape, TransformerShape) else EfficientNet(channels, shape)


def read_shape(raw: Mapping[str, Any]) -> EncoderShape:
    """The shape that `dataclasses.asdict` made `raw` from. Raises TypeError for one that is neither."""
    return EfficientNetShape(**raw) if raw.get("architecture") == "efficientnet" else TransformerShape(**raw)
