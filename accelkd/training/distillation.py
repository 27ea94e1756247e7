"""Cross-modal distillation (section 3.2): the accelerometer student learns to find its own PPG segment in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from accelkd.models.heads import ProjectionHead
from accelkd.models.transformer import Encoder
from accelkd.segments.store import Modality
from accelkd.training.augment import Augmentations, augment
from accelkd.training.losses import cross_modal_loss
from accelkd.training.randomness import derive


def frozen(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """The encoder as a plain function: evaluation mode, no gradient, and no module that a trainer could find."""
    encoder.eval().requires_grad_(False)

    def embed(x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = encoder(x)
        return embedding

    return embed


class Distillation(nn.Module):
    """The trainable parts: the student and one projection head for each side. The teacher is a function."""

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        teacher_width: int,
        student: Encoder,
        augmentations: Augmentations,
        temperature: float,
        teacher_weight: float,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.encoder = student
        self.teacher_head = ProjectionHead(teacher_width)
        self.student_head = ProjectionHead(student.shape.width)
        self.augmentations = augmentations
        self.temperature = temperature
        self.teacher_weight = teacher_weight

    def forward(self, signals: Mapping[Modality, Tensor], keys: Tensor) -> Tensor:
        """Equation 1 on one batch of paired segments, each modality augmented on its own."""
        ppg = augment(signals["ppg"], derive(keys, 0), self.augmentations)
        accel = augment(signals["accel"], derive(keys, 1), self.augmentations)
        teacher: Tensor = self.teacher_head(self.teacher(ppg))
        student: Tensor = self.student_head(self.encoder(accel))
        return cross_modal_loss(teacher, student, self.temperature, self.teacher_weight)
