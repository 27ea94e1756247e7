"""A training on several processes of a Ray cluster, each with a GPU where there are any.

They are ranks of one process group, as those of `torchrun` are, and train to the same bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial

from accelkd.home.cluster import connected_to_cluster

RESTARTS = 2  # after a process or its machine has died


def on_workers(function: Callable[[], None], workers: int, *, device: str = "auto") -> None:
    """Call a function in so many processes, which are the ranks of a process group.

    When one of them dies, all start again, and a training inside goes on from the state that it saved last. Raises what
    the function raises in any of them, or the last error of Ray if they die more than RESTARTS times.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    with connected_to_cluster() as has_gpus, tempfile.TemporaryDirectory(prefix="accelkd-train-") as folder:
        trainer = TorchTrainer(
            partial(_error_of, function),  # type: ignore[arg-type]  # the types are those of Ray Train 1, as below
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=has_gpus and device != "cpu"),
            # Ray's own records of the training; checkpoints are accelkd's
            run_config=ray.train.RunConfig(
                storage_path=folder, failure_config=ray.train.FailureConfig(max_failures=RESTARTS)
            ),
        )
        try:
            error: Exception | None = trainer.fit().return_value  # type: ignore[attr-defined]
        except ray.train.WorkerGroupError as failed:
            raise next(iter(failed.worker_failures.values())) from None
    if error is not None:
        raise error


def _error_of(function: Callable[[], None]) -> Exception | None:
    """Call it; returns an error that it would raise again: after any that is raised Ray starts all once more."""
    try:
        function()
    except (ValueError, ArithmeticError) as error:
        return error
    return None
