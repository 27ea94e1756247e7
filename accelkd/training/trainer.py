"""The one training loop, for every objective: optimise, record the curve, save a state to resume from."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from accelkd.home.files import atomic_path, is_intact, write_checksum
from accelkd.home.progress import progress
from accelkd.models.efficientnet import EfficientNet
from accelkd.models.transformer import Block
from accelkd.training.data import TrainingData
from accelkd.training.objective import Batch, Objective
from accelkd.training.optimisation import Optimisation
from accelkd.training.parallel import barrier, local_share, mean_over_processes, rank, world_size
from accelkd.training.randomness import derive, step_keys
from accelkd.training.throughput import flop_per_segment

_OBJECTIVE_KEYS = 2  # 0 and 1 are the sampler's
# Each process keeps its own buffers; torch renamed the option between 2.11 and 2.15
_RENAMED = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}
_MIN_PART = 2  # segments in a part of a batch: contrastive losses need at least two


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or NaN; the message names the step."""


@dataclass
class Curve:
    """The training curve, a row for every `log_every` steps: the content of training.parquet."""

    step: list[int] = field(default_factory=list)  # number of completed steps
    loss: list[float] = field(default_factory=list)  # mean since the previous row
    learning_rate: list[float] = field(default_factory=list)
    segments_per_s: list[float] = field(default_factory=list)
    validation_error: list[float] = field(default_factory=list)  # empty without validation


@dataclass
class Validation:
    """Early stopping: `error` is evaluated after each row of the curve; the weights of its minimum are kept."""

    error: Callable[[], float]
    patience: int  # rows without improvement after which training stops


@dataclass(frozen=True)
class Training:
    """What `train` returns."""

    curve: Curve
    flop_per_segment: float | None  # of forward and backward; None if the run was already finished
    notes: tuple[str, ...] = ()  # deviations from the configuration


