"""Effective rank on embeddings whose number of directions is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from accelkd.evaluation.collapse import effective_rank

RNG = np.random.default_rng(0)


def test_it_is_the_exponential_of_the_entropy_of_the_singular_values() -> None:
    x = (RNG.standard_normal((20_000, 12)) * np.logspace(0, -2, 12) + 7).astype(np.float32)  # more than a chunk
    singular = np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), compute_uv=False)
    assert effective_rank(x) == pytest.approx(np.exp(entropy(singular)), rel=1e-4)


@pytest.mark.parametrize("directions", [1, 2, 8])
def test_equal_directions_are_counted(directions: int) -> None:
    x = np.zeros((5_000, 8))
    x[:, :directions] = RNG.standard_normal((5_000, directions))
    assert effective_rank(x @ np.linalg.qr(RNG.standard_normal((8, 8)))[0] + 3) == pytest.approx(directions, rel=0.02)


def test_a_collapsed_encoder_has_none() -> None:
    assert effective_rank(np.full((50, 7), 3.3, np.float32)) == 0
    assert effective_rank(np.zeros((5, 4), np.float32)) == 0
    nearly = (3.3 + 1e-7 * RNG.standard_normal((50, 7))).astype(np.float32)  # float32's own rounding
    assert effective_rank(nearly) == 0
