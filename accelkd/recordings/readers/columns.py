"""Named columns of one file: text, Parquet, Feather, or the variables of a MAT file.

Text may have any separator, a decimal comma, a byte order mark, UTF-16, separators at the ends of rows, and rows that
were cut; it may be packed by gzip, bzip2 or xz. Names are compared without case, spaces around them and units in
brackets.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.feather
import pyarrow.parquet as pq

from accelkd.recordings.demographics import MISSING
from accelkd.recordings.listing import printable
from accelkd.recordings.mapping import COMPRESSED_SUFFIXES, PER_SECOND, Files, Time
from accelkd.recordings.readers import Times, Unreadable
from accelkd.recordings.readers.matlab import read_variables
from accelkd.recordings.unpack import MAX_EXPANSION

Floats = npt.NDArray[np.float64]
_HEAD_BYTES = 1 << 18
_MAX_NAMES = 40  # of a file that an error lists
_UNPACKERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(31),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}
_SEPARATORS = (",", ";", "\t", "|")
_INDEX_NAMES = ("index", "", "Unnamed: 0", "__index_level_0__", "row.names")  # of a data frame's unnamed index
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?(nan|NaN|inf)$"
_DATE = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?"
_DAY_S = 86_400.0


@dataclass
class Columns:
    """Some columns of a file by their names in a mapping, and the names of all."""

    file: str
    names: tuple[str, ...]
    values: dict[str, pa.ChunkedArray | npt.NDArray[Any]] = field(default_factory=dict)
    decimal_comma: bool = False
    notes: list[str] = field(default_factory=list)
    problems: dict[str, Unreadable] = field(default_factory=dict)  # names that may mean several columns

    def raw(self, name: str) -> pa.ChunkedArray | npt.NDArray[Any]:
        """A column as it is stored. Raises Unreadable that lists the columns that there are."""
        if name in self.problems:
            raise self.problems[name]
        if name not in self.values:
            raise Unreadable(*_missing(self.file, name, self.names))
        return self.values[name]

    def numbers(self, name: str) -> Floats:
        """A column `[rows]` of numbers, or the matrix of a MAT file; what is blank or no number is NaN."""
        column = self.raw(name)
        if isinstance(column, np.ndarray):
            if column.dtype.kind not in "iufb":
                raise Unreadable("wrong_column", f"{self.file}: {printable(name)!r} holds no real numbers")
            return column.astype(np.float64)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            numbers, odd = _parsed(column, self.decimal_comma)
            if odd:
                self.notes.append(f"{self.file}: {odd} cells of {printable(name)!r} are no numbers")
            return numbers
        try:
            return _floats(column)
        except pa.ArrowException:
            detail = f"{self.file}: {printable(name)!r} holds {column.type} instead of numbers"
            raise Unreadable("wrong_column", detail) from None

    def texts(self, name: str, rows: int) -> list[str | None]:
        """A column as text, blank cells as None; a single value of a MAT file stands for all `rows`."""
        column = self.raw(name)
        if isinstance(column, np.ndarray):
            listed = [str(value).strip() for value in np.atleast_1d(column).ravel()]
            if len(listed) == 1:
                listed *= rows
            return [_whole(text) or None for text in listed]
        unique = pc.dictionary_encode(column).combine_chunks()
        unique = unique if isinstance(unique, pa.DictionaryArray) else unique.chunk(0)
        known = [
            _whole(str(value).strip()) or None if value is not None else None for value in unique.dictionary.to_pylist()
        ]
        codes = unique.indices.to_numpy(zero_copy_only=False)
        return [None if code != code else known[int(code)] for code in codes]  # NaN for null

    def instants(self, time: Time, name: str | None = None) -> tuple[Times, bool]:
        """Seconds of each row, since 1970 UTC if the flag is true, else from an instant that is not known."""
        column = self.raw(name or time.column)
        if not isinstance(column, np.ndarray):
            kind = column.type
            if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
                return _dates(column.cast(pa.timestamp("ns", getattr(kind, "tz", None))), time.zone)
            if pa.types.is_duration(kind) or pa.types.is_time(kind):
                nanoseconds = column.cast(pa.duration("ns") if pa.types.is_duration(kind) else pa.time64("ns"))
                return _floats(nanoseconds.cast(pa.int64())) / 1e9, False
        if time.unit in PER_SECOND:
            return self.numbers(name or time.column).ravel() / PER_SECOND[time.unit], time.epoch == "unix"
        if time.unit is None and time.format is None:
            detail = f"{self.file}: {printable(time.column)!r} holds no dates: the mapping must name its unit or format"
            raise Unreadable("time_unit", detail)
        if isinstance(column, np.ndarray):
            column = pa.chunked_array([pa.array([str(value) for value in np.atleast_1d(column).ravel()])])
        if not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        column = pc.utf8_trim_whitespace(column)
        instants, absolute = _formatted(column, time) if time.format else _iso(column, time.zone)
        odd = int(np.isnan(instants).sum()) - column.null_count - _count(pc.equal(column, ""))
        if odd > 0:
            self.notes.append(f"{self.file}: {odd} cells of {printable(time.column)!r} are no dates")
        return instants, absolute


def read_columns(path: Path, wanted: Collection[str], files: Files | None = None) -> Columns:
    """The columns of a file that are there, of those that are `wanted`. Raises Unreadable or OSError."""
    files = files or Files()
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-1] if suffixes else ""
    try:
        if kind == ".mat":
            return _mat(path, wanted)
        if kind in (".parquet", ".feather", ".arrow"):
            return _arrow(path, wanted, kind)
        return _text(path, wanted, files)
    except UnicodeDecodeError:
        raise Unreadable("unreadable_file", f"{path.name} is not text") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the file system; Arrow's own has no number
        first = printable(str(error).splitlines()[0] if str(error) else type(error).__name__, 60)
        raise Unreadable("unreadable_file", f"{path.name}: {type(error).__name__}: {first}") from None


def column_names(path: Path, files: Files | None = None) -> tuple[str, ...]:
    """The names of all columns. Raises Unreadable or OSError."""
    return read_columns(path, (), files).names


def normal(name: str) -> str:
    """A name as it is compared: without case, spaces, marks of comments, and units in brackets."""
    plain = re.sub(r"\s*(?:\[[^]]*\]|\([^)]*\))", "", name.strip("\ufeff \t#%\"'"))
    return re.sub(r"\s+", " ", plain or name).strip().casefold()


def locate(file: str, name: str, names: Sequence[str]) -> str | None:
    """The column that a mapping's name means. Raises Unreadable where it may be several; None if there is none."""
    if name in names:
        return name
    if name in _INDEX_NAMES:
        return next((index for index in _INDEX_NAMES if index in names), None)
    hits = [other for other in names if normal(other) == normal(name)]
    if len(hits) > 1 or any(re.fullmatch(rf"{re.escape(name)}#\d+", other) for other in names):
        hits = hits or [other for other in names if re.fullmatch(rf"{re.escape(name)}#\d+", other)]
        detail = f"{file}: {printable(name)!r} may be {' or '.join(repr(printable(hit)) for hit in hits)}"
        raise Unreadable("ambiguous_column", detail)
    return hits[0] if hits else None


