"""Ingestion: from a folder that a device's software exported to arrival batches."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.identifiers import check_identifier
from accelkd.home.progress import progress
from accelkd.recordings.batches import MANIFEST, open_batch_file, read_manifest, writing_batch
from accelkd.recordings.deliveries import MAX_PARTICIPANTS, batch_ids
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.listing import printable
from accelkd.recordings.readers import Reader, Recording, Session, Unreadable
from accelkd.recordings.schema import RECORDING, REJECTED
from accelkd.recordings.validate import recording_errors
from accelkd.recordings.withdrawn import Withdrawn

logger = logging.getLogger(__name__)
_HASH_DIGITS = 12
_COMPANION_PREFIXES = ("README", "LICENSE", "CITATION")  # files about a delivery, in any format


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
    duration_s: float  # of the PPG of all recordings
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
) -> IngestSummary:
    """Read every session of `device` below `folder` and land them as the arrival batch `batch_id`.

    A delivery of more than `max_participants` is split into batches `<batch_id>-001` and so on, each with whole
    participants; the first supersedes the batch that the delivery `replaces`. What cannot be read is listed in the
    batch's table `rejected`, and the rest is still read; where nothing can be read, no batch lands. A recording whose
    samples have landed before is rejected as a duplicate, unless that was in these batches or in the one that they
    replace. Raises ValueError for a device without a reader or a bad batch id, NotADirectoryError for a bad folder,
    FileExistsError if the batch exists with other content.
    """
    if device not in DEVICES or DEVICES[device].reader is None:
        known = ", ".join(name for name, entry in DEVICES.items() if entry.reader)
        raise ValueError(f"device {device!r} has no reader; known: {known}")
    check_identifier("batch_id", batch_id)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder = folder.resolve()  # its name may identify the participant
    reader = cast(Reader, import_module(f"accelkd.recordings.readers.{DEVICES[device].reader}"))

    files = {path for path in folder.rglob("*") if path.is_file()}
    about = {path for path in files if path.name.startswith((".", *_COMPANION_PREFIXES))}
    delivery = reader.find(sorted(files - about))
    companions = {*delivery.companions, *about}
    used = {path for session in delivery.sessions for path in session.files} | companions
    rejections = [
        Rejection(str(path.relative_to(folder)), None, "not_recognised", f"not a file of a {device} recording")
        for path in sorted(files - used)
    ]
    groups = _groups(delivery.sessions, max_participants)
    names = batch_ids(batch_id, len(groups))
    withdrawn = Withdrawn(landing)
    landed = _landed(landing, exclude={*names, replaces})
    participants: set[str] = set()
    duration_s = 0.0
    notes: list[str] = []

    def rows(sessions: list[Session]) -> Iterator[pa.Table]:
        """Read session by session: at most one recording is in memory."""
        nonlocal duration_s
        for session in progress(sessions, f"reading {device}"):
            source = folder.name if session.source == folder else str(session.source.relative_to(folder))
            participant_id = None
            try:
                participant_id = _participant_id(device, session)
                if participant_id in withdrawn:
                    rejections.append(Rejection("a withdrawn participant", None, "withdrawn", "not ingested again"))
                    continue
                recording = reader.read(session)
                row = _row(device, participant_id, recording)
                if errors := list(recording_errors(row)):
                    raise Unreadable(errors[0][0], "; ".join(f"{rule}: {detail}" for rule, detail in errors))
                recording_id = row["recording_id"][0].as_py()
                samples = recording_id[-_HASH_DIGITS:]
                if samples in landed:
                    raise Unreadable("duplicate", f"the same samples as {landed[samples]}")
            except Unreadable as error:
                rejections.append(Rejection(source, participant_id, error.reason, error.detail))
                continue
            except OSError as error:
                rejections.append(Rejection(source, participant_id, "unreadable_file", str(error.strerror)))
                continue
            landed[samples] = source
            participants.add(participant_id)
            duration_s += recording.ppg.shape[1] / recording.ppg_rate_hz
            notes.extend(f"{recording_id}: {note}" for note in recording.notes)
            yield pa.Table.from_batches([row])

    count, listed = 0, 0
    arrived: list[str] = []
    for name, sessions in zip(names, groups, strict=True):
        before = set(participants)
        recordings = rows(sessions)
        first = next(recordings, None)
        if first is None:
            continue  # what was rejected is listed in the next batch
        with writing_batch(landing, name, source=device, replaces=replaces if not arrived else None) as batch:
            for row in chain([first], recordings):
                batch.add("recordings", row)
                count += 1
            batch.add("participants", pa.table({"participant_id": sorted(participants - before)}))
            if rejections[listed:]:
                rejected = [asdict(rejection) for rejection in rejections[listed:]]
                batch.add("rejected", pa.Table.from_pylist(rejected, REJECTED.arrow()))
        listed = len(rejections)
        arrived.append(name)
    return IngestSummary(
        device,
        tuple(arrived),
        count,
        len(participants),
        duration_s,
        tuple(rejections),
        len(companions),
        tuple(notes),
    )


def _groups(sessions: Sequence[Session], max_participants: int) -> list[list[Session]]:
    """The sessions in groups of at most `max_participants`, in their order; at least one group. Raises ValueError."""
    if max_participants < 1:
        raise ValueError(f"max_participants must be at least 1, not {max_participants}")
    number: dict[str | None, int] = {}
    for session in sessions:
        number.setdefault(session.participant, len(number))
    groups: list[list[Session]] = [[] for _ in range(0, max(len(number), 1), max_participants)]
    for session in sessions:
        groups[number[session.participant] // max_participants].append(session)
    return groups


def _participant_id(device: str, session: Session) -> str:
    """The pseudonym, unique over all devices: the device, then the participant's name in the delivery."""
    if session.participant is None:
        raise Unreadable("participant_unknown", "the names of the files and folders do not agree on a participant")
    try:
        return check_identifier("participant_id", f"{device}-{session.participant}")
    except ValueError as error:
        raise Unreadable("identifier", str(error)) from None


