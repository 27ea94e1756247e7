"""Readouts: values and intervals that hold for people who were not fitted on, and files that give them back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelkd.evaluation.participant_probes import mean_embeddings, probe_participants
from accelkd.evaluation.probes import LabelledEmbeddings, probe_segments
from accelkd.evaluation.readouts import READOUTS, Readouts, fit_readouts, predict, read_readouts, write_readouts
from accelkd.home.files import DamagedFileError

WIDTH = 12
DIRECTIONS = np.random.default_rng(0).standard_normal((WIDTH, 3))
BATCHES = {"b1": "v1"}


def cohort(seed: int, people: int, minutes: int = 6) -> tuple[LabelledEmbeddings, LabelledEmbeddings]:
    """People whose heart rate is linear in the embedding, with an error that one direction of it widens."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"{seed}-{number:04d}" for number in range(people)], minutes)
    x = rng.standard_normal((len(names), WIDTH)) + np.repeat(rng.standard_normal((people, WIDTH)), minutes, axis=0)
    error = np.exp(0.7 * x[:, 0]) * rng.standard_normal(len(names))
    segments = {"hr_bpm": 70 + 3 * x @ DIRECTIONS[:, 0] + error, "sdnn_ms": np.full(len(names), np.nan)}
    ids, means = mean_embeddings(x.astype(np.float32), names)
    age = 50 + 5 * means @ DIRECTIONS[:, 1] + 2 * rng.standard_normal(people)
    male = (means @ DIRECTIONS[:, 2] + rng.standard_normal(people) > 0).astype(float)
    rare = np.zeros(people)
    rare[:3] = 1.0
    return (
        LabelledEmbeddings(x.astype(np.float32), names, segments),
        LabelledEmbeddings(means, ids, {"age": age, "sex": male, "diabetes": rare}),
    )


@pytest.fixture(scope="module")
def fitted() -> Readouts:
    return fit_readouts("accel_student", "m", *cohort(1, 150), BATCHES)


def test_nine_of_ten_measurements_of_other_people_are_inside(fitted: Readouts) -> None:
    segments, people = cohort(2, 1500)
    for target, side in (("hr_bpm", segments), ("age", people)):
        read = predict(fitted.of[target], side.matrix)
        measured = side.targets[target]
        assert ((read.low <= measured) & (measured <= read.high)).mean() == pytest.approx(0.9, abs=0.03)
        assert (read.low <= read.value).all()
        assert (read.value <= read.high).all()


def test_an_interval_is_wide_where_the_error_is_large(fitted: Readouts) -> None:
    segments, _ = cohort(2, 1500)
    read = predict(fitted.of["hr_bpm"], segments.matrix)
    width, measured = read.high - read.low, segments.targets["hr_bpm"]
    order = np.argsort(segments.matrix[:, 0])
    narrow, wide = order[: len(order) // 4], order[-len(order) // 4 :]
    assert width[wide].mean() > 3 * width[narrow].mean()
    for rows in (narrow, wide):
        inside = (read.low[rows] <= measured[rows]) & (measured[rows] <= read.high[rows])
        assert inside.mean() == pytest.approx(0.9, abs=0.1)


def test_values_are_those_of_the_probes(fitted: Readouts) -> None:
    (train, train_people), (test, test_people) = cohort(1, 150), cohort(2, 40)
    hr = {
        side: LabelledEmbeddings(of.matrix, of.participants, {"hr_bpm": of.targets["hr_bpm"]})
        for side, of in (("train", train), ("test", test))
    }
    probe = probe_segments(hr["train"], hr["test"])["hr_bpm", 1.0]
    low, high = fitted.of["hr_bpm"].label_range
    np.testing.assert_allclose(predict(fitted.of["hr_bpm"], test.matrix).value, probe.predicted.clip(low, high))
    age = probe_participants(train_people, test_people)["age"]
    low, high = fitted.of["age"].label_range
    np.testing.assert_allclose(predict(fitted.of["age"], test_people.matrix).value, age.predicted.clip(low, high))


def test_yes_or_no_is_a_probability_without_an_interval(fitted: Readouts) -> None:
    _, people = cohort(2, 1500)
    read = predict(fitted.of["sex"], people.matrix)
    assert ((read.value > 0) & (read.value < 1)).all()
    assert np.isnan(read.low).all()
    likely = read.value > 0.8
    assert people.targets["sex"][likely].mean() == pytest.approx(read.value[likely].mean(), abs=0.06)
    assert fitted.of["sex"].held_out > 0.7
    assert fitted.of["sex"].reads


def test_too_few_people_have_no_readout(fitted: Readouts) -> None:
    assert "diabetes" not in fitted.of  # three have it
    assert "sdnn_ms" not in fitted.of  # nobody has a label
    with pytest.raises(ValueError, match="no target has the labels of 10 training participants"):
        fit_readouts("accel_student", "m", *cohort(3, 9), BATCHES)


def test_no_value_lies_beyond_the_labels_and_no_bound_below_zero(fitted: Readouts) -> None:
    far = np.random.default_rng(4).normal(0, 100, (200, WIDTH))
    read = predict(fitted.of["hr_bpm"], far)
    low, high = fitted.of["hr_bpm"].label_range
    assert ((read.value >= low) & (read.value <= high)).all()
    assert (read.low >= 0).all()


def test_what_is_unlike_training_is_known_as_such(fitted: Readouts) -> None:
    segments, _ = cohort(2, 300)
    assert fitted.typical.contains(segments.matrix).mean() > 0.9
    assert not fitted.typical.contains(10 * segments.matrix).any()


def test_a_file_gives_back_what_was_fitted_and_equal_fits_are_equal_bytes(fitted: Readouts, tmp_path: Path) -> None:
    write_readouts(fitted, tmp_path)
    content = (tmp_path / READOUTS).read_bytes()
    read = read_readouts(tmp_path)
    assert (read.readout_id, read.encoder, read.model_id, read.batches) == (
        fitted.readout_id,
        "accel_student",
        "m",
        BATCHES,
    )
    x = cohort(2, 20)[0].matrix
    for target, readout in fitted.of.items():
        np.testing.assert_array_equal(predict(readout, x).value, predict(read.of[target], x).value)
        np.testing.assert_array_equal(predict(readout, x).high, predict(read.of[target], x).high)
    again = fit_readouts("accel_student", "m", *cohort(1, 150), BATCHES)
    write_readouts(again, tmp_path)
    assert (tmp_path / READOUTS).read_bytes() == content
    assert fit_readouts("accel_student", "m", *cohort(5, 150), BATCHES).readout_id != fitted.readout_id


def test_a_damaged_file_is_told_apart_from_none(fitted: Readouts, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="its readouts have not been fitted"):
        read_readouts(tmp_path)
    write_readouts(fitted, tmp_path)
    path = tmp_path / READOUTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedFileError, match=READOUTS):
        read_readouts(tmp_path)