def pick_device(name: str) -> torch.device:
    """The device of that name; 'auto' is the GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compiles(device: torch.device, config: Optimisation) -> bool:
    """Whether a training run compiles its encoders."""
    return device.type == "cuda" and config.compile


def compile_encoders(module: nn.Module) -> None:
    """Compile the expensive parts with torch, for fixed shapes; everything else stays eager.

    The blocks of a Transformer share one compilation.
    """
    torch._dynamo.config.recompile_limit = 64  # one graph for each width, number of tokens and mode
    for part in module.modules():
        if isinstance(part, Block | EfficientNet):
            part.compile(dynamic=False)


def train(
    objective: Objective,
    data: TrainingData,
    config: Optimisation,
    device: torch.device,
    state: Path,
    label: str,
    validation: Validation | None = None,
    stop_at: float = math.inf,
) -> Training:
    """Train `objective` in place on `device` and return its curve.

    The run resumes from the file `state` if that exists and is intact (it is written every `save_every` steps, and
    removed by the caller once the result is stored). A step depends only on the configuration and the step's number, so
    a resumed run gives the result of an uninterrupted one: on a CPU with the same number of threads, the same bytes.
    Under `torchrun` each process takes its share of every batch. Once `time.monotonic()` has passed `stop_at`, training
    stops at the next row of the curve. A batch that does not fit into the memory of the device is split into parts, and
    what cannot be compiled runs eagerly; the notes say so. `label` names the run in progress bar and errors. Raises
    NonFiniteLossError.
    """
    objective.to(device).train()
    if world_size() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = _optimizer(trained, config)
    curve = Curve()
    best: dict[str, Tensor] = {}
    start = _restore(state, objective, optimizer, curve, best) if is_intact(state) else 0
    share = local_share(config.batch_size)
    step_loss = _StepLoss(objective, config, device)
    flop: float | None = None
    steps = range(start, config.steps)
    losses = torch.zeros(config.log_every, device=device)
    since = time.perf_counter()
    batches = data.batches(config.seed, steps, config.batch_size, objective.views)
    with step_loss.compiled():
        for step, batch in progress(zip(steps, batches, strict=True), label, len(steps)):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step)
            keys = derive(step_keys(config.seed, step, config.batch_size), _OBJECTIVE_KEYS)[share]
            if flop is None:
                with step_loss.eager():
                    flop = flop_per_segment(objective, batch, keys)
                if compiles(device, config):
                    compile_encoders(objective)
            optimizer.zero_grad(set_to_none=True)
            # The loss stays on the device until the row is written: reading it at every step would stall the GPU
            losses[step % config.log_every] = step_loss(batch, keys)
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            objective.after_step()
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                first = curve.step[-1] if curve.step else 0
                recent = mean_over_processes(losses[: done - first]).tolist()
                for offset, value in enumerate(recent):
                    if not math.isfinite(value):
                        raise NonFiniteLossError(f"{label}: the loss is {value} at step {first + offset}")
                now = time.perf_counter()
                curve.step.append(done)
                curve.loss.append(math.fsum(recent) / len(recent))
                curve.learning_rate.append(config.learning_rate_at(step))
                curve.segments_per_s.append(len(recent) * config.batch_size / (now - since))
                if validation is not None:
                    curve.validation_error.append(validation.error())
                    if curve.validation_error[-1] <= min(curve.validation_error):
                        best = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
                    elif len(curve.step) - 1 - _best_row(curve) >= validation.patience:
                        break
                if time.monotonic() > stop_at and done < config.steps:
                    step_loss.notes.append(f"time limit reached after {done} of {config.steps} steps")
                    break
                since = time.perf_counter()
                if done // config.save_every > first // config.save_every and done < config.steps:
                    _save(state, objective, optimizer, curve, best)
    if best:
        objective.load_state_dict(best)
    return Training(curve, flop, tuple(step_loss.notes))


class _StepLoss:
    """Loss and gradient of one batch: in as many parts as the memory requires, compiled if possible."""

    def __init__(self, objective: Objective, config: Optimisation, device: torch.device) -> None:
        self.notes: list[str] = []
        self._module: nn.Module = objective
        if world_size() > 1:
            self._module = DistributedDataParallel(objective, **_OWN_BUFFERS)
        self._bf16 = config.precision == "bf16" and has_bf16(device)
        self._device = device
        self._compiling = compiles(device, config)
        self._parts = 1
        self._steps = 0
        self._stance = ExitStack()

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Compiled modules run compiled in this block, or eagerly if the run does not compile."""
        with self._stance:
            if self._device.type != "cpu" and not self._compiling:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Everything runs eagerly in this block: FLOP of compiled code cannot be counted, and new shapes recompile."""
        if self._compiling:
            with torch.compiler.set_stance("force_eager"):
                yield
        else:
            yield

    def __call__(self, batch: Batch, keys: Tensor) -> Tensor:
        """The loss of the batch, detached; its gradient has been added to the parameters'."""
        while True:
            failed = ""
            try:
                loss = self._attempt(batch, keys)
            except torch.OutOfMemoryError:
                if world_size() > 1 or 2 * self._parts > len(keys) // _MIN_PART:
                    raise
                failed = "memory"
            except Exception as error:
                if not self._compiling or self._steps > 0:
                    raise
                failed = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if not failed:
                self._steps += 1
                return loss
            # Outside of the handler, whose traceback would keep the tensors of the failed attempt alive
            for parameter in self._module.parameters():
                parameter.grad = None
            if failed == "memory":
                self._parts *= 2
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
                self._add_note(
                    f"out of memory: batches of {len(keys)} are split into {self._parts} parts of "
                    f"{-(-len(keys) // self._parts)}, and contrastive losses compare within a part"
                )
            else:
                self._compiling = False
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
                self._add_note(f"not compiled: {failed}")

    def _attempt(self, batch: Batch, keys: Tensor) -> Tensor:
        total = torch.zeros((), device=self._device)
        bounds = [number * len(keys) // self._parts for number in range(self._parts + 1)]
        for rows in map(slice, bounds[:-1], bounds[1:]):
            part = {name: value[rows] for name, value in batch.items()} if self._parts > 1 else batch
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                loss: Tensor = self._module(part, keys[rows])
            loss = loss * (len(keys[rows]) / len(keys)) if self._parts > 1 else loss
            torch.autograd.backward(loss)
            total = total + loss.detach()
        return total

    def _add_note(self, text: str) -> None:
        self.notes.append(text)
        print(text, file=sys.stderr, flush=True)


def _best_row(curve: Curve) -> int:
    """The last row with the lowest validation error."""
    lowest = min(curve.validation_error)
    return max(row for row, error in enumerate(curve.validation_error) if error == lowest)


def _optimizer(parameters: list[nn.Parameter], config: Optimisation) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return optimizer(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _save(
    state: Path,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    curve: Curve,
    best: Mapping[str, Tensor],
) -> None:
    if rank() == 0:
        tensors = {f"model.{name}": tensor for name, tensor in objective.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        tensors |= {
            f"curve.{name}": torch.tensor(values, dtype=torch.float64) for name, values in asdict(curve).items()
        }
        with atomic_path(state) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
        write_checksum(state)
    barrier()


def _restore(
    state: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve, best: dict[str, Tensor]
) -> int:
    """Load what `_save` wrote; returns the number of completed steps."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": best, "optimizer": {}, "curve": {}}
    with safe_open(state, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  (a safetensors file is not a mapping)
            group, name = key.split(".", 1)
            groups[group][name] = file.get_tensor(key)
    objective.load_state_dict(groups["model"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _moments(groups["optimizer"])})
    curve.step = [int(step) for step in groups["curve"]["step"].tolist()]
    for name in ("loss", "learning_rate", "segments_per_s", "validation_error"):
        setattr(curve, name, groups["curve"][name].tolist())
    return curve.step[-1]


def _moments(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The optimiser's state by the number of the parameter."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".")
        moments.setdefault(int(number), {})[name] = tensor
    return moments
