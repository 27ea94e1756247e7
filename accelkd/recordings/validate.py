"""The validator of arrival batches: one list of rules, each violation with its file, row, participant and rule.

A batch is checked in two steps. What concerns it as a whole (manifest, hashes, sizes, schemas, names) is fatal: nothing
of the batch may be used. Recordings are checked one by one: an invalid one is quarantined, the others are used. What
is optional (references, facts about participants, answers) is dropped where it breaks a rule, and costs nothing else. A
few bytes can stand for gigabytes, so sizes are checked before anything is decoded, and of each rule a few violations
are kept with the number of all.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
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
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import accept, refuse, replacement_error
from accelkd.recordings.batches import (
    GROUP_ROWS,
    MANIFEST,
    BatchFile,
    BatchFileError,
    Manifest,
    open_batch_file,
    read_manifest,
)
from accelkd.recordings.devices import DEVICES, Device
from accelkd.recordings.limits import ACCEL_NORM_G, RATES_HZ, STARTED_AT, STARTED_AT_US
from accelkd.recordings.listing import Listing, fingerprint, list_folder, printable
from accelkd.recordings.people import clean_participants, clean_survey
from accelkd.recordings.references import Problem, clean_references
from accelkd.recordings.schema import BATCH_TABLES, RECORDING
from accelkd.recordings.screen import screen
from accelkd.recordings.streams import STREAMS, read_stream
from accelkd.recordings.withdrawn import Withdrawn

# Rows of a batch, which has some hundred participants, at most a few thousand: split what is larger
MAX_ROWS = {"recordings": 100_000, "participants": 20_000, "survey": 1_000_000, "truth": 100_000, "rejected": 100_000}
# Values of a row group: more than a week of PPG at 64 Hz beside three axes at 32 Hz, 18 h of eight channels at 256 Hz
MAX_VALUES = 2**27
MAX_TEXT_BYTES = 2**28  # of a file's names and answers, decoded: a million answers take a quarter
# A batch that decodes to a GB and to a thousand times its size holds no signals: simulated ones decode to the triple
MAX_DECODED_BYTES, MAX_EXPANSION = 2**30, 1000
MAX_SHARED_S = 1.0  # of two recordings of one sensor: they may touch
MAX_KEPT = 20  # violations of each rule
MAX_DETAILS = 1000  # recordings of a batch whose quarantine says of a rule what was measured
_MAX_DETAIL = 300  # characters
_VALUES_READ = 2**24  # at a time, where recordings are long
_WIDTH = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}  # bytes of a value in memory


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
    dropped: bool = False  # only what broke the rule was left out: a reference, a value about a person, an answer

    def __str__(self) -> str:
        row = "" if self.row is None else f" row {self.row}"
        participant = "" if self.participant_id is None else f" participant {self.participant_id!r}"
        return f"{self.file}{row}{participant}: {self.rule}{f': {self.detail}' if self.detail else ''}"

    @property
    def redacted(self) -> str:
        """The same for a log, without the participant: file, row and rule identify the violation."""
        if self.participant_id is None and self.recording_id is None:
            return str(self)
        return f"{self.file}{'' if self.row is None else f' row {self.row}'}: {self.rule}"


class Violations(list[Violation]):
    """The violations of a batch: of each rule the first MAX_KEPT, and the number of all."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()  # all violations, by rule
        self.recordings = 0  # that break a rule

    def add(self, violation: Violation) -> None:
        """Count a violation; keep it if it is among the first of its rule."""
        self.counts[violation.rule] += 1
        if self.counts[violation.rule] <= MAX_KEPT:
            self.append(violation)

    def fatal(self, file: str, rule: str, detail: str, row: int | None = None, participant: str | None = None) -> None:
        """Add one because of which nothing of the batch may be used."""
        if self.counts[rule] < MAX_KEPT:
            name = None if participant is None else _name(participant)
            self.append(Violation(_name(file), row, None, name, rule, _shortened(detail), fatal=True))
        self.counts[rule] += 1

    @property
    def omitted(self) -> dict[str, int]:
        """Number of violations that were not kept, by rule."""
        return {rule: count - MAX_KEPT for rule, count in self.counts.items() if count > MAX_KEPT}


