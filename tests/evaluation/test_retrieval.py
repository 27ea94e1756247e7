"""Retrieval on planted answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelkd.evaluation import retrieval
from accelkd.evaluation.projection import tsne
from accelkd.evaluation.retrieval import ranks, retrieve


def unit_vectors(number: int, width: int = 32, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((number, width)).astype(np.float32)


def test_ranks_are_those_of_sorting_everything() -> None:
    queries, keys = unit_vectors(1500, 8, 1), unit_vectors(1500, 8, 2)
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    k = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    order = np.argsort(-(q.astype(np.float64) @ k.T.astype(np.float64)), axis=1)
    expected = 1 + np.argmax(order == np.arange(1500)[:, None], axis=1)
    assert np.abs(ranks(queries, keys) - expected).max() <= 1  # float32 against float64 in close calls
    assert (ranks(queries, keys) == expected).mean() > 0.99


def test_planted_ranks() -> None:
    keys = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    queries = np.array([[5, 0], [7, 0], [0, 2]], np.float32)  # length does not matter
    assert ranks(queries, keys).tolist() == [1, 2, 1]


def test_a_collapsed_space_ranks_in_the_middle_and_is_never_first() -> None:
    same = np.repeat(unit_vectors(1), 101, axis=0)
    assert ranks(same, same).tolist() == [51.0] * 101
    result = retrieve(same, same, ["p"] * 101, pools=3)
    assert result.top1_percent == 0
    assert result.mean_rank == result.chance_mean_rank == 51
    assert ranks(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)).tolist() == [2, 2, 2]


def test_a_perfect_pair_is_found_and_a_random_one_is_at_chance() -> None:
    people = [f"p{i // 10}" for i in range(400)]
    x = unit_vectors(400)
    perfect = retrieve(x, x, people, pools=20)
    assert (perfect.top1_percent, perfect.mean_rank) == (100, 1)
    assert (perfect.top1_percent_sd, perfect.mean_rank_sd) == (0, 0)
    random = retrieve(x, unit_vectors(400, seed=9), people, pools=20)
    assert random.mean_rank == pytest.approx(random.chance_mean_rank, rel=0.1)
    assert random.top1_percent < 1.5
    # Of 40 participants drawn 40 times with replacement, 63 % are in a pool, ten segments each
    assert random.participants == pytest.approx(40 * (1 - (39 / 40) ** 40), rel=0.05)
    assert random.segments == pytest.approx(10 * random.participants)
    assert random.chance_mean_rank == pytest.approx((random.segments + 1) / 2)
    assert random.chance_top1_percent == pytest.approx(100 / random.segments, rel=0.05)


def test_pools_depend_on_the_seed_alone_and_hold_whole_participants() -> None:
    people = [f"p{i // 4}" for i in range(200)]
    x, y = unit_vectors(200), unit_vectors(200) + 0.5 * unit_vectors(200, seed=4)
    assert retrieve(x, y, people, pools=5) == retrieve(x, y, people, pools=5)
    assert retrieve(x, y, people, pools=5) != retrieve(x, y, people, pools=5, seed=1)
    few = retrieve(x, y, people, pools=5, pool_participants=3)
    assert few.participants <= 3
    assert few.segments == 4 * few.participants
    with pytest.raises(ValueError, match="at least one test participant"):
        retrieve(x[:0], y[:0], [])


def test_a_map_is_the_same_twice_and_keeps_groups_together() -> None:
    centres = 20 * unit_vectors(4, 16)
    x = np.repeat(centres, 15, axis=0) + unit_vectors(60, 16, seed=1)
    first = tsne(x)
    assert first.shape == (60, 2)
    assert (first == tsne(x)).all()
    distance = np.linalg.norm(first[:, None] - first[None], axis=2) + np.diag(np.full(60, np.inf))
    nearest = distance.argmin(axis=1)
    assert (nearest // 15 == np.arange(60) // 15).all()
    with pytest.raises(ValueError, match="at least 4"):
        tsne(x[:3])


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=40),
    pool=st.integers(1, 5),
    pools=st.integers(1, 4),
    seed=st.integers(0, 99),
    tied=st.booleans(),
)
def test_pools_are_ranked_as_by_brute_force(sizes: list[int], pool: int, pools: int, seed: int, tied: bool) -> None:
    """Whether they are compared pool by pool or all at once."""
    people = np.random.default_rng(seed).permutation(
        np.repeat([f"p{number:02d}" for number in range(len(sizes))], sizes)
    )
    x, y = unit_vectors(len(people), 5, seed), unit_vectors(len(people), 5, seed + 1)
    if tied:
        x[::2], y[::2] = x[0], y[0]
    result = retrieve(x, y, people.tolist(), pool_participants=pool, pools=pools, seed=seed, device="cpu")
    rng, names = np.random.default_rng(seed), np.unique(people)
    unit = [(matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float64) for matrix in (x, y)]
    similarity = unit[0] @ unit[1].T
    top1, mean_rank = [], []
    for _ in range(pools):
        drawn = np.flatnonzero(np.isin(people, names[rng.integers(len(names), size=min(pool, len(names)))]))
        own = similarity[drawn][:, drawn]
        matching = np.diagonal(own)[:, None]
        rank = 0.5 + 0.5 * ((own > matching + 1e-6).sum(axis=1) + (own >= matching - 1e-6).sum(axis=1))
        top1.append(100 * (rank == 1).mean())
        mean_rank.append(rank.mean())
    assert result.top1_percent == pytest.approx(np.mean(top1))
    assert result.mean_rank == pytest.approx(np.mean(mean_rank))
    assert result.mean_rank_sd == pytest.approx(np.std(mean_rank), abs=1e-9)


def test_small_pools_of_many_people_give_what_comparing_everybody_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    people = [f"p{i // 3}" for i in range(900)]
    x, y = unit_vectors(900), unit_vectors(900) + 0.7 * unit_vectors(900, seed=4)
    compared: list[int] = []
    pool_ranks = retrieval._pool_ranks

    def counting(*arguments: Any) -> Any:
        compared.append(len(arguments[0]))
        return pool_ranks(*arguments)

    monkeypatch.setattr(retrieval, "_pool_ranks", counting)
    by_pool = retrieve(x, y, people, pools=7, pool_participants=12)
    assert len(compared) == 7
    assert max(compared) <= 36
    monkeypatch.setattr(retrieval, "_compared_together", lambda drawn, *_: [(None, np.arange(drawn.shape[1]))])
    assert retrieve(x, y, people, pools=7, pool_participants=12) == by_pool
    assert compared[7:] == [900]
