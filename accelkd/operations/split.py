"""Extending the split ledger by the participants that have arrived."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from accelkd.cohort.loaded import unused_batches, usable_batches
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import SplitSummary, extend_split, read_split, write_split
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.repair import readable_batches
from accelkd.registry.trained_on import all_trained_on
from accelkd.warehouse.load import load_split, settle_batches

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtendedSplit:
    """The ledger as it is now, and who left it."""

    summary: SplitSummary
    removed: Mapping[str, int]  # participants who left, by the batch that they came with
    not_loaded: tuple[str, ...]  # batches that are segmented, and that nobody is taken from


def split_participants(home: Home) -> ExtendedSplit:
    """Assign every participant of a loaded batch who has a segment and is in no ledger yet; load the ledger.

    Participants who came with a batch that does not count any more, superseded or refused, leave the ledger if no
    loaded batch has a segment of theirs and no checkpoint was trained on them; the reason is logged. Nobody leaves
    while it is not known of one checkpoint whom it was trained on. Whomever a checkpoint was trained on stays in
    training, and is placed there if they come again. Settings are the home's.

    Raises SplitError if the ledger was made with other settings.
    """
    settings = Settings.load(home)
    settle_batches(home)
    participants = segmented_participants(home, readable_batches(home))
    trained_on, all_known = all_trained_on(home)
    removed = _remove_strangers(home, participants, trained_on) if all_known else {}
    summary = extend_split(
        home.split,
        participants,
        seed=settings.split_seed,
        test_fraction=settings.test_fraction,
        trained_on=trained_on,
    )
    load_split(home)
    return ExtendedSplit(summary, removed, tuple(unused_batches(home)))


def _remove_strangers(home: Home, participants: pa.Table, trained_on: frozenset[str]) -> dict[str, int]:
    """Remove whoever came with a batch that does not count, is in none that does, and in no checkpoint.

    A training that is still running may read of somebody who leaves; promotion compares it with the split again.
    """
    if not home.split.exists():
        return {}
    ledger = read_split(home.split)
    staying = pc.or_(
        pc.is_in(ledger.column("batch_id"), value_set=pa.array(usable_batches(home), pa.string())),
        pc.is_in(
            ledger.column("participant_id"),
            value_set=pa.array({*participants.column("participant_id").to_pylist(), *trained_on}, pa.string()),
        ),
    )
    removed = Counter[str](ledger.filter(pc.invert(staying)).column("batch_id").to_pylist())
    if removed:
        write_split(home.split, ledger.filter(staying))
    for batch_id, number in sorted(removed.items()):
        logger.warning(
            "%d participants of batch %s leave the split: it was superseded or never loaded, no loaded batch has a "
            "segment of theirs, and no checkpoint was trained on them",
            number,
            batch_id,
        )
    return dict(sorted(removed.items()))
