"""How close training is to the limit of the processor: model FLOP utilisation (MFU)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from accelkd.training.objective import Batch, Objective

# Dense bfloat16 (not sparse) in FLOP/s, from the data sheets, by part of the device's name; the longest match counts
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
_COUNTED = 4  # segments that operations are counted on


@dataclass(frozen=True)
class Ceilings:
    """Measured limits of a device."""

    device: str
    matmul_tflop_per_s: float  # bfloat16
    copy_gb_per_s: float  # bytes read and bytes written, within its memory

    def __str__(self) -> str:
        return f"{self.matmul_tflop_per_s:,.1f} TFLOP/s bf16, {self.copy_gb_per_s:,.0f} GB/s on {self.device}"


def measure_ceilings(device: str = "auto") -> Ceilings:
    """Speed of a matrix product and of a copy in torch, the best of five each; takes about a second."""
    target_device = torch.device(
        "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    )
    on_gpu = target_device.type == "cuda"
    size, elements = (8_192, 2**30) if on_gpu else (512, 2**24)
    a = torch.randn(size, size, device=target_device).bfloat16()
    source = torch.randint(0, 256, (elements,), dtype=torch.uint8, device=target_device)
    target = torch.empty_like(source)
    product = torch.empty_like(a)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(6):
            if on_gpu:
                torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return min(seconds[1:])

    return Ceilings(
        torch.cuda.get_device_name(target_device) if on_gpu else target_device.type,
        2 * size**3 / best(lambda: torch.matmul(a, a, out=product)) / 1e12,
        2 * elements / best(lambda: target.copy_(source)) / 1e9,
    )


def flop_per_segment(objective: Objective, batch: Batch, keys: Tensor) -> float:
    """Floating-point operations of forward and backward for one sample, counted on a copy of the objective.

    Attention is counted as the matrix products that it is: not every release knows every fused kernel of it.
    """
    small = {name: value[:_COUNTED] for name, value in batch.items()}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(copy.deepcopy(objective)(small, keys[:_COUNTED]))
    return float(counter.get_total_flops() / min(_COUNTED, len(keys)))


def peak_flop_per_s(device_name: str) -> float | None:
    """Dense bfloat16 peak of the device of that name; None for one that is not listed."""
    known = [name for name in PEAK_BF16 if name in device_name]
    return PEAK_BF16[max(known, key=len)] if known else None