def _located(columns: Columns, wanted: Collection[str]) -> dict[str, str]:
    """The actual name of each wanted column that is there; a name that may mean several is a problem of its own."""
    actual: dict[str, str] = {}
    for name in wanted:
        try:
            if (column := locate(columns.file, name, columns.names)) is not None:
                actual[name] = column
        except Unreadable as error:
            columns.problems[name] = error
    return actual


def _missing(file: str, name: str, names: Sequence[str]) -> tuple[str, str]:
    shown = ", ".join(printable(other, 60) or "''" for other in names[:_MAX_NAMES])
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return "missing_column", f"{file} has no column {printable(name)!r}; it has {shown or 'none'}{more}"


def _floats(column: pa.ChunkedArray) -> Floats:
    numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return cast(Floats, numbers)


def _count(mask: pa.ChunkedArray) -> int:
    return pc.sum(mask).as_py() or 0


def _whole(text: str) -> str:
    """`7.0` as `7`: a table of numbers adds the zero to a participant's number."""
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else "" if text.lower() in MISSING else text


def _parsed(column: pa.ChunkedArray, decimal_comma: bool) -> tuple[Floats, int]:
    """Numbers of text cells, and how many cells are neither blank nor numbers."""
    try:
        return _floats(column), 0
    except pa.ArrowInvalid:
        pass
    trimmed = pc.utf8_trim_whitespace(column)
    if decimal_comma:
        trimmed = pc.replace_substring(trimmed, ",", ".", max_replacements=1)
    sound = pc.fill_null(pc.match_substring_regex(trimmed, _NUMBER), False)
    blank = pc.or_(pc.is_null(trimmed), pc.is_in(pc.utf8_lower(trimmed), pa.array(sorted(MISSING))))
    numbers = _floats(pc.if_else(sound, trimmed, pa.scalar(None, trimmed.type)))
    return numbers, _count(pc.invert(pc.or_(sound, blank)))


