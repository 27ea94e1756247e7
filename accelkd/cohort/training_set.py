"""The pre-training set: the training participants' segments of all compatible batches (paper, section 4.1)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.cohort.loaded import unused_batches, usable_batches
from accelkd.cohort.split import participants_on, read_split, split_version
from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.home.verified import verified_once
from accelkd.segments.schema import ACCEL_AXES
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import MODALITIES, Modality, SegmentStore

_ADOPT = "encoders that were trained elsewhere can be adopted (`accelkd adopt ppg-teacher-xs accel-kd-xs`)"
MIN_SEGMENTS = 4  # per participant (section 4.1)


@dataclass(frozen=True)
class TrainingSet:
    """Segments to train on, and what identifies them."""

    store: SegmentStore  # the segments that have every modality that is asked for, with equally many channels
    rows: npt.NDArray[np.intp]  # of the training participants
    batch_ids: tuple[str, ...]  # with such a segment
    left_out: tuple[str, ...]  # batches without one: they lack a modality, or have another number of PPG channels
    not_loaded: tuple[str, ...]  # segmented batches that the warehouse does not hold
    data_version: str
    split_version: str


class NothingToTrainOnError(FileNotFoundError):
    """No segment of the home has the modalities that an encoder learns from, or too few of training participants."""


def segmented_batches(home: Home) -> list[str]:
    """Usable batches (accelkd.cohort.loaded) with at least one segment, sorted.

    Raises DamagedFileError for a store that is missing or cannot be opened.
    """
    batch_ids = []
    for batch_id in usable_batches(home):
        try:
            with pa.memory_map(str(home.segments(batch_id))) as source:
                empty = not pa.ipc.open_file(source).num_record_batches
        except (OSError, pa.ArrowException):
            verify_segments(home, batch_id)
            raise
        if not empty:
            batch_ids.append(batch_id)
    return batch_ids


def training_set(home: Home, modalities: Collection[Modality] = MODALITIES) -> TrainingSet:
    """The segments of training participants that have all of `modalities`, over the usable batches.

    Their PPG has the number of channels that is most common among segments with both modalities, or where there are
    none with both, among those with PPG: so teacher and students agree on it. Every store that is read is verified
    against its checksum, once a day on each node (accelkd.home.verified). Raises FileNotFoundError if there is no split
    or no segment yet, NothingToTrainOnError if none has the modalities, DamagedFileError for a store that is damaged or
    missing.
    """
    names, batch_ids, ppg_channels = _suited_batches(home, modalities)
    with verified_once(home) as verify, ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        hashes = list(pool.map(partial(verify_segments, home, verify=verify), batch_ids))
    store, rows = _training_rows(home, batch_ids, modalities, ppg_channels)
    return TrainingSet(
        store=store,
        rows=rows,
        batch_ids=batch_ids,
        left_out=tuple(sorted(set(names) - set(batch_ids))),
        not_loaded=tuple(unused_batches(home)),
        data_version=sha256_json(hashes)[:16],
        split_version=split_version(read_split(home.split)),
    )


def refuse_too_few(home: Home, modalities: Collection[Modality] = MODALITIES) -> None:
    """Raise NothingToTrainOnError unless a training participant has MIN_SEGMENTS segments for a training.

    Raises like `training_set`, and verifies nothing.
    """
    _, batch_ids, ppg_channels = _suited_batches(home, modalities)
    store, rows = _training_rows(home, batch_ids, modalities, ppg_channels)
    participants = store.metadata.column("participant_id").take(rows)
    if (pc.max(pc.value_counts(participants).field("counts")).as_py() or 0) < MIN_SEGMENTS:
        raise NothingToTrainOnError(
            f"no training participant in {home.root} has {MIN_SEGMENTS} segments with {_named(modalities)}: {_ADOPT}"
        )


def _named(modalities: Collection[Modality]) -> str:
    return " and ".join({"ppg": "PPG", "accel": "acceleration"}[modality] for modality in modalities)


def _suited_batches(home: Home, modalities: Collection[Modality]) -> tuple[list[str], tuple[str, ...], int]:
    """Batches with a segment, those with one of all modalities, and how many PPG channels it is to have."""
    names = segmented_batches(home)
    if not names:
        waiting = f" ({', '.join(unused_batches(home))}: segmented, not loaded)" if unused_batches(home) else ""
        raise FileNotFoundError(
            f"no segments in {home.root}{waiting}: materialize `segments` and `segment_tables` of one batch first"
        )
    if not home.split.exists():
        raise FileNotFoundError(f"no split ledger in {home.root}: materialize `participant_split` first")
    stores = {name: SegmentStore([home.segments(name)]) for name in names}
    ppg_channels = _common_ppg_channels(list(stores.values()))
    batch_ids = tuple(name for name in names if suited_rows(stores[name], modalities, ppg_channels).any())
    if not batch_ids:
        raise NothingToTrainOnError(f"no segment in {home.root} has {_named(modalities)}: {_ADOPT}")
    return names, batch_ids, ppg_channels


def _training_rows(
    home: Home, batch_ids: Sequence[str], modalities: Collection[Modality], ppg_channels: int
) -> tuple[SegmentStore, npt.NDArray[np.intp]]:
    """The segments with all modalities, and which of them are of training participants."""
    whole = SegmentStore([home.segments(batch_id) for batch_id in batch_ids])
    suited = suited_rows(whole, modalities, ppg_channels)
    store = whole if suited.all() else whole.subset(suited)
    in_training = pc.is_in(
        store.metadata.column("participant_id"), value_set=pa.array(sorted(participants_on(home.split, "train")))
    )
    return store, np.flatnonzero(in_training.to_numpy(zero_copy_only=False))


def suited_rows(store: SegmentStore, modalities: Collection[Modality], ppg_channels: int) -> npt.NDArray[np.bool_]:
    """Which segments have every one of `modalities`: three axes, and as many PPG channels as said."""
    wanted: dict[Modality, int] = {"ppg": ppg_channels, "accel": ACCEL_AXES}
    suited = np.ones(len(store), np.bool_)
    for modality in modalities:
        counts = store.counts(modality)
        suited &= (counts == wanted[modality]) & (counts > 0)
    return suited


def _common_ppg_channels(stores: Sequence[SegmentStore]) -> int:
    """The most common number of PPG channels, the larger one of two; 0 without any PPG."""
    both, alone = Counter[int](), Counter[int]()
    for store in stores:
        ppg = store.counts("ppg")
        for counter, rows in ((both, (ppg > 0) & (store.counts("accel") > 0)), (alone, ppg > 0)):
            channels, counts = np.unique(ppg[rows], return_counts=True)
            counter.update(dict(zip(channels.tolist(), counts.tolist(), strict=True)))
    counted = both or alone
    return max(counted.items(), key=lambda item: (item[1], item[0]))[0] if counted else 0
