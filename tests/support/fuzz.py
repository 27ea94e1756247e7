"""One case of the fuzz of deliveries: a mutated delivery through ingestion, validation and segmentation.

Whatever is delivered, each file and session ends in a recording or in a rejection with a named reason, each window of a
recording in a segment or in the quarantine, and nothing is lost uncounted.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import pyarrow.parquet as pq

from accelkd.home.layout import Home
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.listing import printable
from accelkd.recordings.mapping import parse_mapping
from accelkd.recordings.readers import Delivery, Reader, Recording, Session, Unreadable
from accelkd.recordings.readers.table import table_reader
from accelkd.recordings.validate import validate_batch
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import MODALITIES, SegmentStore
from tests.support.mutations import Entries, Fifo, Folder, Link, Seed, mutate

MAX_S = 30  # of a case, whatever was delivered
MAX_MEMORY_BYTES = 3 << 30  # that a case may add to its process
_REASON = re.compile(r"[a-z][a-z0-9_]*")
_SOURCES = (None, None, None, None, None, None, "path", "path:2", "file", "column")


@dataclass
class Case:
    """What came of one case."""

    number: int
    mutations: list[str]
    outcome: str = "failed"  # read whole, read in part, rejected
    reasons: Counter[str] = field(default_factory=Counter)  # of the rejected sessions and files
    segments: int = 0
    windows: int = 0
    took_s: float = 0.0
    peak_mb: float = 0.0  # of the process
    failure: str = ""


class _TooSlowError(BaseException):
    """A case that takes too long; no Exception, which a reader might take for its own."""


class Watched:
    """A reader, and what it was asked and gave."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.offered: list[Path] = []
        self.delivery = Delivery(())
        self.due = 0  # recordings and sessions without one: each is read or rejected

    def find(self, files: Iterable[Path]) -> Delivery:
        self.offered = list(files)
        self.delivery = self._reader.find(self.offered)
        return self.delivery

    def read(self, session: Session) -> Sequence[Recording]:
        try:
            recordings = self._reader.read(session)
        except (Unreadable, OSError):
            self.due += 1
            raise
        if not recordings:
            raise AssertionError(f"a session ended in nothing: {session.source.name}")
        self.due += len(recordings)
        return recordings


def run_case(seed: Seed, number: int, key: Sequence[int], scratch: Path) -> Case:
    """Mutate a delivery by the random numbers of `key`, take it in, and check what came of it."""
    rng = np.random.default_rng([*key, number])
    entries, mutations = mutate(seed, rng)
    case = Case(number, mutations)
    source = _SOURCES[int(rng.integers(len(_SOURCES)))]
    folder = scratch / "delivery"
    shutil.rmtree(scratch, ignore_errors=True)
    folder.mkdir(parents=True)
    write(entries, folder)
    _reset_peak()
    started = time.perf_counter()
    try:
        with _bounded(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            _run(seed, entries, folder, Home(scratch / "home"), source, case)
    except (Exception, _TooSlowError) as error:
        where = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in where if "/accelkd/" in frame.filename] or where
        place = f"{Path(inside[-1].filename).name}:{inside[-1].lineno}"
        case.failure = printable(f"{type(error).__name__} at {place}: {error}", 400)
    case.took_s = time.perf_counter() - started
    case.peak_mb = _peak_kb() / 1024
    shutil.rmtree(scratch, ignore_errors=True)
    return case


def write(entries: Entries, folder: Path) -> None:
    """A delivery on disk."""
    for path, entry in entries.items():
        target = Path(os.fsdecode(os.fsencode(folder) + b"/" + path))
        if isinstance(entry, Folder):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, bytes):
            target.write_bytes(entry)
        elif isinstance(entry, Link):
            target.symlink_to(os.fsdecode(entry.to))
        else:
            assert isinstance(entry, Fifo)
            os.mkfifo(target)


def _run(seed: Seed, entries: Entries, folder: Path, home: Home, source: str | None, case: Case) -> None:
    if seed.mapping is None:
        reader = cast(Reader, import_module(f"accelkd.recordings.readers.{DEVICES[seed.device].reader}"))
    else:
        reader = table_reader(parse_mapping(seed.mapping))
    watched = Watched(reader)
    summary = ingest(seed.device, folder, home.landing, "b1", participant_from=source, reader=watched)
    _check_summary(summary)
    _check_files(summary, watched, entries)
    if source is None and not any(mutation.startswith("names") for mutation in case.mutations):
        _check_others(summary, seed, entries)
    case.reasons = Counter(rejection.reason for rejection in summary.rejections)
    lost = [rejection for rejection in summary.rejections if rejection.reason != "not_recognised"]
    case.outcome = "rejected" if not summary.read else "read in part" if lost else "read whole"
    rows, rejected = 0, 0
    for batch_id in summary.batch_ids:
        batch = home.batch(batch_id)
        violations = validate_batch(batch)
        assert violations == [], f"an ingested batch is not valid: {violations[0]}"
        rows += sum(pq.read_metadata(path).num_rows for path in batch.glob("recordings/*.parquet"))
        listed = batch / "rejected.parquet"
        rejected += pq.read_metadata(listed).num_rows if listed.exists() else 0
        counts = segment_batch(home, batch_id, gate="strict" if case.number % 2 else "off")
        assert counts.seen == counts.segments + counts.quarantined
        case.windows += counts.seen
        case.segments += counts.segments
        _check_segments(home, batch_id)
    assert rows == summary.read, f"{summary.read} recordings read, {rows} landed"
    assert not summary.read or rejected == len(summary.rejections), "rejections that are not listed in the batch"


