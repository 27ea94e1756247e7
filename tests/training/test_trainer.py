"""The training loop: schedule, curve, resuming, divergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accelkd.segments.store import SegmentStore
from accelkd.training.configs import Optimisation, scaled_schedule
from accelkd.training.data import TrainingData
from accelkd.training.objective import Objective
from accelkd.training.trainer import Curve, NonFiniteLossError, has_bf16, pick_device, train

CPU = torch.device("cpu")
CONFIG = Optimisation(
    steps=12, batch_size=4, learning_rate=0.01, warmup_steps=2, decay_steps=0.5, log_every=3, save_every=3
)


class Smoothing(Objective):
    """A small objective: a batch-normalised linear model predicts the mean of each axis; dies on demand."""

    def __init__(self, dies_at: int | None = None, diverges_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3840, 1)
        self.calls = 0
        self.dies_at = dies_at
        self.diverges_at = diverges_at

    def forward(self, signals: Mapping[str, Tensor], keys: Tensor) -> Tensor:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        x = self.norm(signals["accel"])
        noise = (keys % 7).float().mean()
        loss = ((self.linear(x)[..., 0] - 1) ** 2).mean() + 0.001 * noise
        if self.calls == self.diverges_at:
            loss = loss / 0
        self.calls += 1
        return loss


@pytest.fixture
def data(store: SegmentStore, rows: np.ndarray) -> TrainingData:
    return TrainingData(store, rows, ["accel"], CPU)


def run(objective: Objective, data: TrainingData, state: Path, config: Optimisation = CONFIG) -> Curve:
    return train(objective, data, config, CPU, state, "test").curve


def weights(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def test_learning_rate_warms_up_and_falls_like_the_paper_s() -> None:
    paper = Optimisation(steps=300_000, batch_size=512, learning_rate=2e-4)
    assert paper.learning_rate_at(0) == pytest.approx(1e-8)
    assert paper.learning_rate_at(9_999) == pytest.approx(1e-4)
    assert paper.learning_rate_at(20_000) == paper.learning_rate_at(20_999) == 2e-4
    assert paper.learning_rate_at(21_000) == pytest.approx(2e-4 * 0.985)
    for step, share in ((100_000, 0.30), (200_000, 0.066), (299_999, 0.0147)):
        assert paper.learning_rate_at(step) / 2e-4 == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("steps", [200, 450, 3_000])
def test_short_runs_have_the_schedule_s_shape(steps: int) -> None:
    warmup, decay = scaled_schedule(steps)
    paper = Optimisation(steps=200_000, batch_size=512, learning_rate=1.0)
    short = Optimisation(steps, 8, 1.0, warmup_steps=warmup, decay_steps=decay)
    for share in (0.3, 0.6, 0.99):
        expected = paper.learning_rate_at(int(share * 200_000))
        assert short.learning_rate_at(int(share * steps)) == pytest.approx(expected, rel=0.05)


def test_it_learns_and_logs_a_curve(data: TrainingData, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=41, log_every=10, decay_steps=1000)
    curve = run(Smoothing(), data, tmp_path / "state", config)
    assert curve.step == [10, 20, 30, 40, 41]
    assert curve.loss[-1] < curve.loss[0] / 2
    assert curve.learning_rate == [config.learning_rate_at(step - 1) for step in curve.step]
    assert all(rate > 0 for rate in curve.segments_per_s)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(data: TrainingData, tmp_path: Path) -> None:
    first, again, other = Smoothing(), Smoothing(), Smoothing()
    losses = run(first, data, tmp_path / "a").loss
    assert run(again, data, tmp_path / "b").loss == losses
    assert weights(again) == weights(first)
    run(other, data, tmp_path / "c", replace(CONFIG, seed=1))
    assert weights(other) != weights(first)


@pytest.mark.parametrize("dies_at", [0, 2, 3, 7, 11])
def test_cut_off_anywhere_and_resumed_it_ends_with_the_same_bytes(
    data: TrainingData, tmp_path: Path, dies_at: int
) -> None:
    unbroken = Smoothing()
    expected = run(unbroken, data, tmp_path / "unbroken")
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        run(Smoothing(dies_at=dies_at), data, state)
    assert state.exists() == (dies_at >= 3)
    resumed = Smoothing()
    for parameter in resumed.parameters():
        nn.init.zeros_(parameter)  # what the state holds is what counts
    if dies_at < 3:
        resumed = Smoothing()
    curve = run(resumed, data, state)
    assert resumed.calls == 12 - 3 * (dies_at // 3)  # only what was lost is done again
    assert weights(resumed) == weights(unbroken)
    assert (curve.step, curve.loss, curve.learning_rate) == (expected.step, expected.loss, expected.learning_rate)


def test_divergence_stops_the_run_and_names_the_step(data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="test: the loss is inf at step 7"):
        run(Smoothing(diverges_at=7), data, tmp_path / "state")
    resumed = Smoothing()
    run(resumed, data, tmp_path / "state")
    assert resumed.calls == 6  # the state is from before the divergence


def test_gradients_are_clipped(data: TrainingData, tmp_path: Path) -> None:
    """With plain averages of the gradient, a clip to nothing leaves the weights to weight decay alone."""
    before = Smoothing()
    after = Smoothing()
    run(after, data, tmp_path / "state", replace(CONFIG, clip_norm=0.0, weight_decay=0.0))
    assert torch.equal(after.linear.weight, before.linear.weight)


def test_precision_is_what_the_processor_has(data: TrainingData, tmp_path: Path) -> None:
    class Probe(Smoothing):
        def forward(self, signals: Mapping[str, Tensor], keys: Tensor) -> Tensor:
            self.seen = self.linear(signals["accel"]).dtype
            return super().forward(signals, keys)

    seen = []
    for precision in ("fp32", "bf16"):
        probe = Probe()
        run(probe, data, tmp_path / precision, replace(CONFIG, steps=1, precision=precision))
        seen.append(probe.seen)
    assert seen == [torch.float32, torch.bfloat16 if has_bf16(CPU) else torch.float32]


def test_auto_device_is_the_gpu_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == CPU
