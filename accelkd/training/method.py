"""What a training method is: a configuration that prepares its objective. A new one is a module with such a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from accelkd.models.encoders import AnyEncoder, EncoderShape
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.data import TrainingData
from accelkd.training.objective import Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.signals import ResidentSignals
from accelkd.training.trainer import Validation


@dataclass(frozen=True)
class Inputs:
    """What a run is prepared from."""

    store: SegmentStore
    rows: npt.NDArray[np.intp]  # of the store, to train on
    device: torch.device
    resident: ResidentSignals | None  # a copy of the store on the device
    teacher: AnyEncoder | None  # of the run's teacher checkpoint

    def data(self, modalities: Sequence[Modality]) -> TrainingData:
        """The segments as batches without targets."""
        return TrainingData(self.store, self.rows, modalities, self.device, resident=self.resident)


@dataclass(frozen=True)
class Prepared:
    """The objective with its fresh weights, its training data, and its early stopping, if any."""

    objective: Objective
    data: TrainingData
    validation: Validation | None = None


class EncoderConfig(Protocol):
    """Configuration of one encoder's training: a frozen dataclass, whose fields are part of the checkpoint's identity.

    The objective that it prepares holds the trained encoder as `encoder`, or as `regressor.encoder`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    chance_is_log_batch_size: ClassVar[bool]  # whether the loss of chance is ln(batch size), as of InfoNCE

    @property
    def encoder(self) -> EncoderShape: ...

    @property
    def start(self) -> str | None:
        """Bundled encoder whose weights a run goes on from; None: it starts from random weights."""
        ...

    @property
    def optimisation(self) -> Optimisation: ...

    @property
    def modality(self) -> Modality:
        """Of the encoder's input."""
        ...

    @property
    def modalities(self) -> Sequence[Modality]:
        """The signals that training reads."""
        ...

    @property
    def method(self) -> str:
        """Its name in checkpoints."""
        ...

    @property
    def description(self) -> str:
        """How the encoder is trained, as a checkpoint's card says it; `{teacher}` stands for the teacher."""
        ...

    @property
    def needs_teacher(self) -> bool:
        """Whether a run starts from a teacher's checkpoint."""
        ...

    def channels(self, store: SegmentStore) -> int:
        """Of the encoder's input. Raises ValueError where the segments have too few."""
        ...

    def prepare(self, inputs: Inputs) -> Prepared:
        """Build the objective. Raises ValueError for data that it cannot be trained on."""
        ...
