"""From an arrival batch to its segment store and its quarantine: every window is in exactly one of the two."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import rust_dsp
from accelkd.home.behaviour import code_stamp
from accelkd.home.files import (
    DamagedFileError,
    flush,
    move_with_checksum,
    scratch_folder,
    verify_checksum,
    write_checksum,
)
from accelkd.home.layout import Home
from accelkd.home.locks import batches_lock
from accelkd.home.progress import progress
from accelkd.home.settings import MotionGate
from accelkd.recordings.arrivals import check_not_superseded
from accelkd.recordings.batches import Manifest, read_manifest, read_small_table
from accelkd.recordings.devices import DEVICES, Device
from accelkd.recordings.labels import LABELS
from accelkd.recordings.validate import Violation, iter_recordings
from accelkd.segments.reference import Reference, window_reference
from accelkd.segments.schema import DURATION_S, QUARANTINE, SEGMENT, segment_schema
from accelkd.segments.store import SegmentStore, write_segments
from accelkd.segments.windows import CHUNK_SIZE, device_plan, motion_reason, preprocess_windows, window_samples


@dataclass(frozen=True)
class SegmentCounts:
    """The outcome of one batch. `seen` counts windows, recordings without any, and files that could not be read."""

    seen: int
    segments: int
    quarantined: int
    reasons: dict[str, int]  # of the quarantined, largest first
    participants: int  # with a segment
    label_good: int  # segments whose labels passed the quality gate
    with_reference: int  # segments with a reference heart rate
    label_medians: dict[str, float]  # of the segments with good labels, by label; none where there are none


@dataclass(frozen=True)
class _Window:
    """One window that passed the motion gate, still raw."""

    plan: rust_dsp.Plan
    device: Device
    recording_id: str
    participant_id: str
    started_at: datetime | None
    offset_s: float
    motion_median_g: float
    motion_p95_g: float
    reference: Reference
    ppg: npt.NDArray[np.float32]  # [channels, samples]
    dark: npt.NDArray[np.float32] | None
    accel: npt.NDArray[np.float32]


def segment_batch(home: Home, batch_id: str, *, gate: MotionGate = "strict", hop_s: float = 60.0) -> SegmentCounts:
    """Segment the valid recordings of a landed batch; write its segment store and its quarantine.

    Windows start every `hop_s` seconds. The motion gate keeps a window whose 95th percentile (`strict`) or median
    (`loose`) of the per-second spread of acceleration is below 0.05 g; `off` keeps all. A window becomes a segment if
    at least one PPG channel is good, every accelerometer axis is complete and not all are flat; the rows of bad
    channels are zeros, with their status. Labels come from the PPG channel with the highest template correlation among
    those that pass the quality gate. Both files are replaced atomically and depend only on the batch and the arguments;
    memory is that of a few hundred windows.

    Raises BatchError for a batch that breaks a fatal rule, SupersededError for one that a correction has replaced, also
    meanwhile, ValueError if its devices differ in their number of PPG channels, RuntimeError if the counts do not add
    up. No file is put in place then.
    """
    check_not_superseded(home, batch_id)
    folder = home.batch(batch_id)
    manifest = read_manifest(folder)
    segmenter = _Segmenter(batch_id, gate, hop_s)
    channels = _ppg_channels(manifest)
    targets = home.segments(batch_id), home.quarantine(batch_id)
    with scratch_folder(targets[0]) as scratch, scratch_folder(targets[1]) as quarantine_scratch:
        store, listed = scratch / targets[0].name, quarantine_scratch / targets[1].name
        write_segments(store, channels, segmenter.run(folder, manifest, channels))
        quarantine = pa.Table.from_pylist(segmenter.quarantined, QUARANTINE.arrow())
        code = f"{code_stamp('accelkd.segments')} rust_dsp@{version('rust_dsp')}"
        settings = {"seen": str(segmenter.seen), "gate": gate, "hop_s": repr(float(hop_s)), "code": code}
        pq.write_table(quarantine.replace_schema_metadata(settings), listed, compression="zstd")
        flush(listed)
        write_checksum(listed)
        counts = _count(store, listed)
        with batches_lock(home):  # a correction that loads now waits, then removes the files again
            check_not_superseded(home, batch_id)
            move_with_checksum(store, targets[0])
            move_with_checksum(listed, targets[1])
    return counts


def verify_segments(home: Home, batch_id: str) -> str:
    """SHA-256 of a batch's segment store, after checking store and quarantine against their checksums.

    Call this once before reading signals or loading a batch; to count segments it is not needed. Raises
    DamagedFileError for a file that is damaged or missing: `accelkd repair` re-segments the batch.
    """
    try:
        verify_checksum(home.quarantine(batch_id))
        return verify_checksum(home.segments(batch_id))
    except DamagedFileError as error:
        raise DamagedFileError(f"batch {batch_id}: {error}; `accelkd repair` re-segments the batch") from None


def recount(home: Home, batch_id: str) -> SegmentCounts:
    """Count what `segment_batch` wrote for a batch, from its files."""
    return _count(home.segments(batch_id), home.quarantine(batch_id))


def _count(store: Path, listed: Path) -> SegmentCounts:
    metadata = SegmentStore([store]).metadata
    quarantine = pq.read_table(listed)
    labels = {name: metadata.column(name).drop_null().to_numpy() for name in LABELS}
    return SegmentCounts(
        seen=int(quarantine.schema.metadata[b"seen"]),
        segments=metadata.num_rows,
        quarantined=quarantine.num_rows,
        reasons=dict(Counter(quarantine.column("reason").to_pylist()).most_common()),
        participants=len(metadata.column("participant_id").unique()),
        label_good=metadata.column("label_good").to_pylist().count(True),
        with_reference=metadata.num_rows - metadata.column("reference_hr_bpm").null_count,
        label_medians={name: float(np.median(values)) for name, values in labels.items() if len(values)},
    )


def segment_id(recording_id: str, offset_s: float) -> str:
    """Name of a segment: 16 hex digits of a hash of its recording and its offset in microseconds."""
    return hashlib.sha256(f"{recording_id} {round(offset_s * 1e6)}".encode()).hexdigest()[:16]


def segment_columns(
    batch_id: str, windows: Sequence[_Window], done: rust_dsp.Preprocessed, rows: npt.NDArray[np.intp]
) -> dict[str, Any]:
    """Every column of SEGMENT for windows of one plan, by name; `rows` are where their signals are in `done`."""
    columns: dict[str, Any] = {
        "segment_id": [segment_id(window.recording_id, window.offset_s) for window in windows],
        "batch_id": [batch_id] * len(windows),
        "device_id": [window.device.device_id for window in windows],
        **_label(done.ppg[rows], done.ppg_status[rows], windows[0].device.polarity if windows else None),
        **{name: [getattr(window, name) for window in windows] for name in _WINDOW_COLUMNS},
        **{f"reference_{name}": [getattr(window.reference, name) for window in windows] for name in LABELS},
    }
    recoil = rust_dsp.recoil_rates(done.accel[rows], scale=done.accel_ac_level[rows])
    columns |= dict(zip(("accel_hr_bpm", "accel_hr_peak"), map(_null_if_nan, recoil), strict=True))
    for stream in ("ppg", "accel"):
        columns[stream] = _fixed(getattr(done, stream)[rows].astype(np.float16))
        for fact in ("status", "level", "ac_level", "missing"):
            columns[f"{stream}_{fact}"] = _fixed(getattr(done, f"{stream}_{fact}")[rows])
    return columns


class _Segmenter:
    """One pass over a batch: yields segments, collects what is quarantined, counts what it has seen."""

    def __init__(self, batch_id: str, gate: MotionGate, hop_s: float) -> None:
        self.batch_id = batch_id
        self.gate = gate
        self.hop_s = hop_s
        self.seen = 0
        self.quarantined: list[dict[str, Any]] = []

    def run(self, folder: Path, manifest: Manifest, channels: int) -> Iterator[pa.RecordBatch]:
        """Record batches of `segment_schema(channels)`, at most `CHUNK_SIZE` rows each."""
        segments = 0
        windows = self._windows(folder, manifest.rows("recordings"))
        for _, same_plan in groupby(windows, key=lambda window: window.plan):
            while chunk := list(islice(same_plan, CHUNK_SIZE)):
                batch = self._segments(chunk, channels)
                segments += batch.num_rows
                yield batch
        if (folder / "rejected.parquet").exists():
            for file in read_small_table(folder, "rejected").to_pylist():
                self.seen += 1
                self._quarantine("file", file["reason"], f"{file['source_file']}: {file['detail']}", file)
        if self.seen != segments + len(self.quarantined):
            raise RuntimeError(
                f"batch {self.batch_id}: {self.seen} windows, recordings and files seen, "
                f"but {segments} segments and {len(self.quarantined)} quarantined"
            )

    def _windows(self, folder: Path, recordings: int) -> Iterator[_Window]:
        """The windows of all valid recordings that pass the motion gate."""

        def rows() -> Iterator[tuple[pa.RecordBatch, int]]:
            for valid, violations in iter_recordings(folder):
                self._quarantine_recordings(violations)
                yield from ((valid, row) for row in range(valid.num_rows))

        for valid, row in progress(rows(), f"segment {self.batch_id}", recordings):
            yield from self._recording_windows(valid.slice(row, 1))

    def _recording_windows(self, row: pa.RecordBatch) -> Iterator[_Window]:
        """The windows of one recording."""
        facts = {name: row[name][0].as_py() for name in row.schema.names if name not in ("ppg", "dark", "accel")}
        device = DEVICES[facts["device_id"]]
        ppg, accel = _stream(row, "ppg"), _stream(row, "accel")
        dark = None if facts["dark_rate_hz"] is None else _stream(row, "dark")
        ppg_hz, accel_hz, dark_hz = (facts[f"{name}_rate_hz"] for name in ("ppg", "accel", "dark"))
        try:
            plan = device_plan(device, ppg_hz, accel_hz, dark_hz, tuple(facts["dark_offsets_s"] or (0.0,)))
        except ValueError as error:
            self.seen += 1
            self._quarantine("recording", "unsupported_rate", str(error), facts)
            return
        windows = plan.windows(
            ppg, accel, dark=dark, hop_s=self.hop_s, accel_start_s=facts["accel_start_s"], gate=self.gate
        )
        if not len(windows.offset_s):
            self.seen += 1
            lasts = f"PPG {ppg.shape[1] / ppg_hz:.3f} s, acceleration {accel.shape[1] / accel_hz:.3f} s"
            self._quarantine("recording", "too_short", f"no whole window of {DURATION_S} s: {lasts}", facts)
        for i, offset_s in enumerate(windows.offset_s.tolist()):
            self.seen += 1
            median_g, p95_g = float(windows.motion_median_g[i]), float(windows.motion_p95_g[i])
            if reason := motion_reason(windows.kept[i], p95_g):
                detail = f"spread of acceleration: median {median_g:.4f} g, 95th percentile {p95_g:.4f} g"
                self._quarantine("window", reason, detail, facts, offset_s)
                continue
            yield _Window(
                plan=plan,
                device=device,
                recording_id=facts["recording_id"],
                participant_id=facts["participant_id"],
                started_at=facts["started_at"] and facts["started_at"] + timedelta(seconds=offset_s),
                offset_s=offset_s,
                motion_median_g=median_g,
                motion_p95_g=p95_g,
                reference=window_reference(facts, offset_s, only_window=len(windows.offset_s) == 1),
                ppg=window_samples(ppg, windows.ppg_start[i], ppg_hz),
                dark=None if dark is None else window_samples(dark, windows.dark_start[i], dark_hz),
                accel=window_samples(accel, windows.accel_start[i], accel_hz),
            )

    def _segments(self, windows: list[_Window], channels: int) -> pa.RecordBatch:
        """Preprocess and label windows of one plan; those with unfit signals are quarantined."""
        done, reasons = preprocess_windows(
            windows[0].plan,
            [window.ppg for window in windows],
            [window.dark for window in windows if window.dark is not None] or None,  # all have it, or none
            [window.accel for window in windows],
        )
        fit = []
        for i, (window, reason) in enumerate(zip(windows, reasons, strict=True)):
            if reason is None:
                fit.append(i)
                continue
            stream = reason.partition("_")[0]
            status, missing = (getattr(done, f"{stream}_{fact}")[i].tolist() for fact in ("status", "missing"))
            detail = f"status {status}, missing {[round(share, 4) for share in missing]}"
            facts = {"recording_id": window.recording_id, "participant_id": window.participant_id}
            self._quarantine("window", reason, detail, facts, window.offset_s)
        columns = segment_columns(self.batch_id, [windows[i] for i in fit], done, np.array(fit, np.intp))
        if differing := sorted(columns.keys() ^ set(SEGMENT.names)):
            raise RuntimeError(
                f"{', '.join(differing)}: a column of segments is declared in accelkd/segments/schema.py (SEGMENT) and "
                "computed in accelkd/segments/segment.py (segment_columns); here only one of them is done"
            )
        schema = segment_schema(channels)
        return pa.RecordBatch.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)

    def _quarantine_recordings(self, violations: list[Violation]) -> None:
        """One row for each recording that breaks a rule, by the first one."""
        for _, group in groupby(violations, key=lambda violation: (violation.file, violation.row)):
            broken = list(group)
            self.seen += 1
            facts = {"recording_id": broken[0].recording_id, "participant_id": broken[0].participant_id}
            self._quarantine("recording", broken[0].rule, "; ".join(map(str, broken)), facts)

    def _quarantine(
        self, unit: str, reason: str, detail: str, facts: dict[str, Any], offset_s: float | None = None
    ) -> None:
        self.quarantined.append(
            {
                "batch_id": self.batch_id,
                "recording_id": facts.get("recording_id"),
                "participant_id": facts.get("participant_id"),
                "unit": unit,
                "offset_s": offset_s,
                "reason": reason,
                "detail": detail,
            }
        )


_WINDOW_COLUMNS = ("recording_id", "participant_id", "started_at", "offset_s", "motion_median_g", "motion_p95_g")


def _ppg_channels(manifest: Manifest) -> int:
    channels = {name: DEVICES[name].ppg_channels for name in manifest.devices if name in DEVICES}
    if len(set(channels.values())) > 1:
        raise ValueError(
            f"batch {manifest.batch_id}: its devices differ in their number of PPG channels ({channels}); "
            "land each in its own batch"
        )
    return next(iter(channels.values()), 1)


def _stream(row: pa.RecordBatch, name: str) -> npt.NDArray[np.float32]:
    """One stream of a recording, `[channels, samples]`, without a copy."""
    channels = row[name][0].values
    flat: npt.NDArray[np.float32] = channels.flatten().to_numpy()
    return flat.reshape(len(channels), -1)


def _label(
    ppg: npt.NDArray[np.float32], status: npt.NDArray[np.uint8], polarity: Literal[1, -1] | None
) -> dict[str, Any]:
    """Label columns of segments with `ppg` [segments, channels, 3840]: the best usable channel of each.

    That is the one with the highest template correlation among those that pass the quality gate, or among all.
    """
    segment, channel = np.nonzero(status == 0)
    labels = rust_dsp.label(ppg[segment, channel], polarity=polarity)
    order = np.lexsort((channel, -labels.template_correlation, ~labels.good, segment))
    best = order[np.unique(segment[order], return_index=True)[1]]
    good = labels.good[best]

    def if_good(values: npt.NDArray[np.float64]) -> list[float | None]:
        return [float(v) if ok and np.isfinite(v) else None for v, ok in zip(values[best], good, strict=True)]

    return {
        **{name: if_good(getattr(labels, name)) for name in LABELS},
        "label_channel": channel[best],
        "label_agreement": labels.agreement[best],
        "label_template_correlation": labels.template_correlation[best],
        "label_coverage": labels.coverage[best],
        "label_good": good,
    }


def _fixed(values: npt.NDArray[np.generic]) -> pa.FixedSizeListArray:
    """Rows of an array as lists of one size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values[0].size if len(values) else 1)


def _null_if_nan(values: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(values, from_pandas=True)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
