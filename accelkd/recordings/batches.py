"""Arrival batches: a folder of Parquet files that counts as arrived once its manifest exists."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import DamagedFileError, flush, scratch_folder, write_json
from accelkd.home.identifiers import check_identifier
from accelkd.recordings.schema import BATCH_TABLES, SCHEMA_VERSION
from accelkd.recordings.withdrawn import Withdrawn

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BatchFile:
    """One file of a batch as its manifest lists it."""

    path: str
    table: str  # key of BATCH_TABLES
    rows: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The manifest: written last, so its presence means that the batch has arrived."""

    schema_version: int
    batch_id: str
    source: str  # 'simulation', or the device key that was ingested
    devices: tuple[str, ...]
    replaces: str | None  # batch that this one corrects
    files: tuple[BatchFile, ...]

    def rows(self, table: str) -> int:
        """Number of rows of one table over all its files."""
        return sum(file.rows for file in self.files if file.table == table)


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one table as the bytes of a Parquet file, so that another process can encode them."""

    table: str
    rows: int
    devices: frozenset[str]  # of recordings
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def encode_rows(table: str, rows: pa.Table) -> EncodedRows:
    """Encode rows of `table` (a key of BATCH_TABLES) as Parquet; columns are put in its order and cast to its types.

    Nullable columns may be omitted. Raises ValueError for a column that the table does not have, KeyError for
    a missing one.
    """
    schema = BATCH_TABLES[table].arrow(comments=True)
    if unknown := set(rows.column_names) - set(schema.names):
        raise ValueError(f"table {table!r} has no column {', '.join(sorted(unknown))}")
    for column in schema:
        if column.name not in rows.column_names and column.nullable:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    rows = rows.select(schema.names).cast(schema)
    devices = rows.column("device_id").to_pylist() if table == "recordings" else []
    content = io.BytesIO()
    pq.write_table(
        rows,
        content,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        # Byte-stream split makes counts a sixth smaller than dictionary encoding does, in half the time
        use_byte_stream_split=[name for name, kind in _leaves(schema) if pa.types.is_floating(kind)],
        row_group_size=16,
    )
    return EncodedRows(table, rows.num_rows, frozenset(devices), content.getvalue())


@dataclass
class BatchWriter:
    """Collects the files of one batch; made by `writing_batch`."""

    folder: Path
    withdrawn: Withdrawn
    files: list[BatchFile] = field(default_factory=list)
    devices: set[str] = field(default_factory=set)

    def add(self, table: str, rows: pa.Table) -> None:
        """Encode and write one file of `table`. Raises ValueError for a withdrawn participant, and as `encode_rows`."""
        names = rows.column("participant_id").to_pylist() if table == "participants" else []
        if any(name in self.withdrawn for name in names):
            raise ValueError(f"batch {self.folder.name}: a participant in it has withdrawn; deliver it without them")
        self.add_encoded(encode_rows(table, rows))

    def add_encoded(self, encoded: EncodedRows) -> None:
        """Write one file. Recordings may be added any number of times, one file each.

        Raises ValueError if another table is added a second time.
        """
        table = encoded.table
        if table == "recordings":
            number = sum(file.table == table for file in self.files)
            name = f"recordings/part-{number:05d}.parquet"
        else:
            name = f"{table}.parquet"
        path = self.folder / name
        if path.exists():
            raise ValueError(f"table {table!r} was added twice")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded.content)
        self.devices |= encoded.devices
        self.files.append(BatchFile(name, table, encoded.rows, encoded.sha256))


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Parquet path and type of each column, through its lists."""
    for column in schema:
        path, kind = column.name, column.type
        while pa.types.is_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        yield path, kind


@contextmanager
def writing_batch(landing: Path, batch_id: str, *, source: str, replaces: str | None = None) -> Iterator[BatchWriter]:
    """Write one arrival batch: it appears in `landing`, complete with its manifest, when the block succeeds.

        with writing_batch(landing, "2026-11-a", source="simulation") as batch:
            batch.add("recordings", table)
            batch.add("participants", table)

    A batch never changes: writing the same content again is accepted and changes nothing, other content raises
    FileExistsError. Raises ValueError for a bad batch id.
    """
    folder = landing / check_identifier("batch_id", batch_id)
    with scratch_folder(folder) as scratch:
        part = scratch / batch_id
        part.mkdir()
        writer = BatchWriter(part, Withdrawn(landing))
        yield writer
        manifest = Manifest(
            SCHEMA_VERSION, batch_id, source, tuple(sorted(writer.devices)), replaces, tuple(writer.files)
        )
        write_json(part / MANIFEST, asdict(manifest))
        if not folder.exists():
            flush(part)
            part.rename(folder)
        elif not (folder / MANIFEST).exists() or read_manifest(folder) != manifest:
            raise FileExistsError(
                f"batch {batch_id} exists with other content; send a correction as a new batch that replaces it"
            )


def read_small_table(folder: Path, table: str) -> pa.Table:
    """A table of an arrived batch other than its recordings, which are streamed (accelkd.recordings.validate).

    Raises DamagedFileError that names the file if its hash is not the one that the manifest lists.
    """
    path = folder / f"{table}.parquet"
    content = path.read_bytes()
    listed = {file.path: file.sha256 for file in read_manifest(folder).files}
    if hashlib.sha256(content).hexdigest() != listed.get(path.name):
        raise DamagedFileError(
            f"batch {folder.name}: {path.name}: sha256: the file is not the one that the manifest lists"
        )
    return pq.read_table(pa.BufferReader(content))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an arrived batch.

    Raises FileNotFoundError while the batch is still arriving, DamagedFileError if the manifest is not JSON.
    """
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(f"batch {folder.name}: {MANIFEST} cannot be read: {error}") from None
    raw["devices"] = tuple(raw["devices"])
    raw["files"] = tuple(BatchFile(**file) for file in raw["files"])
    return Manifest(**raw)
