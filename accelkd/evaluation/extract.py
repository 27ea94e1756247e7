"""Embedding extraction: an encoder over all segments of a store."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from accelkd.progress import progress
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.trainer import pick_device

BATCH_SIZE = 256


def embed(
    encoder: nn.Module,
    store: SegmentStore,
    modality: Modality,
    device: str = "auto",
    rows: npt.NDArray[np.intp] | None = None,
) -> npt.NDArray[np.float32]:
    """Embeddings `[rows, width]` of the given rows of a store, or of all of them, in float32 and in that order.

    An encoder of fewer PPG channels than the segments have sees the first ones.
    """
    where = pick_device(device)
    encoder = encoder.eval().to(where)
    rows = np.arange(len(store)) if rows is None else rows
    channels = int(getattr(encoder, "channels", store.channels(modality)))
    parts = []
    with torch.inference_mode():
        for start in progress(range(0, len(rows), BATCH_SIZE), f"embedding {modality}"):
            some = store.signals(modality, rows[start : start + BATCH_SIZE])
            signals = torch.from_numpy(some[:, :channels]).to(where).float()
            parts.append(encoder(signals).float().cpu().numpy())
    return np.concatenate(parts)
