"""Cross-modal distillation (section 3.2): the accelerometer student learns to match each segment with its PPG."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accelkd.models.encoders import AnyEncoder
from accelkd.models.heads import ProjectionHead
from accelkd.training.augment import augment
from accelkd.training.configs import DistillationConfig
from accelkd.training.losses import cross_modal_loss
from accelkd.training.objective import Batch, Objective
from accelkd.training.parallel import gathered
from accelkd.training.randomness import derive


def frozen(encoder: AnyEncoder) -> Callable[[Tensor], Tensor]:
    """The encoder as a plain function: evaluation mode, no gradient, and not a submodule of the objective."""
    encoder.eval().requires_grad_(False)

    def embed(x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = encoder(x)
        return embedding

    return embed


class Distillation(Objective):
    """The student and one projection head for each side, and the teacher.

    A frozen teacher is a plain function and is not trained. A teacher that is a module is trained too (simultaneous
    multi-modal pre-training, tables 3 and 19).
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        teacher_width: int,
        student: AnyEncoder,
        config: DistillationConfig,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.encoder = student
        self.teacher_head = ProjectionHead(teacher_width)
        self.student_head = ProjectionHead(student.shape.width)
        self.config = config

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:
        """Equation 1 on one batch of paired segments, each modality augmented independently."""
        ppg = augment(batch["ppg"], derive(keys, 0), self.config.augmentations)
        accel = augment(batch["accel"], derive(keys, 1), self.config.augmentations)
        teacher: Tensor = self.teacher_head(gathered(self.teacher(ppg)))
        student: Tensor = self.student_head(gathered(self.encoder(accel)))
        return cross_modal_loss(teacher, student, self.config.temperature, self.config.teacher_weight)
