"""The partitions: one per arrival batch, registered as batches arrive."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from accelkd.home.layout import Home
from accelkd.home.units import Unit
from accelkd.operations.share import shared_step
from accelkd.recordings.arrivals import check_not_superseded, remove_superseded, superseded

# Not the participant: a batch holds up to some hundred of them, and the UI stays quick up to 10,000 batches.
arrival_batches = dg.DynamicPartitionsDefinition(name="arrival_batch")


@contextmanager
def current_batch(
    home: Home, batch_id: str, *, makes: Unit | None = None, reads: Sequence[Unit] = ()
) -> Iterator[None]:
    """Fails the step for good, and removes what it wrote, if a correction has replaced its batch, also meanwhile.

    A step that workers may do says which files it `makes` of those that it `reads`.
    """
    try:
        if makes is None:
            yield
        else:
            with shared_step(home, makes, reads=reads):
                yield
        check_not_superseded(home, batch_id)
    except Exception as error:
        replaced = superseded(home).get(batch_id)
        if replaced is None:
            raise
        remove_superseded(home)
        raise dg.Failure(
            f"batch {batch_id} is superseded: {replaced.replaced_by} corrects it, and nothing is made of it any more",
            allow_retries=False,
        ) from error