def _dates(column: pa.ChunkedArray, zone: str | None) -> tuple[Times, bool]:
    """Seconds of timestamps, since 1970 UTC where they or the mapping have a zone."""
    absolute = column.type.tz is not None or zone is not None
    if column.type.tz is None and zone is not None:
        column = pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="earliest")
    return _floats(column.cast(pa.int64())) / 1e9, absolute


def _iso(column: pa.ChunkedArray, zone: str | None) -> tuple[Times, bool]:
    column = pc.replace_substring_regex(column, r"(\d),(\d)", r"\1.\2")
    with_zone = pc.fill_null(pc.match_substring_regex(column, _DATE + r" ?(Z|[+-]\d\d:?\d\d)$"), False)
    local = pc.fill_null(pc.match_substring_regex(column, _DATE + "$"), False)
    nothing = pa.scalar(None, column.type)
    try:
        seconds, _ = _dates(pc.if_else(with_zone, column, nothing).cast(pa.timestamp("ns", "UTC")), None)
        others, absolute = _dates(pc.if_else(local, column, nothing).cast(pa.timestamp("ns")), zone)
    except pa.ArrowInvalid:  # such as a thirteenth month
        return _row_by_row(column, zone, datetime.fromisoformat)
    if _count(with_zone):
        return (np.where(np.isnan(seconds), others, seconds) if zone else seconds), True
    if _count(local):
        return others, absolute
    return _row_by_row(column, zone, datetime.fromisoformat)


def _formatted(column: pa.ChunkedArray, time: Time) -> tuple[Times, bool]:
    assert time.format is not None
    text = time.format
    seconds, absolute = _row_by_row(column, time.zone, lambda cell: datetime.strptime(cell, text))
    if not re.search(r"%[dDjxcGs]", text):  # times of day: past midnight they begin again
        steps = np.diff(seconds, prepend=seconds[:1])
        days = np.cumsum(np.where(steps < -_DAY_S / 2, 1.0, 0.0))
        return seconds + days * _DAY_S, False
    return seconds, absolute


def _row_by_row(column: pa.ChunkedArray, zone: str | None, parse: Callable[[str], datetime]) -> tuple[Times, bool]:
    """Seconds of dates that only Python reads; NaN for a cell that is none."""
    known = None if zone is None else ZoneInfo(zone)
    seconds, absolute = np.full(len(column), np.nan), known is not None
    utc = ZoneInfo("UTC")
    for row, cell in enumerate(column.to_pylist()):
        try:
            instant = parse(cell or "")
            absolute |= instant.tzinfo is not None
            seconds[row] = (instant if instant.tzinfo else instant.replace(tzinfo=known or utc)).timestamp()
        except (ValueError, OverflowError):
            continue
    return seconds, absolute


def _arrow(path: Path, wanted: Collection[str], kind: str) -> Columns:
    if kind == ".parquet":
        with path.open("rb") as file, pq.ParquetFile(file) as parquet:  # Arrow opens no name of odd bytes
            schema = parquet.schema_arrow
            nested = any(pa.types.is_struct(column.type) for column in schema)
            names = _unique([column.name for column in schema])
            known = sorted(set(_located(Columns(path.name, tuple(names)), wanted).values()))
            plain = not nested and names == schema.names and not any("." in name for name in names)
            table = parquet.read(known) if plain else parquet.read()
    else:
        with path.open("rb") as file:  # Arrow opens no name of odd bytes
            table = pa.feather.read_table(file, memory_map=False)
        table.validate(full=True)  # offsets of damaged text lead anywhere
        names = table.column_names
        plain = not any(pa.types.is_struct(column.type) for column in table.schema)
    if not plain or kind != ".parquet":
        while any(pa.types.is_struct(column.type) for column in table.schema):
            table = table.flatten()
        names = _unique(table.column_names)
        table = table.rename_columns(names)
    columns = Columns(path.name, tuple(names))
    for name, actual in _located(columns, wanted).items():
        column = table[actual]
        categories = pa.types.is_dictionary(column.type)
        columns.values[name] = column.cast(column.type.value_type) if categories else column
    return columns


def _unique(names: Sequence[str]) -> list[str]:
    """Names of which each stands once: `x` that stands twice is `x#1` and `x#2`."""
    counts, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name}#{seen[name]}" if counts[name] > 1 else name)
    return unique


