"""A training on several processes of a Ray cluster, each with a GPU where there are any.

They are ranks of one process group, as those of `torchrun` are, and train to the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from accelkd.home.cluster import connected_to_cluster

R = TypeVar("R")

RESTARTS = 2  # after a process or its machine has died


def on_workers(function: Callable[[], R], workers: int, *, device: str = "auto") -> R:
    """Call a function in so many processes, which are the ranks of a process group; returns the first one's result.

    When one of them dies, all start again, and a training inside goes on from the state that it saved last. Raises what
    the function raises in any of them, or the last error of Ray if they die more than RESTARTS times.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    with connected_to_cluster() as has_gpus, tempfile.TemporaryDirectory(prefix="accelkd-train-") as folder:
        trainer = TorchTrainer(
            partial(_outcome, function),  # type: ignore[arg-type]  # the types are those of Ray Train 1, which took None
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=has_gpus and device != "cpu"),
            # Ray's own records of the training; checkpoints are accelkd's
            run_config=ray.train.RunConfig(
                storage_path=folder, failure_config=ray.train.FailureConfig(max_failures=RESTARTS)
            ),
        )
        try:
            outcome: R | _Raised = trainer.fit().return_value  # type: ignore[attr-defined]  # as above
        except ray.train.WorkerGroupError as error:
            raise next(iter(error.worker_failures.values())) from None
    if isinstance(outcome, _Raised):
        raise outcome.error
    return outcome


@dataclass(frozen=True)
class _Raised:
    error: Exception


def _outcome(function: Callable[[], R]) -> R | _Raised:
    """What the function returns, or an error that it would raise again: every error that is raised is tried again."""
    try:
        return function()
    except (ValueError, ArithmeticError) as error:
        return _Raised(error)
