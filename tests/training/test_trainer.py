"""The training loop: schedule, curve, resuming, divergence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accelkd.models.transformer import Encoder, TransformerShape
from accelkd.segments.store import SegmentStore
from accelkd.training import trainer
from accelkd.training.data import TrainingData
from accelkd.training.objective import Objective
from accelkd.training.optimisation import Optimisation, scaled_schedule
from accelkd.training.trainer import Curve, NonFiniteLossError, has_bf16, pick_device, train

CPU = torch.device("cpu")
_COMPILE_MODULE = nn.Module.compile
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


class Comparing(Objective):
    """Compares the segments of a batch; refuses more than `fits` at once, as a full memory does."""

    def __init__(self, fits: int = 1_000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3840, 2)
        self.fits = fits

    def forward(self, signals: Mapping[str, Tensor], keys: Tensor) -> Tensor:
        if len(keys) > self.fits:
            raise torch.OutOfMemoryError(f"{len(keys)} segments")
        return (self.linear(signals["accel"])[..., 0] - 1).square().mean()


def test_a_batch_that_does_not_fit_is_taken_in_parts_with_the_same_gradient(
    data: TrainingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, batch_size=9, precision="fp32")
    whole, parts = Comparing(), Comparing(fits=4)
    expected = train(whole, data, config, CPU, tmp_path / "a", "whole")
    training = train(parts, data, config, CPU, tmp_path / "b", "parts")
    assert expected.notes == ()
    assert [note for note in training.notes if "4 parts" in note]
    assert "out of memory: batches of 9 are split into 4 parts" in capsys.readouterr().err
    np.testing.assert_allclose(training.curve.loss, expected.curve.loss, rtol=1e-4)
    torch.testing.assert_close(parts.linear.weight, whole.linear.weight, rtol=1e-3, atol=1e-4)


def test_a_batch_of_which_not_even_two_segments_fit_is_an_error(data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        train(Comparing(fits=1), data, CONFIG, CPU, tmp_path / "state", "test")


class Compiled(Objective):
    """An encoder of which the trainer compiles the blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder(3, TransformerShape(width=8, layers=2, heads=1, mlp=8))

    def forward(self, signals: Mapping[str, Tensor], keys: Tensor) -> Tensor:  # noqa: ARG002  (the signature of every objective)
        return self.encoder(signals["accel"]).square().mean()


def _compiling_with(backend: str | Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the CPU compile as a GPU would, with another compiler."""

    def compile_module(module: nn.Module, *, dynamic: bool) -> None:
        _COMPILE_MODULE(module, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(trainer, "compiles", lambda _, config: config.compile)
    monkeypatch.setattr(nn.Module, "compile", compile_module)


def test_compiled_blocks_train_as_they_are_written(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, compiled = Compiled(), Compiled()
    expected = train(plain, data, CONFIG, CPU, tmp_path / "a", "plain")
    _compiling_with("aot_eager", monkeypatch)
    training = train(compiled, data, CONFIG, CPU, tmp_path / "b", "compiled")
    assert training.notes == ()
    np.testing.assert_allclose(training.curve.loss, expected.curve.loss, rtol=1e-4)


def test_what_runs_compiled_is_counted_as_it_is_written(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(Compiled(), data, CONFIG, CPU, tmp_path / "a", "plain").flop_per_segment
    graphs = []

    def counting(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    _compiling_with(counting, monkeypatch)
    before = Compiled()
    trainer.compile_encoders(before)  # as a teacher is, before training starts
    torch.compiler.reset()
    assert train(before, data, CONFIG, CPU, tmp_path / "b", "compiled").flop_per_segment == expected
    assert len(graphs) == 1  # of one block, for the training's own batch alone


def test_what_cannot_be_compiled_runs_as_it_is_written_and_says_so(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_graph: object, _inputs: object) -> Callable[..., object]:
        raise RuntimeError("no compiler here")

    expected = train(Compiled(), data, CONFIG, CPU, tmp_path / "a", "plain")
    _compiling_with(broken, monkeypatch)
    training = train(Compiled(), data, CONFIG, CPU, tmp_path / "b", "broken")
    (note,) = training.notes
    assert note.startswith("not compiled: BackendCompilerFailed")
    assert note in capsys.readouterr().err
    assert training.curve.loss == expected.curve.loss
    # The next run tries again
    assert torch.compiler.is_compiling() is False
    _compiling_with("aot_eager", monkeypatch)
    assert train(Compiled(), data, CONFIG, CPU, tmp_path / "c", "again").notes == ()


def test_an_error_that_has_nothing_to_do_with_compiling_is_raised(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Compiled):
        def forward(self, signals: Mapping[str, Tensor], keys: Tensor) -> Tensor:  # noqa: ARG002  (the signature of every objective)
            raise KeyError("ecg")

    _compiling_with("aot_eager", monkeypatch)
    with pytest.raises(KeyError, match="ecg"):
        train(Broken(), data, CONFIG, CPU, tmp_path / "state", "test")


def test_when_the_time_is_over_training_ends_with_the_next_row_of_the_curve(data: TrainingData, tmp_path: Path) -> None:
    training = train(Comparing(), data, CONFIG, CPU, tmp_path / "state", "test", stop_at=time.monotonic() - 1)
    assert training.curve.step == [3]
    assert training.notes == ("time limit reached after 3 of 12 steps",)
