"""Which batches count: those that the warehouse has loaded, whatever else lies among the segments.

Loading writes their names to a file beside the split ledger (accelkd.warehouse.load), so that training reads them
without DuckDB. One rename takes a superseded batch out and puts its correction in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from accelkd.home.files import DamagedFileError, write_json
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import refused, superseded


def usable_batches(home: Home) -> list[str]:
    """Batches that the split, training and comparisons may read, sorted: those that the warehouse has loaded.

    In a home that never had a warehouse: every segmented batch that is neither superseded nor refused. Raises
    DamagedFileError if their list cannot be read.
    """
    loaded = read_loaded(home)
    if loaded is None:
        loaded = segmented(home) - refused(home).keys()
    return sorted(loaded - superseded(home).keys())


def unused_batches(home: Home) -> list[str]:
    """Batches with a segment store or a quarantine that are none of `usable_batches`, sorted."""
    return sorted(segmented(home) - set(usable_batches(home)))


def segmented(home: Home) -> set[str]:
    """Batches with a segment store or a quarantine, including those without a single segment."""
    stores, quarantines = (home.root / "segments").glob("[!.]*.arrow"), (home.root / "quarantine").glob("[!.]*.parquet")
    return {path.stem for path in [*stores, *quarantines]}


def read_loaded(home: Home) -> set[str] | None:
    """The list of loaded batches; None where none was ever written. Raises DamagedFileError if it cannot be read."""
    if not home.loaded.exists():
        return None
    try:
        return set(json.loads(home.loaded.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DamagedFileError(
            f"{home.loaded} cannot be read: {error}; `accelkd rebuild-warehouse` writes it again"
        ) from None


def write_loaded(home: Home, batch_ids: Iterable[str]) -> None:
    """Replace the list of loaded batches."""
    write_json(home.loaded, sorted(batch_ids))
