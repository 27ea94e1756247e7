"""Ridge probes against scikit-learn, and what a probe must never do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from accelkd.evaluation.probes import PENALTIES, fit_ridge, probe

Data = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], list[str]]


def data(people: int, segments: int, width: int, noise: float, seed: int, name: str = "p") -> Data:
    """Embeddings with correlated columns of very different size, and a target that is linear in them but for noise."""
    rng = np.random.default_rng([seed, len(name)])
    mix = np.random.default_rng(seed).standard_normal((width, width))
    x = rng.standard_normal((people * segments, width)) @ mix * np.logspace(-3, 2, width) + 50
    weights = np.random.default_rng(seed + 1).standard_normal(width) / np.logspace(-3, 2, width)
    y = 70 + (x - 50) @ weights + noise * rng.standard_normal(len(x))
    return x.astype(np.float32), y, [f"{name}{i // segments}" for i in range(len(x))]


@settings(max_examples=15, deadline=None)
@given(
    people=st.integers(2, 12),
    width=st.sampled_from([1, 4, 20]),
    noise=st.sampled_from([0.01, 3.0, 300.0]),
    seed=st.integers(0, 5),
)
def test_weights_are_those_of_scikit_learn(people: int, width: int, noise: float, seed: int) -> None:
    x, y, participants = data(people, 7, width, noise, seed)
    ours = fit_ridge(x, y, participants)
    theirs = make_pipeline(StandardScaler(), Ridge(alpha=ours.alpha)).fit(x.astype(np.float64), y)
    assert ours.predict(x) == pytest.approx(theirs.predict(x.astype(np.float64)), rel=1e-5, abs=1e-3)


def test_the_penalty_is_the_one_that_a_search_over_grouped_folds_chooses() -> None:
    x, y, participants = data(people=11, segments=6, width=30, noise=40.0, seed=2)
    x64 = StandardScaler().fit_transform(x.astype(np.float64))
    groups = np.unique(participants, return_inverse=True)[1]
    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for train, held in GroupKFold(5).split(x64, groups=groups):
            model = Ridge(alpha=penalty * len(train)).fit(x64[train], y[train])
            total += float(np.square(model.predict(x64[held]) - y[held]).sum())
        errors.append(total)
    best = int(np.argmin(errors))
    assert 0 < best < len(PENALTIES) - 1
    assert fit_ridge(x, y, participants).alpha == pytest.approx(PENALTIES[best] * len(y))


def test_errors_are_those_of_scikit_learn_and_beat_the_constant() -> None:
    train, test = data(20, 8, 10, 5.0, 0, "train"), data(9, 8, 10, 5.0, 0, "test")
    result, predicted = probe("hr_bpm", train, test)
    assert result.mae == pytest.approx(mean_absolute_error(test[1], predicted))
    assert result.rmse == pytest.approx(root_mean_squared_error(test[1], predicted))
    assert result.pearson_r == pytest.approx(np.corrcoef(test[1], predicted)[0, 1])
    assert result.constant_mae == pytest.approx(mean_absolute_error(test[1], np.full(72, np.median(train[1]))))
    assert result.constant_rmse == pytest.approx(root_mean_squared_error(test[1], np.full(72, train[1].mean())))
    assert result.mae < 6 < result.constant_mae
    assert (result.train_participants, result.train_segments) == (20, 160)
    assert (result.test_participants, result.test_segments) == (9, 72)


def test_embeddings_without_information_predict_the_mean() -> None:
    rng = np.random.default_rng(0)
    people = [f"p{i // 10}" for i in range(400)]
    x = rng.standard_normal((400, 16)).astype(np.float32)
    y = rng.normal(70, 10, 400)
    result, _ = probe("hr_bpm", (x, y, people), (x[:100], rng.normal(70, 10, 100), ["q"] * 100))
    assert result.rmse == pytest.approx(result.constant_rmse, rel=0.05)


def test_a_collapsed_encoder_gives_the_constant_s_error_and_no_correlation() -> None:
    y = np.linspace(50, 90, 40)
    x = np.full((40, 8), 3.0, np.float32)
    people = [f"p{i % 4}" for i in range(40)]
    result, predicted = probe("sdnn_ms", (x, y, people), (x[:5], y[:5], ["q"] * 5))
    assert predicted == pytest.approx(np.full(5, y.mean()))
    assert result.pearson_r is None
    assert result.rmse == pytest.approx(result.constant_rmse)


def test_leakage_and_empty_sides_are_refused() -> None:
    x, y, people = data(4, 5, 3, 1.0, 0)
    with pytest.raises(ValueError, match="in training and in test"):
        probe("hr_bpm", (x, y, people), (x, y, people))
    with pytest.raises(ValueError, match="20 training and 0 test segments"):
        probe("hr_bpm", (x, y, people), (x[:0], y[:0], []))
    with pytest.raises(ValueError, match="two training participants"):
        fit_ridge(x[:5], y[:5], people[:5])
