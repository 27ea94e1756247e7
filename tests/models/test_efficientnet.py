"""EfficientNet in one dimension."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn

from accelkd.models.efficientnet import EfficientNet, EfficientNetShape, MBConv1D
from accelkd.models.encoders import build_encoder, read_shape
from accelkd.models.transformer import Encoder, TransformerShape


@pytest.mark.parametrize(
    ("multiplier", "channels", "parameters"), [(1.0, 4, 4_126_044), (1.0, 3, 4_125_948), (0.75, 4, 2_438_104)]
)
def test_parameter_counts(multiplier: float, channels: int, parameters: int) -> None:
    model = EfficientNet(channels, EfficientNetShape(width_multiplier=multiplier))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_it_is_built_as_table_5_says() -> None:
    model = EfficientNet(4, EfficientNetShape())
    blocks = [module for module in model.modules() if isinstance(module, MBConv1D)]
    assert len(blocks) == 16
    kernels = []
    for block in blocks:
        convolutions = [module for module in block.modules() if isinstance(module, nn.Conv1d)]
        assert len(convolutions) == 5
        assert convolutions[0].out_channels == 7 * convolutions[0].in_channels  # expansion
        assert convolutions[1].groups == convolutions[1].in_channels  # depthwise
        kernels.append(convolutions[1].kernel_size[0])
    assert kernels == [3] * 8 + [5] * 8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_segments_become_embeddings(channels: int) -> None:
    model = EfficientNet(channels, EfficientNetShape(width=24, width_multiplier=0.1)).eval()
    x = torch.randn(3, channels, 3840)
    embedding = model(x)
    assert embedding.shape == (3, 24)
    torch.testing.assert_close(model(x[1:2]), embedding[1:2], rtol=1e-4, atol=1e-5)  # each on its own


@pytest.mark.parametrize("shape", [TransformerShape(16, 1, 2, 32), EfficientNetShape(16, 0.1)])
def test_shapes_build_their_encoder_and_survive_json(shape: TransformerShape | EfficientNetShape) -> None:
    assert read_shape(asdict(shape)) == shape
    encoder = build_encoder(3, shape)
    assert isinstance(encoder, Encoder if isinstance(shape, TransformerShape) else EfficientNet)
    assert encoder.shape == shape


def test_an_unknown_shape_is_an_error() -> None:
    with pytest.raises(TypeError):
        read_shape({"width": 3, "depth": 2})
