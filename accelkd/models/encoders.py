"""Encoders of both architectures from their shape, for training and for loading checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelkd.models.efficientnet import EfficientNet, EfficientNetShape
from accelkd.models.transformer import Encoder, TransformerShape

EncoderShape = TransformerShape | EfficientNetShape
AnyEncoder = Encoder | EfficientNet


def build_encoder(channels: int, shape: EncoderShape) -> AnyEncoder:
    """An encoder with random weights: `[batch, channels, 3840]` to `[batch, shape.width]`."""
    return Encoder(channels, shape) if isinstance(shape, TransformerShape) else EfficientNet(channels, shape)


def read_shape(raw: Mapping[str, Any]) -> EncoderShape:
    """The shape that `dataclasses.asdict` turned into `raw`. Raises TypeError for unknown or missing fields."""
    return EfficientNetShape(**raw) if raw.get("architecture") == "efficientnet" else TransformerShape(**raw)
