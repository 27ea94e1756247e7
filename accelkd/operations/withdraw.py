"""Withdrawal: everything of one participant is removed from the home; a search over every file proves it.

An interrupted withdrawal is finished by asking for it again: until the end a journal, `withdrawal.json`, keeps what to
look for. It is the only file that names the participant, and it goes last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.cohort.split import read_split, write_split
from accelkd.home.files import DamagedFileError, atomic_path, sha256_file, sweep, write_json
from accelkd.home.identifiers import check_identifier
from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock
from accelkd.home.settings import Settings
from accelkd.operations.remnants import find_remnants
from accelkd.recordings.arrivals import remove_superseded
from accelkd.recordings.batches import MANIFEST, BatchFile, encode_rows, read_manifest
from accelkd.recordings.withdrawn import enrol
from accelkd.registry.trained_on import forget_trained_on
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import Modality, SegmentStore
from accelkd.warehouse.publish import compact
from accelkd.warehouse.staging import staging_lock

_RUN_SAMPLES = 32  # of a signal, looked for as bytes: long enough not to occur by chance


@dataclass
class Withdrawal:
    """What was removed, so far; the journal's content."""

    participant_id: str
    batches: dict[str, list[str]] = field(default_factory=dict)  # batches that describe them, with their recordings
    segment_ids: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)  # runs of their samples, as hex
    rewritten: dict[str, str] = field(default_factory=dict)  # SHA-256 of each rewritten landed file, by its path
    checkpoints: list[str] = field(default_factory=list)  # trained on them, as encoder/model id
    reports: list[str] = field(default_factory=list)  # removed because they named them
    remaining: list[str] = field(default_factory=list)  # traces that were withdrawal after all

    def __str__(self) -> str:
        recordings = sum(len(names) for names in self.batches.values())
        lines = [
            f"removed {recordings} recordings and {len(self.segment_ids)} segments from {len(self.batches)} batches",
            *(f"trained on them: checkpoint {name}" for name in self.checkpoints),
            *(f"named them, removed: {name}" for name in self.reports),
            *(f"STILL THERE: {where}" for where in self.remaining),
        ]
        return "\n".join(lines)


def withdraw(home: Home, participant_id: str | None = None) -> Withdrawal:
    """Remove a participant from landing zone, segments, quarantine, split, warehouse and reports; search for traces.

    Without a name, finishes the withdrawal that was interrupted. It is refused while a run is in progress, which would
    write back what it has read; runs that start meanwhile wait. The landed batches are rewritten without their rows,
    so everything derived from them is stale afterwards and the next catch-up re-materializes it.
    Checkpoints stay and are listed. If something of them is `remaining`, the withdrawal counts as interrupted.

    Raises ValueError for a bad name, for none where nothing was interrupted, and while another one's withdrawal is
    unfinished, BlockingIOError while a run is in progress, DamagedFileError for a batch whose files are not those that
    it lists.
    """
    if participant_id is not None:
        check_identifier("participant_id", participant_id)  # before the lock's file is made
    with exclusive_lock(home):
        journal = home.root / "withdrawal.json"
        if journal.exists():
            withdrawal = Withdrawal(**json.loads(journal.read_text(encoding="utf-8")))
            if participant_id not in (None, withdrawal.participant_id):
                raise ValueError("another withdrawal was interrupted: finish it by `accelkd withdraw` without a name")
        elif participant_id is None:
            raise ValueError("no withdrawal was interrupted: name a participant")
        else:
            withdrawal = _locate(home, participant_id)
            _save_journal(journal, withdrawal)
        _remove(home, withdrawal, journal)
    return withdrawal


