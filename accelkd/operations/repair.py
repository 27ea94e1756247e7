"""Repair: damaged or lost segments are made again from what arrived. Reading only verifies and raises."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from accelkd.cohort.loaded import segmented, usable_batches
from accelkd.cohort.training_set import segmented_batches
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.recordings.arrivals import SupersededError, remove_superseded
from accelkd.segments.segment import segment_batch, verify_segments

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repaired:
    """A batch whose segments were made again."""

    batch_id: str
    reason: str  # what was wrong


def repair(home: Home, batch_ids: Sequence[str] | None = None) -> list[Repaired]:
    """Verify segment store and quarantine of these batches, by default of every segmented one; re-segment the damaged.

    The new files have the bytes of the old ones before the damage, unless settings or code changed since. What is left
    of superseded batches is removed. Each repair is logged as a warning. Raises what `segment_batch` raises.
    """
    for batch_id in remove_superseded(home):
        logger.warning("batch %s is superseded: what was left of its segments is removed", batch_id)
    repaired = []
    for batch_id in sorted(segmented(home) | set(usable_batches(home))) if batch_ids is None else batch_ids:
        try:
            verify_segments(home, batch_id)
        except DamagedFileError as error:
            settings = Settings.load(home)
            try:
                logger.warning("%s; re-segmenting batch %s", error, batch_id)
                segment_batch(home, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
            except SupersededError:
                continue  # its files are gone, and have to be
            except (OSError, ValueError) as failure:
                if batch_ids is not None or batch_id in usable_batches(home):
                    raise
                logger.warning("batch %s is not loaded, and its segments cannot be repaired: %s", batch_id, failure)
                continue
            repaired.append(Repaired(batch_id, str(error)))
    return repaired


def repairing(home: Home, action: Callable[[], T], batch_ids: Sequence[str] | None = None) -> T:
    """Result of `action`, which reads segments of these batches, by default of all usable ones.

    Where it raises DamagedFileError, it is called once more, after a repair of these batches, or where a correction has
    just taken the place of one of them. Raises what `action` raises if neither is the case.
    """
    before = usable_batches(home)
    try:
        return action()
    except DamagedFileError:
        if not repair(home, usable_batches(home) if batch_ids is None else batch_ids) and before == usable_batches(
            home
        ):
            raise
        return action()


def readable_batches(home: Home) -> list[str]:
    """Batches with at least one segment, after a repair where one is needed."""
    return repairing(home, partial(segmented_batches, home))
