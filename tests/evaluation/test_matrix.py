"""Matrices in files give the results of arrays in memory, whatever the chunks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from accelkd.evaluation import matrix as matrices
from accelkd.evaluation.collapse import effective_rank
from accelkd.evaluation.matrix import StoredMatrix, chunks, mean_and_scale, store
from accelkd.evaluation.participant_probes import mean_embeddings
from accelkd.evaluation.probes import (
    LabelledEmbeddings,
    fit_ridges,
    grouped_folds,
    held_out_predictions,
    probe_segments,
)
from accelkd.evaluation.readouts import fit_readouts
from accelkd.evaluation.retrieval import retrieve


def correlated(rows: int, width: int, seed: int) -> npt.NDArray[np.float32]:
    """Columns of very different size about a common level, one of them constant."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width)) @ rng.standard_normal((width, width)) * np.logspace(-3, 2, width) + 50
    x[:, width // 2] = 3.3
    return x.astype(np.float32)


def in_a_file(x: npt.NDArray[np.float32], seed: int) -> StoredMatrix:
    """The same matrix, whose rows lie in another order."""
    order = np.random.default_rng(seed).permutation(len(x))
    parts = [(places, x[order][places]) for places in np.array_split(np.arange(len(x))[::-1], 3)]
    return store(parts, (len(x), x.shape[1])).take(np.argsort(order))


@pytest.fixture
def chunk_size(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the number of rows of a chunk."""
    return lambda size: monkeypatch.setattr(matrices.chunks, "__defaults__", (None, size))


def test_a_stored_matrix_is_read_as_an_array(tmp_path: Path) -> None:
    x = correlated(50, 6, 0)
    stored = store([(np.arange(20, 50), x[20:]), (np.arange(20)[::-1], x[:20][::-1])], (50, 6), tmp_path)
    assert list(tmp_path.iterdir()) == []  # it has no name: nothing of it is left where a process dies
    view = stored.take(np.array([4, 4, 0, 49]))
    assert (view.shape, len(view)) == ((4, 6), 4)
    np.testing.assert_array_equal(view[:], x[[4, 4, 0, 49]])
    np.testing.assert_array_equal(view[np.array([True, False, False, True])], x[[4, 49]])
    np.testing.assert_array_equal(view.take(np.array([3]))[1:], x[:0])
    assert store([], (0, 6)).shape == (0, 6)
    read = [which.tolist() for which, _ in chunks(stored, np.arange(9)[::-1], 4)]
    assert read == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 9), stored=st.booleans())
def test_chunks_cover_each_sample_once(rows: int, size: int, seed: int, stored: bool) -> None:
    x = correlated(80, 3, seed)
    wanted = np.random.default_rng(seed).integers(80, size=rows)
    seen = np.full((rows, 3), np.nan)
    for which, part in chunks(in_a_file(x, seed) if stored else x, wanted, size):
        assert len(which) <= size
        assert np.isnan(seen[which]).all()
        seen[which] = part
    np.testing.assert_array_equal(seen, x[wanted])


@settings(max_examples=12, deadline=None)
@given(people=st.integers(2, 9), seed=st.integers(0, 5), size=st.sampled_from([1, 7, 64, 1000]), stored=st.booleans())
def test_probes_do_not_depend_on_the_chunks(people: int, seed: int, size: int, stored: bool) -> None:
    x = correlated(people * 9, 5, seed)
    rng = np.random.default_rng(seed)
    participants = np.array([f"p{number:02d}" for number in rng.permutation(np.arange(len(x)) % people)])
    y = np.column_stack([x[:, 0] * 3 + rng.normal(0, 5, len(x)), rng.normal(0, 1, len(x))])
    rows = np.sort(rng.permutation(len(x))[: max(len(x) * 2 // 3, 10)])
    if len(np.unique(participants[rows])) < 2:
        return
    expected = fit_ridges(x[rows].astype(np.float64), y[rows], participants[rows])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(matrices.chunks, "__defaults__", (None, size))
        data = in_a_file(x, seed) if stored else x
        numbers = np.unique(participants, return_inverse=True)[1]
        for names in (participants, numbers):
            fitted = fit_ridges(data, y[rows], names[rows], rows)
            np.testing.assert_allclose(fitted.alphas, expected.alphas)
            np.testing.assert_allclose(fitted.predict(data), expected.predict(x), rtol=1e-9)
        folds = grouped_folds(participants[rows])
        held_out = held_out_predictions(data, y[rows, 0], folds, 3.0, rows)
    plain = held_out_predictions(x[rows].astype(np.float64), y[rows, 0], folds, 3.0)
    np.testing.assert_allclose(held_out, plain, rtol=1e-9)


def test_mean_and_scale_are_numpy_s_also_far_from_zero() -> None:
    x = correlated(5_000, 9, 1).astype(np.float64) + np.logspace(0, 6, 9)
    mean, scale = mean_and_scale(x)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    expected = x.std(axis=0)
    expected[9 // 2] = 1.0  # of a constant
    np.testing.assert_allclose(scale, expected, rtol=1e-9)


def test_folds_are_those_of_scikit_learn() -> None:
    participants = np.repeat([f"p{number:03d}" for number in range(40)], np.arange(40) % 7 + 1)
    folds = grouped_folds(participants)
    for number, (_, rows) in enumerate(GroupKFold(5).split(participants, groups=participants)):
        assert (np.flatnonzero(folds == number) == rows).all()
    assert grouped_folds(["a"] * 3).tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def sides() -> tuple[LabelledEmbeddings, LabelledEmbeddings]:
    """Training and test, of which targets lack labels on different segments."""
    made = []
    for name, people, seed in (("train", 40, 0), ("test", 14, 1)):
        rng = np.random.default_rng(seed)
        x = correlated(people * 10, 6, 3)
        rate = 70 + x[:, 0] * 5 + rng.normal(0, 4, len(x))
        targets = {"hr_bpm": rate, "sdnn_ms": np.where(rng.random(len(x)) < 0.4, np.nan, rate / 2)}
        names = np.array([f"{name}{number:03d}" for number in np.arange(len(x)) % people])
        made.append(LabelledEmbeddings(x, names, targets))
    return made[0], made[1]


def stored(side: LabelledEmbeddings) -> LabelledEmbeddings:
    matrix: Any = in_a_file(side.matrix.astype(np.float32), 5)
    return replace(side, matrix=matrix)


def test_reports_and_readouts_of_stored_matrices_are_those_of_arrays(
    sides: tuple[LabelledEmbeddings, LabelledEmbeddings], chunk_size: Any
) -> None:
    train, test = sides
    people, means = mean_embeddings(train.matrix, train.participants)
    expected = probe_segments(train, test, fractions=(0.1, 1.0))
    readouts = fit_readouts("e", "m", train, LabelledEmbeddings(means, people, {}), {})
    rank = effective_rank(test.matrix)
    chunk_size(37)
    train, test = stored(train), stored(test)
    for key, probe in probe_segments(train, test, fractions=(0.1, 1.0)).items():
        np.testing.assert_allclose(probe.predicted, expected[key].predicted, rtol=1e-9)
        assert probe.result.mae == pytest.approx(expected[key].result.mae, rel=1e-9)
        assert probe.result.train_participants == expected[key].result.train_participants
    names, in_chunks = mean_embeddings(train.matrix, train.participants)
    assert names.tolist() == people.tolist()
    np.testing.assert_array_equal(in_chunks, means)  # summed in the same order
    assert effective_rank(test.matrix) == pytest.approx(rank, rel=1e-9)
    again = fit_readouts("e", "m", train, LabelledEmbeddings(means, people, {}), {})
    assert again.typical.max_distance == pytest.approx(readouts.typical.max_distance, rel=1e-9)
    for target, readout in readouts.of.items():
        np.testing.assert_allclose(again.of[target].weights, readout.weights, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(again.of[target].quantiles, readout.quantiles, rtol=1e-9)


def test_retrieval_in_files_is_that_in_memory() -> None:
    x, y = (correlated(600, 8, seed) for seed in (0, 1))
    people = np.arange(600) % 60
    for pool in (4, 60):  # pool by pool, and all together
        expected = retrieve(x, y, people, pools=6, pool_participants=pool, device="cpu")
        assert (
            retrieve(in_a_file(x, 2), in_a_file(y, 3), people, pools=6, pool_participants=pool, device="cpu")
            == expected
        )
