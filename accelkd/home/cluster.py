"""The Ray cluster that a process may use, where the profile has one: nothing else of accelkd needs Ray installed.

Belongs here: connecting to it, and what it has. Does not belong here: what is run on it (training, reproduction).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def connected_to_cluster() -> Iterator[bool]:
    """Connect to the cluster that RAY_ADDRESS names, else to one of this machine alone, during the block.

    Yields whether it has GPUs. Raises ModuleNotFoundError without the extra `cluster`, and ConnectionError if the
    cluster does not answer.
    """
    import ray

    was_connected = ray.is_initialized()
    if not was_connected:
        ray.init(include_dashboard=False)
    try:
        yield ray.cluster_resources().get("GPU", 0) > 0
    finally:
        if not was_connected:
            ray.shutdown()