def _text(path: Path, wanted: Collection[str], files: Files) -> Columns:
    data, note = _unpacked(path)
    head = data[:_HEAD_BYTES] if data is not None else _head(path)
    encoding = _encoding(head, path.name)
    lines = re.split(r"\r\n|\n|\r", head.decode(encoding, errors="replace").lstrip("\ufeff"))
    if len(head) >= _HEAD_BYTES:
        lines = lines[:-1]
    skip = files.skip_rows
    while files.names is None and skip < len(lines) and _before_header(lines, skip):
        skip += 1
    if skip >= len(lines) or not "".join(lines[skip:]).strip():
        raise Unreadable("empty_file", f"{path.name} has no rows")
    separator = files.separator or _separator(lines[skip : skip + 20])
    cells = [_cells(line, separator) for line in lines[skip : skip + 21] if line.strip()]
    header = list(files.names) if files.names is not None else [name.strip("\ufeff \t") for name in cells[0]]
    rows = cells if files.names is not None else cells[1:]
    if files.names is None and header and all(re.match(_NUMBER, name.replace(",", ".")) for name in header):
        detail = f"{path.name}: the first line holds numbers: say `names` or `skip_rows` in [files]"
        raise Unreadable("no_header", detail)
    names = _unique(_widened(header, rows, path.name))
    columns = Columns(path.name, tuple(names), notes=[note] if note else [])
    columns.decimal_comma = (files.decimal or ("." if separator == "," else ",")) == ","
    chosen = _located(columns, wanted)
    if not chosen:
        return columns
    if separator == " ":
        data = data if data is not None else path.read_bytes()
        data = re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", data.replace(b"\r", b""))
        data = re.sub(rb"[ \t]+", b" ", data)
    first = skip if files.names is not None else skip + 1
    # Lines of which every second one is empty were written so; elsewhere an empty line is a sample that is missing
    spaced = len(lines) > skip + 4 and not any(line.strip() for line in lines[skip + 1 :: 2])
    with io.BytesIO(data) if data is not None else path.open("rb") as source:
        table, bad = _rows(source, encoding, separator, names, first, sorted(set(chosen.values())), spaced)
    if bad:
        columns.notes.append(f"{path.name}: {bad} rows without {len(names)} cells")
    columns.values = {name: table[actual] for name, actual in chosen.items()}
    return columns


def _rows(
    source: BinaryIO,
    encoding: str,
    separator: str,
    names: Sequence[str],
    first: int,
    chosen: list[str],
    spaced: bool,
) -> tuple[pa.Table, int]:
    """Text cells of the chosen columns; a row with another number of cells is blank, at the end it is left out."""
    lines: list[int] = []

    def left_out(row: Any) -> str:
        lines.append(row.number)
        return "skip"

    def parsed(encoding: str) -> pa.Table:
        lines.clear()
        source.seek(0)
        return pa_csv.read_csv(
            source,
            pa_csv.ReadOptions(
                use_threads=False,  # which alone numbers the rows
                block_size=1 << 24,
                skip_rows=first,
                column_names=list(names),
                encoding=encoding,
            ),
            pa_csv.ParseOptions(delimiter=separator, invalid_row_handler=left_out, ignore_empty_lines=spaced),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(chosen, pa.string()),
                include_columns=chosen,
                strings_can_be_null=True,
                null_values=[""],
            ),
        )

    try:
        table = parsed(encoding)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        if encoding.startswith("utf-16"):
            raise
        table = parsed("latin-1")  # a degree sign or a name, far below the head
    rows = np.array(lines, np.int64) - 1 - first
    total = table.num_rows + len(rows)
    while len(rows) and rows[-1] == total - 1:  # cut, or empty, at the end of the file
        rows, total = rows[:-1], total - 1
    if len(rows):
        kept = np.delete(np.arange(total), rows[(rows >= 0) & (rows < total)])
        index = np.full(total, -1)
        index[kept] = np.arange(len(kept))
        table = table.take(pa.array(index, mask=index < 0))
    return _without_blank_end(table), len(lines)


def _without_blank_end(table: pa.Table) -> pa.Table:
    """Without the blank rows at the end."""
    blank = np.ones(table.num_rows, bool)
    for column in table.columns:
        blank &= column.is_null().to_numpy(zero_copy_only=False)
    filled = np.flatnonzero(~blank)
    return table.slice(0, int(filled[-1]) + 1 if len(filled) else 0)


