"""Probes of participants against scikit-learn, and targets that cannot be measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from accelkd.evaluation.participant_probes import (
    TARGET_LABELS,
    mean_embeddings,
    participant_targets,
    probe_participants,
)
from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.recordings.schema import SURVEY_TARGET
from accelkd.recordings.survey import TARGETS as HEALTH_TARGETS

WEIGHTS = np.random.default_rng(0).standard_normal(8)


def people(name: str, number: int, **given: npt.NDArray[np.float64]) -> LabelledEmbeddings:
    """Embeddings that hold age and, more faintly, a condition; `given` replaces targets."""
    rng = np.random.default_rng([*name.encode()])
    x = rng.standard_normal((number, 8))
    age = 50 + 10 * x @ WEIGHTS + rng.normal(0, 5, number)
    ill = (x @ WEIGHTS + rng.normal(0, 2, number) > 1).astype(float)
    unknown = np.where(rng.random(number) < 0.3, np.nan, ill)
    targets = {"age": age, "diabetes": ill, "asthma": unknown} | given
    return LabelledEmbeddings(x.astype(np.float32), np.array([f"{name}{i:03d}" for i in range(number)]), targets)


def test_errors_and_areas_are_those_of_scikit_learn() -> None:
    train, test = people("train", 300), people("test", 120)
    probes = probe_participants(train, test)
    assert list(probes) == ["age", "diabetes", "asthma"]
    for target, probe in probes.items():
        known, asked = np.isfinite(train.targets[target]), np.isfinite(test.targets[target])
        y, measured, result = train.targets[target][known], test.targets[target][asked], probe.result
        model = make_pipeline(StandardScaler(), Ridge(alpha=result.ridge_alpha)).fit(train.matrix[known], y)
        predicted = model.predict(test.matrix[asked])
        assert probe.predicted == pytest.approx(predicted, rel=1e-4, abs=1e-4)
        assert (probe.measured == measured).all()
        assert (probe.participants == test.participants[asked]).all()
        assert (result.train_participants, result.test_participants) == (known.sum(), asked.sum())
        if target == "age":
            assert result.mae == pytest.approx(mean_absolute_error(measured, predicted), rel=1e-4)
            constant_mae = mean_absolute_error(measured, np.full(120, np.median(y)))
            assert result.constant_mae == pytest.approx(constant_mae)
            assert result.mae is not None
            assert result.mae < 0.5 * constant_mae
            assert (result.unit, result.auc, result.test_yes) == ("years", None, None)
        else:
            assert result.auc == pytest.approx(roc_auc_score(measured, predicted))
            assert result.auc is not None
            assert result.auc_low is not None
            assert result.auc_high is not None
            assert 0.5 < result.auc_low < result.auc < result.auc_high < 1
            assert (result.status, result.not_decidable) == ("decidable", None)
            assert (result.train_yes, result.train_no) == (y.sum(), (1 - y).sum())
            assert (result.test_yes, result.test_no) == (measured.sum(), (1 - measured).sum())
            assert result.mae is None


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ([0.0] * 30, [0.0, 1.0] * 10, "constant: all 30 in training are no"),
        ([0.0, 1.0] * 15, [1.0] * 20, "constant: all 20 in test are yes"),
        ([np.nan] * 30, [0.0, 1.0] * 10, "too few people: 0 with a value in training"),
        ([np.nan] * 29 + [1.0], [0.0, 1.0] * 10, "constant: all 1 in training are yes"),
        ([0.0, 1.0] * 15, [np.nan] * 20, "too few people: 0 with a value in test"),
        ([0.0] * 21 + [1.0] * 9, [0.0, 1.0] * 10, "too few people: 9 yes in training, 10 are needed"),
        ([0.0, 1.0] * 15, [1.0] * 11 + [0.0] * 9, "too few people: 9 no in test, 10 are needed"),
    ],
)
def test_what_cannot_be_decided_is_said_with_its_reason(train: list[float], test: list[float], reason: str) -> None:
    sides = people("train", 30, liver=np.array(train)), people("test", 20, liver=np.array(test))
    result = probe_participants(*sides)["liver"].result
    assert (result.status, result.not_decidable) == ("not_decidable", reason)
    assert result.auc is None
    possible = {0.0, 1.0} <= set(train) and {0.0, 1.0} <= set(test)
    assert (result.auc_low is not None) == possible


def test_one_person_is_no_evidence_however_well_they_rank() -> None:
    """The only person with yes in test has the highest score of all: an area of 1, which says next to nothing."""
    train, test = people("train", 300), people("test", 60)
    best = np.argmax(test.matrix @ WEIGHTS)
    test = people("test", 60, diabetes=(np.arange(60) == best).astype(float))
    probe = probe_participants(train, test)["diabetes"]
    assert probe.area == 1
    assert probe.result.auc is None
    assert probe.result.not_decidable == "too few people: 1 yes in test, 10 are needed"
    assert probe.result.auc_low is not None
    assert probe.result.auc_low < 0.25
    assert len(probe.predicted) == 60


def test_an_interval_that_reaches_from_a_coin_to_perfection_decides_nothing() -> None:
    train, test = people("train", 300), people("test", 20)
    useless = np.tile([0.0, 1.0], 10)[np.argsort(np.argsort(test.matrix @ WEIGHTS))]  # every other person by score
    result = probe_participants(train, people("test", 20, diabetes=useless))["diabetes"].result
    assert result.not_decidable is not None
    assert result.not_decidable.startswith("interval too wide: 0.2")


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        (0, 20, "too few people: 0 with a value in training, 10 are needed"),
        (9, 20, "too few people: 9 with a value in training, 10 are needed"),
        (30, 1, "too few people: 1 with a value in test, 10 are needed"),
        (30, 20, None),
    ],
)
def test_an_error_of_few_people_is_not_decidable_either(train: int, test: int, reason: str | None) -> None:
    def known(number: int, age: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(np.arange(len(age)) < number, age, np.nan)

    train_side, test_side = people("train", 30), people("test", 20)
    probes = probe_participants(
        people("train", 30, age=known(train, train_side.targets["age"])),
        people("test", 20, age=known(test, test_side.targets["age"])),
    )
    result = probes["age"].result
    assert (result.status == "decidable") == (reason is None)
    assert result.not_decidable == reason
    assert (result.mae_low is None) == (not train or test < 2)
    assert (result.test_participants, len(probes["age"].predicted)) == (test, test if train else 0)


def test_leakage_is_refused() -> None:
    with pytest.raises(ValueError, match="participant train000 is in training and in test"):
        probe_participants(people("train", 20), people("train", 20))


def test_embeddings_are_averaged_by_participant() -> None:
    rng = np.random.default_rng(0)
    participants = rng.choice(["b", "a", "c"], 50)
    x = rng.standard_normal((50, 4)).astype(np.float32)
    names, means = mean_embeddings(x, participants)
    assert names.tolist() == ["a", "b", "c"]
    for name, mean in zip(names, means, strict=True):
        assert mean == pytest.approx(x[participants == name].mean(axis=0, dtype=float))


def test_targets_are_those_of_the_tables_for_the_people_asked_for() -> None:
    demographics = pa.table(
        {
            "participant_id": ["a", "b", "c", "b"],
            "sex": ["male", "female", None, None],
            "age_years": [40.0, 50.0, 60.0, 51.0],
            "bmi_kg_m2": [None, 22.5, 30.0, None],
        }
    )
    health = pa.Table.from_pylist(
        [
            {"participant_id": "a", "target": "diabetes", "value": True},
            {"participant_id": "b", "target": "diabetes", "value": False},
            {"participant_id": "b", "target": "asthma", "value": None},
            {"participant_id": "z", "target": "asthma", "value": True},
        ],
        SURVEY_TARGET.arrow(),
    )
    targets = participant_targets(demographics, health, ["c", "b", "a"])
    assert list(targets) == list(TARGET_LABELS) == ["age", "bmi", "sex", *HEALTH_TARGETS]
    nan = np.nan
    for name, expected in {
        "age": [60, 51, 40],
        "bmi": [30, 22.5, nan],
        "sex": [nan, 0, 1],
        "diabetes": [nan, 0, 1],
        "asthma": [nan] * 3,
        "cancer": [nan] * 3,
    }.items():
        np.testing.assert_array_equal(targets[name], expected, err_msg=name)
