"""Embedding extraction: an encoder over all segments of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from accelkd.evaluation.matrix import Matrix, chunks
from accelkd.home.progress import progress
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.signals import ResidentSignals, to_device
from accelkd.training.trainer import pick_device

BATCH_SIZE = 256
_CHUNK_SIZE = 8192  # bounds the memory of the hidden layer


def embed(
    encoder: nn.Module,
    store: SegmentStore,
    modality: Modality,
    device: str = "auto",
    rows: npt.NDArray[np.intp] | None = None,
    resident: ResidentSignals | None = None,
) -> npt.NDArray[np.float32]:
    """Embeddings `[rows, width]` of `rows` of a store, by default all, in float32 and in that order.

    An encoder of fewer PPG channels than the segments have gets the first ones. `resident` is a copy of the store on
    the device. GPUs multiply with TF32's mantissa of ten bits.
    """
    torch_device = pick_device(device)
    rows = np.arange(len(store)) if rows is None else rows
    channels = int(getattr(encoder, "channels", store.channels(modality)))

    def load(start: int, stop: int) -> Tensor:
        chunk = rows[start:stop]
        if resident is None:
            signals = to_device(store.signals(modality, chunk), torch_device)
        else:
            signals = resident.take(modality, to_device(chunk.astype(np.int64), torch_device))
        return signals[:, :channels]

    return embed_in_batches(encoder, len(rows), load, torch_device, f"embedding {modality}").cpu().numpy()


def project(head: nn.Module, embeddings: Matrix) -> npt.NDArray[np.float32]:
    """Embeddings `[rows, width]` in the space of a projection head in evaluation mode, `[rows, 128]`; on the CPU."""
    with torch.inference_mode(), _one_thread_each(1) as thread:
        width = head(torch.empty((0, embeddings.shape[1]))).shape[1]
        projected = np.empty((len(embeddings), width), np.float32)
        for which, part in chunks(embeddings, size=_CHUNK_SIZE):
            projected[which] = thread.submit(_apply, head, torch.from_numpy(part)).result().numpy()
    return projected


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():  # which is of a thread
        y: Tensor = module(x)
    return y


def embed_in_batches(
    encoder: nn.Module, count: int, load: Callable[[int, int], Tensor], device: torch.device, what: str
) -> Tensor:
    """Embeddings `[count, width]` of `count` segments, in float32 and on the device; the encoder moves there.

    `load(start, stop)` gives the segments of one batch, `[stop - start, channels, 3840]`, on the device. `what` names
    the work on the progress bar. On CPUs each batch is one core's, so the numbers are the same on however many.
    """
    encoder = encoder.eval().to(device)

    def embed_from(start: int) -> Tensor:
        return _apply(encoder, load(start, min(start + BATCH_SIZE, count)).float()).float()

    starts = range(0, count, BATCH_SIZE)
    if device.type == "cpu":
        with _one_thread_each() as pool:
            return torch.cat(list(progress(pool.map(embed_from, starts), what, len(starts))))
    with _matmul_precision("high") if device.type == "cuda" else nullcontext():
        return torch.cat([embed_from(start) for start in progress(starts, what)])


@contextmanager
def _one_thread_each(workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Threads, by default as many as PyTorch uses, in each of which it uses one: more would add up in another order."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers or threads, "embedding", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # of threads that are started later, which inherit what was set last


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
