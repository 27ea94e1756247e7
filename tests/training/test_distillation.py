"""Cross-modal distillation."""

from __future__ import annotations

from dataclasses import replace

import torch

from accelkd.models.transformer import Encoder, TransformerShape
from accelkd.training.augment import Augmentations
from accelkd.training.distillation import Distillation, DistillationConfig, frozen
from accelkd.training.losses import cross_modal_loss
from accelkd.training.optimisation import Optimisation
from accelkd.training.randomness import step_keys

SHAPE = TransformerShape(width=16, layers=1, heads=2, mlp=32)
STEPS = Optimisation(steps=1, batch_size=6, learning_rate=0.1)
OFF = Augmentations(cut_out=0, magnitude_warp=0, gaussian_noise=0, channel_permute=0, time_warp=0)


def distillation(teacher: Encoder, augmentations: Augmentations = OFF) -> Distillation:
    torch.manual_seed(1)
    return Distillation(frozen(teacher), 16, Encoder(3, SHAPE), DistillationConfig(SHAPE, STEPS, augmentations))


def test_teacher_is_left_as_it_is() -> None:
    teacher = Encoder(2, SHAPE)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict(keep_vars=False).items()}
    positions = teacher.positions.clone()
    objective = distillation(teacher).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.1)
    student = objective.get_parameter("encoder.tokenizer.weight").detach().clone()
    for step in range(3):
        objective({"ppg": torch.randn(6, 2, 3840), "accel": torch.randn(6, 3, 3840)}, step_keys(0, step, 6)).backward()
        optimizer.step()
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert torch.equal(teacher.positions, positions)
    assert not torch.equal(objective.get_parameter("encoder.tokenizer.weight"), student)
    assert not any(p is q for p in objective.parameters() for q in teacher.parameters())


def test_student_and_both_heads_learn() -> None:
    objective = distillation(Encoder(2, SHAPE))
    objective({"ppg": torch.randn(6, 2, 3840), "accel": torch.randn(6, 3, 3840)}, step_keys(0, 0, 6)).backward()
    gradients = {}
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        gradients[name] = float(parameter.grad.abs().sum())
    for part in ("encoder", "teacher_head", "student_head"):
        assert sum(size for name, size in gradients.items() if name.startswith(part)) > 0


def test_loss_is_equation_1_of_the_projected_embeddings() -> None:
    teacher = Encoder(2, SHAPE)
    objective = distillation(teacher).eval()
    signals = {"ppg": torch.randn(6, 2, 3840), "accel": torch.randn(6, 3, 3840)}
    expected = cross_modal_loss(
        objective.teacher_head(teacher(signals["ppg"])),
        objective.student_head(objective.encoder(signals["accel"])),
        0.04,
        1.0,
    )
    torch.testing.assert_close(objective(signals, step_keys(0, 0, 6)), expected)


def test_the_two_modalities_are_augmented_independently() -> None:
    seen = {}
    teacher = Encoder(3, SHAPE)
    objective = distillation(teacher, replace(OFF, cut_out=0.5))

    def record(name: str) -> None:
        def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor], _output: torch.Tensor) -> None:
            seen[name] = (inputs[0] == 0).all(dim=1)

        {"ppg": teacher, "accel": objective.encoder}[name].register_forward_hook(hook)

    record("ppg")
    record("accel")
    x = torch.randn(200, 3, 3840)
    objective({"ppg": x, "accel": x}, step_keys(0, 0, 200))
    cut = torch.stack([seen[name].any(dim=1).double() for name in ("ppg", "accel")])
    assert ((cut.mean(dim=1) - 0.5).abs() < 0.12).all()
    assert abs(torch.corrcoef(cut)[0, 1]) < 0.25
    both = (cut.sum(dim=0) == 2).nonzero()[:, 0]
    assert not any(torch.equal(seen["ppg"][i], seen["accel"][i]) for i in both.tolist())
