"""Retrieval on planted answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

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
