"""The pre-training set: the training participants' segments of all batches that fit together (paper, section 4.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.cohort.split import participants_on, read_split, split_version
from accelkd.files import sha256_file, sha256_json
from accelkd.lake import Lake
from accelkd.segments.schema import SAMPLES
from accelkd.segments.store import SegmentStore


@dataclass(frozen=True)
class TrainingSet:
    """Segments to train on, and what identifies them."""

    store: SegmentStore
    rows: npt.NDArray[np.intp]  # of the training participants
    batch_ids: tuple[str, ...]
    left_out: tuple[str, ...]  # batches with another number of PPG channels than most segments have
    data_version: str
    split_version: str


def segmented_batches(lake: Lake) -> dict[str, int]:
    """Batches whose segments are there and not empty, with their number of PPG channels."""
    channels = {}
    for path in sorted((lake.root / "segments").glob("[!.]*.arrow")):
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            if reader.num_record_batches:
                channels[path.stem] = reader.schema.field("ppg").type.list_size // SAMPLES
    return channels


def training_set(lake: Lake) -> TrainingSet:
    """All segments of training participants, over the batches with the most common number of PPG channels.

    Raises FileNotFoundError when there is no split or no segment yet.
    """
    channels = segmented_batches(lake)
    if not channels:
        raise FileNotFoundError(f"no segments in {lake.root}: materialize `segments` of at least one batch first")
    if not lake.split.exists():
        raise FileNotFoundError(f"no split ledger in {lake.root}: materialize `participant_split` first")
    per_count = Counter[int]()
    for batch_id, count in channels.items():
        per_count[count] += len(SegmentStore([lake.segments(batch_id)]))
    chosen, _ = max(per_count.items(), key=lambda item: (item[1], item[0]))
    batch_ids = tuple(batch_id for batch_id, count in channels.items() if count == chosen)
    paths = [lake.segments(batch_id) for batch_id in batch_ids]
    store = SegmentStore(paths)
    in_training = pc.is_in(
        store.metadata.column("participant_id"), value_set=pa.array(sorted(participants_on(lake.split, "train")))
    )
    return TrainingSet(
        store=store,
        rows=np.flatnonzero(in_training.to_numpy(zero_copy_only=False)),
        batch_ids=batch_ids,
        left_out=tuple(sorted(set(channels) - set(batch_ids))),
        data_version=sha256_json([sha256_file(path) for path in paths])[:16],
        split_version=split_version(read_split(lake.split)),
    )
