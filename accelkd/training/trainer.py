"""The one training loop, for every objective: optimise, log the curve, save a state to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from accelkd.files import atomic_path
from accelkd.progress import progress
from accelkd.training.data import TrainingData
from accelkd.training.presets import Optimisation
from accelkd.training.randomness import derive, step_keys

_OBJECTIVE_KEYS = 2  # 0 and 1 are the sampler's


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or NaN; the message names the step."""


@dataclass
class Curve:
    """The training curve, a row for every `log_every` steps: what training.parquet holds."""

    step: list[int]  # number of steps done
    loss: list[float]  # mean since the row before
    learning_rate: list[float]
    segments_per_s: list[float]


def pick_device(name: str) -> torch.device:
    """The device of that name; 'auto' is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def train(
    objective: nn.Module,
    data: TrainingData,
    config: Optimisation,
    device: torch.device,
    state: Path,
    what: str,
) -> Curve:
    """Train `objective` in place on `device` and return its curve.

    `objective(signals, keys)` returns the loss of one batch. The run continues from the file `state` if it is there
    (written every `save_every` steps, removed by the caller once the result is safe). What a step does depends on the
    configuration and the step's number alone, so a resumed run ends as an unbroken one: on a CPU with the same number
    of threads, with the same bytes. Raises NonFiniteLossError.
    """
    objective.to(device).train()
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    curve = Curve([], [], [], [])
    start = _restore(state, objective, optimizer, curve) if state.exists() else 0
    bf16 = config.precision == "bf16" and has_bf16(device)
    steps = range(start, config.steps)
    losses = torch.zeros(config.log_every, device=device)
    since = time.perf_counter()
    batches = data.batches(config.seed, steps, config.batch_size)
    for step, signals in progress(zip(steps, batches, strict=True), what, len(steps)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        keys = derive(step_keys(config.seed, step, config.batch_size), _OBJECTIVE_KEYS)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss: Tensor = objective(signals, keys)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(objective.parameters(), config.clip_norm)
        optimizer.step()
        # The loss stays on the device until the row is due: reading it at every step would make the GPU wait.
        losses[step % config.log_every] = loss.detach()
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            first = curve.step[-1] if curve.step else 0
            recent = losses[: done - first].tolist()
            for offset, value in enumerate(recent):
                if not math.isfinite(value):
                    raise NonFiniteLossError(f"{what}: the loss is {value} at step {first + offset}")
            now = time.perf_counter()
            curve.step.append(done)
            curve.loss.append(math.fsum(recent) / len(recent))
            curve.learning_rate.append(config.learning_rate_at(step))
            curve.segments_per_s.append(len(recent) * config.batch_size / (now - since))
            since = now
            if done // config.save_every > first // config.save_every and done < config.steps:
                _save(state, objective, optimizer, curve)
    return curve


def _save(state: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in objective.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
    tensors |= {f"curve.{name}": torch.tensor(column, dtype=torch.float64) for name, column in asdict(curve).items()}
    with atomic_path(state) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)


def _restore(state: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve) -> int:
    """Load what `_save` wrote; returns the number of steps done."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "curve": {}}
    with safe_open(state, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  (a safetensors file is not a mapping)
            group, name = key.split(".", 1)
            groups[group][name] = file.get_tensor(key)
    objective.load_state_dict(groups["model"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _moments(groups["optimizer"])})
    curve.step = [int(step) for step in groups["curve"]["step"].tolist()]
    curve.loss = groups["curve"]["loss"].tolist()
    curve.learning_rate = groups["curve"]["learning_rate"].tolist()
    curve.segments_per_s = groups["curve"]["segments_per_s"].tolist()
    return curve.step[-1]


def _moments(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """AdamW's state by the number of the parameter."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".")
        moments.setdefault(int(number), {})[name] = tensor
    return moments
