"""Withdrawal: everything of one participant is removed from the home; a search over every file proves it.

A withdrawal goes on past what it cannot read, and says what that is. Until nothing is left of the participant and every
file was searched, it is unfinished: the journal, `withdrawal.json`, keeps what to look for, and asking again finishes
it. The journal is the only file that names the participant, and it goes last.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.cohort.split import read_split, write_split
from accelkd.home.files import (
    DamagedFileError,
    atomic_path,
    json_text,
    remove_with_checksum,
    replace_below,
    sweep,
    write_checksum,
)
from accelkd.home.identifiers import IDENTIFIER, check_identifier
from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock
from accelkd.home.settings import Settings
from accelkd.operations.remnants import find_remnants, first_line, quoted
from accelkd.operations.repair import repair
from accelkd.operations.share import bring_everything, share_everything
from accelkd.recordings.arrivals import remove_superseded
from accelkd.recordings.batches import (
    MANIFEST,
    BatchFile,
    BatchFileError,
    encode_rows,
    open_batch_file,
    read_manifest,
    read_small_table,
)
from accelkd.recordings.schema import BATCH_TABLES
from accelkd.recordings.withdrawn import Withdrawn, enrol
from accelkd.registry.trained_on import forget_trained_on
from accelkd.segments.segment import segment_batch, verify_segments
from accelkd.segments.store import MODALITIES, SegmentStore, write_segments
from accelkd.warehouse.embedding_relations import remove_participant, remove_unused
from accelkd.warehouse.publish import compact
from accelkd.warehouse.staging import staging_lock

_RUN_SAMPLES = 32  # of a signal, looked for as bytes: long enough not to occur by chance
# A checkpoint holds what it learned: the name goes, the row stays
_KEEPS_ROWS = quoted("provenance", "model_participants")
_CHANGED = "it is not the file that the manifest lists, so it may be damaged"
logger = logging.getLogger(__name__)


@dataclass
class Withdrawal:
    """What was removed, so far; the journal's content."""

    participant_id: str
    batches: dict[str, list[str]] = field(default_factory=dict)  # batches that hold them, with their recordings
    segment_ids: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)  # runs of their samples, as hex
    rewritten: dict[str, str] = field(default_factory=dict)  # SHA-256 of each rewritten landed file, by its path
    checkpoints: list[str] = field(default_factory=list)  # trained on them, as encoder/model id
    reports: list[str] = field(default_factory=list)  # removed because they named them
    remaining: list[str] = field(default_factory=list)  # remnants that are there after all
    not_searched: dict[str, str] = field(default_factory=dict)  # files of the home that may hold them, with the reason

    @property
    def finished(self) -> bool:
        """Whether nothing remains, as far as every file was searched."""
        return not self.remaining and not self.not_searched

    def __str__(self) -> str:
        recordings = sum(len(names) for names in self.batches.values())
        lines = [
            f"removed {recordings} recordings and {len(self.segment_ids)} segments from {len(self.batches)} batches",
            *(f"trained on them: checkpoint {name}" for name in self.checkpoints),
            *(f"named them, removed: {name}" for name in self.reports),
            *(f"STILL THERE: {where}" for where in self.remaining),
            *(f"NOT SEARCHED: {path}: {reason}" for path, reason in sorted(self.not_searched.items())),
        ]
        if not self.finished:
            lines.append("unfinished: mend or remove these files, then finish it by `accelkd withdraw` without a name")
        return "\n".join("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line) for line in lines)


def withdraw(home: Home, participant_id: str) -> Withdrawal:
    """Remove a participant from landing zone, segments, quarantine, split, warehouse and reports; search for remnants.

    It is refused while a run is in progress, which would write back what it has read; runs that start meanwhile wait.
    The landed batches are rewritten without their rows, so everything derived from them is stale afterwards, and the
    next catch-up re-materializes it, reports included. Checkpoints stay and are listed.

    What cannot be read stops nothing: it is `not_searched`, as is a landed file that is not the one that its manifest
    lists, which is left as it is. With something `remaining` or not searched the withdrawal is unfinished, and asking
    again finishes it. It does not hinder that of another participant.

    Raises ValueError for a bad name, LookupError for one that nobody has or had, BlockingIOError while a run is in
    progress, DamagedFileError if the journal cannot be read.
    """
    check_identifier("participant_id", participant_id)  # before the lock's file is made
    with exclusive_lock(home):
        journal = _Journal(home)
        if participant_id not in journal.unfinished:
            _refuse_unknown(home, participant_id)
        return _withdraw(home, journal, journal.unfinished.setdefault(participant_id, Withdrawal(participant_id)))


def _refuse_unknown(home: Home, participant_id: str) -> None:
    """Raise LookupError that names similar participants if no file of the home has that name, or ever had it."""
    try:
        if participant_id in Withdrawn(home.landing):
            return
    except DamagedFileError:
        return  # they may have withdrawn before
    withdrawal = Withdrawal(participant_id)
    _locate(home, withdrawal)
    if withdrawal.batches:
        return
    remnants = find_remnants(home.root, {participant_id}, [])
    if remnants.lines or remnants.not_searched:  # what could not be searched may hold them
        return
    similar = get_close_matches(participant_id, _participants(home), n=3)
    hint = f"; similar names: {', '.join(similar)}" if similar else ""
    raise LookupError(f"nobody is called {participant_id!r} in {home.root}{hint}")


def _participants(home: Home) -> list[str]:
    """Everybody whom a landed batch describes, as far as it can be read."""
    names: set[str] = set()
    for folder in _landed_folders(home):
        with _passed_over():
            names |= set(read_small_table(folder, "participants").column("participant_id").to_pylist())
    return sorted(names)


def finish_withdrawals(home: Home) -> list[Withdrawal]:
    """Go on with every unfinished withdrawal. Raises ValueError if there is none, and as `withdraw`."""
    with exclusive_lock(home):
        journal = _Journal(home)
        if not journal.unfinished:
            raise ValueError("no withdrawal was interrupted: name a participant")
        return [_withdraw(home, journal, withdrawal) for withdrawal in list(journal.unfinished.values())]


def unfinished_withdrawals(home: Home) -> list[str]:
    """Participants whose withdrawal is unfinished. Raises DamagedFileError if the journal cannot be read."""
    return list(_Journal(home).unfinished)


class _Journal:
    """The unfinished withdrawals of a home, in a file that its owner alone reads."""

    def __init__(self, home: Home) -> None:
        self.path = home.root / "withdrawal.json"
        try:
            content = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []
            entries = [content] if isinstance(content, dict) else content  # earlier versions had one
            self.unfinished = {entry["participant_id"]: Withdrawal(**entry) for entry in entries}
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedFileError(
                f"{self.path} cannot be read: {error!r}; remove it, then withdraw again whom it was about"
            ) from None

    def save(self) -> None:
        if not self.unfinished:
            self.path.unlink(missing_ok=True)
            return
        with atomic_path(self.path) as part:
            part.touch(0o600)
            entries = [asdict(withdrawal) for withdrawal in self.unfinished.values()]
            part.write_text(json.dumps(entries, indent=2), encoding="utf-8")

    def wrote(self, name: str, sha256: str) -> bool:
        """Whether a landed file is as a withdrawal left it that was interrupted before it wrote the manifest."""
        return any(withdrawal.rewritten.get(name) == sha256 for withdrawal in self.unfinished.values())


def _withdraw(home: Home, journal: _Journal, withdrawal: Withdrawal) -> Withdrawal:
    """Locate what there is of the participant, also what could not be read the last time; remove it; search."""
    bring_everything(home)
    _locate(home, withdrawal)
    withdrawal.not_searched.clear()
    journal.save()
    _remove(home, journal, withdrawal)
    names = {
        withdrawal.participant_id,
        *withdrawal.segment_ids,
        *chain.from_iterable(withdrawal.batches.values()),
    }
    signals = [bytes.fromhex(run) for run in withdrawal.signals]
    for name in find_remnants(home.reports, names, signals).places if home.reports.is_dir() else ():
        with _reported(withdrawal, f"reports/{name}"):
            (home.reports / name).unlink()
            withdrawal.reports.append(f"reports/{name}")
    _report_changed_files(home, withdrawal)
    with _reported(withdrawal, "the store"):  # which holds the files that are searched here, and no others
        share_everything(home)
    remnants = find_remnants(home.root, names, signals, exclude=[journal.path])
    withdrawal.remaining = remnants.lines
    withdrawal.not_searched = remnants.not_searched | withdrawal.not_searched
    if withdrawal.finished:
        del journal.unfinished[withdrawal.participant_id]
    journal.save()
    return withdrawal


@contextmanager
def _reported(withdrawal: Withdrawal, path: str) -> Iterator[None]:
    """Whatever fails inside is reported for a path of the home, and the withdrawal goes on."""
    try:
        yield
    except Exception as error:
        withdrawal.not_searched[path] = first_line(error)


def _remove(home: Home, journal: _Journal, withdrawal: Withdrawal) -> None:
    """Every step of a withdrawal: each does nothing where it has been done before, and none waits for another."""
    participant_id = withdrawal.participant_id
    with _reported(withdrawal, "landing/.withdrawn.json"):
        enrol(home.landing, participant_id)
    with _reported(withdrawal, "."):
        sweep(home.root)
        remove_superseded(home)
    for batch_id in withdrawal.batches:
        with _reported(withdrawal, f"landing/{batch_id}/{MANIFEST}"):
            _rewrite_batch(home, batch_id, journal, withdrawal)
        if IDENTIFIER.fullmatch(batch_id):
            with _reported(withdrawal, f"segments/{batch_id}.arrow"):
                _rewrite_segments(home, batch_id, participant_id)
            for path in (home.examples(batch_id), *home.embedded(batch_id)):  # the next catch-up makes them again
                with _reported(withdrawal, home.relative(path)):
                    remove_with_checksum(path)
    for path in sorted((home.root / "segments").glob("[!.]*.arrow")):
        with _passed_over():  # those of others too, so that no damage hides a name
            repair(home, [path.stem])
    with _reported(withdrawal, home.relative(home.split)), suppress(FileNotFoundError):
        ledger = read_split(home.split)
        write_split(home.split, ledger.filter(pc.invert(_own(ledger, participant_id))))
    for path in sorted((home.root / "cohort" / "trained_on").glob("*/[!.]*.parquet")):
        encoder, model_id = path.parent.name, path.stem
        with _reported(withdrawal, home.relative(path)):
            if forget_trained_on(home, encoder, model_id, participant_id):
                withdrawal.checkpoints = sorted({*withdrawal.checkpoints, f"{encoder}/{model_id}"})
                journal.save()
    with staging_lock(home):
        for file in (home.staging, home.published):
            with _reported(withdrawal, home.relative(file)):
                if file.exists():
                    _remove_rows(home, file, withdrawal)
        with _reported(withdrawal, home.relative(home.objects)):
            home.shared.unlink(missing_ok=True)
            remove_unused(home, 0)


def _landed_folders(home: Home) -> list[Path]:
    """Every folder of the landing zone, whatever its name and its state; no link. The search reports what it misses."""
    with suppress(OSError), os.scandir(home.landing) as entries:
        return sorted(home.landing / entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def _locate(home: Home, withdrawal: Withdrawal) -> None:
    """Add where the participant is, and what their data look like.

    What cannot be read is passed over: the search at the end reports it, unless it is whole by then.
    """
    participant_id = withdrawal.participant_id
    recordings = {batch_id: set(names) for batch_id, names in withdrawal.batches.items()}
    segment_ids, signals = set(withdrawal.segment_ids), set(withdrawal.signals)
    for folder in _landed_folders(home):
        for entry in _listed(folder):
            with _passed_over(), open_batch_file(folder, entry.path) as source, pq.ParquetFile(source) as file:
                for rows in _own_rows(file, participant_id):
                    named = recordings.setdefault(folder.name, set())
                    if "recording_id" in rows.column_names:
                        named |= {name for name in rows.column("recording_id").to_pylist() if _is_identifier(name)}
                    for name in {"ppg", "accel"} & set(rows.column_names):
                        signals |= {
                            _run(stream.values.flatten().to_numpy())
                            for stream in rows.column(name)
                            if stream.is_valid and len(stream.values)
                        }
    for path in sorted((home.root / "quarantine").glob("[!.]*.parquet")):
        with _passed_over(), pq.ParquetFile(path) as file:
            for rows in _own_rows(file, participant_id):
                names = rows.column("recording_id").drop_null().to_pylist()
                recordings.setdefault(path.stem, set()).update(names)
    for path in sorted((home.root / "segments").glob("[!.]*.arrow")):
        with _passed_over():
            store = SegmentStore([path])
            numbers = np.flatnonzero(_own(store.metadata, participant_id).to_numpy(zero_copy_only=False))
            if len(numbers):
                rows = store.metadata.take(numbers)
                recordings.setdefault(path.stem, set()).update(rows.column("recording_id").to_pylist())
                segment_ids |= set(rows.column("segment_id").to_pylist())
                for modality in MODALITIES:
                    counts = store.counts(modality)[numbers]
                    for channels in np.unique(counts[counts > 0]):
                        alike = numbers[counts == channels]
                        signals |= {_run(signal.reshape(-1)) for signal in store.signals(modality, alike)}
    withdrawal.batches = {batch_id: sorted(names) for batch_id, names in sorted(recordings.items())}
    withdrawal.segment_ids = sorted(segment_ids)
    withdrawal.signals = sorted(signals - {""})


@contextmanager
def _passed_over() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.info("passed over: %s", type(error).__name__)


def _listed(folder: Path) -> tuple[BatchFile, ...]:
    """The files of a landed batch; none while it is arriving, or if its manifest cannot be read."""
    try:
        return read_manifest(folder).files
    except (FileNotFoundError, BatchFileError):
        return ()


def _own(table: pa.Table, participant_id: str) -> pa.ChunkedArray:
    """Which rows of a table are the participant's."""
    return pc.fill_null(pc.equal(table.column("participant_id"), participant_id), False)


def _own_rows(file: pq.ParquetFile, participant_id: str) -> Iterator[pa.Table]:
    """The participant's rows of each row group that has any: who, which recording, its streams."""
    present = set(file.schema_arrow.names)
    if "participant_id" not in present:
        return
    columns = [name for name in ("participant_id", "recording_id", "ppg", "accel") if name in present]
    for group in range(file.num_row_groups):
        own = _own(file.read_row_group(group, columns=columns[:1]), participant_id)
        if pc.any(own).as_py():
            yield file.read_row_group(group, columns=columns).filter(own)


def _is_identifier(name: object) -> bool:
    """Whether what a batch calls a recording can be looked for: the empty name of a refused one is everywhere."""
    return isinstance(name, str) and IDENTIFIER.fullmatch(name) is not None


def _run(values: npt.NDArray[np.floating]) -> str:
    """The first samples that identify a stream, as hex; empty where it is constant."""
    for start in range(0, len(values) - _RUN_SAMPLES, _RUN_SAMPLES):
        run = values[start : start + _RUN_SAMPLES]
        if np.isfinite(run).all() and len(np.unique(run)) > _RUN_SAMPLES // 2:
            return run.tobytes().hex()
    return ""


def _rewrite_batch(home: Home, batch_id: str, journal: _Journal, withdrawal: Withdrawal) -> None:
    """Rewrite the files of a landed batch without the participant, the manifest last; it is refused until then.

    A file that is not the one that the manifest lists stays as it is: its new hash would vouch for it.
    """
    folder = home.landing / batch_id
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return
    files = []
    for entry in manifest.files:
        files.append(entry)
        with _reported(withdrawal, f"landing/{batch_id}/{entry.path}"):
            files[-1] = _rewrite_file(home, folder, entry, journal, withdrawal)
    if tuple(files) != manifest.files:
        content = json_text(asdict(replace(manifest, files=tuple(files)))).encode()
        replace_below(home.landing, f"{batch_id}/{MANIFEST}", content)


def _rewrite_file(home: Home, folder: Path, entry: BatchFile, journal: _Journal, withdrawal: Withdrawal) -> BatchFile:
    """Rewrite one file of a landed batch if it holds the participant; returns it as it is now."""
    name = f"{folder.name}/{entry.path}"
    with open_batch_file(folder, entry.path) as file:
        content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry.sha256 and not journal.wrote(name, sha256):
        raise BatchFileError(folder.name, entry.path, "sha256", _CHANGED)
    table = pq.read_table(pa.BufferReader(content))
    if "participant_id" in table.column_names and pc.any(own := _own(table, withdrawal.participant_id)).as_py():
        table = table.filter(pc.invert(own))
        content = _encode(entry.table, table)
        sha256 = withdrawal.rewritten[name] = hashlib.sha256(content).hexdigest()
        journal.save()  # so that a file without its manifest is known as ours
        replace_below(home.landing, name, content)
    return replace(entry, rows=table.num_rows, sha256=sha256)


def _encode(name: str, table: pa.Table) -> bytes:
    """A landed file's bytes; those of a batch that is refused for its columns keep them."""
    if table.schema.equals(BATCH_TABLES[name].arrow()):
        return encode_rows(name, table).content
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def _report_changed_files(home: Home, withdrawal: Withdrawal) -> None:
    """Report landed files, whoever they are of, that are not as they were listed: damage may hide a name."""
    for folder in _landed_folders(home):
        try:
            manifest = read_manifest(folder)
        except FileNotFoundError:
            continue
        except BatchFileError as error:
            withdrawal.not_searched.setdefault(f"landing/{folder.name}/{MANIFEST}", first_line(error))
            continue
        for entry in manifest.files:
            with _reported(withdrawal, f"landing/{folder.name}/{entry.path}"):
                if (sha256 := _sha256(folder, entry.path)) is not None and sha256 != entry.sha256:
                    raise BatchFileError(folder.name, entry.path, "sha256", _CHANGED)


def _sha256(folder: Path, name: str) -> str | None:
    """Hash of a landed file; None if there is none."""
    try:
        with open_batch_file(folder, name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _rewrite_segments(home: Home, batch_id: str, participant_id: str) -> None:
    """Segment a batch again without the participant; where it cannot be read, take them out of what was made of it."""
    if not (home.segments(batch_id).exists() or home.quarantine(batch_id).exists()):
        return
    settings = Settings.load(home)
    try:
        segment_batch(home, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
    except Exception as error:
        logger.warning("batch %s cannot be segmented again: %s", batch_id, first_line(error))
        _filter_segments(home, batch_id, participant_id)


def _filter_segments(home: Home, batch_id: str, participant_id: str) -> None:
    """Take a participant out of the segment store and the quarantine of a batch."""
    store, quarantine = home.segments(batch_id), home.quarantine(batch_id)
    verify_segments(home, batch_id)
    with pa.memory_map(str(store)) as source:
        reader = pa.ipc.open_file(source)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        kept = (batch.filter(pc.invert(_own(batch, participant_id))) for batch in batches)
        segments = write_segments(store, kept)
    rows = pq.read_table(quarantine)
    rows = rows.filter(pc.invert(_own(rows, participant_id)))
    seen = {b"seen": str(segments + rows.num_rows).encode()}
    with atomic_path(quarantine) as part:
        pq.write_table(rows.replace_schema_metadata((rows.schema.metadata or {}) | seen), part, compression="zstd")
    write_checksum(quarantine)


def _remove_rows(home: Home, file: Path, withdrawal: Withdrawal) -> None:
    """Replace a DuckDB file by one without the participant's rows, and without the blocks that held them."""
    if file.is_symlink():
        raise DamagedFileError("a link is not followed")
    if file.with_name(f"{file.name}.wal").exists():  # what a killed writer left goes into the file
        with duckdb.connect(str(file)) as connection:
            connection.execute("FORCE CHECKPOINT")
    recording_ids = sorted({*chain.from_iterable(withdrawal.batches.values())})
    with atomic_path(file) as part:
        shutil.copyfile(file, part)
        with duckdb.connect(str(part)) as connection:
            connection.begin()
            remove_participant(home, connection, withdrawal.participant_id)
            for table, columns in _tables(connection).items():
                if "participant_id" in columns:
                    statement = (
                        f"UPDATE {table} SET participant_id = NULL" if table == _KEEPS_ROWS else f"DELETE FROM {table}"
                    )
                    connection.execute(f"{statement} WHERE participant_id = ?", [withdrawal.participant_id])
                    continue
                for column, names in (("recording_id", recording_ids), ("segment_id", withdrawal.segment_ids)):
                    if column in columns and names:
                        connection.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT unnest(?))", [names])
            for batch_id in withdrawal.batches:
                _count_again(home, connection, batch_id)
            connection.commit()
            connection.execute("FORCE CHECKPOINT")
        compact(part)


def _tables(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Every table, quoted, with its columns: also those that other versions have."""
    rows = connection.execute(
        "SELECT schema_name, table_name, list(column_name) FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return {quoted(schema, table): columns for schema, table, columns in rows}


def _count_again(home: Home, connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    """The counts of a batch that was loaded, as they are without the participant; as they were where it is damaged."""
    if not connection.execute("SELECT 1 FROM batches WHERE batch_id = ?", [batch_id]).fetchall():
        return
    with _passed_over():
        connection.register("lost", pq.read_table(home.quarantine(batch_id)))
        connection.execute("DELETE FROM quarantine WHERE batch_id = ? AND unit <> 'answer'", [batch_id])
        connection.execute(
            "INSERT INTO quarantine BY NAME SELECT batch_id, unit, reason, count(*) AS number, "
            "count(DISTINCT participant_id) AS participants FROM lost GROUP BY ALL ORDER BY ALL"
        )
        connection.execute(
            "UPDATE batches SET quarantined = (SELECT count(*) FROM lost), "
            "segments = (SELECT count(*) FROM segments WHERE segments.batch_id = batches.batch_id) WHERE batch_id = ?",
            [batch_id],
        )
        connection.unregister("lost")
    with _passed_over():
        manifest = read_manifest(home.batch(batch_id))
        connection.execute(
            "UPDATE batches SET recordings = ?, participants = ? WHERE batch_id = ?",
            [manifest.rows("recordings"), manifest.rows("participants"), batch_id],
        )