def _remove(home: Home, withdrawal: Withdrawal, journal: Path) -> None:
    """Every step of a withdrawal: each does nothing where it has been done before."""
    participant_id = withdrawal.participant_id
    enrol(home.landing, participant_id)
    sweep(home.root)
    remove_superseded(home)
    settings = Settings.load(home)
    for batch_id in withdrawal.batches:
        _rewrite_batch(home, batch_id, withdrawal, journal)
        if home.segments(batch_id).exists() or home.quarantine(batch_id).exists():
            segment_batch(home, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
        home.examples(batch_id).unlink(missing_ok=True)
    if home.split.exists():
        ledger = read_split(home.split)
        write_split(home.split, ledger.filter(pc.not_equal(ledger.column("participant_id"), participant_id)))
    listed = ("/".join(checkpoint) for checkpoint in forget_trained_on(home, participant_id))
    withdrawal.checkpoints = sorted({*withdrawal.checkpoints, *listed})
    _save_journal(journal, withdrawal)
    with staging_lock(home):
        for file in (home.staging, home.published):
            if file.exists():
                _remove_rows(home, file, withdrawal)
    recording_ids = chain.from_iterable(withdrawal.batches.values())
    names = {participant_id, *withdrawal.segment_ids, *recording_ids}
    signals = [bytes.fromhex(run) for run in withdrawal.signals]
    for named in {line.split(":")[0] for line in find_remnants(home.reports, names, signals)}:
        (home.reports / named).unlink()
        withdrawal.reports.append(f"reports/{named}")
    withdrawal.remaining = find_remnants(home.root, names, signals, exclude=[journal])
    _save_journal(journal, withdrawal)
    if not withdrawal.remaining:
        journal.unlink()


def _save_journal(journal: Path, withdrawal: Withdrawal) -> None:
    with atomic_path(journal) as part:
        part.touch(0o600)
        part.write_text(json.dumps(asdict(withdrawal), indent=2), encoding="utf-8")


def _locate(home: Home, participant_id: str) -> Withdrawal:
    """Where the participant is, and what their data look like."""
    withdrawal = Withdrawal(participant_id)
    for manifest_path in sorted(home.landing.glob(f"[!.]*/{MANIFEST}")):
        folder, recordings, named = manifest_path.parent, [], False
        for entry in read_manifest(folder).files:
            with pq.ParquetFile(folder / entry.path) as file:
                if "participant_id" not in file.schema_arrow.names:
                    continue
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=["participant_id"]).column(0)
                    own = pc.fill_null(pc.equal(rows, participant_id), False)
                    if not pc.any(own).as_py():
                        continue
                    named = True
                    if entry.table == "recordings":
                        signals = file.read_row_group(group, columns=["recording_id", "ppg", "accel"]).filter(own)
                        recordings += signals.column("recording_id").to_pylist()
                        for name in ("ppg", "accel"):
                            withdrawal.signals += [
                                _run(stream.values.flatten().to_numpy()) for stream in signals.column(name)
                            ]
        if named:
            withdrawal.batches[folder.name] = recordings
            if home.segments(folder.name).exists():
                store = SegmentStore([home.segments(folder.name)])
                rows = np.flatnonzero(np.asarray(store.metadata.column("participant_id").to_pylist()) == participant_id)
                withdrawal.segment_ids += store.metadata.column("segment_id").take(rows).to_pylist()
                modalities: tuple[Modality, ...] = ("ppg", "accel")
                for modality in modalities:
                    withdrawal.signals += [_run(signal.reshape(-1)) for signal in store.signals(modality, rows)]
    withdrawal.signals = sorted({run for run in withdrawal.signals if run})
    return withdrawal


def _run(values: npt.NDArray[np.floating]) -> str:
    """The first samples that identify a stream, as hex; empty where it is constant."""
    for start in range(0, len(values) - _RUN_SAMPLES, _RUN_SAMPLES):
        run = values[start : start + _RUN_SAMPLES]
        if np.isfinite(run).all() and len(np.unique(run)) > _RUN_SAMPLES // 2:
            return run.tobytes().hex()
    return ""


