"""Repair: damaged or lost segments are made again from what arrived. Reading only verifies and raises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from accelkd.cohort.training_set import processed_batches, segmented_batches
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.segments.segment import segment_batch, verify_segments

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repaired:
    """A batch whose segments were made again."""

    batch_id: str
    reason: str  # what was wrong


def repair(home: Home) -> list[Repaired]:
    """Verify the segment store and the quarantine of every segmented batch; re-segment what is damaged.

    The new files have the bytes of the old ones before the damage, unless settings or code changed since. Each repair
    is logged as a warning. Raises what `segment_batch` raises.
    """
    repaired = []
    for batch_id in processed_batches(home):
        try:
            verify_segments(home, batch_id)
        except DamagedFileError as error:
            logger.warning("%s; re-segmenting batch %s", error, batch_id)
            settings = Settings.load(home)
            segment_batch(home, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
            repaired.append(Repaired(batch_id, str(error)))
    return repaired


def repairing(home: Home, action: Callable[[], T]) -> T:
    """Result of `action`, which reads segments; where it raises DamagedFileError, once more after a repair.

    Raises what `action` raises if nothing needed repair.
    """
    try:
        return action()
    except DamagedFileError:
        if not repair(home):
            raise
        return action()


def readable_batches(home: Home) -> dict[str, int]:
    """Batches with at least one segment, with their number of PPG channels, after a repair where one is needed."""
    return repairing(home, partial(segmented_batches, home))
