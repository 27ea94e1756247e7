"""Counting the arithmetic of a training step."""

from __future__ import annotations

import pytest
import torch

from accelkd.models.transformer import TOKENS, Encoder, TransformerShape
from accelkd.training.distillation import Distillation, DistillationConfig, frozen
from accelkd.training.optimisation import Optimisation
from accelkd.training.randomness import step_keys
from accelkd.training.throughput import flop_per_segment, measure_ceilings, peak_flop_per_s

SHAPE = TransformerShape(width=64, layers=2, heads=4, mlp=128)


def encoder_flop(channels: int) -> float:
    """Of one forward pass: two for each multiplication and addition of the matrix products."""
    per_token = SHAPE.layers * (4 * SHAPE.width**2 + 2 * SHAPE.width * SHAPE.mlp) + channels * 20 * SHAPE.width
    attention = SHAPE.layers * 2 * TOKENS * TOKENS * SHAPE.width
    return 2 * (TOKENS * per_token + attention)


def test_flop_of_a_distillation_step_are_those_of_its_matrix_products() -> None:
    objective = Distillation(
        frozen(Encoder(4, SHAPE)), 64, Encoder(3, SHAPE), DistillationConfig(SHAPE, Optimisation(1, 8, 0.1))
    )
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    batch = {"ppg": torch.randn(8, 4, 3840), "accel": torch.randn(8, 3, 3840)}
    counted = flop_per_segment(objective, batch, step_keys(0, 0, 8))
    # Teacher forward, student forward and backward (twice the forward), heads likewise
    heads = 2 * 3 * 2 * (64 * 1024 + 1024 * 128)
    assert counted == pytest.approx(encoder_flop(4) + 3 * encoder_flop(3) + heads, rel=0.05)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("cpu", None),
    ],
)
def test_peak_by_name(name: str, peak: float | None) -> None:
    assert peak_flop_per_s(name) == peak


def test_ceilings_are_measured() -> None:
    ceilings = measure_ceilings("cpu")
    assert ceilings.device == "cpu"
    assert ceilings.matmul_tflop_per_s > 1e-6
    assert ceilings.copy_gb_per_s > 1e-3
    assert "TFLOP/s bf16" in str(ceilings)
