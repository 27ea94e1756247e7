"""Arrival batches: a folder of Parquet files that counts as arrived once its manifest exists."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import DamagedFileError, flush, open_below, scratch_folder, write_json
from accelkd.home.identifiers import IDENTIFIER, check_identifier
from accelkd.recordings.schema import BATCH_TABLES, SCHEMA_VERSION
from accelkd.recordings.withdrawn import Withdrawn

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 32 << 20  # 100,000 parts, all that their names can number, take 20 MB
GROUP_ROWS = (16, 64)  # of a row group of recordings: fewest and most
_GROUP_BYTES = 2**25  # of a row group's values, where it has more than the fewest rows
# Every name that a file of a batch may have, by its table: relative, so none leads out of the batch
_FILE_NAME = {"recordings": r"recordings/part-[0-9]{5}\.parquet"} | {
    table: rf"{table}\.parquet" for table in BATCH_TABLES if table != "recordings"
}
_OTHER_TYPES = {  # by the error of opening it: what is there instead of a regular file
    errno.EINVAL: ("file_name", "not a path below the batch"),
    errno.ELOOP: ("not_a_regular_file", "a symbolic link is not followed"),
    errno.ENOTDIR: (
        "not_a_regular_file",
        "it lies behind a symbolic link, which is not followed, or behind what is no folder",
    ),
    errno.ENXIO: ("not_a_regular_file", "not a regular file"),
}
_short = reprlib.Repr()  # of what a manifest holds, for messages
_short.maxstring = 100
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # of this process or machine, no fault of the file


class BatchFileError(DamagedFileError):
    """A file of a batch that breaks a rule: `batch b1: manifest.json: nested too deeply`."""

    def __init__(self, batch_id: str, file: str, rule: str, detail: str) -> None:
        super().__init__(f"batch {batch_id}: {file}: {detail}")
        self.rule = rule
        self.detail = detail


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
        row_group_size=_group_rows(rows) if table == "recordings" else None,
    )
    return EncodedRows(table, rows.num_rows, frozenset(devices), content.getvalue())


def _group_rows(rows: pa.Table) -> int:
    """Rows of a row group: many, because each of its columns takes time, but no more than caches hold."""
    fewest, most = GROUP_ROWS
    fitting: int = _GROUP_BYTES * rows.num_rows // max(rows.nbytes, 1)
    return min(max(fitting, fewest), most)


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


def open_batch_file(folder: Path, name: str) -> io.BufferedReader:
    """Open a file of a batch for reading by its name relative to the batch's `folder`.

    No link is followed, neither as the file nor as a folder on the way nor as `folder` itself, so what is read lies in
    the batch; a pipe is not waited for. Raises FileNotFoundError if there is none, BatchFileError that says what is
    there instead of a regular file, or why it cannot be read.
    """
    try:
        return open_below(folder.parent, f"{folder.name}/{name}")
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        rule, detail = _OTHER_TYPES.get(error.errno or 0, ("not_readable", f"cannot be read: {error.strerror}"))
        raise BatchFileError(folder.name, name, rule, detail) from None


def read_small_table(folder: Path, table: str) -> pa.Table:
    """A table of an arrived batch other than its recordings, which are streamed (accelkd.recordings.validate).

    Raises FileNotFoundError if there is none, BatchFileError that names the file if it is not the one whose hash the
    manifest lists.
    """
    name = f"{table}.parquet"
    with open_batch_file(folder, name) as file:
        content = file.read()
    listed = {file.path: file.sha256 for file in read_manifest(folder).files}
    if hashlib.sha256(content).hexdigest() != listed.get(name):
        raise BatchFileError(folder.name, name, "sha256", "sha256: the file is not the one that the manifest lists")
    return pq.read_table(pa.BufferReader(content))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an arrived batch. Every field has its type, every listed path is one that a batch may have.

    Raises FileNotFoundError while the batch is still arriving, BatchFileError with the rule that the manifest breaks.
    """
    with open_batch_file(folder, MANIFEST) as file:
        try:
            raw = _parse_json(file.read(MAX_MANIFEST_BYTES + 1))
            version = raw.get("schema_version") if isinstance(raw, dict) else None
            if type(version) is not int or version == SCHEMA_VERSION:  # another version may have other fields
                manifest = _parse_manifest(raw)
        except (ValueError, RecursionError, OSError) as error:
            detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise BatchFileError(folder.name, MANIFEST, "manifest", f"cannot be read: {detail}") from None
    if version != SCHEMA_VERSION:
        detail = f"its schema version is {version}, expected {SCHEMA_VERSION}"
        raise BatchFileError(folder.name, MANIFEST, "schema_version", detail)
    for rule, detail in _manifest_errors(manifest):
        raise BatchFileError(folder.name, MANIFEST, rule, detail)
    return manifest


