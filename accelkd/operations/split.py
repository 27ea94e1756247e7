"""Extending the split ledger by the participants that have arrived."""

from __future__ import annotations

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import SplitSummary, extend_split
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.repair import readable_batches
from accelkd.warehouse.load import load_split


def split_participants(home: Home) -> SplitSummary:
    """Assign every participant with a segment who is in no ledger yet, by the home's settings; load the ledger.

    Raises SplitError if the ledger was made with other settings.
    """
    settings = Settings.load(home)
    participants = segmented_participants(home, list(readable_batches(home)))
    summary = extend_split(home.split, participants, seed=settings.split_seed, test_fraction=settings.test_fraction)
    load_split(home)
    return summary
