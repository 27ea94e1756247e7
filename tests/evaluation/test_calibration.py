"""Probabilities of yes: between 0 and 1, in the order of the scores, and about as often right as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import Ridge

from accelkd.evaluation.calibration import probabilities
from accelkd.evaluation.participant_probes import probe_participants
from accelkd.evaluation.probes import LabelledEmbeddings, held_out_predictions
from accelkd.evaluation.significance import auc

WEIGHTS = np.random.default_rng(0).standard_normal(16) / 2


def side(name: str, people: int, strength: float = 1.0) -> LabelledEmbeddings:
    """A condition that about one person in ten has, more often along one direction of the embedding."""
    rng = np.random.default_rng([*name.encode()])
    x = rng.standard_normal((people, 16))
    ill = rng.random(people) < expit(strength * x @ WEIGHTS - 3)
    names = np.array([f"{name}{i:05d}" for i in range(people)])
    return LabelledEmbeddings(x.astype(np.float32), names, {"af": ill.astype(float)})


@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_probabilities_are_in_order_and_as_often_right_as_they_say(strength: float) -> None:
    train, test = side("train", 6000, strength), side("test", 4000, strength)
    probe = probe_participants(train, test)["af"]
    probability = probabilities(probe, train)
    assert (probability > 0).all()
    assert (probability < 1).all()
    assert auc(probe.measured == 1, probability) == pytest.approx(probe.area, abs=1e-12)
    assert probability.mean() == pytest.approx(probe.measured.mean(), abs=0.03)
    likely = probability >= np.quantile(probability, 0.9)
    assert probability[likely].mean() == pytest.approx(probe.measured[likely].mean(), abs=0.08)


def test_probabilities_are_closer_to_the_answers_than_the_scores() -> None:
    train, test = side("train", 800), side("test", 4000)
    probe = probe_participants(train, test)["af"]
    brier = np.square(probabilities(probe, train) - probe.measured).mean()
    assert brier < np.square(np.clip(probe.predicted, 0, 1) - probe.measured).mean()
    assert brier < np.square(probe.measured.mean() - probe.measured).mean()


def test_a_handful_of_people_makes_nobody_certain() -> None:
    train = side("train", 40)
    few = LabelledEmbeddings(train.matrix, train.participants, {"af": (np.arange(40) < 1).astype(float)})
    probability = probabilities(probe_participants(few, side("test", 100))["af"], few)
    assert probability.min() > 0.001
    assert probability.max() < 0.9


def test_what_was_not_fitted_has_no_probability() -> None:
    train = side("train", 40)
    nobody = LabelledEmbeddings(train.matrix, train.participants, {"af": np.zeros(40)})
    assert len(probabilities(probe_participants(nobody, side("test", 100))["af"], nobody)) == 0


def test_a_fold_is_predicted_without_itself() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.standard_normal(60)
    folds = np.arange(60) % 3
    predicted = held_out_predictions(x, y, folds, alpha=6.0)
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)
    for fold in range(3):
        model = Ridge(alpha=4.0).fit(standardised[folds != fold], y[folds != fold])  # 6 of 60 samples is 4 of 40
        assert predicted[folds == fold] == pytest.approx(model.predict(standardised[folds == fold]))