def _parse_json(content: bytes) -> Any:
    """JSON without repeated keys. Raises ValueError, or RecursionError if it is nested too deeply."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise ValueError(f"it has more than {MAX_MANIFEST_BYTES:,} bytes")

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(keys := dict(pairs)) < len(pairs):
            raise ValueError(f"a key is repeated in {_short.repr([key for key, _ in pairs])}")
        return keys

    return json.loads(content.decode("utf-8"), object_pairs_hook=without_repeats)


def _parse_manifest(raw: Any) -> Manifest:
    """The manifest from its JSON. Raises ValueError for an unknown or a missing key, or a value of another type."""
    values = _fields(raw, Manifest, "the manifest")
    files = tuple(BatchFile(**_fields(file, BatchFile, f"files[{n}]")) for n, file in enumerate(values["files"]))
    return Manifest(**{**values, "devices": tuple(values["devices"]), "files": files})


def _fields(raw: Any, record: type[Manifest] | type[BatchFile], where: str) -> dict[str, Any]:
    """The fields of one JSON object, by name, as `record` has them."""
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is {_short.repr(raw)}, expected an object")
    names = {field.name for field in fields(record)}
    for problem, keys in (("unknown", raw.keys() - names), ("missing", names - raw.keys())):
        if keys:
            raise ValueError(f"{where}: {problem} {_short.repr(sorted(keys))}")
    for name, value in raw.items():
        expected, is_valid = _FIELD_TYPES[name]
        if not is_valid(value):
            raise ValueError(f"{where}: {name} is {_short.repr(value)}, expected {expected}")
    return raw


def _manifest_errors(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(rule, detail) of each value that cannot be used as a name or as a path."""
    for rule, name, value in (
        ("batch_id", "batch_id", manifest.batch_id),
        ("identifier", "replaces", manifest.replaces),
    ):
        if value is not None and not IDENTIFIER.fullmatch(value):
            yield rule, f"{name} {_short.repr(value)} is not an identifier"
    for file in manifest.files:
        if not re.fullmatch(_FILE_NAME.get(file.table, "(?!)"), file.path):
            yield "file_name", f"{_short.repr(file.path)} is no file of a table {_short.repr(file.table)}"


def _is_text(value: Any) -> bool:
    """Whether a JSON value is text that UTF-8 can hold, so without a lone surrogate."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode("utf-8") == value


_FIELD_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "schema_version": ("an integer", lambda value: type(value) is int),
    "batch_id": ("a text", _is_text),
    "source": ("a text", _is_text),
    "devices": ("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value))),
    "replaces": ("a text or null", lambda value: value is None or _is_text(value)),
    "files": ("a list", lambda value: isinstance(value, list)),
    "path": ("a text", _is_text),
    "table": ("a text", _is_text),
    "rows": ("an integer from 0 to 2^63 - 1", lambda value: type(value) is int and 0 <= value < 1 << 63),
    "sha256": (
        "64 lower-case hex digits",
        lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    ),
}
