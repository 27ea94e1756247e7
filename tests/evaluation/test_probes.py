"""Ridge probes against scikit-learn, nested label fractions, and what a probe must never do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from accelkd.evaluation.probes import (
    LABEL_FRACTIONS,
    MIN_LABELS,
    PENALTIES,
    LabelledEmbeddings,
    fit_ridges,
    labelled_subsets,
    probe_segments,
)

Floats = npt.NDArray[np.float64]


def data(
    people: int, segments: int, width: int, noise: float, seed: int, name: str = "p"
) -> tuple[npt.NDArray[np.float32], Floats, npt.NDArray[np.str_]]:
    """Embeddings with correlated columns of very different size, and a target that is linear in them but for noise."""
    rng = np.random.default_rng([seed, len(name)])
    mix = np.random.default_rng(seed).standard_normal((width, width))
    x = rng.standard_normal((people * segments, width)) @ mix * np.logspace(-3, 2, width) + 50
    weights = np.random.default_rng(seed + 1).standard_normal(width) / np.logspace(-3, 2, width)
    y = 70 + (x - 50) @ weights + noise * rng.standard_normal(len(x))
    return x.astype(np.float32), y, np.array([f"{name}{i // segments}" for i in range(len(x))])


def side(name: str, people: int = 20, noise: float = 5.0, **targets: Floats) -> LabelledEmbeddings:
    x, y, participants = data(people, 8, 10, noise, 0, name)
    return LabelledEmbeddings(x, participants, targets or {"hr_bpm": y})


@settings(max_examples=15)
@given(
    people=st.integers(2, 12),
    width=st.sampled_from([1, 4, 20]),
    noise=st.sampled_from([0.01, 3.0, 300.0]),
    seed=st.integers(0, 5),
)
def test_weights_are_those_of_scikit_learn(people: int, width: int, noise: float, seed: int) -> None:
    x, y, participants = data(people, 7, width, noise, seed)
    both = np.column_stack([y, -3 * y + np.random.default_rng(seed).normal(0, 30, len(y))])
    ours = fit_ridges(x, both, participants)
    for column in (0, 1):
        theirs = make_pipeline(StandardScaler(), Ridge(alpha=ours.alphas[column]))
        theirs.fit(x.astype(np.float64), both[:, column])
        assert ours.predict(x)[:, column] == pytest.approx(theirs.predict(x.astype(np.float64)), rel=1e-5, abs=1e-3)


def test_the_penalty_is_the_one_that_a_search_over_grouped_folds_chooses() -> None:
    x, y, participants = data(people=10, segments=6, width=30, noise=40.0, seed=2)
    noisier = y + np.random.default_rng(0).normal(0, 400, len(y))
    x64 = StandardScaler().fit_transform(x.astype(np.float64))
    folds = list(GroupKFold(5).split(x64, groups=participants))
    assert len({len(train) for train, _ in folds}) == 1  # so that one alpha means one penalty per sample in every fold
    chosen = []
    for target in (y, noisier):
        search = RidgeCV(PENALTIES * len(folds[0][0]), cv=folds, scoring="neg_mean_squared_error").fit(x64, target)
        chosen.append(search.alpha_ / len(folds[0][0]))
    assert PENALTIES[0] < chosen[0] < chosen[1] < PENALTIES[-1]
    ours = fit_ridges(x, np.column_stack([y, noisier]), participants)
    assert ours.alphas / len(y) == pytest.approx(chosen)


def test_errors_are_those_of_scikit_learn_and_beat_the_constant() -> None:
    train, test = side("train"), side("test", people=9)
    probe = probe_segments(train, test)["hr_bpm", 1.0]
    known, measured, result = train.targets["hr_bpm"], test.targets["hr_bpm"], probe.result
    assert (probe.measured == measured).all()
    assert result.mae == pytest.approx(mean_absolute_error(measured, probe.predicted))
    assert result.rmse == pytest.approx(root_mean_squared_error(measured, probe.predicted))
    assert result.pearson_r == pytest.approx(np.corrcoef(measured, probe.predicted)[0, 1])
    assert result.constant_mae == pytest.approx(mean_absolute_error(measured, np.full(72, np.median(known))))
    assert result.constant_rmse == pytest.approx(root_mean_squared_error(measured, np.full(72, known.mean())))
    assert result.mae < 6 < result.constant_mae
    assert (result.train_participants, result.train_segments) == (20, 160)
    assert (result.test_participants, result.test_segments) == (9, 72)


def test_all_targets_and_fractions_at_once_are_those_of_one_at_a_time() -> None:
    """Also where targets have their labels on different segments."""
    train, test = side("train", people=40), side("test", people=9)
    rng = np.random.default_rng(0)
    targets = []
    for labelled in (train, test):
        y = labelled.targets["hr_bpm"]
        gaps = np.where(rng.random(len(y)) < 0.3, np.nan, 2 * y)
        targets.append({"hr_bpm": y, "sdnn_ms": gaps, "rmssd_ms": y[::-1].copy()})
    train, test = (LabelledEmbeddings(s.matrix, s.participants, t) for s, t in zip((train, test), targets, strict=True))
    fractions = (0.05, 0.5, 1.0)
    together = probe_segments(train, test, fractions=fractions, seed=3)
    assert list(together) == [(name, fraction) for name in train.targets for fraction in fractions]
    for (name, fraction), probe in together.items():
        rows = np.flatnonzero(np.isfinite(train.targets[name]))
        rows = rows[labelled_subsets(train.participants[rows], [fraction], seed=3)[fraction]]
        alone = LabelledEmbeddings(train.matrix[rows], train.participants[rows], {name: train.targets[name][rows]})
        expected = probe_segments(alone, LabelledEmbeddings(test.matrix, test.participants, {name: test.targets[name]}))
        assert probe.result.train_segments == len(rows) == max(MIN_LABELS, round(fraction * np.isfinite(
            train.targets[name]).sum()))  # fmt: skip
        assert probe.result.ridge_alpha == pytest.approx(expected[name, 1.0].result.ridge_alpha)
        assert probe.predicted == pytest.approx(expected[name, 1.0].predicted)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=30),
    fractions=st.lists(st.floats(1e-4, 1), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_label_fractions_are_nested_and_never_too_small(sizes: list[int], fractions: list[float], seed: int) -> None:
    participants = np.repeat([f"p{i}" for i in range(len(sizes))], sizes)
    subsets = labelled_subsets(participants, [*fractions, 1.0], seed=seed)
    smaller: set[int] = set()
    for fraction in sorted(subsets):
        rows = subsets[fraction]
        assert len(rows) == min(len(participants), max(MIN_LABELS, round(fraction * len(participants))))
        assert len(set(participants[rows])) >= 2
        assert (np.diff(rows) > 0).all()
        assert smaller <= set(rows)
        smaller = set(rows)
    assert subsets[1.0].tolist() == list(range(len(participants)))


def test_label_fractions_depend_on_the_seed_alone_and_favour_nobody() -> None:
    participants = np.repeat([f"p{i:02d}" for i in range(50)], 40)
    first, again, other = (labelled_subsets(participants, LABEL_FRACTIONS, seed=seed) for seed in (0, 0, 1))
    assert all((first[fraction] == again[fraction]).all() for fraction in LABEL_FRACTIONS)
    assert (first[0.1] != other[0.1]).any()
    assert np.mean([labelled_subsets(participants, [0.1], seed=s)[0.1].mean() for s in range(50)]) == pytest.approx(
        1000, rel=0.03
    )
    with pytest.raises(ValueError, match="not in \\(0, 1\\]"):
        labelled_subsets(participants, [0.0])
    with pytest.raises(ValueError, match="at least two training participants"):
        labelled_subsets(participants[:40], [0.1])


def test_more_labels_help() -> None:
    train, test = side("train", people=200), side("test", people=40)
    probes = probe_segments(train, test, fractions=(0.01, 0.1, 1.0))
    errors = [probes["hr_bpm", fraction].result.mae for fraction in (0.01, 0.1, 1.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.1 * errors[-1]


def test_embeddings_without_information_predict_the_mean() -> None:
    rng = np.random.default_rng(0)
    train, test = (
        LabelledEmbeddings(
            rng.standard_normal((n, 16)).astype(np.float32),
            np.array([f"{name}{i // 10}" for i in range(n)]),
            {"hr_bpm": rng.normal(70, 10, n)},
        )
        for name, n in (("p", 400), ("q", 100))
    )
    result = probe_segments(train, test)["hr_bpm", 1.0].result
    assert result.rmse == pytest.approx(result.constant_rmse, rel=0.05)


def test_a_collapsed_encoder_gives_the_constant_s_error_and_no_correlation() -> None:
    y = np.linspace(50, 90, 40)
    x = np.full((40, 8), 3.0, np.float32)
    train = LabelledEmbeddings(x, np.array([f"p{i % 4}" for i in range(40)]), {"sdnn_ms": y})
    probe = probe_segments(train, LabelledEmbeddings(x[:5], np.array(["q"] * 5), {"sdnn_ms": y[:5]}))["sdnn_ms", 1.0]
    assert probe.predicted == pytest.approx(np.full(5, y.mean()))
    assert probe.result.pearson_r is None
    assert probe.result.rmse == pytest.approx(probe.result.constant_rmse)


def test_leakage_and_empty_sides_are_refused() -> None:
    train, test = side("train"), side("test")
    with pytest.raises(ValueError, match=r"participant train0 is in training and in test \(20 such"):
        probe_segments(train, train)
    nothing = side("test", hr_bpm=np.full(160, np.nan))
    with pytest.raises(ValueError, match="probe of hr_bpm: 160 training and 0 test segments"):
        probe_segments(train, nothing)
    alone = LabelledEmbeddings(train.matrix[:8], train.participants[:8], {"hr_bpm": train.targets["hr_bpm"][:8]})
    with pytest.raises(ValueError, match="two training participants"):
        probe_segments(alone, test)
