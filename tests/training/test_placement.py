"""What a GPU would see, without one: every tensor of a step on its device, and copies that nobody waits for.

Fake tensors have shapes and devices, but no values: an operation on tensors of two devices fails as it would on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from accelkd.models.efficientnet import EfficientNet, EfficientNetShape
from accelkd.models.transformer import Encoder, TransformerShape
from accelkd.training import augment
from accelkd.training.contrastive import Contrastive, ContrastiveConfig
from accelkd.training.distillation import Distillation, DistillationConfig, frozen
from accelkd.training.masked_autoencoding import MaskedAutoencoder
from accelkd.training.objective import Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.randomness import step_keys
from accelkd.training.signals import to_device
from accelkd.training.supervised import Supervised

GPU = torch.device("cuda")
SHAPE, CONVOLUTIONAL = TransformerShape(16, 1, 2, 32), EfficientNetShape(16, 0.125)
STEM = TransformerShape(16, 1, 2, 32, stem="convolutional")
STEPS = Optimisation(1, 8, 0.1)
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "distillation": lambda: Distillation(frozen(Encoder(4, SHAPE)), 16, Encoder(3, SHAPE), _distilled(SHAPE)),
    "distillation behind a stem": lambda: Distillation(
        frozen(Encoder(4, SHAPE)), 16, Encoder(3, STEM), _distilled(STEM)
    ),
    "masked autoencoding": lambda: MaskedAutoencoder(Encoder(4, SHAPE), SHAPE, 38, "ppg"),
    "contrastive": lambda: Contrastive(EfficientNet(4, CONVOLUTIONAL), ContrastiveConfig("ppg", CONVOLUTIONAL, STEPS)),
    "supervised": lambda: Supervised(Encoder(3, SHAPE), "accel", mean=70.0, sd=10.0),
}


def _distilled(shape: TransformerShape) -> DistillationConfig:
    return DistillationConfig(shape, STEPS)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake tensors, among them a GPU's; the cascade of augmentations as it is written."""
    monkeypatch.setattr(augment, "_compiled", lambda: augment.augment_all)
    caches = (augment.spline, augment.probabilities)
    for cached in caches:
        cached.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=False):
        yield
    for cached in caches:  # of fake tensors
        cached.cache_clear()


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_tensor_of_a_step_is_on_the_gpu(name: str) -> None:
    with GPU:
        objective = OBJECTIVES[name]()
        batch = {"ppg": torch.randn(8, 4, 3840), "accel": torch.randn(8, 3, 3840), "target": torch.randn(8)}
    keys = step_keys(0, 0, 8)
    assert (keys.device.type, batch["ppg"].device.type) == ("cpu", "cuda")
    loss = objective(batch, keys)
    objective.after_step()
    assert (loss.device.type, loss.dtype, loss.shape) == ("cuda", torch.float32, ())


@pytest.mark.usefixtures("fake")
def test_a_tensor_on_another_device_would_be_found() -> None:
    with GPU:
        objective = OBJECTIVES["supervised"]()
    with pytest.raises(RuntimeError, match="devices"):
        objective({"accel": torch.randn(8, 3, 3840), "target": torch.randn(8)}, step_keys(0, 0, 8))


def test_batches_travel_from_pinned_memory_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    def pinned(tensor: Tensor) -> Tensor:
        done.append("pinned")
        return tensor

    def moved(tensor: Tensor, device: torch.device, **options: Any) -> Tensor:
        done.append((device.type, options))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "to", moved)
    to_device(np.zeros(3, np.float16), GPU)
    assert done == ["pinned", ("cuda", {"non_blocking": True})]
    done.clear()
    to_device(np.zeros(3, np.float16), torch.device("cpu"))
    assert done == [("cpu", {"non_blocking": True})]
