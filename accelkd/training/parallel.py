"""Training on several processes, as `torchrun` or Ray starts them: ranks, shares of a batch, gathered embeddings.

Every process draws the same global batch and takes its own slice of it. Embeddings are gathered before the heads, so
heads and contrastive loss see the whole batch in every process: the gradient does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0; only the first writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_share(size: int) -> slice:
    """This process's part of a global batch. Raises ValueError if it does not divide evenly."""
    if size % world_size():
        raise ValueError(f"a batch of {size} does not divide among {world_size()} processes")
    share = size // world_size()
    return slice(rank() * share, (rank() + 1) * share)


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes in the order of the global batch, with gradient through all of them.

    Each process then computes the whole loss; summed over processes, the gradient that arrives here is `world_size`
    times the correct one; DistributedDataParallel averages gradients over processes, which divides it out.
    """
    out: Tensor = _Gather.apply(x) if world_size() > 1 else x
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = slice(rank() * len(x), (rank() + 1) * len(x))
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total[ctx.rows]


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of each element over all processes."""
    if world_size() > 1:
        dist.all_reduce(x)
        x = x / world_size()
    return x


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group of `torchrun` during the block; without it, or inside another group, do nothing."""
    if dist.is_initialized() or "LOCAL_RANK" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
