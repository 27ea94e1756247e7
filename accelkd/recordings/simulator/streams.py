"""Random streams that depend only on the seed and on the participant or table that they are for.

Philox is counter-based (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): any position of a stream
is reached directly, so the output depends neither on the size of the cohort nor on the order or number of processes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_DRAWS_PER_COUNTER = 4  # Philox 4x64: four 64-bit draws, hence four uniform doubles, for each count
_CHUNK_SIZE = 2**15  # numbers whose arithmetic stays in the processor's cache


def uniform_rows(seed: int, first: int, rows: int, columns: int) -> F64:
    """Rows `first` to `first + rows` of an unbounded table of uniform numbers in [0, 1): `[rows, columns]`.

    `columns` must be a multiple of 4, so that every row starts at a new count. Raises ValueError otherwise.
    """
    if columns % _DRAWS_PER_COUNTER:
        raise ValueError(f"columns must be a multiple of {_DRAWS_PER_COUNTER}, not {columns}")
    bits = np.random.Philox(key=[seed, 0])
    bits.advance(first * columns // _DRAWS_PER_COUNTER)
    return np.random.Generator(bits).random((rows, columns))


def participant_stream(seed: int, participant: int, block: int) -> np.random.Generator:
    """The stream of one block of one participant's recordings."""
    return np.random.Generator(np.random.Philox(key=[seed, participant + 1], counter=[0, 0, 0, block]))


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> F32:
    """Standard normal numbers of `shape` by Box and Muller's method: about three times as fast as the generator's own.

    24 random bits for each number: the largest is 5.9.
    """
    size = math.prod(shape)
    normal = np.empty(size + size % 2, np.float32)
    for start in range(0, len(normal), _CHUNK_SIZE):
        part = normal[start : start + _CHUNK_SIZE]
        half = len(part) // 2
        words: npt.NDArray[np.uint64] = rng.bit_generator.random_raw(half)
        uniform = (words.view(np.uint32) >> np.uint32(8)).astype(np.float32)
        radius, angle = uniform[:half], uniform[half:]
        radius += np.float32(0.5)
        radius *= np.float32(2.0**-24)
        np.log(radius, out=radius)
        radius *= np.float32(-2.0)
        np.sqrt(radius, out=radius)
        angle *= np.float32(2.0 * np.pi * 2.0**-24)
        np.multiply(np.cos(angle), radius, out=part[:half])
        np.multiply(np.sin(angle), radius, out=part[half:])
    return normal[:size].reshape(shape)
