"""Contrastive pre-training with a moving average of the encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.encoders import EncoderShape, build_encoder
from accelkd.models.transformer import TransformerShape
from accelkd.training.augment import Augmentations
from accelkd.training.contrastive import Contrastive, ContrastiveConfig
from accelkd.training.losses import info_nce, koleo
from accelkd.training.optimisation import Optimisation
from accelkd.training.randomness import step_keys

OFF = Augmentations(cut_out=0, magnitude_warp=0, gaussian_noise=0, channel_permute=0, time_warp=0)
STEPS = Optimisation(steps=1, batch_size=6, learning_rate=0.1)
SHAPES: list[EncoderShape] = [
    TransformerShape(width=16, layers=1, heads=2, mlp=32),
    EfficientNetShape(width=16, width_multiplier=0.1),
]


def contrastive(shape: EncoderShape = SHAPES[0], **options: Any) -> Contrastive:
    torch.manual_seed(0)
    config = replace(ContrastiveConfig("accel", shape, STEPS, augmentations=OFF), **options)
    return Contrastive(build_encoder(3, shape), config)


def test_loss_is_info_nce_both_ways_and_koleo() -> None:
    objective = contrastive().eval()
    x = torch.randn(6, 3, 3840)
    trained = objective.head(objective.encoder(x))
    average = objective.average_head(objective.average_encoder(x))
    expected = (info_nce(trained, average, 0.04) + info_nce(average, trained, 0.04)) / 2 + 0.1 * koleo(trained)
    torch.testing.assert_close(objective({"accel": x}, step_keys(0, 0, 6)), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=["transformer", "efficientnet"])
def test_averages_follow_parameters_and_buffers_and_get_no_gradient(shape: EncoderShape) -> None:
    objective = contrastive(shape, momentum=0.75).train()
    before = {name: tensor.clone() for name, tensor in objective.average_encoder.state_dict().items()}
    head_before = {name: tensor.clone() for name, tensor in objective.average_head.state_dict().items()}
    x = torch.randn(6, 3, 3840)
    loss = objective({"accel": x}, step_keys(0, 0, 6))
    loss.backward()
    seen = {name: tensor.clone() for name, tensor in objective.average_head.state_dict().items()}  # BatchNorm ran
    torch.optim.SGD(objective.parameters(), lr=0.1).step()
    objective.after_step()
    for part, trained, start in (
        (objective.average_encoder, objective.encoder, before),
        (objective.average_head, objective.head, head_before),
    ):
        assert all(parameter.grad is None for parameter in part.parameters())
        now = trained.state_dict()
        for name, parameter in part.named_parameters():
            torch.testing.assert_close(parameter, 0.75 * start[name] + 0.25 * now[name])
    for name in ("1.running_mean", "1.running_var"):
        after = objective.average_head.state_dict()[name]
        torch.testing.assert_close(after, 0.75 * seen[name] + 0.25 * objective.head.state_dict()[name])


def test_views_are_augmented_apart() -> None:
    objective = contrastive(augmentations=replace(OFF, gaussian_noise=1.0))
    seen = []
    for part in (objective.encoder, objective.average_encoder):
        part.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    x = torch.randn(4, 3, 3840)
    objective({"accel": x}, step_keys(0, 0, 4))
    noise = [(view - x).flatten() for view in seen]
    assert all(part.std() > 0.1 for part in noise)
    assert abs(torch.corrcoef(torch.stack(noise))[0, 1]) < 0.05


def test_participant_pairs_go_to_the_two_sides() -> None:
    objective = contrastive(positives="participant")
    assert objective.views == 2
    seen = []
    for part in (objective.encoder, objective.average_encoder):
        part.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    x = torch.randn(5, 2, 3, 3840)
    objective({"accel": x}, step_keys(0, 0, 5))
    assert torch.equal(seen[0], x[:, 0])
    assert torch.equal(seen[1], x[:, 1])


def test_it_learns_to_see_through_the_augmentation() -> None:
    objective = contrastive(augmentations=replace(OFF, gaussian_noise=1.0, gaussian_noise_sd=3.0)).train()
    optimizer = torch.optim.Adam(objective.encoder.parameters(), lr=3e-3)
    torch.manual_seed(0)
    x = torch.randn(8, 3, 20).repeat(1, 1, 192)
    losses = []
    for number in range(40):
        optimizer.zero_grad()
        loss = objective({"accel": x}, step_keys(0, number, len(x)))
        loss.backward()
        optimizer.step()
        objective.after_step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