class BatchError(ValueError):
    """A batch that breaks a fatal rule; `violations` says which, the message without naming participants."""

    def __init__(self, folder: Path, violations: Violations) -> None:
        lines = [f"  {violation.redacted}" for violation in violations]
        lines += [f"  and {count:,} more: {rule}" for rule, count in violations.omitted.items()]
        super().__init__("\n".join([f"batch {printable(folder.name)} cannot be used:", *lines]))
        self.violations = violations


def validate_arrival(home: Home, batch_id: str) -> Violations:
    """Validate a landed batch: it is refused if it breaks a fatal rule, otherwise an earlier refusal is deleted."""
    violations = validate_batch(home.batch(batch_id), home)
    fatal = [violation for violation in violations if violation.fatal]
    if not fatal:
        accept(home, batch_id)
        return violations
    waits_for = None
    if any(violation.rule == "replaces" for violation in fatal):
        replaces = read_manifest(home.batch(batch_id)).replaces
        waits_for = None if replaces == batch_id else replaces
    refuse(home, batch_id, [violation.redacted for violation in fatal[:MAX_KEPT]], waits_for=waits_for)
    return violations


def validate_batch(folder: Path, home: Home | None = None) -> Violations:
    """The violations of the batch in `folder`; none means that it is valid.

    With `home`, where it landed, also whether the batch that it replaces was ever there.
    """
    violations = Violations()
    try:
        for _, broken in iter_recordings(folder, home):
            violations.recordings += len(
                {(violation.file, violation.row) for violation in broken if violation.recording_id is not None}
            )
            for violation in broken:
                violations.add(violation)
    except BatchError as error:
        return error.violations
    return violations


def iter_recordings(folder: Path, home: Home | None = None) -> Iterator[tuple[pa.RecordBatch, list[Violation]]]:
    """Yield the recordings of a batch, a few at a time: (valid rows, all violations).

    A row is valid if it breaks no rule but those of references, of which what breaks a rule is dropped.
    At most a row group is in memory. Raises BatchError before the first row if the batch breaks a fatal rule, and at
    the latest after the last one if its files changed after their hashes were checked. `home` as in `validate_batch`.
    """
    if not folder.is_symlink():  # which is not followed
        folder = folder.resolve()  # the folder is named after the batch
    fingerprint_before = fingerprint(folder)
    manifest, participants, dropped = _check_batch(folder, home)
    recordings = _Recordings(participants)
    if dropped:
        yield pa.RecordBatch.from_pylist([], RECORDING.arrow()), dropped
    for entry in manifest.files:
        if entry.table == "recordings":
            first = 0
            for rows in _read_rows(folder, entry.path):
                yield recordings.check(rows, entry.path, first)
                first += rows.num_rows
    if fingerprint(folder) != fingerprint_before:
        raise _changed(folder, MANIFEST, "files of the batch changed while it was read")


