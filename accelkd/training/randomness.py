"""Random numbers as a pure function of (seed, step, sample): no state to carry, no dependence on workers.

A key is a 64-bit integer; draws are splitmix64 outputs of key and counter (Steele, Lea and Flood, 2014, "Fast
splittable pseudorandom number generators"). They are the same on every device and for every batch layout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer, likewise below
_FEISTEL_ROUNDS = 6
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64; int64 products wrap around, shifts are made logical by masking."""
    z = (z ^ ((z >> 30) & 0x3_FFFF_FFFF)) * _MIX_1
    z = (z ^ ((z >> 27) & 0x1F_FFFF_FFFF)) * _MIX_2
    return z ^ ((z >> 31) & 0x1_FFFF_FFFF)


def derive(keys: Tensor, number: int | Tensor) -> Tensor:
    """New keys `[...]`, one for each key and number (broadcast): an independent stream for each purpose."""
    if isinstance(number, int):
        return _mix(keys + _signed((number + 1) * _GAMMA))
    return _mix(keys + (number + 1) * _GAMMA)


def _signed(number: int) -> int:
    """The 64-bit two's complement value of an integer: Python integers do not wrap around."""
    return (number + 2**63) % 2**64 - 2**63


def step_keys(seed: int, step: int, count: int) -> Tensor:
    """The keys `[count]` (int64, on the CPU) of the samples of one training step."""
    root = derive(derive(torch.zeros((), dtype=torch.int64), seed), step)
    return derive(root, torch.arange(count))


def bits(keys: Tensor, count: int) -> Tensor:
    """`[keys, count]` random 64-bit integers."""
    return derive(keys[:, None], torch.arange(count, device=keys.device))


def uniform(keys: Tensor, count: int) -> Tensor:
    """`[keys, count]` float32 numbers uniform on [0, 1)."""
    return ((bits(keys, count) >> 40) & 0xFF_FFFF).float() * 2**-24


def normal(keys: Tensor, count: int) -> Tensor:
    """`[keys, count]` float32 numbers of the standard normal distribution (Box and Muller, two from each integer)."""
    pairs = bits(keys, (count + 1) // 2)
    radius = torch.sqrt(-2 * torch.log((((pairs >> 40) & 0xFF_FFFF).float() + 1) * 2**-24))
    angle = (pairs & 0xFF_FFFF).float() * (2 * math.pi * 2**-24)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]


def permuted(positions: Tensor, size: int, key: int) -> Tensor:
    """Elements at `positions` (int64, in [0, size)) of a random permutation of 0 to size − 1.

    A Feistel network over a grid just larger than the range, repeated while the result is out of range (Black and
    Rogaway, 2002, "Ciphers with arbitrary finite domains"): the cost of a position does not depend on the size.
    """
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    rounds = derive(torch.tensor(key), torch.arange(_FEISTEL_ROUNDS))
    out = positions.clone()
    out_of_range = torch.ones_like(out, dtype=torch.bool)
    while bool(out_of_range.any()):
        row, column = out[out_of_range] // columns, out[out_of_range] % columns
        for number in range(0, _FEISTEL_ROUNDS, 2):
            row = (row + derive(rounds[number], column) % rows) % rows
            column = (column + derive(rounds[number + 1], row) % columns) % columns
        out[out_of_range] = row * columns + column
        out_of_range = out >= size
    return out
