"""Ingestion: from a folder that a device's software exported to arrival batches."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import chain
from pathlib import Path, PurePath
from typing import cast

import numpy as np
import pyarrow as pa

from accelkd.home.identifiers import check_identifier
from accelkd.home.progress import progress
from accelkd.recordings.batches import writing_batch
from accelkd.recordings.deliveries import MAX_PARTICIPANTS, batch_ids
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.identity import by_path, level_of
from accelkd.recordings.landed import HASH_DIGITS, Landed
from accelkd.recordings.listing import printable, printable_text
from accelkd.recordings.people import clean_participants
from accelkd.recordings.readers import Demographics, Reader, Recording, Session, Unreadable
from accelkd.recordings.references import clean_references
from accelkd.recordings.schema import PARTICIPANT, RECORDING, REJECTED
from accelkd.recordings.timeline import pieces_of
from accelkd.recordings.unpack import Delivered, delivered_files
from accelkd.recordings.validate import recording_errors
from accelkd.recordings.withdrawn import Withdrawn

# Files about a delivery, in any format, and hidden ones
_ABOUT = re.compile(r"\..*|.*(?:readme|licen[cs]e|citation|changelog|copying)[^/]*|.*\.(?:md|rst|pdf)", re.IGNORECASE)
# Names of tables that say who the people are
_ABOUT_PEOPLE = re.compile(r".*(?:participant|subject|demographic).*\.(?:csv|tsv|txt|parquet|feather)", re.IGNORECASE)


@dataclass(frozen=True)
class Rejection:
    """One session or file that did not become a recording: a row of the table `rejected`."""

    source_file: str  # relative to the ingested folder
    participant_id: str | None
    reason: str
    detail: str


@dataclass(frozen=True)
class IngestSummary:
    """The outcome of a delivery: every session, and every file that belongs to none, is read or rejected."""

    device: str
    batch_ids: tuple[str, ...]  # that have landed
    read: int
    participants: int
    duration_s: float  # of all recordings
    rejections: tuple[Rejection, ...]
    companions: int  # known files that hold nothing for a recording
    notes: tuple[str, ...]  # what was corrected or left out within the recordings

    @property
    def total(self) -> int:
        return self.read + len(self.rejections)

    def __str__(self) -> str:
        reasons = Counter(rejection.reason for rejection in self.rejections)
        lines = [
            f"device        {self.device}",
            f"batch         {', '.join(self.batch_ids) or 'none: nothing could be read'}",
            f"total         {self.total}",
            f"read          {self.read}, from {self.participants} participants, {self.duration_s / 60:.1f} minutes",
            f"rejected      {len(self.rejections)}",
            *(f"  {reason:24} {number}" for reason, number in sorted(reasons.items())),
            f"companions    {self.companions}",
            *(f"rejected: {entry.source_file}: {entry.reason}: {entry.detail}" for entry in self.rejections),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def ingest(
    device: str,
    folder: Path,
    landing: Path,
    batch_id: str,
    *,
    replaces: str | None = None,
    max_participants: int = MAX_PARTICIPANTS,
    participant_from: str | None = None,
    demographics: Mapping[str, Demographics] | None = None,
    reader: Reader | None = None,
    companions: Collection[Path] = (),
) -> IngestSummary:
    """Read every session of `device` below `folder` and land them as the arrival batch `batch_id`.

    A delivery of more than `max_participants` is split into batches `<batch_id>-001` and so on, each with whole
    participants; the first supersedes the batch that the delivery `replaces`. What cannot be read is listed in the
    batch's table `rejected`, and the rest is still read; where nothing can be read, no batch lands. A recording whose
    samples have landed before is rejected as a duplicate, and minutes that another recording of the same participant
    and sensor covers are left out, unless they landed in these batches or in the one that they replace. Recordings of
    more than six hours are cut. Where the acceleration alone is at fault, in another unit, the PPG is read without it.

    `participant_from` says where the participants' names stand (accelkd.recordings.identity); by default by the rule of
    the format, else in the path where it can be read in one way only. `demographics` describes participants by their
    names in the delivery; it overrides what the files say. `reader` overrides the device's own. `companions` are files
    that are known, such as a table of participants, wherever they lie.

    Raises ValueError for a device without a reader, a bad batch id or `participant_from`, NotADirectoryError for a bad
    folder, FileExistsError if the batch exists with other content.
    """
    if reader is None:
        reader = _reader(device)
    check_identifier("batch_id", batch_id)
    level = level_of(participant_from)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder = folder.resolve()  # its name may identify the participant
    with delivered_files(folder) as delivered:
        about = {path for path in delivered.paths if _ABOUT.fullmatch(path.name)}
        about |= delivered.paths.keys() & {path.resolve() for path in companions}
        delivery = reader.find(sorted(delivered.paths.keys() - about))
        beside = {*delivery.companions, *about}
        used = {path for session in delivery.sessions for path in session.files} | beside
        rejections = [Rejection(path, None, reason, detail) for path, reason, detail in delivered.problems]
        rejections += [
            Rejection(
                printable(str(relative)),
                None,
                "not_recognised",
                _unrecognised(device, relative.name),
            )
            for path, relative in sorted(delivered.paths.items(), key=lambda entry: entry[1])
            if path not in used
        ]
        named = _named(delivery.sessions, delivered, folder.name, participant_from, level)
        groups = _groups(named, max_participants)
        names = batch_ids(batch_id, len(groups))
        landing_state = Landed(landing, exclude={*names, replaces})
        delivered_as = _Delivering(device, reader, landing, landing_state, demographics or {}, rejections)
        arrived = _land(delivered_as, groups, names, landing, device, replaces)
    return IngestSummary(
        device,
        tuple(arrived),
        delivered_as.read,
        len(delivered_as.participants),
        delivered_as.duration_s,
        tuple(rejections),
        len(beside),
        tuple(delivered_as.notes),
    )


def _reader(device: str) -> Reader:
    if device not in DEVICES or DEVICES[device].reader is None:
        known = ", ".join(name for name, entry in DEVICES.items() if entry.reader)
        raise ValueError(f"device {device!r} has no reader; known: {known}")
    return cast(Reader, import_module(f"accelkd.recordings.readers.{DEVICES[device].reader}"))


@dataclass(frozen=True)
class _Named:
    """A session, the name of its participant in the delivery or why it is not known, and how it is shown."""

    session: Session
    participant: str | None
    problem: str
    source_file: str
    inside: bool  # the participant is named inside the files


def _unrecognised(device: str, name: str) -> str:
    hint = "; a table of participants is named with --participants" if _ABOUT_PEOPLE.fullmatch(name) else ""
    return f"no file of a recording that the reader of {device} knows{hint}"


def _named(
    sessions: Sequence[Session], delivered: Delivered, folder: str, participant_from: str | None, level: int | None
) -> list[_Named]:
    """Whose each session is."""
    paths = []
    for session in sessions:
        relative = delivered.relative(session.source)
        is_file = session.source in delivered.paths
        paths.append(relative.with_name(relative.name.split(".")[0] or relative.name) if is_file else relative)
    by_name = by_path([PurePath(path) for path in paths], folder, level)
    named = []
    for session, path, (name, problem) in zip(sessions, paths, by_name, strict=True):
        if level is None and (session.participant or session.contradiction):
            name, problem = session.participant, session.contradiction or ""
        shown = printable(str(delivered.relative(session.source)))
        inside = participant_from in ("file", "column")
        named.append(_Named(session, name, problem, printable(folder) if path == Path() else shown, inside))
    return named


def _land(
    delivering: _Delivering,
    groups: Sequence[Sequence[_Named]],
    names: Sequence[str],
    landing: Path,
    device: str,
    replaces: str | None,
) -> list[str]:
    """Land each group as one batch; returns the names of those that have a recording."""
    arrived: list[str] = []
    listed = 0
    for name, sessions in zip(names, groups, strict=True):
        before = set(delivering.participants)
        recordings = delivering.rows(sessions)
        first = next(recordings, None)
        if first is None:
            continue  # what was rejected is listed in the next batch
        with writing_batch(landing, name, source=device, replaces=replaces if not arrived else None) as batch:
            for row in chain([first], recordings):
                batch.add("recordings", row)
            described = sorted(delivering.participants.keys() - before)
            people = [
                {"participant_id": name, **asdict(delivering.participants[name] or Demographics())}
                for name in described
            ]
            table, dropped = clean_participants(pa.Table.from_pylist(people, PARTICIPANT.arrow()))
            delivering.notes += [f"{fact.participant_id}: {fact.rule}: {fact.detail}, left out" for fact in dropped]
            batch.add("participants", table)
            if delivering.rejections[listed:]:
                rejected = [asdict(rejection) for rejection in delivering.rejections[listed:]]
                batch.add("rejected", pa.Table.from_pylist(rejected, REJECTED.arrow()))
        listed = len(delivering.rejections)
        arrived.append(name)
    return arrived


class _Delivering:
    """One pass over the sessions of a delivery: yields recordings, collects what was rejected and noted."""

    def __init__(
        self,
        device: str,
        reader: Reader,
        landing: Path,
        landed: Landed,
        demographics: Mapping[str, Demographics],
        rejections: list[Rejection],
    ) -> None:
        self.rejections = rejections
        self.participants: dict[str, Demographics | None] = {}
        self.read = 0
        self.duration_s = 0.0
        self.notes: list[str] = []
        self._device = device
        self._reader = reader
        self._withdrawn = Withdrawn(landing)
        self._landed = landed
        self._demographics = demographics

    def rows(self, sessions: Sequence[_Named]) -> Iterator[pa.Table]:
        """Read session by session: at most one is in memory."""
        for named in progress(sessions, f"reading {self._device}"):
            try:
                if not named.inside and self._is_withdrawn(named.participant, named.problem):
                    continue
                with np.errstate(over="ignore", invalid="ignore"):  # damaged numbers; not finite is missing
                    recordings = self._reader.read(named.session)
            except Unreadable as error:
                self._reject(named, error)
                continue
            except ImportError as error:  # of a reader's own library
                raise ValueError(f"{self._device}: {error}") from None
            except OSError as error:
                self._reject(named, Unreadable("unreadable_file", str(error.strerror)))
                continue
            for recording in recordings:
                try:
                    name = recording.participant if named.inside else named.participant
                    problem = named.problem if not named.inside else "the files do not name the participant"
                    if self._is_withdrawn(name, problem):
                        continue
                    participant_id = self._participant_id(name, problem)
                    yield from self._recording_rows(participant_id, name or "", recording, named)
                except Unreadable as error:
                    self._reject(named, error, recording)

    def _recording_rows(
        self, participant_id: str, name: str, recording: Recording, named: _Named
    ) -> Iterator[pa.Table]:
        sensor_id = recording.sensor_id or named.session.sensor_id
        whole = replace(recording, sensor_id=sensor_id)
        parts, left_out = self._landed.uncovered(participant_id, whole)
        notes = list(recording.notes) + left_out
        for part in chain.from_iterable(map(pieces_of, parts)):
            part, row = self._checked(participant_id, part, notes)
            recording_id = row["recording_id"][0].as_py()
            self._landed.add(recording_id, participant_id, part, named.source_file)
            self.read += 1
            self.duration_s += part.duration_s
            self.notes.extend(f"{recording_id}: {note}" for note in notes)
            notes = []  # those of the whole recording stand with its first part
            known = self._demographics.get(name, self._demographics.get(participant_id, recording.demographics))
            if self.participants.get(participant_id) is None:
                self.participants[participant_id] = known
            yield pa.Table.from_batches([row])

    def _checked(self, participant_id: str, part: Recording, notes: list[str]) -> tuple[Recording, pa.RecordBatch]:
        """A recording that obeys the rules, and its row; what is left out is noted. Raises Unreadable."""
        row, dropped = clean_references(_row(self._device, participant_id, part))
        errors = list(recording_errors(row))
        if part.ppg is not None and [rule for rule, _ in errors] == ["accel_unit"]:
            notes.append(f"accel_unit: {errors[0][1]}: the acceleration left out")
            alone = replace(part, accel=None, accel_rate_hz=None, accel_start_s=0.0)
            return self._checked(participant_id, alone, notes)
        notes += [f"{rule}: {detail}, left out" for rule, detail in dropped]
        if errors:
            raise Unreadable(errors[0][0], "; ".join(f"{rule}: {detail}" for rule, detail in errors))
        return part, row

    def _is_withdrawn(self, name: str | None, problem: str) -> bool:
        if self._participant_id(name, problem) not in self._withdrawn:
            return False
        self.rejections.append(Rejection("a withdrawn participant", None, "withdrawn", "not ingested again"))
        return True

    def _participant_id(self, name: str | None, problem: str) -> str:
        """The pseudonym, unique over all devices: the device, then the participant's name in the delivery."""
        if name is None:
            raise Unreadable("participant_unknown", problem)
        prefix = f"{self._device}-"
        try:
            return check_identifier("participant_id", prefix + name.removeprefix(prefix))
        except ValueError as error:
            raise Unreadable("identifier", str(error)) from None

    def _reject(self, named: _Named, error: Unreadable, recording: Recording | None = None) -> None:
        name = named.participant if recording is None or not named.inside else recording.participant
        participant_id = None
        with suppress(Unreadable):
            participant_id = self._participant_id(None if named.inside and recording is None else name, "")
        self.rejections.append(Rejection(named.source_file, participant_id, error.reason, printable_text(error.detail)))


