"""Tables of text files, as devices, apps and spreadsheets write them.

Columns are asked for by name. Byte order marks, UTF-16, any line end, `,` `;` or tab between cells, decimal commas,
blank lines, quotes, rows that are too short or too long and `.gz`, `.xz` and `.bz2` are read; what is no number is NaN.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from accelkd.recordings.readers import Unreadable

MAX_NUMBER = 1e30
MAX_BYTES = 4 << 30  # of a file's text
COMPRESSED = (".gz", ".xz", ".bz2")
_HEAD_ROWS = 200  # that tell separator, width and kinds of columns
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_BLANK = ["", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "none", "-", "--"]
_PREAMBLE = re.compile(r"\s*(?:#.*|sep=.)?\s*")
_CHUNK = 1 << 16


def plain(name: str) -> str:
    """A column's name without case, units in brackets and punctuation: `Sensor_time [ns]` is `sensor time`."""
    without_unit = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", name.casefold())
    return " ".join(re.findall(r"[^\W_]+", without_unit))


def unit(name: str) -> str:
    """What stands in brackets in a column's name, or an empty text."""
    match = re.search(r"\[([^\]]*)\]|\(([^)]*)\)", name)
    return (match[1] or match[2] or "").strip() if match else ""


@dataclass(frozen=True)
class Table:
    """The rows of a file; `names` are the cells of the header row, empty for a column that has none."""

    file: str  # its name
    names: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]
    notes: tuple[str, ...]
    comma: bool  # decimal commas

    @property
    def rows(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def index(self, *patterns: str) -> int | None:
        """The first column whose plain name is matched by a regular expression; the first pattern counts first."""
        for pattern in patterns:
            for number, name in enumerate(self.names):
                if re.fullmatch(pattern, plain(name)):
                    return number
        return None

    def named(self, *patterns: str) -> npt.NDArray[np.float64]:
        """The numbers of the column that `index` selects. Raises Unreadable if there is none."""
        index = self.index(*patterns)
        if index is None:
            raise Unreadable("bad_header", f"{self.file} has no column {patterns[0]!r}")
        return self.numbers(index)

    def numbers(self, index: int) -> npt.NDArray[np.float64]:
        """A column's numbers; NaN for what is none, or beyond any sensor and clock."""
        column = self.columns[index]
        if pa.types.is_string(column.type):
            text = pc.utf8_trim(column, ' \t"')
            if self.comma:
                text = pc.replace_substring(text, ",", ".")
            column = pc.if_else(pc.match_substring_regex(text, f"^{_NUMBER}$"), text, None).cast(pa.float64())
        numbers: npt.NDArray[np.float64] = column.to_numpy()
        absurd = np.abs(numbers) > MAX_NUMBER
        return np.where(absurd, np.nan, numbers) if absurd.any() else numbers

    def text(self, index: int, row: int) -> str:
        """One cell as text."""
        value = self.columns[index][row].as_py()
        return "" if value is None else str(value).strip(' \t"')

    def texts(self, index: int) -> list[str]:
        """A column's cells as text; empty where a row has none."""
        return ["" if value is None else str(value).strip(' \t"') for value in self.columns[index].to_pylist()]


def read_table(path: Path, *, header: bool = True, width: int | None = None) -> Table:
    """The table of a text file. With `header` the names are in the first row that is not all numbers.

    `width` is the number of columns, where that is known: a single column may have decimal commas. Raises Unreadable
    for a file that is empty, not text, or has no header row.
    """
    content, notes = _text(path)
    head = [line for line in _lines(content, 4 * _HEAD_ROWS) if line[1].strip()]
    while head and _PREAMBLE.fullmatch(head[0][1]):
        del head[0]
    if not head:
        raise Unreadable("empty_file", f"{path.name} has no rows")
    separator = _separator([line for _, line in head[:_HEAD_ROWS]], header, width)
    names: list[str] = []
    if header:
        number = next((n for n, (_, line) in enumerate(head) if not _all_numbers(line, separator)), None)
        if number is None:
            raise Unreadable("bad_header", f"{path.name} has no row with the names of the columns")
        names = _cells(head[number][1], separator)
        head = head[number:]
    first = head[0][0] if not header else head[0][0] + _line_bytes(content, head[0][0])
    rows = [_cells(line, separator) for _, line in head[1 if header else 0 :][:_HEAD_ROWS]]
    columns = max([len(names), width or 0, *map(len, rows[:-1] or rows)])
    names += [""] * (columns - len(names))
    comma = separator != "," and any(re.search(r"\d,\d", cell) for row in rows for cell in row)
    body, cut = _without_cut_row(content, first, separator, width or columns)
    if cut:
        notes.append("the last row, which is cut, left out")
    kinds = [_kind([row[column] for row in rows if column < len(row)], comma) for column in range(columns)]
    return Table(path.name, *_parsed(body, separator, names, kinds, comma, notes), comma)


def peek_names(path: Path) -> list[str]:
    """The cells of the first row of a file that may be a table; empty if it is no text."""
    try:
        if path.suffix.lower() in COMPRESSED:
            opener: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
            with opener[path.suffix.lower()](path) as packed:
                head = packed.read(4096)
        else:
            with path.open("rb") as file:
                head = file.read(4096)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return []
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    lines = [line for line in head.decode(encoding, errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not _PREAMBLE.fullmatch(line)]
    return _cells(lines[0], _separator(lines[:1], True, None)) if lines else []


def _parsed(
    body: memoryview, separator: str, names: Sequence[str], kinds: Sequence[pa.DataType], comma: bool, notes: list[str]
) -> tuple[tuple[str, ...], tuple[pa.ChunkedArray, ...], tuple[str, ...]]:
    """The columns, parsed at once where the rows are sound, and after a repair of the rows where they are not."""
    if not bytes(body[:_CHUNK]).strip():
        return tuple(names), tuple(pa.chunked_array([pa.array([], kind)]) for kind in kinds), tuple(notes)
    try:
        table = _parse(body, separator, kinds, comma)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        repaired, corrected = _repaired(bytes(body), separator, len(names))
        notes += corrected
        table = _parse(memoryview(repaired), separator, [pa.string()] * len(names), comma)
    return tuple(names), tuple(table.columns), tuple(notes)


def _parse(body: memoryview, separator: str, kinds: Sequence[pa.DataType], comma: bool) -> pa.Table:
    columns = [str(number) for number in range(len(kinds))]
    return pacsv.read_csv(
        pa.BufferReader(pa.py_buffer(body)),
        pacsv.ReadOptions(column_names=columns),
        pacsv.ParseOptions(delimiter=separator, quote_char='"', newlines_in_values=False),
        pacsv.ConvertOptions(
            column_types=dict(zip(columns, kinds, strict=True)),
            null_values=_BLANK,
            strings_can_be_null=False,
            decimal_point="," if comma else ".",
        ),
    )


def _repaired(body: bytes, separator: str, columns: int) -> tuple[bytes, list[str]]:
    """Rows with the right number of cells, blank where there were less, and notes."""
    unreadable = 0
    lines = []
    separators: Counter[int] = Counter()  # lines by the number of separators in them
    for line in body.decode("utf-8", errors="replace").splitlines():
        if "\0" in line:
            line = line.replace("\0", "")
            unreadable += 1
        if not line.strip():
            continue
        count = line.count(separator)
        separators[count] += 1
        if count < columns - 1:
            line += separator * (columns - 1 - count)
        elif count > columns - 1:
            line = separator.join(line.split(separator)[:columns])
        lines.append(line.replace('"', ""))
    odd = len(lines) - max(separators.values(), default=0)
    notes = [f"{odd} rows with another number of cells"] if odd else []
    if unreadable:
        notes.append(f"{unreadable} rows with bytes that are no text")
    return "\n".join([*lines, ""]).encode(), notes


def _text(path: Path) -> tuple[memoryview, list[str]]:
    """A file's text in UTF-8 without byte order mark, unpacked, and notes. Raises Unreadable, OSError."""
    notes: list[str] = []
    if path.suffix.lower() in COMPRESSED:
        content, error = _unpacked(path)
        if error:
            notes.append(f"the packed file is damaged ({error}): read up to there")
            if not content:
                raise Unreadable("unreadable_file", f"{path.name} cannot be unpacked: {error}")
    else:
        if path.stat().st_size > MAX_BYTES:
            raise Unreadable("too_large", f"{path.name} has more than {MAX_BYTES:,} bytes")
        content = path.read_bytes()
    head = content[:4096]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", errors="replace").encode()
    elif len(head) > 3 and head.count(0) > len(head) // 3 and not any(head[1::2]):
        content = content.decode("utf-16-le", errors="replace").encode()
    elif head.startswith(b"\xef\xbb\xbf"):
        return memoryview(content)[3:], notes
    else:
        try:
            head[: head.rfind(b"\n") + 1].decode("utf-8")
        except UnicodeDecodeError:
            content = content.decode("latin-1").encode()
    control = sum(byte < 9 or 13 < byte < 32 for byte in content[:4096])
    if control > len(content[:4096]) // 50:
        raise Unreadable("unreadable_file", f"{path.name} is not text")
    return memoryview(content), notes


def _unpacked(path: Path) -> tuple[bytes, str]:
    """What a packed file holds up to its first damage, and what that is."""
    makers: dict[str, Callable[[], Any]] = {
        ".gz": lambda: zlib.decompressobj(wbits=31),
        ".xz": lzma.LZMADecompressor,
        ".bz2": bz2.BZ2Decompressor,
    }
    make = makers[path.suffix.lower()]
    parts: list[bytes] = []
    size = 0
    unpacker = make()
    with path.open("rb") as file:
        while packed := file.read(_CHUNK):
            try:
                while packed:
                    parts.append(unpacker.decompress(packed))
                    size += len(parts[-1])
                    if size > MAX_BYTES:
                        raise Unreadable("too_large", f"{path.name} unpacks to more than {MAX_BYTES:,} bytes")
                    packed = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else b""
                    if unpacker.eof and packed:
                        unpacker = make()
            except (OSError, EOFError, lzma.LZMAError, zlib.error):
                return b"".join(parts), "a block cannot be unpacked"
    return b"".join(parts), "" if unpacker.eof else "its end is missing"


def _lines(content: memoryview, count: int) -> Iterator[tuple[int, str]]:
    """The first lines and the positions of their first bytes."""
    head = bytes(content[: 64 * _CHUNK])
    start = 0
    for line in head.splitlines(keepends=True)[:count]:
        yield start, line.decode("utf-8", errors="replace").rstrip("\r\n")
        start += len(line)


def _line_bytes(content: memoryview, start: int) -> int:
    return len(bytes(content[start : start + 64 * _CHUNK]).splitlines(keepends=True)[0])


def _separator(lines: Sequence[str], header: bool, width: int | None) -> str:
    """What stands between cells."""
    if header:
        first = next((line for line in lines if re.search(r"[^\W\d]{2}", line)), lines[0])
        return max(";\t,", key=first.count)  # the first of equals
    rows = list(lines)
    if width == 1 and all(re.fullmatch(r'\s*"?[-+]?\d+,\d+"?;?\s*', line) for line in rows[:-1] or rows):
        return ";"  # one column with decimal commas
    separator = max(",;\t", key=lambda mark: sum(line.count(mark) for line in rows))
    return ";" if any(";" in line for line in rows) else separator


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip(' \t"\ufeff') for cell in line.split(separator)]


def _all_numbers(line: str, separator: str) -> bool:
    cells = [cell.replace(",", ".") for cell in _cells(line, separator)]
    return all(not cell or re.fullmatch(_NUMBER, cell) for cell in cells)


def _kind(cells: Sequence[str], comma: bool) -> pa.DataType:
    """Numbers, if the first cells are; a double holds nanoseconds since 1970 to a quarter of a microsecond."""
    known = [cell.replace(",", ".") if comma else cell for cell in cells if cell not in _BLANK]
    return pa.float64() if known and all(re.fullmatch(_NUMBER, cell) for cell in known) else pa.string()


def _without_cut_row(content: memoryview, first: int, separator: str, columns: int) -> tuple[memoryview, bool]:
    """The rows from byte `first` on, without the last if it has fewer cells than those before it."""
    tail_start = max(first, len(content) - _CHUNK)
    tail = bytes(content[tail_start:])
    kept = tail.rstrip(b"\r\n \t\0")
    line_start = max(kept.rfind(b"\n"), kept.rfind(b"\r")) + 1
    if line_start == 0 and tail_start > first:
        return content[first:], False
    last, before = kept[line_start:], kept[:line_start].splitlines()[-50:]
    mark = separator.encode()
    usual = min([columns - 1, *(row.count(mark) for row in before if row.strip())])
    is_cut = bool(last) and (last.count(mark) < usual if before else last.count(mark) < columns - 1)
    end = tail_start + (line_start if is_cut else len(kept))
    return content[first:end], is_cut
