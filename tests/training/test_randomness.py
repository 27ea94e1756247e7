"""Counter-based random numbers."""

from __future__ import annotations

import pytest
import torch

from accelkd.training.randomness import bits, derive, normal, permuted, step_keys, uniform


def test_bits_are_splitmix64() -> None:
    """The published output of seed 0."""
    zero = torch.zeros(1, dtype=torch.int64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert [value % 2**64 for value in bits(zero, 4)[0].tolist()] == expected


def test_draws_belong_to_seed_step_and_sample() -> None:
    keys = step_keys(seed=3, step=17, count=64)
    assert torch.equal(keys[:8], step_keys(3, 17, 8))  # not to the size of the batch
    assert torch.equal(uniform(keys, 5)[9:10], uniform(keys[9:10], 5))  # nor to a neighbour
    others = [step_keys(3, 18, 64), step_keys(4, 17, 64), derive(keys, 0), derive(keys, 1)]
    assert len(torch.cat([keys, *others]).unique()) == 5 * 64


def test_uniform_and_normal_have_their_moments() -> None:
    keys = step_keys(0, 0, 200)
    flat = uniform(keys, 1001).double()
    assert flat.shape == (200, 1001)
    assert flat.min() >= 0
    assert flat.max() < 1
    assert abs(flat.mean() - 1 / 2) < 0.003
    assert abs(flat.var() - 1 / 12) < 0.001
    bell = normal(keys, 1001).double()
    assert bell.shape == (200, 1001)
    assert bell.isfinite().all()
    assert abs(bell.mean()) < 0.01
    assert abs(bell.var() - 1) < 0.02
    assert abs((bell**4).mean() - 3) < 0.15
    neighbours = torch.corrcoef(torch.stack([bell[:, :-1].flatten(), bell[:, 1:].flatten()]))
    assert abs(neighbours[0, 1]) < 0.01


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 300])
def test_a_permutation_holds_every_number_once(size: int) -> None:
    for key in (0, 1, -(2**62)):
        assert sorted(permuted(torch.arange(size), size, key).tolist()) == list(range(size))


def test_a_permutation_is_uniform_and_another_for_every_key() -> None:
    size, keys = 7, 7_000
    drawn = torch.stack([permuted(torch.arange(size), size, key) for key in range(keys)])
    counts = torch.stack([torch.bincount(column, minlength=size) for column in drawn.T])
    # A standard deviation is 29: how often each number stands at each position
    assert (counts - keys / size).abs().max() < 120
    pairs = torch.bincount(size * drawn[:, 0] + drawn[:, 1], minlength=size * size).view(size, size)
    off_diagonal = pairs[~torch.eye(size, dtype=torch.bool)]
    assert (off_diagonal - keys / (size * (size - 1))).abs().max() < 65  # likewise, 13


def test_a_position_of_a_huge_permutation_costs_no_more_than_of_a_small_one() -> None:
    positions = torch.arange(256)
    drawn = permuted(positions, 10**12, 5)
    assert len(drawn.unique()) == 256
    assert drawn.min() >= 0
    assert drawn.max() < 10**12
    assert torch.equal(permuted(positions[100:], 10**12, 5), drawn[100:])
