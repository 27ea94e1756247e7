"""How one delivery, of a device or of the simulator, lands as arrival batches."""

from __future__ import annotations

MAX_PARTICIPANTS = 300  # of one batch, unless asked otherwise: what is worked on, shown and redone as one


def batch_ids(batch_id: str, count: int) -> list[str]:
    """The names of the batches that one delivery lands as: its own, or numbered ones."""
    return [batch_id] if count == 1 else [f"{batch_id}-{number:03d}" for number in range(1, count + 1)]