def _rewrite_batch(home: Home, batch_id: str, withdrawal: Withdrawal, journal: Path) -> None:
    """Rewrite the files of a landed batch without the participant, the manifest last; it is refused until then."""
    folder = home.batch(batch_id)
    manifest = read_manifest(folder)
    files: list[BatchFile] = []
    for entry in manifest.files:
        path, name = folder / entry.path, f"{batch_id}/{entry.path}"
        sha256 = sha256_file(path)
        if sha256 not in (entry.sha256, withdrawal.rewritten.get(name)):
            raise DamagedFileError(f"batch {batch_id}: {entry.path}: sha256: not the file that the manifest lists")
        table = pq.read_table(path)
        if "participant_id" in table.column_names:
            own = pc.fill_null(pc.equal(table.column("participant_id"), withdrawal.participant_id), False)
            if pc.any(own).as_py():
                encoded = encode_rows(entry.table, table.filter(pc.invert(own)))
                sha256 = withdrawal.rewritten[name] = encoded.sha256
                _save_journal(journal, withdrawal)  # so that a file without its manifest is known as ours
                with atomic_path(path) as part:
                    part.write_bytes(encoded.content)
                table = table.filter(pc.invert(own))
        files.append(replace(entry, rows=table.num_rows, sha256=sha256))
    if tuple(files) != manifest.files:
        write_json(folder / MANIFEST, asdict(replace(manifest, files=tuple(files))))


def _remove_rows(home: Home, file: Path, withdrawal: Withdrawal) -> None:
    """Replace a DuckDB file by one without the participant's rows, and without the blocks that held them."""
    with duckdb.connect(str(file)) as connection:  # what a killed writer left in the log beside it goes into the file
        connection.execute("FORCE CHECKPOINT")
    with atomic_path(file) as part:
        shutil.copyfile(file, part)
        with duckdb.connect(str(part)) as connection:
            connection.begin()
            for table in _tables_of_people(connection):
                if table == "provenance.model_participants":
                    statement = f"UPDATE {table} SET participant_id = NULL WHERE participant_id = ?"
                else:
                    statement = f"DELETE FROM {table} WHERE participant_id = ?"
                connection.execute(statement, [withdrawal.participant_id])
            for batch_id in withdrawal.batches:
                _count_again(home, connection, batch_id)
            connection.commit()
            connection.execute("FORCE CHECKPOINT")
        compact(part)


def _tables_of_people(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    for schema, table in connection.execute(
        "SELECT schema_name, table_name FROM duckdb_columns() JOIN duckdb_tables() "
        "USING (database_name, schema_name, table_name) WHERE column_name = 'participant_id' ORDER BY ALL"
    ).fetchall():
        yield f"{schema}.{table}"


def _count_again(home: Home, connection: duckdb.DuckDBPyConnection, batch_id: str) -> None:
    """The counts of a batch that was loaded, as they are without the participant."""
    if not connection.execute("SELECT 1 FROM batches WHERE batch_id = ?", [batch_id]).fetchall():
        return
    manifest = read_manifest(home.batch(batch_id))
    connection.register("lost", pq.read_table(home.quarantine(batch_id)))
    connection.execute("DELETE FROM quarantine WHERE batch_id = ? AND unit <> 'answer'", [batch_id])
    connection.execute(
        "INSERT INTO quarantine BY NAME SELECT batch_id, unit, reason, count(*) AS number, "
        "count(DISTINCT participant_id) AS participants FROM lost GROUP BY ALL ORDER BY ALL"
    )
    connection.execute(
        "UPDATE batches SET recordings = ?, participants = ?, quarantined = (SELECT count(*) FROM lost), "
        "segments = (SELECT count(*) FROM segments WHERE segments.batch_id = batches.batch_id) WHERE batch_id = ?",
        [manifest.rows("recordings"), manifest.rows("participants"), batch_id],
    )
    connection.unregister("lost")
