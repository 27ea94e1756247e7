"""Retrieval: how well one modality's embedding identifies the same segment in the other modality (section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from accelkd.evaluation.matrix import Matrix, Rows
from accelkd.evaluation.probes import People
from accelkd.training.trainer import pick_device

POOL_PARTICIPANTS = 1_000  # section 5.1
POOLS = 100
MIN_RETRIEVED = 2  # segments: a single one always finds itself
_CHUNK_PAIRS = 2**24  # of segments, compared at a time
_TIE = 1e-6  # similarities closer than float32 resolves: a collapsed encoder must not look perfect


@dataclass(frozen=True)
class RetrievalResult:
    """Mean and standard deviation over the candidate pools, and the values of a random ranking."""

    pools: int
    participants: float  # mean number in a pool
    segments: float  # mean number of candidates in a pool
    top1_percent: float
    top1_percent_sd: float
    mean_rank: float  # 1 is perfect
    mean_rank_sd: float
    chance_top1_percent: float
    chance_mean_rank: float


def ranks(
    queries: npt.NDArray[np.float32], keys: npt.NDArray[np.float32], *, device: str = "auto"
) -> npt.NDArray[np.float64]:
    """Rank of key i for query i among all keys by cosine similarity, from 1; `queries`, `keys` [segments, width].

    Keys that are as similar as the matching one share the mean of their ranks.
    """
    single_pool = np.ones((len(queries), 1), np.float32)
    return np.concatenate([rank[:, 0] for _, rank in _pool_ranks(queries, keys, single_pool, device)])


def retrieve(
    queries: Matrix,
    keys: Matrix,
    participants: Sequence[str] | People,
    *,
    pool_participants: int = POOL_PARTICIPANTS,
    pools: int = POOLS,
    seed: int = 0,
    device: str = "auto",
) -> RetrievalResult:
    """Retrieval of `keys` from `queries`, both [segments, width]; row i of both is a segment of `participants[i]`.

    Each pool holds the segments of `pool_participants` participants (at most as many as there are) drawn with
    replacement, each counted once. A query counts as rank 1 only if no other key ties with its own. Segments are
    compared pool by pool, or all at once where that is less work; of matrices in files, only one pool's are in memory
    then. Raises ValueError if there is no segment.
    """
    names, code, counts = np.unique(np.asarray(participants), return_inverse=True, return_counts=True)
    if len(names) == 0:
        raise ValueError("retrieval needs at least one test participant with segments")
    rng = np.random.default_rng(seed)
    drawn = np.zeros((len(names), pools), np.bool_)
    for pool in range(pools):
        drawn[rng.integers(len(names), size=min(pool_participants, len(names))), pool] = True
    sizes = (counts[:, None] * drawn).sum(axis=0).astype(np.float64)
    first, total = np.zeros(pools), np.zeros(pools)
    for rows, members in _compared_together(drawn, code, sizes, keys.shape[1]):
        of_rows = (queries, keys) if rows is None else (queries[rows], keys[rows])
        member = drawn[:, members][code if rows is None else code[rows]].astype(np.float32)
        for block, rank in _pool_ranks(np.asarray(of_rows[0][:]), np.asarray(of_rows[1][:]), member, device):
            first[members] += ((rank == 1) * member[block]).sum(axis=0)
            total[members] += (rank * member[block]).sum(axis=0)
    top1, mean_rank = 100 * first / sizes, total / sizes
    return RetrievalResult(
        pools=pools,
        participants=float(drawn.sum(axis=0, dtype=np.float64).mean()),
        segments=float(sizes.mean()),
        top1_percent=float(top1.mean()),
        top1_percent_sd=float(top1.std()),
        mean_rank=float(mean_rank.mean()),
        mean_rank_sd=float(mean_rank.std()),
        chance_top1_percent=float((100 / sizes).mean()),
        chance_mean_rank=float(((sizes + 1) / 2).mean()),
    )


def _compared_together(
    drawn: npt.NDArray[np.bool_], code: npt.NDArray[np.intp], sizes: npt.NDArray[np.float64], width: int
) -> Iterator[tuple[Rows | None, npt.NDArray[np.intp]]]:
    """Segments to compare with each other, None for all, and the pools of which they give the ranks.

    A pair of segments costs a product of its embeddings, and where all are compared one of its key with each pool.
    """
    pools = drawn.shape[1]
    if len(code) ** 2 * (width + pools) <= (sizes**2).sum() * (width + 1):
        yield None, np.arange(pools)
        return
    for pool in range(pools):
        yield np.flatnonzero(drawn[code, pool]), np.array([pool])


def _pool_ranks(
    queries: npt.NDArray[np.float32], keys: npt.NDArray[np.float32], member: npt.NDArray[np.float32], device: str
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Blocks of queries and the ranks `[block, pools]` of their keys among each pool's; `member` [segments, pools].

    In one pass: every pair of segments is compared once, however many pools it is in.
    """
    torch_device = pick_device(device)
    unit_queries, unit_keys = (
        F.normalize(torch.from_numpy(x).to(torch_device).float(), dim=1) for x in (queries, keys)
    )
    in_pool = torch.from_numpy(member).to(torch_device)
    step = max(1, _CHUNK_PAIRS // len(keys))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # the ties below are closer than TF32 resolves
    try:
        for start in range(0, len(keys), step):
            rows = slice(start, min(start + step, len(keys)))
            similarity = unit_queries[rows] @ unit_keys.T
            matching = similarity.diagonal(start)[:, None]
            # 1 for a closer key, 1/2 for a tied one, among them its own
            closer = (similarity > matching + _TIE).float().add_(similarity >= matching - _TIE).mul_(0.5)
            yield rows, (closer @ in_pool + 0.5).cpu().double().numpy()
    finally:
        torch.set_float32_matmul_precision(precision)
