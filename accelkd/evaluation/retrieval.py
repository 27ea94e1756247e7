"""Retrieval: does one modality's embedding find the same minute of the other among all held-out ones (section 4.2)?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

POOL_PARTICIPANTS = 1_000  # section 5.1
POOLS = 100
_BLOCK = 1_024  # queries that are compared with all candidates at a time
_TIE = 1e-6  # similarities closer than float32 tells apart: a collapsed encoder must not look perfect


@dataclass(frozen=True)
class RetrievalResult:
    """Over the candidate pools: mean and standard deviation, beside those of a random ranking."""

    pools: int
    participants: float  # mean number of a pool
    segments: float  # mean number of candidates of a pool
    top1_percent: float
    top1_percent_sd: float
    mean_rank: float  # 1 is perfect
    mean_rank_sd: float
    chance_top1_percent: float
    chance_mean_rank: float


def ranks(queries: npt.NDArray[np.float32], keys: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Rank of key i for query i among all keys by cosine similarity, from 1; `queries`, `keys` [segments, width].

    Keys that are as similar as the right one share the mean of their ranks.
    """
    queries, keys = _unit(queries), _unit(keys)
    out = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ keys.T
        row = np.arange(len(similarity))
        right = similarity[row, start + row][:, None]
        closer = (similarity > right + _TIE).sum(axis=1)
        tied = (np.abs(similarity - right) <= _TIE).sum(axis=1) - 1
        out[start : start + _BLOCK] = 1 + closer + tied / 2
    return out


def retrieve(
    queries: npt.NDArray[np.float32],
    keys: npt.NDArray[np.float32],
    participants: Sequence[str],
    *,
    pool_participants: int = POOL_PARTICIPANTS,
    pools: int = POOLS,
    seed: int = 0,
) -> RetrievalResult:
    """Retrieval of `keys` from `queries`, both [segments, width] and row by row of the same segment of `participants`.

    Each pool holds the segments of `pool_participants` participants (at most as many as there are) drawn with
    replacement, each counted once. A query is right at the first rank only if no other key ties with its own.
    Raises ValueError where there is nothing to retrieve.
    """
    names, code = np.unique(np.asarray(participants), return_inverse=True)
    if len(names) == 0:
        raise ValueError("retrieval needs at least one test participant with segments")
    rng = np.random.default_rng(seed)
    sizes, people, top1, mean_rank = [], [], [], []
    for _ in range(pools):
        drawn = np.zeros(len(names), bool)
        drawn[rng.integers(len(names), size=min(pool_participants, len(names)))] = True
        rows = np.flatnonzero(drawn[code])
        rank = ranks(queries[rows], keys[rows])
        sizes.append(len(rows))
        people.append(int(drawn.sum()))
        top1.append(100 * float((rank == 1).mean()))
        mean_rank.append(float(rank.mean()))
    return RetrievalResult(
        pools=pools,
        participants=float(np.mean(people)),
        segments=float(np.mean(sizes)),
        top1_percent=float(np.mean(top1)),
        top1_percent_sd=float(np.std(top1)),
        mean_rank=float(np.mean(mean_rank)),
        mean_rank_sd=float(np.std(mean_rank)),
        chance_top1_percent=float(np.mean([100 / size for size in sizes])),
        chance_mean_rank=float(np.mean([(size + 1) / 2 for size in sizes])),
    )


def _unit(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norm == 0, 1, norm), np.float32)
