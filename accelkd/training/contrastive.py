"""Contrastive pre-training of one modality (section 3.1): two views, one of them through a momentum encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.heads import ProjectionHead
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.augment import Augmentations, augment
from accelkd.training.losses import info_nce, koleo
from accelkd.training.method import Inputs, Prepared
from accelkd.training.objective import Batch, Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.parallel import gathered
from accelkd.training.randomness import derive


@dataclass(frozen=True)
class ContrastiveConfig:
    """Pre-training by contrasting two views of each segment, or of each participant (section 3.1, table 14)."""

    modality: Modality
    encoder: EncoderShape
    optimisation: Optimisation
    augmentations: Augmentations = field(default_factory=Augmentations)
    temperature: float = 0.04
    koleo_weight: float = 0.1
    momentum: float = 0.99
    positives: Literal["segment", "participant"] = "segment"

    start: ClassVar[None] = None
    chance_is_log_batch_size: ClassVar[bool] = True

    @property
    def modalities(self) -> Sequence[Modality]:
        return [self.modality]

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def method(self) -> str:
        return "contrastive"

    @property
    def description(self) -> str:
        return "without labels by contrasting augmented views (section 3.1 of the paper)"

    def channels(self, store: SegmentStore) -> int:
        return store.channels(self.modality)

    def prepare(self, inputs: Inputs) -> Prepared:
        objective = Contrastive(build_encoder(self.channels(inputs.store), self.encoder), self)
        return Prepared(objective, inputs.data(self.modalities))


class Contrastive(Objective):
    """A trained encoder and head, and their exponential moving averages, which encode the other view.

    The loss is InfoNCE, the mean of both directions, plus the KoLeo regulariser on the trained side's projections. The
    views are two augmentations of one segment, or of two segments of one participant.
    """

    def __init__(self, encoder: AnyEncoder, config: ContrastiveConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = ProjectionHead(config.encoder.width)
        self.average_encoder = build_encoder(encoder.channels, config.encoder)
        self.average_head = ProjectionHead(config.encoder.width)
        for average, trained in ((self.average_encoder, self.encoder), (self.average_head, self.head)):
            average.requires_grad_(False).load_state_dict(trained.state_dict())
        self.config = config
        self.views = 2 if config.positives == "participant" else 1

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:
        x = batch[self.config.modality]
        first, second = x.unbind(1) if self.views == 2 else (x, x)
        first = augment(first, derive(keys, 0), self.config.augmentations)
        second = augment(second, derive(keys, 1), self.config.augmentations)
        trained: Tensor = self.head(gathered(self.encoder(first)))
        with torch.no_grad():
            average: Tensor = self.average_head(gathered(self.average_encoder(second)))
        temperature = self.config.temperature
        contrast = (info_nce(trained, average, temperature) + info_nce(average, trained, temperature)) / 2
        return contrast + self.config.koleo_weight * koleo(trained)

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the averages, of the parameters and of BatchNorm's running statistics."""
        floating: list[tuple[Tensor, Tensor]] = []
        counts: list[tuple[Tensor, Tensor]] = []
        for pair in self._averages():
            (floating if pair[0].is_floating_point() else counts).append(pair)
        # One fused call: on a GPU a launch per tensor would take longer than the arithmetic
        torch._foreach_lerp_([a for a, _ in floating], [t for _, t in floating], 1 - self.config.momentum)
        for average, trained in counts:
            average.copy_(trained)

    def _averages(self) -> Iterable[tuple[Tensor, Tensor]]:
        for average, trained in ((self.average_encoder, self.encoder), (self.average_head, self.head)):
            yield from zip(average.parameters(), trained.parameters(), strict=True)
            yield from zip(average.buffers(), trained.buffers(), strict=True)