def _check_summary(summary: IngestSummary) -> None:
    assert summary.total == summary.read + len(summary.rejections)
    for rejection in summary.rejections:
        assert _REASON.fullmatch(rejection.reason), f"a reason {rejection.reason!r}"
        assert rejection.detail, f"{rejection.reason} without a detail"
        assert rejection.source_file, f"{rejection.reason} without a file"
    for text in (str(summary), *(str(value) for entry in summary.rejections for value in vars(entry).values())):
        odd = [letter for letter in text.replace("\n", "") if not letter.isprintable()]
        assert not odd, f"a summary that no terminal shows: {odd[:3]!r} in {text[:300]!r}"
        text.encode()


def _check_files(summary: IngestSummary, watched: Watched, entries: Entries) -> None:
    """Every file was offered to the reader, is about the delivery, or is rejected; what it did not take is rejected."""
    delivery = watched.delivery
    taken = {path for session in delivery.sessions for path in session.files} | set(delivery.companions)
    by_reason = Counter((entry.source_file, entry.reason) for entry in summary.rejections)
    unrecognised = [path for path in watched.offered if path not in taken]
    assert sum(entry.reason == "not_recognised" for entry in summary.rejections) == len(unrecognised)
    assert taken <= set(watched.offered), "a reader took a file that it was not given"
    about = summary.companions - len(set(delivery.companions))
    files, problems = 0, 0
    for path, entry in entries.items():
        shown = printable(os.fsdecode(path))
        name = path.rpartition(b"/")[2]
        failed = sum(
            by_reason[shown, reason] for reason in ("unreadable_file", "too_large", "empty_file", "not_a_regular_file")
        )
        if isinstance(entry, bytes) and name.lower().endswith(b".zip") and not name.startswith(b"."):
            if failed:
                problems += 1
            else:
                members = _members(entry)
                assert members, f"{shown} is lost"
                files += members
        elif isinstance(entry, bytes):
            files += 1
        elif not isinstance(entry, Folder):
            assert by_reason[shown, "not_a_regular_file"] == 1, f"{shown} is not listed"
            problems += 1
    assert files == len(watched.offered) + about, f"{files} files, {len(watched.offered)} offered, {about} about it"
    known = problems + len(unrecognised)
    withheld = len(delivery.sessions)  # those without a participant are rejected before they are read
    assert summary.read + len(summary.rejections) - known >= max(watched.due, withheld), "a session was lost"


def _check_others(summary: IngestSummary, seed: Seed, entries: Entries) -> None:
    """What was not touched is read: damage to the files of a person costs nobody else."""
    damaged = {_person(path) for path, content in seed.files.items() if entries.get(path.encode()) != content}
    whole = {_person(path) for path in seed.files} - damaged
    refused = [entry for entry in summary.rejections if _person(entry.source_file) in whole]
    assert not refused, f"{refused[0].source_file} is untouched, but {refused[0].reason}: {refused[0].detail}"
    assert summary.participants >= len(whole)


def _person(path: str) -> str:
    """The first folder of a path, or the stem of a file in the delivered folder."""
    return path.partition("/")[0].partition(".")[0]


def _members(archive: bytes) -> int:
    """Files of an archive."""
    import io

    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return len([entry for entry in source.infolist() if not entry.is_dir()])


def _check_segments(home: Home, batch_id: str) -> None:
    store = SegmentStore([home.segments(batch_id)])
    for modality in MODALITIES:
        for row in range(len(store)):
            signals = store.signals(modality, np.array([row]))
            assert np.isfinite(signals).all(), f"a segment whose {modality} is not finite"
    quarantine = pq.read_table(home.quarantine(batch_id)).to_pylist()
    assert all(entry["reason"] for entry in quarantine), "a window in quarantine without a reason"
    ended = {entry["recording_id"] for entry in quarantine} | set(store.metadata["recording_id"].to_pylist())
    for path in home.batch(batch_id).glob("recordings/*.parquet"):
        for recording_id in pq.read_table(path, columns=["recording_id"])["recording_id"].to_pylist():
            assert recording_id in ended, f"{recording_id} ended in nothing"


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise _TooSlowError or MemoryError where the block goes beyond the limits; nothing is logged."""

    def give_up(_signum: int, _frame: FrameType | None) -> None:
        raise _TooSlowError(f"longer than {MAX_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    signal.alarm(MAX_S)
    if sys.platform == "linux":
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MAX_MEMORY_BYTES, limits[1]))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        logging.disable(logging.NOTSET)


def _peak_kb() -> int:
    """The most memory that this process had since `_reset_peak`; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def _reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
