"""From an arrival batch to its segment store and its quarantine: every window is in exactly one of the two."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
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
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.labels import LABELS
from accelkd.recordings.validate import Violation, iter_recordings
from accelkd.segments.estimates import Chunk, estimate, has_pulse
from accelkd.segments.reference import Reference, references, window_reference
from accelkd.segments.schema import DURATION_S, QUARANTINE, SEGMENT
from accelkd.segments.store import MODALITIES, SegmentStore, write_segments
from accelkd.segments.windows import (
    CHUNK_SIZE,
    PART_SIZE,
    Raw,
    device_plan,
    motion_reason,
    preprocess_windows,
    window_samples,
)


@dataclass(frozen=True)
class SegmentCounts:
    """The outcome of one batch.

    `seen` counts windows, recordings without any, references that were dropped and files that could not be read.
    """

    seen: int
    segments: int
    quarantined: int
    reasons: dict[str, int]  # of the quarantined, largest first
    participants: int  # with a segment
    label_good: int  # segments whose labels passed the quality gate
    with_reference: int  # segments with a reference heart rate
    label_medians: dict[str, float]  # of the segments with good labels, by label; none where there are none
    channels: dict[str, dict[int, int]]  # segments by modality and number of channels


@dataclass(frozen=True)
class _Window:
    """One window that passed the motion gate."""

    plan: rust_dsp.Plan
    device_id: str
    polarity: Literal[1, -1] | None
    recording_id: str
    participant_id: str
    started_at: datetime | None
    offset_s: float
    motion_median_g: float | None
    motion_p95_g: float | None
    lies_still: bool
    reference: Reference


_RawWindow = tuple[_Window, Raw, Raw, Raw]  # with its PPG, dark slots and acceleration; what it lacks has no rows


def _kind(raw: _RawWindow) -> tuple[object, ...]:
    """Windows of one kind are processed together."""
    window, *streams = raw
    return window.plan, window.polarity, *map(len, streams)


def segment_batch(home: Home, batch_id: str, *, gate: MotionGate = "strict", hop_s: float = 60.0) -> SegmentCounts:
    """Segment the valid recordings of a landed batch; write its segment store and its quarantine.

    Windows start every `hop_s` seconds. The motion gate keeps a window whose 95th percentile (`strict`) or median
    (`loose`) of the per-second spread of acceleration is below 0.05 g; `off` keeps all, and so does a window without
    acceleration. A window in which nothing but noise moves the accelerometer and that has no pulse was not worn; `off`
    keeps it. A window becomes a segment if at least one PPG channel is good, every accelerometer axis is complete and
    not all are flat; the rows of bad channels are zeros, with their status. A modality without a single sample in the
    window is absent, and the other one stands alone. Labels come from the PPG channel with the highest template
    correlation among those that pass the quality gate. Both files are replaced atomically and depend only on the batch
    and the arguments; memory is that of a few hundred windows.

    Raises BatchError for a batch that breaks a fatal rule, SupersededError for one that a correction has replaced, also
    meanwhile, RuntimeError if the counts do not add up. No file is put in place then.
    """
    check_not_superseded(home, batch_id)
    folder = home.batch(batch_id)
    manifest = read_manifest(folder)
    segmenter = _Segmenter(batch_id, gate, hop_s)
    targets = home.segments(batch_id), home.quarantine(batch_id)
    with scratch_folder(targets[0]) as scratch, scratch_folder(targets[1]) as quarantine_scratch:
        store, listed = scratch / targets[0].name, quarantine_scratch / targets[1].name
        write_segments(store, segmenter.run(folder, manifest))
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


def verify_segments(home: Home, batch_id: str, verify: Callable[[Path], str] = verify_checksum) -> str:
    """SHA-256 of a batch's segment store, after checking store and quarantine against their checksums.

    Call this once before reading signals or loading a batch; to count segments it is not needed. `verify` checks one
    file, by default by hashing it (accelkd.home.verified has another). Raises DamagedFileError for a file that is
    damaged or missing: `accelkd repair` re-segments the batch.
    """
    try:
        verify(home.quarantine(batch_id))
        return verify(home.segments(batch_id))
    except DamagedFileError as error:
        raise DamagedFileError(f"batch {batch_id}: {error}; `accelkd repair` re-segments the batch") from None


def recount(home: Home, batch_id: str) -> SegmentCounts:
    """Count what `segment_batch` wrote for a batch, from its files."""
    return _count(home.segments(batch_id), home.quarantine(batch_id))


def _count(store: Path, listed: Path) -> SegmentCounts:
    segments = SegmentStore([store])
    metadata = segments.metadata
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
        channels={
            modality: dict(sorted(Counter(segments.counts(modality).tolist()).items())) for modality in MODALITIES
        },
    )


def segment_id(recording_id: str, offset_s: float) -> str:
    """Name of a segment: 16 hex digits of a hash of its recording and its offset in microseconds."""
    return hashlib.sha256(f"{recording_id} {round(offset_s * 1e6)}".encode()).hexdigest()[:16]


def segment_columns(batch_id: str, windows: Sequence[_Window], computed: Mapping[str, pa.Array]) -> dict[str, Any]:
    """Every column of SEGMENT for windows of one kind, by name; `computed` are those that the signals give."""
    return {
        "segment_id": [segment_id(window.recording_id, window.offset_s) for window in windows],
        "batch_id": [batch_id] * len(windows),
        "device_id": [window.device_id for window in windows],
        **{name: [getattr(window, name) for window in windows] for name in _WINDOW_COLUMNS},
        **{f"reference_{name}": [getattr(window.reference, name) for window in windows] for name in LABELS},
        **computed,
    }


class _Segmenter:
    """One pass over a batch: yields segments, collects what is quarantined, counts what it has seen."""

    def __init__(self, batch_id: str, gate: MotionGate, hop_s: float) -> None:
        self.batch_id = batch_id
        self.gate = gate
        self.hop_s = hop_s
        self.seen = 0
        self.quarantined: list[dict[str, Any]] = []

    def run(self, folder: Path, manifest: Manifest) -> Iterator[pa.RecordBatch]:
        """Record batches of SEGMENT, at most `CHUNK_SIZE` rows each."""
        segments = 0
        windows = self._windows(folder, manifest.rows("recordings"))
        for _, same_kind in groupby(windows, key=_kind):
            while (batch := self._segments(islice(same_kind, CHUNK_SIZE))) is not None:
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

    def _windows(self, folder: Path, recordings: int) -> Iterator[_RawWindow]:
        """The windows of all valid recordings that pass the motion gate."""

        def each() -> Iterator[dict[str, Any]]:
            for valid, violations in iter_recordings(folder):
                self._quarantine_recordings(violations)
                columns = [_values(column) for column in valid.columns]
                yield from (dict(zip(valid.schema.names, values, strict=True)) for values in zip(*columns, strict=True))

        for facts in progress(each(), f"segment {self.batch_id}", recordings):
            yield from self._recording_windows(facts)

    def _recording_windows(self, facts: dict[str, Any]) -> Iterator[_RawWindow]:
        """The windows of one recording, from its values by column."""
        device = DEVICES[facts["device_id"]]
        ppg, dark, accel = (_NONE if facts[name] is None else facts[name] for name in ("ppg", "dark", "accel"))
        ppg_hz, dark_hz, accel_hz = (facts[f"{name}_rate_hz"] for name in ("ppg", "dark", "accel"))
        dark_offsets_s = facts["dark_offsets_s"]
        try:
            plan = device_plan(
                device, ppg_hz, accel_hz, dark_hz, (0.0,) if dark_offsets_s is None else tuple(dark_offsets_s.tolist())
            )
        except ValueError as error:
            self.seen += 1
            self._quarantine("recording", "unsupported_rate", str(error), facts)
            return
        windows = plan.windows(
            ppg if len(ppg) else None,
            accel if len(accel) else None,
            dark=dark if len(dark) else None,
            hop_s=self.hop_s,
            accel_start_s=facts["accel_start_s"],
            gate=self.gate,
        )
        if not len(windows.offset_s):
            self.seen += 1
            lasts = [
                f"{name} {stream.shape[1] / rate_hz:.3f} s"
                for name, stream, rate_hz in (("PPG", ppg, ppg_hz), ("acceleration", accel, accel_hz))
                if len(stream)
            ]
            self._quarantine("recording", "too_short", f"no whole window of {DURATION_S} s: {', '.join(lasts)}", facts)
        known = references(facts)
        for i, offset_s in enumerate(windows.offset_s.tolist()):
            self.seen += 1
            window_ppg = _present(window_samples(ppg, windows.ppg_start[i], ppg_hz or 0.0))
            window_accel = _present(window_samples(accel, windows.accel_start[i], accel_hz or 0.0))
            median_g, p95_g = float(windows.motion_median_g[i]), float(windows.motion_p95_g[i])
            if not len(window_ppg) and not len(window_accel):
                self._quarantine("window", "no_signal", "not a single sample of PPG or acceleration", facts, offset_s)
                continue
            if len(window_accel) and (reason := motion_reason(windows.kept[i], p95_g)):
                detail = f"spread of acceleration: median {median_g:.4f} g, 95th percentile {p95_g:.4f} g"
                self._quarantine("window", reason, detail, facts, offset_s)
                continue
            window = _Window(
                plan=plan,
                device_id=device.device_id,
                polarity=facts["ppg_polarity"] or device.polarity,
                recording_id=facts["recording_id"],
                participant_id=facts["participant_id"],
                started_at=facts["started_at"] and facts["started_at"] + timedelta(seconds=offset_s),
                offset_s=offset_s,
                motion_median_g=median_g if np.isfinite(median_g) else None,
                motion_p95_g=p95_g if np.isfinite(p95_g) else None,
                lies_still=bool(windows.lies_still[i]) and self.gate != "off",
                reference=window_reference(known, offset_s, only_window=len(windows.offset_s) == 1),
            )
            window_dark = window_samples(dark, windows.dark_start[i], dark_hz or ppg_hz or 0.0)
            yield window, window_ppg, window_dark if len(window_ppg) else _NONE, window_accel

    def _segments(self, raw: Iterator[_RawWindow]) -> pa.RecordBatch | None:
        """The segments among windows of one kind; unfit windows and those not worn are quarantined. None without any.

        A part at a time, so that few raw windows are in memory.
        """
        segments: list[_Window] = []
        unfit: list[tuple[_Window, str, str]] = []
        still: list[_Window] = []
        chunk = Chunk(CHUNK_SIZE)
        part = list(islice(raw, PART_SIZE))
        if not part:
            return None
        while part:
            windows, *streams = zip(*part, strict=True)
            plan, polarity = windows[0].plan, windows[0].polarity
            done, reasons = preprocess_windows(plan, *(stream if len(stream[0]) else None for stream in streams))
            unfit += [(windows[i], reason, _quality(done, i, reason)) for i, reason in enumerate(reasons) if reason]
            fit = np.array([i for i, reason in enumerate(reasons) if reason is None], np.intp)
            estimated = estimate(done, fit, polarity)
            worn = has_pulse(estimated) | ~np.array([windows[i].lies_still for i in fit], np.bool_)
            still += [windows[i] for i in fit[~worn]]
            segments += [windows[i] for i in fit[worn]]
            chunk.add(done, fit[worn], estimated if worn.all() else estimated.filter(pa.array(worn)))
            part = list(islice(raw, PART_SIZE))
        for window, reason, detail in unfit:
            self._quarantine_window(window, reason, detail)
        for window in still:
            moves = f"spread of acceleration: median {window.motion_median_g or 0.0:.4f} g"
            self._quarantine_window(window, "not_worn", f"nothing but noise moves the sensor, and no pulse: {moves}")
        columns = segment_columns(self.batch_id, segments, chunk.columns())
        if differing := sorted(columns.keys() ^ set(SEGMENT.names)):
            raise RuntimeError(
                f"{', '.join(differing)}: a column of segments is declared in accelkd/segments/schema.py (SEGMENT) and "
                "computed in accelkd/segments/segment.py (segment_columns); here only one of them is done"
            )
        schema = SEGMENT.arrow()
        return pa.RecordBatch.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)

    def _quarantine_recordings(self, violations: list[Violation]) -> None:
        """One row for each recording that breaks a rule, by the first one, or for each of its references that does."""
        for _, group in groupby(violations, key=lambda violation: (violation.file, violation.row)):
            broken = list(group)
            facts = {"recording_id": broken[0].recording_id, "participant_id": broken[0].participant_id}
            errors = [violation for violation in broken if not violation.dropped]
            if errors:
                self.seen += 1
                self._quarantine("recording", errors[0].rule, "; ".join(map(str, errors)), facts)
                continue
            unit = {"participants.parquet": "participant", "survey.parquet": "answer"}.get(broken[0].file, "reference")
            for violation in broken:
                self.seen += 1
                self._quarantine(unit, violation.rule, str(violation), facts)

    def _quarantine_window(self, window: _Window, reason: str, detail: str) -> None:
        facts = {"recording_id": window.recording_id, "participant_id": window.participant_id}
        self._quarantine("window", reason, detail, facts, window.offset_s)

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


_NONE: Raw = np.empty((0, 0), np.float32)
_WINDOW_COLUMNS = ("recording_id", "participant_id", "started_at", "offset_s", "motion_median_g", "motion_p95_g")


def _values(column: pa.Array) -> list[Any]:
    """The values of a column, one of each recording: a series as an array, a stream as `[channels, samples]`.

    Neither is copied; both are None where they are null.
    """
    if not pa.types.is_list(column.type):
        values: list[Any] = column.to_pylist()
        return values
    is_stream = pa.types.is_list(column.type.value_type)
    numbers = (column.values.values if is_stream else column.values).to_numpy(zero_copy_only=False)
    edges = column.offsets.to_numpy()
    channels = np.diff(edges)
    if is_stream:
        edges = column.values.offsets.to_numpy()[edges]
    parts = [numbers[begin:end] for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
    if is_stream:
        parts = [part.reshape(rows, -1) if rows else _NONE for part, rows in zip(parts, channels.tolist(), strict=True)]
    return [part if is_there else None for part, is_there in zip(parts, column.is_valid().to_pylist(), strict=True)]


def _present(samples: Raw) -> Raw:
    """The samples of a window, or no row where not one of them is there."""
    return samples if np.isfinite(samples[:, :1]).any() or np.isfinite(samples).any() else _NONE


def _quality(done: rust_dsp.Preprocessed, row: int, reason: str) -> str:
    """What was measured of the channels of a window that is unfit, in the stream that the reason begins with."""
    stream = reason.partition("_")[0]
    status, missing = (getattr(done, f"{stream}_{fact}")[row].tolist() for fact in ("status", "missing"))
    return f"status {status}, missing {[round(share, 4) for share in missing]}"


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
