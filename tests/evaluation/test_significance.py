"""Areas, bootstraps and tests against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, ranksums
from sklearn.metrics import roc_auc_score

from accelkd.evaluation.significance import auc, bootstrap_aucs, compare_aucs, interval, rank_sum_p_value, stars

RNG = np.random.default_rng(0)
LABELS = RNG.random(300) < 0.2
GOOD, POOR = LABELS + RNG.standard_normal(300), 0.3 * LABELS + RNG.standard_normal(300)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60).filter(
        lambda pairs: len({label for label, _ in pairs}) == 2
    )
)
def test_areas_are_those_of_scikit_learn_also_with_ties(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([a for a, _ in pairs]), np.array([b / 3 for _, b in pairs])
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_every_bootstrap_is_the_area_of_its_draw() -> None:
    scores = np.round(np.stack([GOOD, POOR]), 1)
    ours = bootstrap_aucs(LABELS, scores, bootstraps=50, seed=4)
    drawn = np.random.default_rng(4).integers(300, size=(50, 300))
    assert ours.shape == (2, 50)
    for encoder in (0, 1):
        expected = [roc_auc_score(LABELS[rows], scores[encoder, rows]) for rows in drawn]
        assert ours[encoder] == pytest.approx(expected)


def test_draws_without_both_classes_are_drawn_again() -> None:
    labels = np.arange(20) == 0
    areas = bootstrap_aucs(labels, np.arange(20.0)[None], seed=1)
    assert np.isfinite(areas).all()
    assert (areas == 0).all()


def test_the_interval_covers_the_true_area() -> None:
    """Two normal distributions one standard deviation apart: the area is Φ(1/√2) = 0.760."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = np.arange(200) < 60
        low, high = interval(bootstrap_aucs(labels, (labels + rng.standard_normal(200))[None], seed=seed)[0])
        covered += low < 0.760 < high
    assert 88 <= covered <= 99


def test_the_rank_sum_test_is_scipys() -> None:
    a, b = RNG.normal(0.1, 1, 200), RNG.normal(0, 1, 200)
    assert rank_sum_p_value(a, b) == pytest.approx(ranksums(a, b, alternative="greater").pvalue, rel=1e-2)
    a, b = np.round(a, 1), np.round(b, 1)
    assert rank_sum_p_value(a, b) == mannwhitneyu(a, b, alternative="greater", method="asymptotic").pvalue
    assert rank_sum_p_value(b, a) == pytest.approx(1 - rank_sum_p_value(a, b), abs=1e-3)
    assert rank_sum_p_value(np.ones(200), np.ones(200)) == 1


@pytest.mark.parametrize(
    ("p_value", "mark"),
    [(4.9e-4, "***"), (5e-4, "**"), (4.9e-3, "**"), (5e-3, "*"), (4.9e-2, "*"), (5e-2, "n.s."), (1.0, "n.s.")],
)
def test_stars_are_the_papers(p_value: float, mark: str) -> None:
    assert stars(p_value) == mark


def test_a_better_encoder_is_distinguished_from_a_poor_one_and_not_from_itself() -> None:
    better = compare_aucs(LABELS, GOOD, POOR)
    assert better.stars == "***"
    assert 0 < better.difference_low < better.difference < better.difference_high
    assert better.difference == pytest.approx(roc_auc_score(LABELS, GOOD) - roc_auc_score(LABELS, POOR))
    reverse = compare_aucs(LABELS, POOR, GOOD)
    assert reverse.stars == "n.s."
    assert reverse.difference_high == pytest.approx(-better.difference_low)
    same = compare_aucs(LABELS, GOOD, 2 * GOOD + 1)  # an area knows order alone
    assert (same.stars, same.difference, same.difference_low, same.difference_high) == ("n.s.", 0, 0, 0)


def test_pairing_narrows_the_interval() -> None:
    """Two encoders that err on the same people: their difference varies less than either area does."""
    close = GOOD + 0.05 * RNG.standard_normal(300)
    comparison = compare_aucs(LABELS, GOOD, close)
    areas = bootstrap_aucs(LABELS, GOOD[None])[0]
    assert comparison.difference_high - comparison.difference_low < 0.3 * float(np.subtract(*interval(areas)[::-1]))


def test_the_rank_sum_test_is_anti_conservative_where_the_interval_is_not() -> None:
    """Encoders of the same worth: the paper's test tells them apart far too often, the interval about as it should."""

    def worthless(rng: np.random.Generator) -> npt.NDArray[np.float64]:
        return LABELS + rng.standard_normal(300)

    comparisons = [
        compare_aucs(LABELS, worthless(rng), worthless(rng), seed=seed)
        for seed, rng in ((seed, np.random.default_rng([9, seed])) for seed in range(60))
    ]
    starred = sum(comparison.stars != "n.s." for comparison in comparisons)
    excluded = sum(not comparison.difference_low <= 0 <= comparison.difference_high for comparison in comparisons)
    assert starred > 20
    assert excluded <= 8


def test_one_class_has_no_area() -> None:
    for labels in (np.ones(3, bool), np.zeros(3, bool)):
        with pytest.raises(ValueError, match="needs both classes, but all 3 labels"):
            auc(labels, np.arange(3.0))
        with pytest.raises(ValueError, match="needs both classes"):
            bootstrap_aucs(labels, np.arange(3.0)[None])