def _unpacked(path: Path) -> tuple[bytes | None, str | None]:
    """What a packed file holds, as far as it is not damaged, and a note; None for a file that is not packed."""
    kind = path.suffix.lower()
    if kind not in COMPRESSED_SUFFIXES:
        return None, None
    limit = MAX_EXPANSION * path.stat().st_size + (1 << 20)
    content: list[bytes] = []
    size, unpacker = 0, _UNPACKERS[kind]()
    damaged = False
    with path.open("rb") as packed:
        try:
            while block := packed.read(1 << 16):
                while block:
                    content.append(unpacker.decompress(block))
                    size += len(content[-1])
                    if size > limit:
                        raise Unreadable("too_large", f"{path.name} unpacks to more than {MAX_EXPANSION} times as much")
                    block = unpacker.unused_data if unpacker.eof else b""
                    unpacker = _UNPACKERS[kind]() if block else unpacker
        except (OSError, zlib.error, lzma.LZMAError):
            damaged = True
    if not size:
        raise Unreadable("unreadable_file", f"{path.name} cannot be unpacked")
    note = f"{path.name}: cannot be unpacked to its end" if damaged or not unpacker.eof else None
    return b"".join(content), note


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _encoding(head: bytes, file: str) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) > 3 and head[1::2][:100].count(0) > 0.9 * len(head[1::2][:100]):
        return "utf-16-le"
    if b"\0" in head[:1024]:
        raise Unreadable("unreadable_file", f"{file} is not text")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf8"


def _before_header(lines: Sequence[str], number: int) -> bool:
    """Whether a line is empty, or a comment with the header or another comment after it."""
    if not lines[number].strip():
        return True
    following = next((line for line in lines[number + 1 :] if line.strip()), "")
    starts = re.split(r"[,;\t| ]", following.strip().strip('"'), maxsplit=1)[0]
    return lines[number].lstrip().startswith(("#", "%")) and re.match(r"[#%]|[^\W\d]", starts) is not None


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    return next(csv.reader([line], delimiter=separator), [])


def _separator(lines: Sequence[str]) -> str:
    """The separator that header and rows have equally often, the most frequent."""
    filled = [line for line in lines if line.strip()]
    counts = {}
    for separator in _SEPARATORS:
        header, *rows = [len(_cells(line, separator)) for line in filled]
        if header > 1 and (not rows or np.median(rows) in (header, header + 1)):
            counts[separator] = header
    if counts:
        return max(counts, key=lambda separator: counts[separator])
    return " " if len(filled[0].split()) > 1 and len(filled[-1].split()) == len(filled[0].split()) else ","


def _widened(header: list[str], rows: Sequence[Sequence[str]], file: str) -> list[str]:
    """Names of all cells of a row: of data frames' row names, and of what a separator at the end makes."""
    widths = Counter(len(row) for row in rows)
    if not widths:
        return header
    width = widths.most_common(1)[0][0]
    if width == len(header):
        return header
    if width == len(header) + 1:
        return [*header, "#"] if not any(row[-1].strip() for row in rows if len(row) == width) else ["index", *header]
    detail = (
        f"{file}: {len(header)} names, rows of {width} cells: does the header stand below (`skip_rows` in [files])?"
    )
    raise Unreadable("bad_header", detail)


def _mat(path: Path, wanted: Collection[str]) -> Columns:
    """Variables of a MAT file; `a.b(2).c` is a field, `signals(3)` the third channel of a matrix."""
    tree = read_variables(path)
    columns = Columns(path.name, tuple(_leaves(tree)))
    for name in wanted:
        value = _member(tree, name)
        if value is not None:
            columns.values[name] = value
    return columns


def _leaves(value: Any, prefix: str = "") -> list[str]:
    """Paths of all that is no structure."""
    if isinstance(value, dict):
        return [
            leaf for name, member in value.items() for leaf in _leaves(member, f"{prefix}.{name}" if prefix else name)
        ]
    items = _items(value)
    if items is not None and any(isinstance(item, dict) for item in items):
        return [leaf for number, item in enumerate(items, 1) for leaf in _leaves(item, f"{prefix}({number})")]
    return [prefix]


def _items(value: Any) -> list[Any] | None:
    """The members of a cell array or an array of structures."""
    if isinstance(value, list):
        return value
    return list(value.ravel()) if isinstance(value, np.ndarray) and value.dtype == object else None


def _member(tree: dict[str, Any], path: str) -> npt.NDArray[Any] | None:
    """What a path of a mapping leads to; None where it leads to nothing."""
    value: Any = tree
    parts = re.findall(r"([^.()]+)(?:\((\d+)\))?", path)
    for name, number in parts:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
        if number:
            items = _items(value)
            index = int(number) - 1
            if items is not None:
                value = items[index] if 0 <= index < len(items) else None
            elif isinstance(value, np.ndarray) and value.ndim == 2:
                channels = value if value.shape[0] <= value.shape[1] else value.T
                value = channels[index] if 0 <= index < len(channels) else None
            elif index:
                return None
    if value is None or isinstance(value, dict | list):
        return None
    return np.asarray(value)
