"""The pre-training set: the training participants' segments of all compatible batches (paper, section 4.1)."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.cohort.loaded import unused_batches, usable_batches
from accelkd.cohort.split import participants_on, read_split, split_version
from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.segments.schema import SAMPLES
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import SegmentStore


@dataclass(frozen=True)
class TrainingSet:
    """Segments to train on, and what identifies them."""

    store: SegmentStore
    rows: npt.NDArray[np.intp]  # of the training participants
    batch_ids: tuple[str, ...]
    left_out: tuple[str, ...]  # batches with another number of PPG channels than most segments have
    not_loaded: tuple[str, ...]  # segmented batches that the warehouse does not hold
    data_version: str
    split_version: str


def segmented_batches(home: Home) -> dict[str, int]:
    """Usable batches (accelkd.cohort.loaded) with at least one segment, and their number of PPG channels.

    Raises DamagedFileError for a store that is missing or cannot be opened.
    """
    channels = {}
    for batch_id in usable_batches(home):
        try:
            schema, empty = _open(home.segments(batch_id))
        except (OSError, pa.ArrowException):
            verify_segments(home, batch_id)
            raise
        if not empty:
            channels[batch_id] = schema.field("ppg").type.list_size // SAMPLES
    return channels


def _open(store: Path) -> tuple[pa.Schema, bool]:
    """The schema of a store, and whether the store is empty."""
    with pa.memory_map(str(store)) as source:
        reader = pa.ipc.open_file(source)
        return reader.schema, not reader.num_record_batches


def training_set(home: Home) -> TrainingSet:
    """All segments of training participants, over the usable batches with the most common number of PPG channels.

    Every store is verified against its checksum. Raises FileNotFoundError if there is no split or no segment yet,
    DamagedFileError for a store that is damaged or missing.
    """
    channels = segmented_batches(home)
    if not channels:
        waiting = f" ({', '.join(unused_batches(home))}: segmented, not loaded)" if unused_batches(home) else ""
        raise FileNotFoundError(
            f"no segments in {home.root}{waiting}: materialize `segments` and `segment_tables` of one batch first"
        )
    if not home.split.exists():
        raise FileNotFoundError(f"no split ledger in {home.root}: materialize `participant_split` first")
    per_count = Counter[int]()
    for batch_id, count in channels.items():
        per_count[count] += len(SegmentStore([home.segments(batch_id)]))
    chosen, _ = max(per_count.items(), key=lambda item: (item[1], item[0]))
    batch_ids = tuple(batch_id for batch_id, count in channels.items() if count == chosen)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        hashes = list(pool.map(partial(verify_segments, home), batch_ids))
    store = SegmentStore([home.segments(batch_id) for batch_id in batch_ids])
    in_training = pc.is_in(
        store.metadata.column("participant_id"), value_set=pa.array(sorted(participants_on(home.split, "train")))
    )
    return TrainingSet(
        store=store,
        rows=np.flatnonzero(in_training.to_numpy(zero_copy_only=False)),
        batch_ids=batch_ids,
        left_out=tuple(sorted(set(channels) - set(batch_ids))),
        not_loaded=tuple(unused_batches(home)),
        data_version=sha256_json(hashes)[:16],
        split_version=split_version(read_split(home.split)),
    )
