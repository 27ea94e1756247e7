"""Supervised training from scratch on one target (section 5.2): the baseline of distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.regressor import Regressor
from accelkd.recordings.labels import LabelName
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.data import TrainingData
from accelkd.training.method import Inputs, Prepared
from accelkd.training.objective import Batch, Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.randomness import bits, derive
from accelkd.training.signals import to_device
from accelkd.training.trainer import Validation

_CHUNK_SIZE = 256  # segments that early stopping evaluates at a time
_MAX_VALIDATED = 8_192  # segments that early stopping evaluates: its cost does not grow with the cohort


@dataclass(frozen=True)
class SupervisedConfig:
    """An encoder with a linear head, trained from scratch on one target (section 5.2)."""

    modality: Modality
    encoder: EncoderShape
    target: LabelName
    optimisation: Optimisation
    validation_share: float = 0.2  # of the participants with labels: the weights with the lowest error on them are kept
    patience: int = 5  # rows of the curve without improvement after which training stops

    start: ClassVar[None] = None
    chance_is_log_batch_size: ClassVar[bool] = False

    @property
    def modalities(self) -> Sequence[Modality]:
        return [self.modality]

    @property
    def needs_teacher(self) -> bool:
        return False

    @property
    def method(self) -> str:
        return "supervised"

    @property
    def description(self) -> str:
        return "on labels, from scratch (section 5.2)"

    def channels(self, store: SegmentStore) -> int:
        return store.channels(self.modality)

    def prepare(self, inputs: Inputs) -> Prepared:
        """Raises ValueError if a segment has no label, or fewer than two participants have."""
        store, rows, device, resident = inputs.store, inputs.rows, inputs.device, inputs.resident
        targets = store.metadata.column(self.target).to_numpy()[rows].astype(np.float64)
        if not np.isfinite(targets).all():
            raise ValueError(f"{int((~np.isfinite(targets)).sum())} of {len(rows)} segments have no {self.target}")
        participants = store.metadata.column("participant_id").take(rows).to_pylist()
        held_out = _held_out(participants, self.validation_share, self.optimisation.seed)
        fitted = targets[~held_out]
        objective = Supervised(
            build_encoder(self.channels(store), self.encoder),
            self.modality,
            mean=float(fitted.mean()),
            sd=float(fitted.std()) or 1.0,
        )
        data = TrainingData(store, rows[~held_out], self.modalities, device, fitted, min_segments=1, resident=resident)
        validated, expected = rows[held_out][:_MAX_VALIDATED], targets[held_out][:_MAX_VALIDATED]

        def error() -> float:
            """Mean absolute error over the held-out training participants."""
            regressor = objective.regressor.eval()
            parts = []
            with torch.inference_mode():
                for start in range(0, len(validated), _CHUNK_SIZE):
                    part = validated[start : start + _CHUNK_SIZE]
                    if resident is None:
                        signals = to_device(store.signals(self.modality, part), device)
                    else:
                        signals = resident.take(self.modality, to_device(part.astype(np.int64), device))
                    parts.append(regressor(signals.float()).double())
            objective.train()
            return float(np.abs(torch.cat(parts).cpu().numpy() - expected).mean())

        return Prepared(objective, data, Validation(error, self.patience))


class Supervised(Objective):
    """Squared error of the standardised target."""

    def __init__(self, encoder: AnyEncoder, modality: Modality, mean: float, sd: float) -> None:
        super().__init__()
        self.regressor = Regressor(encoder)
        self.regressor.mean.fill_(mean)
        self.regressor.sd.fill_(sd)
        self.modality = modality

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:  # noqa: ARG002  (nothing is random here)
        predicted: Tensor = self.regressor(batch[self.modality])
        return F.mse_loss(predicted / self.regressor.sd, batch["target"] / self.regressor.sd)


def _held_out(participants: Sequence[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows belong to the participants held out for early stopping: at least one, and never all."""
    names = np.unique(np.asarray(participants))
    if len(names) < 2:
        raise ValueError("early stopping needs labels of at least two training participants")
    number = min(max(1, round(share * len(names))), len(names) - 1)
    order = np.argsort(bits(derive(torch.zeros(1, dtype=torch.int64), seed), len(names))[0].numpy())
    return np.isin(np.asarray(participants), names[order[:number]])
