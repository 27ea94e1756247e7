"""How near the training is to the processor's limit: model FLOP utilisation (MFU)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from accelkd.training.objective import Batch, Objective

# Dense bfloat16 (not sparse) in FLOP/s, from the data sheets; by a part of the device's name, the longest match counts.
PEAK_BF16 = {
    "A100": 312e12,
    "A10": 125e12,
    "B200": 2250e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
}
_COUNTED = 4  # segments


def flop_per_segment(objective: Objective, batch: Batch, keys: Tensor) -> float:
    """Floating-point operations of forward and backward for one sample, counted on a copy: nothing is changed."""
    small = {name: value[:_COUNTED] for name, value in batch.items()}
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(copy.deepcopy(objective)(small, keys[:_COUNTED]))
    return float(counter.get_total_flops() / min(_COUNTED, len(keys)))


def peak_flop_per_s(device_name: str) -> float | None:
    """Dense bfloat16 peak of the device of that name; None for one that is not listed."""
    known = [name for name in PEAK_BF16 if name in device_name]
    return PEAK_BF16[max(known, key=len)] if known else None
