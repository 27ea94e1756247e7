"""The sampler and the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accelkd.segments.store import SegmentStore
from accelkd.training.data import ParticipantSampler, TrainingData

# 30 participants with 4 to 33 segments, in mixed order, and one with three.
PARTICIPANTS = np.random.default_rng(0).permutation(
    [f"p{number:02d}" for number in range(30) for _ in range(4 + number)] + ["few"] * 3
)


def test_every_participant_counts_the_same_however_many_segments() -> None:
    sampler = ParticipantSampler(list(PARTICIPANTS))
    assert sampler.participants == 30
    assert sampler.segments == len(PARTICIPANTS) - 3
    drawn = np.concatenate([sampler.draw(0, step, 20)[:, 0] for step in range(600)])
    who, count = np.unique(PARTICIPANTS[drawn], return_counts=True)
    assert len(who) == 30
    assert "few" not in who
    np.testing.assert_allclose(count, 400, atol=60)
    rows, count = np.unique(drawn[PARTICIPANTS[drawn] == "p00"], return_counts=True)
    assert len(rows) == 4
    np.testing.assert_allclose(count, 100, atol=40)


def test_a_batch_takes_everyone_once_before_anyone_twice() -> None:
    sampler = ParticipantSampler(list(PARTICIPANTS))
    for step in range(20):
        assert len(np.unique(PARTICIPANTS[sampler.draw(0, step, 30)[:, 0]])) == 30
        larger = sampler.draw(0, step, 100)[:, 0]
        assert len(np.unique(larger)) == 100  # no segment twice
        _, count = np.unique(PARTICIPANTS[larger], return_counts=True)
        assert set(count) == {3, 4}


def test_batches_are_a_function_of_seed_and_step() -> None:
    first, again = (ParticipantSampler(list(PARTICIPANTS)) for _ in range(2))
    for step in (5, 3):
        np.testing.assert_array_equal(first.draw(1, step, 16), again.draw(1, step, 16))
    assert not np.array_equal(first.draw(1, 5, 16), first.draw(1, 6, 16))
    assert not np.array_equal(first.draw(1, 5, 16), first.draw(2, 5, 16))


def test_nobody_with_enough_segments_is_an_error() -> None:
    with pytest.raises(ValueError, match="no participant has the 4 segments"):
        ParticipantSampler(["a", "b", "b", "b"])


def test_batches_hold_the_signals_of_the_rows_drawn(store: SegmentStore) -> None:
    rows = np.arange(len(store))[::-1].copy()
    data = TrainingData(store, rows, ["ppg", "accel"], torch.device("cpu"))
    batches = list(data.batches(7, range(2, 5), 6))
    assert len(batches) == 3
    for step, batch in zip(range(2, 5), batches, strict=True):
        drawn = rows[data.sampler.draw(7, step, 6)[:, 0]]
        for modality, channels in (("ppg", 2), ("accel", 3)):
            assert batch[modality].shape == (6, channels, 3840)
            assert batch[modality].dtype == torch.float32
            np.testing.assert_array_equal(batch[modality].numpy(), store.signals(modality, drawn))
    assert list(data.batches(7, range(3, 3), 6)) == []
