"""Participants that can be split: those with at least one segment, as their batch describes them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from accelkd.home.layout import Home
from accelkd.recordings.people import batch_participants
from accelkd.segments.store import SegmentStore


def segmented_participants(home: Home, batch_ids: Sequence[str]) -> pa.Table:
    """participant_id, sex, age_years, device_id and batch_id of every participant with a segment in one of the batches.

    One row for each batch and device of a participant, sorted by batch, participant and device.
    """
    tables = []
    for batch_id in batch_ids:
        segmented = SegmentStore([home.segments(batch_id)]).metadata.select(["participant_id", "device_id", "batch_id"])
        listed = batch_participants(home.batch(batch_id)).select(["participant_id", "sex", "age_years"])
        unique = segmented.group_by(["participant_id", "device_id", "batch_id"], use_threads=False).aggregate([])
        tables.append(unique.join(listed, "participant_id", use_threads=False))
    if not tables:
        return pa.table({name: pa.array([], kind) for name, kind in _COLUMNS.items()})
    keys = [(name, "ascending") for name in ("batch_id", "participant_id", "device_id")]
    return pa.concat_tables(tables).select(list(_COLUMNS)).sort_by(keys)


_COLUMNS = {
    "participant_id": pa.string(),
    "sex": pa.string(),
    "age_years": pa.float64(),
    "device_id": pa.string(),
    "batch_id": pa.string(),
}
