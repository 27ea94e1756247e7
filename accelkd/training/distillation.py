"""Cross-modal distillation (section 3.2): the accelerometer student learns to match each segment with its PPG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.heads import ProjectionHead
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.augment import Augmentations, augment
from accelkd.training.losses import cross_modal_loss
from accelkd.training.method import Inputs, Prepared
from accelkd.training.objective import Batch, Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.parallel import gathered
from accelkd.training.randomness import derive
from accelkd.training.trainer import compile_encoders, compiles


def frozen(encoder: AnyEncoder) -> Callable[[Tensor], Tensor]:
    """The encoder as a plain function: evaluation mode, no gradient, and not a submodule of the objective."""
    encoder.eval().requires_grad_(False)

    def embed(x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = encoder(x)
        return embedding

    return embed


@dataclass(frozen=True)
class DistillationConfig:
    """Accelerometer student by cross-modal distillation (section 3.2), or, with a trainable teacher, both together."""

    encoder: EncoderShape
    optimisation: Optimisation
    augmentations: Augmentations = field(default_factory=Augmentations)
    temperature: float = 0.04
    teacher_weight: float = 1.0  # λ of equation 1
    teacher: Literal["frozen", "trainable"] = "frozen"  # trainable: simultaneous pre-training (tables 3 and 19)
    teacher_encoder: EncoderShape | None = None  # of a randomly initialised teacher; None: a teacher's checkpoint
    start: str | None = None  # bundled student to go on from; None: random weights

    def __post_init__(self) -> None:
        if self.teacher == "frozen" and self.teacher_encoder is not None:
            raise ValueError("a frozen teacher comes from a checkpoint: it cannot be randomly initialised")

    @property
    def modality(self) -> Modality:
        return "accel"

    chance_is_log_batch_size: ClassVar[bool] = True

    @property
    def modalities(self) -> Sequence[Modality]:
        return ["ppg", "accel"]

    @property
    def method(self) -> str:
        return "distillation" if self.teacher == "frozen" else "simultaneous"

    @property
    def description(self) -> str:
        if self.teacher == "frozen":
            return "without labels by cross-modal distillation from the frozen teacher {teacher} (section 3.2)"
        return "without labels together with a PPG encoder that started from {teacher} (tables 3 and 19)"

    @property
    def needs_teacher(self) -> bool:
        return self.teacher_encoder is None

    def channels(self, store: SegmentStore) -> int:
        return store.channels(self.modality)

    def prepare(self, inputs: Inputs) -> Prepared:
        student = build_encoder(self.channels(inputs.store), self.encoder)
        if inputs.teacher is not None:
            teacher = inputs.teacher.to(inputs.device)
        elif self.teacher_encoder is not None:
            teacher = build_encoder(inputs.store.channels("ppg"), self.teacher_encoder)
        else:
            raise ValueError(f"{self.method} needs a teacher")
        if self.teacher == "frozen" and compiles(inputs.device, self.optimisation):
            compile_encoders(teacher)
        function = frozen(teacher) if self.teacher == "frozen" else teacher.train()
        objective = Distillation(function, teacher.shape.width, student, self)
        return Prepared(objective, inputs.data(self.modalities))


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