def _read_rows(folder: Path, path: str) -> Iterator[pa.RecordBatch]:
    try:
        with open_batch_file(folder, path) as source, pq.ParquetFile(source) as file:
            groups = _row_groups(file.metadata)
            values = [sum(abs(group.column(i).num_values) for i in range(group.num_columns)) for group in groups]
            longest = sum(values) // max(file.metadata.num_rows, 1)  # on average
            if all(
                group.num_rows <= 1 or (group.num_rows <= GROUP_ROWS[1] and count <= _VALUES_READ)
                for group, count in zip(groups, values, strict=True)
            ):
                names = file.schema_arrow.names
                numbers = (number for number, group in enumerate(groups) if group.num_rows)
                batches = (_read_group(source, file, names, number) for number in numbers)
            else:
                rows_read = max(min(GROUP_ROWS[1], _VALUES_READ // max(longest, 1)), 1)
                batches = file.iter_batches(rows_read, use_threads=False)  # threads cost more than so few rows
            yield from map(_completed, batches)
    except (pa.ArrowException, OSError, BatchFileError) as error:
        raise _changed(folder, path, str(error)) from None


def _read_group(source: io.BufferedReader, file: pq.ParquetFile, names: list[str], number: int) -> pa.RecordBatch:
    """The columns `names` of a row group of `file`, which was opened from `source`."""
    rows = file.read_row_group(number, [name for name in names if name not in STREAMS], use_threads=False)
    for name in STREAMS:
        if name in names:
            stream = read_stream(source, file, number, name)
            if stream is None:
                stream = file.read_row_group(number, [name], use_threads=False)[name]
            rows = rows.append_column(name, stream)
    return rows.combine_chunks().to_batches()[0]


def _row_groups(metadata: pq.FileMetaData) -> list[pq.RowGroupMetaData]:
    return [metadata.row_group(number) for number in range(metadata.num_row_groups)]


def _completed(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Recordings with every column: those declared after the file was written are null."""
    expected = RECORDING.arrow()
    columns = [
        rows[field.name] if field.name in rows.schema.names else pa.nulls(len(rows), field.type) for field in expected
    ]
    return pa.RecordBatch.from_arrays(columns, schema=expected)


def _changed(folder: Path, file: str, detail: str) -> BatchError:
    violations = Violations()
    violations.fatal(file, "changed", detail)
    return BatchError(folder, violations)


def _check_batch(folder: Path, home: Home | None) -> tuple[Manifest, set[str], list[Violation]]:
    """The manifest and the participants of a batch, and what is dropped about them.

    Raises BatchError with the violations that are fatal.
    """
    violations = Violations()
    manifest, listing = _check_listing(folder, violations)
    if manifest is not None:
        _check_manifest(manifest, folder, home, violations)
        tables = _check_files(manifest, folder, listing, violations)
    if violations or manifest is None:  # the contents of damaged files are not worth checking
        raise BatchError(folder, violations)
    _check_devices(manifest, tables, violations)
    participants = _check_participants(tables["participants.parquet"], Withdrawn(folder.parent), violations)
    if violations:
        raise BatchError(folder, violations)
    return manifest, participants, _dropped_facts(tables, participants)


def _check_listing(folder: Path, violations: Violations) -> tuple[Manifest | None, Listing]:
    """The manifest, None if it cannot be read, and what is in the folder."""
    try:
        listing = list_folder(folder)
    except FileNotFoundError:
        listing = Listing({}, [], "", 0.0)
    for problem in listing.problems:
        violations.fatal(problem.path, problem.rule, problem.detail)
    if violations:
        return None, listing
    try:
        return read_manifest(folder), listing
    except FileNotFoundError:
        violations.fatal(MANIFEST, "manifest", "missing: the batch has not arrived")
    except BatchFileError as error:
        violations.fatal(MANIFEST, error.rule, error.detail)
    return None, listing


def _check_manifest(manifest: Manifest, folder: Path, home: Home | None, violations: Violations) -> None:
    if manifest.batch_id != folder.name:
        detail = f"{manifest.batch_id!r} is not the name of the folder, {folder.name!r}"
        violations.fatal(MANIFEST, "batch_id", detail)
    if error := replacement_error(manifest, home):
        violations.fatal(MANIFEST, "replaces", error)
    for table in BATCH_TABLES:
        if table in ("recordings", "participants") and not any(entry.table == table for entry in manifest.files):
            violations.fatal(MANIFEST, "missing", f"no file of table {table!r}")
        if manifest.rows(table) > MAX_ROWS[table]:
            detail = f"{manifest.rows(table):,} rows of table {table!r}, more than {MAX_ROWS[table]:,}: split the batch"
            violations.fatal(MANIFEST, "too_large", detail)


def _check_files(manifest: Manifest, folder: Path, listing: Listing, violations: Violations) -> dict[str, pa.Table]:
    """The contents of the files that are as they should be, by path: of recordings, their names alone."""
    listed = Counter(entry.path for entry in manifest.files)
    for path, count in sorted(listed.items()):
        if count > 1:
            violations.fatal(MANIFEST, "listed_twice", _name(path))
    for path in sorted(listing.files.keys() - listed.keys() - {MANIFEST}):
        violations.fatal(path, "unlisted", "the manifest does not list this file")
    if violations.counts["too_large"] or violations.counts["listed_twice"]:
        return {}  # nothing is read that is too large, or read again and again
    tables: dict[str, pa.Table] = {}
    decoded_bytes = size_bytes = 0
    for entry in manifest.files:
        try:
            if entry.path not in listing.files and not (folder / entry.path).exists():
                raise FileNotFoundError  # as opening it would, only faster
            with open_batch_file(folder, entry.path) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                    violations.fatal(entry.path, "sha256", "the file is not the one that the manifest lists")
                    continue
                with pq.ParquetFile(file) as parquet:
                    _check_schema(parquet, entry)
                    footer = parquet.metadata
                decoded_bytes += _decoded_bytes(footer)
                size_bytes += listing.files.get(entry.path, 0)
                if decoded_bytes > max(MAX_DECODED_BYTES, MAX_EXPANSION * size_bytes):
                    raise _TooLargeError(f"with those before it, {size_bytes:,} bytes decode to {decoded_bytes:,}")
                tables[entry.path] = _read_names(file, footer, entry.table)
        except FileNotFoundError:
            violations.fatal(entry.path, "missing", "the manifest lists this file")
        except BatchFileError as error:
            violations.fatal(entry.path, error.rule, error.detail)
        except _TooLargeError as error:
            violations.fatal(entry.path, "too_large", str(error))
            return tables
        except (pa.ArrowException, OSError, ValueError) as error:
            violations.fatal(entry.path, "schema", str(error))
    return tables


class _TooLargeError(ValueError):
    """A file that would take more memory than one of its kind does."""


def _check_schema(file: pq.ParquetFile, entry: BatchFile) -> None:
    """Raises ValueError for other columns, types or nulls than the table's, and for another number of rows."""
    schema = file.schema_arrow
    known = {field.name: field for field in schema}
    # A nullable column may be missing, since it may have been declared later, or may never be null
    expected = [field for field in BATCH_TABLES[entry.table].arrow() if not field.nullable or field.name in known]
    if [(field.name, field.type) for field in schema] != [(field.name, field.type) for field in expected]:
        differing = {f"{field.name} {field.type}" for field in schema} ^ {
            f"{field.name} {field.type}" for field in expected
        }
        raise ValueError(
            f"not the schema of table {entry.table!r}; differing: {', '.join(sorted(differing)) or 'order'}"
        )
    if nulls := [field.name for field in expected if known[field.name].nullable and not field.nullable]:
        raise ValueError(f"not the schema of table {entry.table!r}: {', '.join(nulls)} may be null")
    if file.metadata.num_rows != entry.rows:
        raise ValueError(f"the manifest says {entry.rows} rows, the file has {file.metadata.num_rows}")


def _decoded_bytes(metadata: pq.FileMetaData) -> int:
    """What the values of a file take in memory. Raises _TooLargeError for more than a row group or the names may."""
    decoded = names = 0
    for number, group in enumerate(_row_groups(metadata)):
        columns = [group.column(index) for index in range(group.num_columns)]
        values = sum(abs(column.num_values) for column in columns)
        size = max(
            abs(group.total_byte_size),
            sum(abs(column.num_values) * _WIDTH.get(column.physical_type, 0) for column in columns),
        )
        names += sum(column.total_uncompressed_size for column in columns if column.physical_type == "BYTE_ARRAY")
        if values > MAX_VALUES or size > MAX_DECODED_BYTES:
            raise _TooLargeError(
                f"row group {number} has {values:,} values of {size:,} bytes, more than {MAX_VALUES:,} or "
                f"{MAX_DECODED_BYTES:,}: fewer recordings to a row group, or shorter ones"
            )
        if names > MAX_TEXT_BYTES:
            raise _TooLargeError(f"names and texts of {names:,} bytes, more than {MAX_TEXT_BYTES:,}")
        decoded += size
    return decoded


def _read_names(source: BinaryIO, footer: pq.FileMetaData, table: str) -> pa.Table:
    """A file with its texts as dictionaries, which take as much memory as on the disk; of recordings, the texts alone.

    `footer` is its own.
    Raises _TooLargeError if the texts would take too much without, ArrowInvalid for one that is not UTF-8.
    """
    stored = footer.schema.to_arrow_schema().names
    texts = [
        field.name for field in BATCH_TABLES[table].arrow() if pa.types.is_string(field.type) and field.name in stored
    ]
    with pq.ParquetFile(source, metadata=footer, read_dictionary=texts) as file:
        rows = file.read(texts if table == "recordings" else None).unify_dictionaries().combine_chunks()
    size = 0
    for name in texts:
        for chunk in rows.column(name).chunks:
            chunk.dictionary.validate(full=True)
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    if size > MAX_TEXT_BYTES:
        raise _TooLargeError(f"names and texts of {size:,} bytes, more than {MAX_TEXT_BYTES:,}")
    return rows


def _check_devices(manifest: Manifest, tables: dict[str, pa.Table], violations: Violations) -> None:
    listed = set(manifest.devices)
    recorded: set[str] = set()
    for entry in manifest.files:
        if entry.table == "recordings":
            recorded |= set(pc.unique(tables[entry.path].column("device_id")).to_pylist())
    for name in sorted(recorded - listed):
        violations.fatal(MANIFEST, "devices", f"recordings of {name!r}, which it does not list")
    for name in sorted(listed - recorded - DEVICES.keys()):  # a withdrawal may leave a device without recordings
        violations.fatal(MANIFEST, "devices", f"lists {name!r}, which no recording and no row of the device table has")


def _check_participants(table: pa.Table, withdrawn: Withdrawn, violations: Violations) -> set[str]:
    """The participants that a batch describes."""
    file, participants = "participants.parquet", set()
    for row, name in enumerate(table.column("participant_id").to_pylist()):
        if error := _identifier_error("participant_id", name):
            violations.fatal(file, "identifier", error, row, name)
        if name in withdrawn:
            violations.fatal(file, "withdrawn", "withdrew: `accelkd withdraw` removes them again", row, name)
        if name in participants:
            violations.fatal(file, "duplicate_participant", "listed before", row, name)
        participants.add(name)
    return participants


def _dropped_facts(tables: dict[str, pa.Table], participants: set[str]) -> list[Violation]:
    """Values of participants and answers that are left out."""
    dropped = [("participants.parquet", entry) for entry in clean_participants(tables["participants.parquet"])[1]]
    if "survey.parquet" in tables:
        dropped += [("survey.parquet", entry) for entry in clean_survey(tables["survey.parquet"], participants)[1]]
    return [
        Violation(
            file,
            entry.row,
            None,
            _name(entry.participant_id),
            entry.rule,
            _shortened(entry.detail),
            fatal=False,
            dropped=True,
        )
        for file, entry in dropped
    ]


def _identifier_error(field: str, value: str) -> str | None:
    try:
        check_identifier(field, value)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


class _Recordings:
    """The recordings of a batch so far."""

    def __init__(self, participants: set[str]) -> None:
        self._participants = participants
        self._seen: set[str] = set()  # their names
        self._counts: Counter[str] = Counter()  # violations, by rule
        # Start, end, sensor and name of recordings, by participant and device
        self._covered: dict[tuple[str, str], list[tuple[float, float, str | None, str]]] = defaultdict(list)

    def check(self, rows: pa.RecordBatch, file: str, first: int) -> tuple[pa.RecordBatch, list[Violation]]:
        """The valid ones of the next recordings, without the references that break a rule, and all violations.

        `first` is the row of the first one in its file.
        """
        screened = screen(rows)
        names = ("recording_id", "participant_id", "device_id", "sensor_id")
        identities = zip(*(rows[name].to_pylist() for name in names), strict=True)
        started_us = rows["started_at"].cast(pa.int64()).to_pylist()
        valid: list[pa.RecordBatch] = []
        violations: list[Violation] = []
        for number, (recording_id, participant_id, device_id, sensor) in enumerate(identities):
            recording, dropped, errors = rows.slice(number, 1), list[Problem](), list[Problem]()
            end_s = float(screened.end_s[number])
            if not screened.sound[number]:
                recording, dropped = clean_references(recording)
                errors = list(recording_errors(recording))
                end_s = 0.0 if errors else duration_s(recording)
            if recording_id in self._seen:
                errors.append(("duplicate_recording", f"{_name(recording_id)!r} is in this batch already"))
            self._seen.add(recording_id)
            if participant_id not in self._participants:
                errors.append(("participant_unknown", "not in participants.parquet"))
            if not errors and started_us[number] is not None:
                key = (participant_id, device_id)
                errors += self._overlaps(key, started_us[number] / 10**6, end_s, sensor, recording_id)
            if not errors:
                valid.append(recording)
            if errors or dropped:
                row, name, participant = first + number, _name(recording_id), _name(participant_id)
                violations += self._violations(file, row, name, participant, errors, dropped)
        if len(valid) == len(rows) and not violations:
            return rows, []
        return pa.concat_batches(valid) if valid else rows.slice(0, 0), violations

    def _violations(
        self, file: str, row: int, name: str, participant: str, errors: list[Problem], dropped: list[Problem]
    ) -> Iterator[Violation]:
        self._counts.update(rule for rule, _ in [*errors, *dropped])
        for problems, is_dropped in ((errors, False), (dropped, True)):
            for rule, detail in problems:
                shown = _shortened(detail) if self._counts[rule] <= MAX_DETAILS else ""
                yield Violation(file, row, name, participant, rule, shown, fatal=False, dropped=is_dropped)

    def _overlaps(
        self, key: tuple[str, str], start_s: float, lasts_s: float, sensor: str | None, name: str
    ) -> list[Problem]:
        """That the minutes of a valid recording have come before: with the same participant, device and sensor."""
        end_s = start_s + lasts_s
        for other_start_s, other_end_s, other_sensor, other in self._covered[key]:
            shared_s = min(end_s, other_end_s) - max(start_s, other_start_s)
            if shared_s > MAX_SHARED_S and (sensor is None or other_sensor in (None, sensor)):
                return [("overlap", f"{shared_s:.1f} s of it are those of {_name(other)!r}")]
        self._covered[key].append((start_s, end_s, sensor, name))
        return []


def recording_errors(row: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """(rule, detail) of each rule that one recording, a batch of one row, breaks by itself."""
    for name in ("recording_id", "participant_id", "device_id"):
        if error := _identifier_error(name, row[name][0].as_py()):
            yield "identifier", error
    device = DEVICES.get(row["device_id"][0].as_py())
    started_us = row["started_at"].cast(pa.int64())[0].as_py()  # Python's dates end with the year 9999
    if started_us is not None and not STARTED_AT_US[0] <= started_us < STARTED_AT_US[1]:
        yield "started_at", f"{started_us / 1e6:.0f} s after 1970 is not between {STARTED_AT[0]} and {STARTED_AT[1]}"
    if device is None:
        yield "device_unknown", f"{row['device_id'][0].as_py()!r} is not in the device table"
    stream_errors = list(_stream_errors(row, device))
    yield from stream_errors
    if not stream_errors:
        yield from _plausibility_errors(row)


def _stream_errors(row: pa.RecordBatch, device: Device | None) -> Iterator[tuple[str, str]]:
    """Rates, numbers of channels, lengths and nulls of the streams; a modality may be absent, not both."""
    has_dark = {row[name].is_valid()[0].as_py() for name in ("dark", "dark_rate_hz", "dark_offsets_s")}
    if len(has_dark) > 1:
        yield "dark_incomplete", "dark, dark_rate_hz and dark_offsets_s are all present or all null"
        return
    has_ppg, has_accel = (len(row[name][0].values) > 0 for name in ("ppg", "accel"))
    if not has_ppg and not has_accel:
        yield "no_stream", "neither PPG nor acceleration"
        return
    expected: dict[str, int | None] = {}
    if has_ppg:
        expected["ppg"] = device.ppg_channels if device else None
    if has_accel:
        expected["accel"] = 3
    if has_dark == {True}:
        offsets = row["dark_offsets_s"][0].as_py()
        expected["dark"] = len(offsets)
        frame_s = 1 / row["dark_rate_hz"][0].as_py() if row["dark_rate_hz"][0].as_py() else 0.0
        if not all(offset is not None and 0 <= offset < frame_s for offset in offsets):
            yield "dark_offsets", f"{offsets} are not all within a frame of {frame_s:.6f} s"
    wanted, slots = device.dark_slots if device and has_ppg else 0, len(row["dark_offsets_s"][0].as_py() or ())
    if device and wanted is not None and slots != wanted:
        yield "dark_slots", f"{device.device_id} has {wanted}, found {slots}"
    for name in ("ppg", "accel"):
        if name not in expected and row[f"{name}_rate_hz"].is_valid()[0].as_py():
            yield "rate", f"{name}: {row[f'{name}_rate_hz'][0].as_py()} Hz without a channel"
    for name, channels in expected.items():
        rate_hz = row[f"{name}_rate_hz"][0].as_py()
        if rate_hz is None or not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            yield "rate", f"{name}: {rate_hz} Hz is not in {RATES_HZ[0]:g} to {RATES_HZ[1]:g}"
        stream = row[name][0].values
        lengths = stream.value_lengths().to_pylist()
        if channels is not None and len(lengths) != channels:
            yield "channels", f"{name}: expected {channels}{' or none' if name != 'dark' else ''}, found {len(lengths)}"
        if stream.null_count or stream.flatten().null_count:
            yield "null_sample", f"{name}: a missing sample is NaN, not null"
        elif not lengths or min(lengths) == 0:
            yield "empty_stream", f"{name} has no samples"
        elif len(set(lengths)) > 1:
            yield "unequal_lengths", f"{name}: channels of {sorted(set(lengths))} samples"
    polarity = row["ppg_polarity"][0].as_py()
    if polarity not in (None, 1, -1):
        yield "ppg_polarity", f"{polarity} is neither 1 nor -1"


def _plausibility_errors(row: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """Units and times, on streams that are well formed."""
    start_s = row["accel_start_s"][0].as_py()
    ppg, accel = (row[name][0].values for name in ("ppg", "accel"))
    if not np.isfinite(start_s):
        yield "no_overlap", f"accel_start_s is {start_s}"
    elif len(ppg) and len(accel):
        ppg_s = len(ppg[0].values) / row["ppg_rate_hz"][0].as_py()
        accel_s = len(accel[0].values) / row["accel_rate_hz"][0].as_py()
        if not -accel_s < start_s < ppg_s:
            yield "no_overlap", f"acceleration from {start_s} s for {accel_s:.3f} s, PPG for {ppg_s:.3f} s"
    elif start_s:
        yield "accel_start_s", f"{start_s}: a recording of one modality starts with it, at 0"
    if len(accel) and (error := accel_unit_error(accel.flatten().to_numpy().reshape(3, -1))):
        yield "accel_unit", error


def duration_s(row: pa.RecordBatch) -> float:
    """From the start of a valid recording to the end of its last stream."""
    ends_s = [0.0]
    for name, start_s in (("ppg", 0.0), ("accel", row["accel_start_s"][0].as_py())):
        channels = row[name][0].values
        if len(channels):
            ends_s.append(start_s + len(channels[0].values) / row[f"{name}_rate_hz"][0].as_py())
    return max(ends_s)


def accel_unit_error(accel: npt.NDArray[np.float32]) -> str | None:
    """Why `accel` [3, samples] is not in g, judged by the median norm of its complete samples; None where it is."""
    norm = np.sqrt(np.einsum("as,as->s", accel, accel, dtype=np.float64))
    norm = norm[np.isfinite(norm)]
    if not norm.size:
        return None  # no sample at all is missing data
    median = float(np.median(norm))
    if ACCEL_NORM_G[0] < median < ACCEL_NORM_G[1]:
        return None
    return f"median norm {median:.3f} is not between {ACCEL_NORM_G[0]} and {ACCEL_NORM_G[1]} g"


def _name(text: str) -> str:
    """A name as it is shown and stored: identifiers as they are."""
    return printable(text, _MAX_DETAIL)


def _shortened(detail: str) -> str:
    return detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL]}…"