def _row(device: str, participant_id: str, recording: Recording) -> pa.RecordBatch:
    """One row of the recording table, named by its participant and its samples."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which counts as a missing sample
        ppg, accel = (np.ascontiguousarray(stream, np.float32) for stream in (recording.ppg, recording.accel))
    samples = hashlib.sha256(ppg.tobytes() + accel.tobytes()).hexdigest()[:_HASH_DIGITS]
    columns = {name: value for name, value in vars(recording).items() if name in RECORDING.names}
    columns |= {
        "recording_id": f"{participant_id}-{samples}",
        "participant_id": participant_id,
        "device_id": device,
        "ppg": list(ppg),
        "accel": list(accel),
    }
    if recording.started_at_s is not None:
        try:
            columns["started_at"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=recording.started_at_s)
        except (OverflowError, ValueError):
            raise Unreadable("started_at", f"{recording.started_at_s} s after 1970 is no date") from None
    if recording.dark is not None:
        columns |= {"dark": list(recording.dark.astype(np.float32)), "dark_rate_hz": recording.ppg_rate_hz}
    return pa.RecordBatch.from_pylist([columns], RECORDING.arrow())


def _landed(landing: Path, exclude: set[str | None]) -> dict[str, str]:
    """Ingested recordings of all batches but `exclude`, by the hash of their samples: recording and batch.

    A batch that cannot be read stops nothing: it is logged, and loading compares recordings once more.
    """
    landed: dict[str, str] = {}
    for manifest_path in sorted(landing.glob(f"*/{MANIFEST}")):
        folder = manifest_path.parent
        try:
            manifest = read_manifest(folder)
            if manifest.batch_id in exclude or manifest.source not in DEVICES:
                continue
            for entry in manifest.files:
                if entry.table == "recordings":
                    with open_batch_file(folder, entry.path) as file:
                        ids = pq.read_table(file, columns=["recording_id"])["recording_id"].to_pylist()
                    landed |= {name[-_HASH_DIGITS:]: f"{name} of batch {manifest.batch_id}" for name in ids}
        except (ValueError, FileNotFoundError, pa.ArrowException) as error:  # also of names that are not UTF-8
            name, why = printable(folder.name), printable(str(error))
            logger.warning("recordings that batch %s holds may land again: %s", name, why)
    return landed
