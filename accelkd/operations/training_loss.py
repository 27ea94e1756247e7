"""What a check measures of a training: where the loss began and where it ended, and what it began from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.home.layout import Home
from accelkd.registry.history import candidate_checkpoint

_PART = 10  # first and last tenth of the steps: a single step is one batch of segments


@dataclass(frozen=True)
class LossChange:
    """Mean losses of the first and the last tenth of the steps; and that of chance where the objective has one."""

    first: float
    last: float
    chance: float | None
    went_on: bool  # from trained weights: the loss may be as low as it gets from the first step on


def loss_change(home: Home, encoder: str) -> LossChange:
    """Of the checkpoint trained last.

    Raises FileNotFoundError if there is none, NothingToMeasureError where its curve is a single loss, as that of an
    exported file of weights is.
    """
    from accelkd.training.checkpoint import CURVE, read_config  # imports torch

    folder = candidate_checkpoint(home, encoder)
    curve = pq.read_table(folder / CURVE)
    loss = curve.column("loss").to_numpy()
    if len(loss) < 2:
        raise NothingToMeasureError("its curve is one loss: it was trained elsewhere, and only its end came along")
    part = max(1, len(loss) // _PART)
    chance = curve.column("chance_loss")[0].as_py() if "chance_loss" in curve.column_names else None
    went_on = read_config(folder)["config"].get("start") is not None
    return LossChange(float(np.mean(loss[:part])), float(np.mean(loss[-part:])), chance, went_on)
