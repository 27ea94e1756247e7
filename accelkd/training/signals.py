"""Sources of training signals: the memory-mapped files of a store, or a copy in the memory of the device."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accelkd.segments.schema import SAMPLES
from accelkd.segments.store import Modality, SegmentStore

MAX_SHARE = 0.5  # of the free memory that a copy may take: the rest is for training
_CHUNK_SIZE = 4_096  # segments per transfer


class DeviceMemoryError(ValueError):
    """The signals do not fit into the memory of the device; the message gives both sizes."""


class ResidentSignals:
    """All signals of a store in the memory of one device, as float16: one copy for every run on that store.

    Raises DeviceMemoryError, before any allocation, if they need more than `MAX_SHARE` of its free memory.
    """

    def __init__(
        self, store: SegmentStore, device: torch.device, modalities: Sequence[Modality] = ("ppg", "accel")
    ) -> None:
        needed, free = resident_bytes(store, modalities), free_bytes(device)
        if needed > MAX_SHARE * free:
            raise DeviceMemoryError(
                f"{len(store):,} segments take {needed / 1e9:.2f} GB as float16; of the {free / 1e9:.2f} GB free on "
                f"{device} {MAX_SHARE:.0%} may be taken: train on fewer segments, or read them from the disk"
            )
        self.device = device
        self._signals = {modality: _copy(store, modality, device) for modality in modalities}

    def take(self, modality: Modality, rows: Tensor) -> Tensor:
        """The signals of `rows` of the store (int64, on the device): `[rows, channels, 3840]` float16."""
        return self._signals[modality][rows]


def resident_bytes(store: SegmentStore, modalities: Sequence[Modality]) -> int:
    """Size in bytes of a copy of these modalities."""
    return 2 * SAMPLES * len(store) * sum(store.channels(modality) for modality in modalities)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes; of the CPU, the available memory of the system, where it tells (Linux does)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError):  # Windows has no sysconf, macOS no such name: nothing can be refused there
        return sys.maxsize


def to_device(host: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy on the device; to a GPU it is asynchronous, from pinned memory."""
    tensor = torch.from_numpy(host)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _copy(store: SegmentStore, modality: Modality, device: torch.device) -> Tensor:
    out = torch.empty((len(store), store.channels(modality), SAMPLES), dtype=torch.float16, device=device)
    for start in range(0, len(store), _CHUNK_SIZE):
        rows = np.arange(start, min(start + _CHUNK_SIZE, len(store)))
        out[start : start + len(rows)].copy_(to_device(store.signals(modality, rows), device), non_blocking=True)
    return out