def _groups(sessions: Sequence[_Named], max_participants: int) -> list[list[_Named]]:
    """The sessions in groups of at most `max_participants`, in their order; at least one group. Raises ValueError.

    Of one participant's sessions the largest come first: where two cover the same minutes, the more complete one stays.
    """
    if max_participants < 1:
        raise ValueError(f"max_participants must be at least 1, not {max_participants}")
    sizes = {id(named): sum(path.stat().st_size for path in named.session.files if path.exists()) for named in sessions}
    number: dict[str | None, int] = {}
    for named in sessions:
        number.setdefault(named.participant, len(number))
    groups: list[list[_Named]] = [[] for _ in range(0, max(len(number), 1), max_participants)]
    for named in sorted(sessions, key=lambda named: (number[named.participant], -sizes[id(named)])):
        groups[number[named.participant] // max_participants].append(named)
    return groups


def _row(device: str, participant_id: str, recording: Recording) -> pa.RecordBatch:
    """One row of the recording table, named by its participant and its samples."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, which counts as a missing sample
        ppg, accel = (
            np.empty((0, 0), np.float32) if stream is None else np.ascontiguousarray(stream, np.float32)
            for stream in (recording.ppg, recording.accel)
        )
    samples = hashlib.sha256(ppg.tobytes() + accel.tobytes()).hexdigest()[:HASH_DIGITS]
    columns = {name: value for name, value in vars(recording).items() if name in RECORDING.names}
    columns |= {
        "recording_id": f"{participant_id}-{samples}",
        "participant_id": participant_id,
        "device_id": device,
        "ppg": list(ppg),
        "ppg_rate_hz": None if recording.ppg is None else recording.ppg_rate_hz,
        "accel": list(accel),
        "accel_rate_hz": None if recording.accel is None else recording.accel_rate_hz,
    }
    if recording.started_at_s is not None:
        try:
            columns["started_at"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=recording.started_at_s)
        except (OverflowError, ValueError):
            raise Unreadable("started_at", f"{recording.started_at_s} s after 1970 is no date") from None
    if recording.dark is not None:
        columns |= {"dark": list(recording.dark.astype(np.float32)), "dark_rate_hz": recording.ppg_rate_hz}
    return pa.RecordBatch.from_pylist([columns], RECORDING.arrow())
