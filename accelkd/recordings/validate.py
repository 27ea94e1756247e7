"""The validator of arrival batches: one list of rules, each violation with its file, row, participant and rule.

A batch is checked in two steps. What concerns it as a whole (manifest, hashes, schemas, the small tables) is fatal:
nothing of the batch may be used. Recordings are checked one by one: an invalid one is quarantined, the others are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.home.identifiers import check_identifier
from accelkd.recordings.arrivals import fingerprint
from accelkd.recordings.batches import MANIFEST, BatchFileError, Manifest, open_batch_file, read_manifest
from accelkd.recordings.devices import DEVICES, Device
from accelkd.recordings.labels import LABELS
from accelkd.recordings.schema import BATCH_TABLES
from accelkd.recordings.withdrawn import Withdrawn

RATES_HZ = (20.0, 2048.0)  # what rust_dsp resamples
# Median norm of the acceleration, exclusive: gravity, or running; m/s², mg, raw counts and a factor of two fall outside
ACCEL_NORM_G = (0.5, 2.0)
REFERENCE_SOURCES = ("ecg", "device", "simulation")
_REFERENCES = (  # instants, and the values at these instants
    ("reference_beat_s", None),
    ("reference_hr_s", "reference_hr_bpm"),
    ("reference_ibi_end_s", "reference_ibi_s"),
)


@dataclass(frozen=True)
class Violation:
    """One rule that one row, file or batch breaks."""

    file: str  # relative to the batch
    row: int | None  # in that file, from 0; None for the file as a whole
    recording_id: str | None
    participant_id: str | None
    rule: str
    detail: str
    fatal: bool  # nothing of the batch may be used

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        participant = "" if self.participant_id is None else f" participant {self.participant_id!r}"
        return f"{self.file}{row}{participant}: {self.rule}: {self.detail}"

    @property
    def redacted(self) -> str:
        """The same for a log, without the participant: file, row and rule identify the violation."""
        if self.participant_id is None and self.recording_id is None:
            return str(self)
        return f"{self.file}{'' if self.row is None else f' row {self.row}'}: {self.rule}"


class BatchError(ValueError):
    """A batch that breaks a fatal rule; `violations` says which, the message without naming participants."""

    def __init__(self, folder: Path, violations: list[Violation]) -> None:
        lines = [f"  {violation.redacted}" for violation in violations]
        super().__init__("\n".join([f"batch {folder.name} cannot be used:", *lines]))
        self.violations = violations


def validate_batch(folder: Path) -> list[Violation]:
    """Every violation of the batch in `folder`; an empty list means that it is valid."""
    try:
        return [violation for _, violations in iter_recordings(folder) for violation in violations]
    except BatchError as error:
        return error.violations


def iter_recordings(folder: Path) -> Iterator[tuple[pa.RecordBatch, list[Violation]]]:
    """Yield the recordings of a batch row group by row group: (valid rows, violations of the other rows).

    At most one row group is in memory. Raises BatchError before the first row if the batch breaks a fatal rule,
    and at the latest after the last one if its files changed after their hashes were checked.
    """
    if not folder.is_symlink():  # which is not followed
        folder = folder.resolve()  # the folder is named after the batch
    fingerprint_before = fingerprint(folder)
    manifest, participants = _check_batch(folder)
    seen: set[str] = set()
    for entry in manifest.files:
        if entry.table != "recordings":
            continue
        first = 0
        try:
            source = open_batch_file(folder, entry.path)
            parquet = pq.ParquetFile(source)
        except (FileNotFoundError, BatchFileError, pa.ArrowException) as error:
            raise _changed(folder, entry.path, str(error)) from None
        with source, parquet as file:
            for group in range(file.num_row_groups):
                try:
                    table = file.read_row_group(group)
                except (pa.ArrowException, OSError) as error:
                    raise _changed(folder, entry.path, str(error)) from None
                rows = pa.RecordBatch.from_struct_array(table.to_struct_array().combine_chunks())
                valid, violations = [], []
                for number in range(rows.num_rows):
                    errors = _check_recording(rows, number, entry.path, first + number, participants, seen)
                    valid.append(not errors)
                    violations += errors
                yield rows.filter(pa.array(valid, pa.bool_())), violations
                first += rows.num_rows
    if fingerprint(folder) != fingerprint_before:
        raise _changed(folder, MANIFEST, "files of the batch changed while it was read")


def _changed(folder: Path, file: str, detail: str) -> BatchError:
    return BatchError(folder, [Violation(file, None, None, None, "changed", detail, fatal=True)])


def _check_batch(folder: Path) -> tuple[Manifest, set[str]]:
    """The manifest and the participants of a batch. Raises BatchError with all fatal violations."""
    violations: list[Violation] = []

    def fatal(file: str, rule: str, detail: str, row: int | None = None, participant: str | None = None) -> None:
        violations.append(Violation(file, row, None, participant, rule, detail, fatal=True))

    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        fatal(MANIFEST, "manifest", "missing: the batch has not arrived")
        raise BatchError(folder, violations) from None
    except BatchFileError as error:
        fatal(MANIFEST, error.rule, error.detail)
        raise BatchError(folder, violations) from None
    if manifest.batch_id != folder.name:
        fatal(MANIFEST, "batch_id", f"{manifest.batch_id!r} is not the name of the folder, {folder.name!r}")

    listed = [entry.path for entry in manifest.files]
    for path in sorted({path for path in listed if listed.count(path) > 1}):
        fatal(MANIFEST, "listed_twice", path)
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    for path in sorted(present - set(listed) - {MANIFEST}):
        fatal(path, "unlisted", "the manifest does not list this file")
    tables: dict[str, pa.Table] = {}
    for entry in manifest.files:
        try:
            with open_batch_file(folder, entry.path) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256:
                    tables[entry.path] = _open_table(file, entry.table, entry.rows)
                else:
                    fatal(entry.path, "sha256", "the file is not the one that the manifest lists")
        except FileNotFoundError:
            fatal(entry.path, "missing", "the manifest lists this file")
        except BatchFileError as error:
            fatal(entry.path, error.rule, error.detail)
        except (pa.ArrowException, OSError, ValueError) as error:
            fatal(entry.path, "schema", str(error))
    for table in ("recordings", "participants"):
        if not any(entry.table == table for entry in manifest.files):
            fatal(MANIFEST, "missing", f"no file of table {table!r}")
    if violations:  # the contents of damaged files are not worth checking
        raise BatchError(folder, violations)

    participants: set[str] = set()
    withdrawn = Withdrawn(folder.parent)
    for row, participant in enumerate(tables["participants.parquet"].to_pylist()):
        name = participant["participant_id"]
        for rule, detail in _participant_errors(participant):
            fatal("participants.parquet", rule, detail, row, name)
        if name in withdrawn:
            fatal("participants.parquet", "withdrawn", "withdrew: `accelkd withdraw` removes them again", row, name)
        if name in participants:
            fatal("participants.parquet", "duplicate_participant", "listed before", row, name)
        participants.add(name)
    answered: set[tuple[str, str]] = set()
    if "survey.parquet" in tables:
        for row, answer in enumerate(tables["survey.parquet"].to_pylist()):
            key = (answer["participant_id"], answer["question_id"])
            if key[0] not in participants:
                fatal("survey.parquet", "participant_unknown", "not in participants.parquet", row, key[0])
            if key in answered:
                fatal("survey.parquet", "duplicate_answer", f"question {key[1]!r}", row, key[0])
            answered.add(key)
    if violations:
        raise BatchError(folder, violations)
    return manifest, participants


def _open_table(source: BinaryIO, table: str, rows: int) -> pa.Table:
    """Check the schema, the nulls and the row count of one file; read it, unless it holds signals."""
    with pq.ParquetFile(source) as file:
        expected, schema = BATCH_TABLES[table].arrow(), file.schema_arrow
        if not schema.equals(expected):
            differing = sorted(
                {f"{field.name} {field.type}" for field in schema}
                ^ {f"{field.name} {field.type}" for field in expected}
            )
            raise ValueError(
                f"not the schema of table {table!r}; differing: {', '.join(differing) or 'order or nulls'}"
            )
        if file.metadata.num_rows != rows:
            raise ValueError(f"the manifest says {rows} rows, the file has {file.metadata.num_rows}")
        return schema.empty_table() if table == "recordings" else file.read()


def _identifier_error(field: str, value: str) -> str | None:
    try:
        check_identifier(field, value)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _participant_errors(participant: dict[str, object]) -> Iterator[tuple[str, str]]:
    """(rule, detail) of a row of the participants table."""
    if error := _identifier_error("participant_id", str(participant["participant_id"])):
        yield "identifier", error
    if participant["sex"] not in (None, "female", "male"):
        yield "sex", f"{participant['sex']!r} is neither 'female' nor 'male'"
    for field, low, high in (("age_years", 0.0, 125.0), ("height_m", 0.4, 2.6), ("bmi_kg_m2", 8.0, 120.0)):
        value = participant[field]
        if isinstance(value, float) and not low <= value <= high:
            yield field, f"{value} is not in {low:g} to {high:g}"


def _check_recording(
    rows: pa.RecordBatch, number: int, file: str, row: int, participants: set[str], seen: set[str]
) -> list[Violation]:
    """All violations of one recording; adds its id to `seen`."""
    recording_id, participant_id = (rows[name][number].as_py() for name in ("recording_id", "participant_id"))
    errors = list(recording_errors(rows.slice(number, 1)))
    if recording_id in seen:
        errors.append(("duplicate_recording", f"{recording_id!r} is in this batch already"))
    seen.add(recording_id)
    if participant_id not in participants:
        errors.append(("participant_unknown", "not in participants.parquet"))
    return [Violation(file, row, recording_id, participant_id, *error, fatal=False) for error in errors]


def recording_errors(row: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """(rule, detail) of each rule that one recording, a batch of one row, breaks by itself."""
    for name in ("recording_id", "participant_id", "device_id"):
        if error := _identifier_error(name, row[name][0].as_py()):
            yield "identifier", error
    device = DEVICES.get(row["device_id"][0].as_py())
    if device is None:
        yield "device_unknown", f"{row['device_id'][0].as_py()!r} is not in the device table"
    stream_errors = list(_stream_errors(row, device))
    yield from stream_errors
    if not stream_errors:
        yield from _plausibility_errors(row)
    yield from _reference_errors(row)


def _stream_errors(row: pa.RecordBatch, device: Device | None) -> Iterator[tuple[str, str]]:
    """Rates, numbers of channels, lengths and nulls of the three streams."""
    has_dark = {row[name].is_valid()[0].as_py() for name in ("dark", "dark_rate_hz", "dark_offsets_s")}
    if len(has_dark) > 1:
        yield "dark_incomplete", "dark, dark_rate_hz and dark_offsets_s are all present or all null"
        return
    expected = {"ppg": device.ppg_channels if device else None, "accel": 3}
    if has_dark == {True}:
        offsets = row["dark_offsets_s"][0].as_py()
        expected["dark"] = len(offsets)
        frame_s = 1 / row["dark_rate_hz"][0].as_py() if row["dark_rate_hz"][0].as_py() else 0.0
        if not all(offset is not None and 0 <= offset < frame_s for offset in offsets):
            yield "dark_offsets", f"{offsets} are not all within a frame of {frame_s:.6f} s"
    if device and len(row["dark_offsets_s"][0].as_py() or ()) != device.dark_slots:
        yield (
            "dark_slots",
            f"{device.device_id} has {device.dark_slots}, found {len(row['dark_offsets_s'][0].as_py() or ())}",
        )
    for name, channels in expected.items():
        rate_hz = row[f"{name}_rate_hz"][0].as_py()
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            yield "rate", f"{name}: {rate_hz} Hz is not in {RATES_HZ[0]:g} to {RATES_HZ[1]:g}"
        stream = row[name][0].values
        lengths = stream.value_lengths().to_pylist()
        if channels is not None and len(lengths) != channels:
            yield "channels", f"{name}: expected {channels}, found {len(lengths)}"
        if stream.null_count or stream.flatten().null_count:
            yield "null_sample", f"{name}: a missing sample is NaN, not null"
        elif not lengths or min(lengths) == 0:
            yield "empty_stream", f"{name} has no samples"
        elif len(set(lengths)) > 1:
            yield "unequal_lengths", f"{name}: channels of {sorted(set(lengths))} samples"


def _plausibility_errors(row: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """Units and times, on streams that are well formed."""
    start_s = row["accel_start_s"][0].as_py()
    ppg, accel = (row[name][0].values for name in ("ppg", "accel"))
    ppg_s = len(ppg[0].values) / row["ppg_rate_hz"][0].as_py()
    accel_s = len(accel[0].values) / row["accel_rate_hz"][0].as_py()
    if not -accel_s < start_s < ppg_s:
        yield "no_overlap", f"acceleration from {start_s} s for {accel_s:.3f} s, PPG for {ppg_s:.3f} s"
    if error := accel_unit_error(accel.flatten().to_numpy().reshape(3, -1)):
        yield "accel_unit", error


def accel_unit_error(accel: npt.NDArray[np.float32]) -> str | None:
    """Why `accel` [3, samples] is not in g, judged by the median norm of its complete samples; None where it is."""
    norm = np.sqrt(np.einsum("as,as->s", accel, accel, dtype=np.float64))
    norm = norm[np.isfinite(norm)]
    median = float(np.median(norm)) if norm.size else float("nan")
    if ACCEL_NORM_G[0] < median < ACCEL_NORM_G[1]:
        return None
    return f"median norm {median:.3f} is not between {ACCEL_NORM_G[0]} and {ACCEL_NORM_G[1]} g"


def _reference_errors(row: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """Reference labels: increasing instants, as many values as instants, positive values, a named source."""
    for name in LABELS:
        value = row[name][0].as_py()
        if value is not None and not 0 <= value < np.inf:
            yield "reference_value", f"{name}: {value}"
    for instants, values in _REFERENCES:
        times = row[instants][0].values
        if times is not None and not _finite(times):
            yield "reference_value", f"{instants}: null or not finite"
        elif times is not None and pc.any(pc.less_equal(pc.pairwise_diff(times, 1), 0.0)).as_py():
            yield "reference_order", f"{instants} does not increase"
        if values is None:
            continue
        data = row[values][0].values
        if (times is None) != (data is None) or (times is not None and len(times) != len(data)):
            yield (
                "reference_lengths",
                f"{instants} has {'no' if times is None else len(times)}, "
                f"{values} {'no' if data is None else len(data)} values",
            )
        elif data is not None and not (_finite(data) and pc.all(pc.greater(data, 0.0)).as_py()):
            yield "reference_value", f"{values}: null, not finite or not positive"
    events = row["event_s"][0].values
    if events is not None and not _finite(events):
        yield "event_value", "event_s: null or not finite"
    source = row["reference_source"][0].as_py()
    columns = [*LABELS, *(name for pair in _REFERENCES for name in pair if name)]
    if source is None and any(row[name].is_valid()[0].as_py() for name in columns):
        yield "reference_source", f"null, with reference labels; expected one of {', '.join(REFERENCE_SOURCES)}"
    elif source is not None and source not in REFERENCE_SOURCES:
        yield "reference_source", f"{source!r} is none of {', '.join(REFERENCE_SOURCES)}"


def _finite(values: pa.Array) -> bool:
    return not values.null_count and bool(np.isfinite(values.to_numpy()).all())
