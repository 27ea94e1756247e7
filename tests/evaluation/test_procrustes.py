"""Procrustes alignment against SciPy and on planted transforms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from accelkd.evaluation.procrustes import fit_alignment, padded
from accelkd.evaluation.retrieval import retrieve

RNG = np.random.default_rng(0)


def embeddings(number: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((number, width)) * np.linspace(1, 3, width) + 5).astype(np.float32)


@settings(max_examples=20)
@given(seed=st.integers(0, 100), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_a_planted_transform_is_undone_on_new_embeddings(seed: int, scale: float, shift: float) -> None:
    turned = ortho_group.rvs(12, random_state=seed)
    moved, new = embeddings(200, 12), embeddings(50, 12, seed=1)
    alignment = fit_alignment(moved, moved @ turned * scale + shift)
    assert alignment.scale == pytest.approx(scale, rel=1e-4)
    assert alignment.rotation == pytest.approx(turned, abs=1e-3)
    assert alignment.apply(new) == pytest.approx(new @ turned * scale + shift, rel=1e-3, abs=1e-3 * scale)


def test_noisy_pairs_are_aligned_as_by_scipy() -> None:
    moved, target = embeddings(300, 8), embeddings(300, 8, seed=1)
    a, b = moved.astype(float) - moved.mean(0, float), target.astype(float) - target.mean(0, float)
    rotation, norm = orthogonal_procrustes(a, b)
    alignment = fit_alignment(moved, target)
    assert alignment.rotation == pytest.approx(rotation, abs=1e-6)
    assert alignment.scale == pytest.approx(norm / np.square(a).sum())
    left = np.square(alignment.apply(moved) - target).sum()
    assert left == pytest.approx(np.square(b).sum() - norm**2 / np.square(a).sum(), rel=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [(6, 10), (10, 6)])
def test_the_narrower_space_is_padded_with_zeros(ours: int, theirs: int) -> None:
    moved, target = embeddings(100, ours), embeddings(100, theirs, seed=1)
    uneven, even = fit_alignment(moved, target), fit_alignment(padded(moved, 10), padded(target, 10))
    assert uneven.apply(moved) == pytest.approx(even.apply(padded(moved, 10)), abs=1e-4)
    assert uneven.apply(moved).shape == (100, 10)


def test_alignment_finds_a_turned_copy_and_cannot_find_what_is_not_there() -> None:
    turned = ortho_group.rvs(16, random_state=0)
    ppg = embeddings(600, 16)
    accel = (ppg @ turned * 0.2 - 3 + 0.02 * RNG.standard_normal(ppg.shape)).astype(np.float32)
    people = [f"p{i // 10}" for i in range(300)]
    aligned = fit_alignment(accel[300:], ppg[300:]).apply(accel[:300])
    assert retrieve(accel[:300], ppg[:300], people, pools=5).mean_rank > 10
    assert retrieve(aligned, ppg[:300], people, pools=5).mean_rank < 1.1
    unrelated = embeddings(600, 16, seed=7)
    aligned = fit_alignment(unrelated[300:], ppg[300:]).apply(unrelated[:300])
    result = retrieve(aligned, ppg[:300], people, pools=20)
    assert result.mean_rank > 0.8 * result.chance_mean_rank


def test_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="3 source and 2 target rows"):
        fit_alignment(embeddings(3, 4), embeddings(2, 4))
    collapsed = fit_alignment(np.full((5, 4), 2.0), embeddings(5, 4))
    assert np.isfinite(collapsed.apply(np.full((5, 4), 2.0))).all()
