"""The sampler and the batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from accelkd.segments.store import Modality, SegmentStore
from accelkd.training import data, signals
from accelkd.training.data import ParticipantSampler, TrainingData
from accelkd.training.randomness import permuted, uniform
from accelkd.training.signals import DeviceMemoryError, ResidentSignals, resident_bytes

CPU = torch.device("cpu")

# 30 participants with 4 to 33 segments, in mixed order, and one with three.
PARTICIPANTS = np.random.default_rng(0).permutation(
    [f"p{number:02d}" for number in range(30) for _ in range(4 + number)] + ["few"] * 3
)


def test_every_participant_counts_the_same_however_many_segments() -> None:
    sampler = ParticipantSampler(list(PARTICIPANTS))
    assert sampler.participants == 30
    assert sampler.segments == len(PARTICIPANTS) - 3
    drawn = np.concatenate([sampler.draw(0, step, 20)[:, 0] for step in range(600)])
    participants, count = np.unique(PARTICIPANTS[drawn], return_counts=True)
    assert len(participants) == 30
    assert "few" not in participants
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
    training = TrainingData(store, rows, ["ppg", "accel"], CPU)
    batches = list(training.batches(7, range(2, 5), 6))
    assert len(batches) == 3
    for step, batch in zip(range(2, 5), batches, strict=True):
        drawn = rows[training.sampler.draw(7, step, 6)[:, 0]]
        modalities: dict[Modality, int] = {"ppg": 2, "accel": 3}
        for modality, channels in modalities.items():
            assert batch[modality].shape == (6, channels, 3840)
            assert batch[modality].dtype == torch.float32
            np.testing.assert_array_equal(batch[modality].numpy(), store.signals(modality, drawn))
    assert list(training.batches(7, range(3, 3), 6)) == []


@pytest.mark.parametrize("views", [1, 2])
def test_a_copy_on_the_device_gives_the_same_batches(store: SegmentStore, views: int) -> None:
    rows = np.arange(len(store))[::-1].copy()
    targets = np.linspace(0, 1, len(rows))
    resident = ResidentSignals(store, CPU)
    mapped, copied = (
        TrainingData(store, rows, ["ppg", "accel"], CPU, targets, resident=where) for where in (None, resident)
    )
    for expected, batch in zip(
        mapped.batches(7, range(3), 6, views), copied.batches(7, range(3), 6, views), strict=True
    ):
        assert set(batch) == {"ppg", "accel", "target"}
        for name in batch:
            assert torch.equal(batch[name], expected[name]), name
            assert batch[name].dtype == torch.float32


def test_a_copy_that_does_not_fit_is_refused_before_it_is_made(
    store: SegmentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = resident_bytes(store, ["ppg", "accel"])
    assert needed == 2 * 3840 * 5 * len(store)
    monkeypatch.setattr(signals, "free_bytes", lambda _: 2 * needed - 1)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(DeviceMemoryError, match=r"22 segments take 0.00 GB as float16; .* on cpu 50% may be taken"):
        ResidentSignals(store, CPU)


def test_work_of_a_step_does_not_grow_with_the_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how many random numbers a step draws."""
    drawn: list[int] = []

    def counting(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def counted(first: torch.Tensor, *arguments: int) -> torch.Tensor:
            drawn.append(len(first))
            return draw(first, *arguments)

        return counted

    monkeypatch.setattr(data, "uniform", counting(uniform))
    monkeypatch.setattr(data, "permuted", counting(permuted))
    for participants in (100, 100_000):
        ParticipantSampler([f"{number}" for number in range(participants)], min_segments=1).draw(0, 0, 32)
    assert drawn == [32, 32, 32, 32]
