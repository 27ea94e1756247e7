"""What checks measure of one batch's segments, from its file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from accelkd.home.layout import Home
from accelkd.recordings.labels import LABELS
from accelkd.segments.schema import SEGMENT
from accelkd.segments.store import MODALITIES, Modality, SegmentStore

_CHUNK_SIZE = 256


@dataclass(frozen=True)
class LabelQuality:
    """Labels of one batch's segments, beside what travelled with the recordings."""

    segments: int
    with_ppg: int  # which labels come from
    good: int  # whose labels passed the quality gate
    implausible: int  # segments with a label outside its plausible range (LABELS)
    hr_bpm_median: float | None
    with_reference: int  # segments with good labels and a reference heart rate
    hr_bpm_error_median: float | None  # median absolute difference between label and reference


def label_quality(home: Home, batch_id: str) -> LabelQuality:
    """Measure the labels of one batch."""
    store = SegmentStore([home.segments(batch_id)])
    labels = store.metadata
    hr_bpm, reference = (labels.column(name).to_numpy() for name in ("hr_bpm", "reference_hr_bpm"))
    implausible = np.zeros(len(labels), np.bool_)
    for label in LABELS.values():
        values, (low, high) = labels.column(label.name).to_numpy(), label.plausible
        implausible |= np.isfinite(values) & ~((values >= low) & (values <= high))
    both = np.isfinite(hr_bpm) & np.isfinite(reference)
    return LabelQuality(
        segments=len(labels),
        with_ppg=int((store.counts("ppg") > 0).sum()),
        good=labels.column("label_good").to_pylist().count(True),
        implausible=int(implausible.sum()),
        hr_bpm_median=float(np.nanmedian(hr_bpm)) if np.isfinite(hr_bpm).any() else None,
        with_reference=int(both.sum()),
        hr_bpm_error_median=float(np.median(np.abs(hr_bpm - reference)[both])) if both.any() else None,
    )


def signals_not_finite(home: Home, batch_id: str) -> dict[Modality, int]:
    """Segments of a batch with NaN or infinity in a signal, for each modality."""
    store = SegmentStore([home.segments(batch_id)])
    return {modality: sum(_not_finite(store, modality)) for modality in MODALITIES}


def _not_finite(store: SegmentStore, modality: Modality) -> Iterator[int]:
    """Numbers of such segments, chunk by chunk of equally many channels."""
    counts = store.counts(modality)
    for channels in np.unique(counts):
        rows = np.flatnonzero(counts == channels)
        for chunk in np.array_split(rows, len(rows) // _CHUNK_SIZE + 1):
            yield int((~np.isfinite(store.signals(modality, chunk)).all(axis=(1, 2))).sum())


def schema_differences(home: Home, batch_id: str) -> list[str]:
    """Columns of a batch's store that are missing, too many or of another type than SEGMENT says."""
    with pa.memory_map(str(home.segments(batch_id))) as source:
        stored = pa.ipc.open_file(source).schema
    wanted = SEGMENT.arrow()
    return [
        f"{name}: {_type(wanted, name)} expected, {_type(stored, name)} found"
        for name in dict.fromkeys([*wanted.names, *stored.names])
        if _type(wanted, name) != _type(stored, name)
    ]


def _type(schema: pa.Schema, name: str) -> str:
    return str(schema.field(name).type) if name in schema.names else "nothing"
