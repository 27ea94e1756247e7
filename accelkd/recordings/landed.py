"""What has landed before: recordings by their samples, and the times that they cover."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.recordings.batches import MANIFEST, open_batch_file, read_manifest
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.listing import printable
from accelkd.recordings.readers import Recording, Unreadable
from accelkd.recordings.timeline import MIN_PART_S, cut
from accelkd.recordings.validate import MAX_SHARED_S

logger = logging.getLogger(__name__)
HASH_DIGITS = 12  # of the samples' hash, at the end of a recording's name
_SLACK_S = MAX_SHARED_S - 0.01  # landed times are rounded
_COLUMNS = [
    "recording_id",
    "participant_id",
    "device_id",
    "started_at",
    "ppg_rate_hz",
    "accel_rate_hz",
    "accel_start_s",
]


@dataclass(frozen=True)
class _Covered:
    """The time of one recording, in seconds since 1970."""

    start_s: float
    end_s: float
    sensor_id: str | None
    recording: str


class Landed:
    """The ingested recordings of a landing zone, of all batches but `exclude`, and what is added to them.

    A batch that cannot be read stops nothing: it is logged, and loading compares recordings once more.
    """

    def __init__(self, landing: Path, exclude: Collection[str | None]) -> None:
        self._samples: dict[str, str] = {}  # recording and batch, by the hash of its samples
        self._covered: dict[str, list[_Covered]] = defaultdict(list)  # by participant
        for manifest_path in sorted(landing.glob(f"*/{MANIFEST}")):
            folder = manifest_path.parent
            try:
                self._read(folder, exclude)
            except (ValueError, FileNotFoundError, pa.ArrowException) as error:  # also of names that are not UTF-8
                name, why = printable(folder.name), printable(str(error))
                logger.warning("recordings that batch %s holds may land again: %s", name, why)

    def _read(self, folder: Path, exclude: Collection[str | None]) -> None:
        manifest = read_manifest(folder)
        if manifest.batch_id in exclude or manifest.source not in DEVICES:
            return
        for entry in manifest.files:
            if entry.table != "recordings":
                continue
            with open_batch_file(folder, entry.path) as file, pq.ParquetFile(file) as parquet:
                names = [name for name in [*_COLUMNS, "sensor_id"] if name in parquet.schema_arrow.names]
                rows = parquet.read(names).to_pylist()
                samples = _sample_counts(parquet, rows[0]["device_id"]) if len(rows) == 1 else {}  # as ingested
            for row in rows:
                shown = f"{row['recording_id']} of batch {manifest.batch_id}"
                self._samples[row["recording_id"][-HASH_DIGITS:]] = shown
                if row["started_at"] is not None and samples:
                    ends_s = [
                        (row["accel_start_s"] if stream == "accel" else 0.0) + count / row[f"{stream}_rate_hz"]
                        for stream, count in samples.items()
                        if count and row[f"{stream}_rate_hz"]
                    ]
                    start_s = row["started_at"].timestamp()
                    covered = _Covered(start_s, start_s + max(ends_s, default=0.0), row.get("sensor_id"), shown)
                    self._covered[row["participant_id"]].append(covered)

    def uncovered(self, participant_id: str, recording: Recording) -> tuple[list[Recording], list[str]]:
        """The parts of a recording whose minutes no other of the participant and the sensor covers, and notes.

        Raises Unreadable if nothing of a minute is left.
        """
        if recording.started_at_s is None:
            return [recording], []
        start_s = recording.started_at_s
        free, notes = [(0.0, recording.duration_s)], []
        for other in self._covered[participant_id]:
            same_sensor = recording.sensor_id is None or other.sensor_id in (None, recording.sensor_id)
            low_s, high_s = other.start_s - start_s, other.end_s - start_s
            if not same_sensor or min(high_s, recording.duration_s) - max(low_s, 0.0) <= _SLACK_S:
                continue
            overlap_s = min(high_s, recording.duration_s) - max(low_s, 0.0)
            notes.append(f"{overlap_s:.1f} s left out: the same time as {other.recording}")
            free = [
                part
                for begin_s, end_s in free
                for part in ((begin_s, min(end_s, low_s)), (max(begin_s, high_s), end_s))
                if part[1] - part[0] > 0
            ]
        if not notes:
            return [recording], []
        parts = [cut(recording, begin_s, end_s) for begin_s, end_s in free if end_s - begin_s >= MIN_PART_S]
        if not parts:
            raise Unreadable("overlap", "; ".join(notes))
        return parts, notes

    def add(self, recording_id: str, participant_id: str, recording: Recording, source_file: str) -> None:
        """Remember a recording of this delivery. Raises Unreadable if its samples have landed before."""
        samples = recording_id[-HASH_DIGITS:]
        if samples in self._samples:
            raise Unreadable("duplicate", f"the same samples as {self._samples[samples]}")
        self._samples[samples] = source_file
        if recording.started_at_s is not None:
            end_s = recording.started_at_s + recording.duration_s
            covered = _Covered(recording.started_at_s, end_s, recording.sensor_id, source_file)
            self._covered[participant_id].append(covered)


def _sample_counts(parquet: pq.ParquetFile, device_id: str) -> dict[str, int]:
    """Samples per channel of the only recording of a file, by stream; PPG is read only where nothing else tells."""
    values: Counter[str] = Counter()
    for group in range(parquet.metadata.num_row_groups):
        for index in range(parquet.metadata.num_columns):
            column = parquet.metadata.row_group(group).column(index)
            values[column.path_in_schema.split(".")[0]] += column.num_values
    channels = {"accel": 3, "ppg": DEVICES[device_id].ppg_channels if device_id in DEVICES else None}
    if channels["ppg"] is None and values["ppg"] > 1:
        channels["ppg"] = len(parquet.read(["ppg"])["ppg"][0].values)
    # A stream without samples counts as one value
    return {name: values[name] // number for name, number in channels.items() if number and values[name] > 1}
