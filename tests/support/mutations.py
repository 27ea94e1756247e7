"""Seeded mutations of deliveries: names, headers, columns, time stamps, lengths and bytes.

A delivery is a mapping from paths in bytes to what lies there. A layout says of a file where its cells, fields and
instants are; a file without one is mutated as bytes.
"""

from __future__ import annotations

import io
import json
import lzma
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

Random = np.random.Generator
Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    to: bytes


@dataclass(frozen=True)
class Fifo:
    """A FIFO: whoever opens it waits for ever."""


@dataclass(frozen=True)
class Folder:
    """A folder with nothing in it."""


Entry = bytes | Link | Fifo | Folder
Entries = dict[bytes, Entry]


@dataclass(frozen=True)
class Text:
    """Rows of cells; `times` are columns, `time_headers` rows of the header, of instants."""

    separator: str
    headers: int = 1
    times: tuple[int, ...] = ()
    time_headers: tuple[int, ...] = ()
    packed: bool = False  # by xz


@dataclass(frozen=True)
class Tree:
    """Named values, maybe inside of each other; `times` are paths of names."""

    load: Callable[[bytes], dict[str, Any]]
    dump: Callable[[dict[str, Any]], bytes]
    times: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Binary:
    """Numbers of one type from `first` on, every `stride` bytes; `mend` corrects sums after a mutation.

    `headers` is how many bytes at the beginning describe the others.
    """

    headers: int = 64
    first: int = 0
    stride: int = 0  # 0: the bytes hold no instants
    kind: str = "<u4"
    mend: Callable[[bytes], bytes] = bytes
    fields: tuple[tuple[int, int], ...] = ()  # of text of fixed width: where it begins, and its length


Layout = Text | Tree | Binary


@dataclass(frozen=True)
class Seed:
    """A small valid delivery; `layouts` by patterns of file names, the first that matches counts."""

    device: str
    files: Mapping[str, bytes]
    layouts: Mapping[str, Layout]
    mapping: str | None = None  # of the device `table`

    def layout(self, path: bytes) -> Layout:
        name = path.rpartition(b"/")[2].decode("utf-8", "replace")
        return next((layout for pattern, layout in self.layouts.items() if fnmatchcase(name, pattern)), Binary())


_ATTEMPTS = 40


class _NotApplicableError(Exception):
    """A mutation that this file does not have."""


def mutate(seed: Seed, rng: Random) -> tuple[Entries, list[str]]:
    """The delivery of a seed with one to three mutations, and their names as `category: operator`."""
    entries: Entries = {path.encode(): content for path, content in seed.files.items()}
    done: list[str] = []
    wanted = int(rng.choice([1, 1, 1, 2, 3]))
    for _ in range(_ATTEMPTS):  # a delivery may have nothing left to mutate
        if len(done) == wanted:
            break
        category = str(rng.choice(list(CATEGORIES)))
        with suppress(_NotApplicableError):
            done.append(f"{category}: {CATEGORIES[category](seed, entries, rng)}")
    return entries, done


def _operator(rng: Random, listed: str) -> str:
    return str(_pick(rng, listed.split(", ")))


def _pick(rng: Random, choices: Any) -> Any:
    listed = list(choices)
    if not listed:
        raise _NotApplicableError
    return listed[int(rng.integers(len(listed)))]


def _file(entries: Entries, rng: Random) -> tuple[bytes, bytes]:
    """A file of the delivery: path and content."""
    path = _pick(rng, sorted(path for path, entry in entries.items() if isinstance(entry, bytes)))
    content = entries[path]
    assert isinstance(content, bytes)
    return path, content


# --- Names

_NAMES = [
    b"caf\xe9", b"\xff\xfe", "Ä ö é".encode(), "e\u0301".encode(), "\u202e123".encode(), "💓".encode(), b"a\nb",
    b"a\tb", b" ", b"-", b"..x", b"...", b"con", b"a" * 255, "é".encode() * 127, b"2023-11-14", b"20231114_221320",
    b"session_2", b"Recording_001", b"left", b"P1", b"P2", b"0", b"1644226061_A001BC", b"P1.P2", b"a'b\"c", b"a;b",
    b"%s{0}", b"\\", b"$HOME", b"*", b"\x01\x7f",
]  # fmt: skip
_STRAY = [
    b"Thumbs.db", b".DS_Store", b"__MACOSX/._ACC.csv", b"README.md", b"notes.txt", b"empty.csv", b"x.bin", b"x.mat",
    b"x.edf", b"x.json", b"x.zip", b"x.avro", b"x.cwa", b"x.gt3x", b"x.hea", b"tags.csv", b"IBI.csv", b"desktop.ini",
    b"x_meta.json", b"x.parquet", b"x.feather", b"x.csv.gz", b"x.csv.xz", b"x", b".zip", b"PPG.txt", b"ACC.txt",
]  # fmt: skip


def _split(path: bytes) -> tuple[bytes, bytes, bytes]:
    """Folder, stem and suffix."""
    folder, _, name = path.rpartition(b"/")
    stem, dot, suffix = name.partition(b".")
    return folder, stem, dot + suffix


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _moved(entries: Entries, old: bytes, new: bytes) -> None:
    """Put what lies at a path, or below it, at another one, if nothing is in the way."""
    for path in [path for path in entries if path == old or path.startswith(old + b"/")]:
        target = new + path[len(old) :]
        if _is_free(entries, target):
            entries[target] = entries.pop(path)


def _is_free(entries: Entries, path: bytes) -> bool:
    names = path.split(b"/")
    above = {b"/".join(names[:number]) for number in range(1, len(names))}
    sound = all(0 < len(name) <= 255 and name not in (b".", b"..") and b"\0" not in name for name in names)
    return (
        sound
        and not above & entries.keys()
        and not any(other == path or other.startswith(path + b"/") for other in entries)
    )


def _put(entries: Entries, path: bytes, entry: Entry) -> None:
    if not _is_free(entries, path):
        raise _NotApplicableError
    entries[path] = entry


def _names(_seed: Seed, entries: Entries, rng: Random) -> str:
    path, content = _file(entries, rng)
    folder, stem, suffix = _split(path)
    folders = sorted(
        {b"/".join(path.split(b"/")[:number]) for path in entries for number in range(1, path.count(b"/") + 1)}
    )
    name = bytes(_pick(rng, _NAMES))
    operator = _operator(
        rng,
        "file, folder, case, suffix, remove, remove folder, copy, copy folder, swap, to root, deeper, "
        "merge, stray, stray content, link, fifo, empty folder, file becomes folder, zip, zip folder, "
        "nested zip, bomb, odd zip, damaged zip, macosx, date, dots, hidden, deep, nothing",
    )
    match operator:
        case "file":
            new = _pick(rng, [name[: 255 - len(suffix)] + suffix, (stem + name)[: 255 - len(suffix)] + suffix, name])
            _moved(entries, path, _join(folder, new))
        case "folder":
            _moved(entries, _pick(rng, folders), _pick(rng, [name, *folders]) + _pick(rng, [b"", b"_x"]))
        case "case":
            _moved(entries, path, _join(folder, _pick(rng, [stem.upper() + suffix, stem.lower() + suffix.upper()])))
        case "suffix":
            new = _pick(
                rng, [b"", b".txt", b".csv", b".gz", b".xz", b".CSV", b".bak", b".zip", b".mat", b".bin", suffix * 2]
            )
            _moved(entries, path, _join(folder, stem + new))
        case "remove":
            del entries[path]
        case "remove folder":
            gone = _pick(rng, folders)
            for inside in [inside for inside in entries if inside.startswith(gone + b"/")]:
                del entries[inside]
        case "copy":
            other = _pick(rng, [folder, b"", b"P9", name, *folders])
            _put(
                entries,
                _join(other, _pick(rng, [stem + suffix, stem + b" (1)" + suffix, b"Copy of " + stem + suffix])),
                content,
            )
        case "copy folder":
            source, target = _pick(rng, folders), _pick(rng, [b"P9", b"P1 copy", name, b"session_1", b"P9/2023-11-14"])
            for inside in [inside for inside in entries if inside.startswith(source + b"/")]:
                _put(entries, target + inside[len(source) :], entries[inside])
        case "swap":
            other, other_content = _file(entries, rng)
            entries[path], entries[other] = other_content, content
        case "to root":
            _moved(entries, path, stem + suffix)
        case "deeper":
            _moved(entries, path, _join(folder, name + b"/" + stem + suffix))
        case "merge":
            _moved(entries, _pick(rng, folders), _pick(rng, folders))
        case "stray":
            _put(entries, _join(_pick(rng, [folder, b"", *folders]), _pick(rng, _STRAY)), b"")
        case "stray content":
            junk = _pick(
                rng, [rng.bytes(300), b"a,b\n1,2\n", b"{}", b"[]", b"\x1f\x8b\x08", b"PK\x05\x06", content[:500]]
            )
            _put(entries, _join(_pick(rng, [folder, b"", *folders]), _pick(rng, _STRAY)), junk)
        case "link":
            to = _pick(rng, [stem + suffix, b"nowhere", b".", b"..", b"/", b"x"])
            _put(entries, _join(folder, _pick(rng, [b"x", b"x" + suffix, name])), Link(to))
        case "fifo":
            del entries[path]
            _put(entries, _pick(rng, [path, path + b"x", _join(folder, b"x" + suffix)]), Fifo())
        case "empty folder":
            _put(entries, _join(_pick(rng, [folder, b""]), _pick(rng, [name, b"x.csv", b"x.zip", b"P3"])), Folder())
        case "file becomes folder":
            del entries[path]
            _put(entries, path, Folder())
        case "zip":
            whole = _zipped({inside: entry for inside, entry in entries.items() if isinstance(entry, bytes)}, rng)
            entries.clear()
            entries[_pick(rng, [b"delivery.zip", b"P1.zip", b"P1.ZIP", b"P1/a.zip", name[:200] + b".zip"])] = whole
        case "zip folder" | "nested zip":
            packed = _pick(rng, folders)
            inner: dict[bytes, bytes] = {}
            for inside in [inside for inside in entries if inside.startswith(packed + b"/")]:
                entry = entries.pop(inside)
                if isinstance(entry, bytes):
                    inner[inside[len(packed) + 1 :]] = entry
            archive = _zipped(inner, rng)
            _put(entries, packed + b".zip", archive if operator == "zip folder" else _zipped({b"a.zip": archive}, rng))
        case "bomb":
            _put(entries, _join(folder, b"bomb.zip"), _bomb())
        case "odd zip":
            _put(entries, _join(folder, b"odd.zip"), _odd_zip(content, stem + suffix, rng))
        case "damaged zip":
            broken = bytearray(_zipped({stem + suffix: content}, rng))
            for _ in range(int(rng.integers(1, 9))):
                broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
            cut = len(broken) if rng.random() < 0.5 else int(rng.integers(len(broken)))
            _put(entries, _join(folder, b"damaged.zip"), bytes(broken[:cut]))
        case "macosx":
            _put(entries, b"__MACOSX/" + _join(folder, b"._" + stem + suffix), b"\0\5\x16\7" + rng.bytes(100))
        case "date":
            _moved(
                entries, path, _join(folder, stem + _pick(rng, [b"_2023-11-14", b"_20231114", b"_1644226061"]) + suffix)
            )
        case "dots":
            _moved(
                entries,
                path,
                _join(folder, _pick(rng, [stem + b".v1" + suffix, stem + suffix + b".", b"a.b.c" + suffix])),
            )
        case "hidden":
            _moved(entries, path, _join(folder, b"." + stem + suffix))
        case "deep":
            _moved(
                entries,
                path,
                b"/".join([b"d" * int(rng.integers(1, 40))] * int(rng.integers(10, 60))) + b"/" + stem + suffix,
            )
        case _:
            pass
    return operator


def _zipped(files: Mapping[bytes, bytes], rng: Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for path, content in files.items():
            archive.writestr(path.decode("utf-8", "replace"), content)
    return out.getvalue()


_BOMB: list[bytes] = []


def _bomb() -> bytes:
    """An archive that unpacks to a thousand times its size."""
    if not _BOMB:
        _BOMB.append(_zipped({b"BVP.csv": bytes(1 << 26)}, np.random.default_rng(1)))
    return _BOMB[0]


def _odd_zip(content: bytes, name: bytes, rng: Random) -> bytes:
    """An archive with members that no archive of a delivery should have."""
    out, shown = io.BytesIO(), name.decode("utf-8", "replace")
    kinds = [
        [shown, shown], ["../" + shown], ["/" + shown], ["a", "a/b"], ["a/b", "a"], ["x" * 5000], ["a\\b"], ["a/./b"],
        ["a//b"], [""], [" /" + shown], ["A/" + shown, "a/" + shown], ["\x01\n" + shown], ["/".join(["d" * 200] * 40)],
        ["x.zip"], [f"{number}/{shown}" for number in range(20)], [], ["./" + shown], ["a/", "a/" + shown], ["."],
    ]  # fmt: skip
    chosen = kinds[int(rng.integers(len(kinds)))]
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands twice
        for member in chosen:
            if rng.random() < 0.1:
                archive.writestr(zipfile.ZipInfo(member), content[:2000], compress_type=zipfile.ZIP_BZIP2)
                continue
            info = zipfile.ZipInfo(member)
            archive.writestr(info, content if not member.endswith("/") else b"")
    packed = bytearray(out.getvalue())
    if rng.random() < 0.1 and chosen:  # encrypted, by its flags
        packed[6] |= 1
        packed[packed.rfind(b"PK\1\2") + 8] |= 1
    return bytes(packed)


# --- Cells, fields and names of values

_WORDS = [
    "", "x", "nan", "NaN", "inf", "-inf", "-1", "0", "1e308", "1e-320", "-9e18", "99999999999999999999", "1,5",
    "0x10", "time", "timestamp", "[mg]", "m/s^2", "g", "null", "None", "\ufeff", "ä", "\u202e", "true",
    "2023-02-30T25:61:00", "1970-01-01", "'", '"', '""', ";", ",", "\t", "#", "\0", "64", "32.0", "1000000", "0.5",
    "a" * 5000, "12:30", "-0", "+", "1.2.3", "१२",
]  # fmt: skip


def _rows(layout: Text, content: bytes) -> list[list[str]]:
    text = (lzma.decompress(content) if layout.packed else content).decode("utf-8", "surrogateescape")
    return [line.split(layout.separator) for line in text.splitlines()]


def _written(layout: Text, rows: list[list[str]], encoding: str = "utf-8", end: str = "\n", mark: str = "") -> bytes:
    text = mark + end.join([*(layout.separator.join(row) for row in rows), ""])
    content = text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    return lzma.compress(content, preset=0) if layout.packed else content


def _loaded(layout: Text, content: bytes) -> list[list[str]]:
    try:
        rows = _rows(layout, content)
    except (lzma.LZMAError, EOFError):
        raise _NotApplicableError from None
    if len(rows) <= layout.headers:
        raise _NotApplicableError
    return rows


def _headers(seed: Seed, entries: Entries, rng: Random) -> str:
    path, content = _file(entries, rng)
    layout = seed.layout(path)
    if isinstance(layout, Text):
        entries[path], operator = _text_headers(layout, content, rng)
    elif isinstance(layout, Tree):
        entries[path], operator = _tree(layout, content, rng, columns=False)
    else:
        entries[path], operator = _binary_headers(layout, content, rng)
    return operator


def _text_headers(layout: Text, content: bytes, rng: Random) -> tuple[bytes, str]:
    rows = _loaded(layout, content)
    header = rows[int(rng.integers(max(layout.headers, 1)))]
    at = int(rng.integers(len(header)))
    encoding, end, mark = "utf-8", "\n", ""
    operator = _operator(
        rng,
        "renamed, word, missing, repeated, middle, reordered, reversed, bom, utf-16, utf-16-be, utf-32, "
        "latin-1, upper, lower, units, no units, quotes, preamble, CR, CRLF, blank lines, same names, cut "
        "header, longer header, spaces, swapped",
    )
    match operator:
        case "renamed":
            header[at] = header[at] + _pick(rng, ["_", " 2", "x", " [g]", "?", "\u00b5"])
        case "word":
            header[at] = _pick(rng, _WORDS)
        case "missing":
            del rows[: int(rng.integers(1, max(layout.headers, 1) + 1))]
        case "repeated":
            rows[:0] = [list(row) for row in rows[: max(layout.headers, 1)]]
        case "middle":
            rows.insert(int(rng.integers(len(rows))), list(header))
        case "reordered":
            rng.shuffle(header)
        case "reversed":
            header.reverse()
        case "bom":
            mark = "\ufeff" * int(rng.integers(1, 3))
        case "utf-16" | "utf-16-be" | "utf-32" | "latin-1":
            encoding = operator
            header[at] += _pick(rng, ["", "²", "µ"])
        case "upper" | "lower":
            header[:] = [getattr(cell, operator)() for cell in header]
        case "units":
            new = _pick(rng, ["[g]", "[m/s^2]", "[ms]", "[s]", "[us]", "[counts]", "[]", "(g)", "["])
            header[:] = [cell.partition("[")[0] + new for cell in header]
        case "no units":
            header[:] = [cell.partition("[")[0].strip() for cell in header]
        case "quotes":
            header[:] = [f'"{cell}"' for cell in header]
            header[at] = header[at][: int(rng.integers(1, 99))]
        case "preamble":
            rows[:0] = [
                [_pick(rng, ["# comment", "sep=;", "", "Device: X", "%", "a" * 100_000])]
                for _ in range(int(rng.integers(1, 5)))
            ]
        case "CR" | "CRLF":
            end = {"CR": "\r", "CRLF": "\r\n"}[operator]
        case "blank lines":
            end = "\n\n"
        case "same names":
            header[:] = [header[at]] * len(header)
        case "cut header":
            del header[at:]
        case "longer header":
            header.extend(_pick(rng, [[""], ["x"], [header[at]], ["x"] * 300]))
        case "spaces":
            header[:] = [f"  {cell}\t" for cell in header]
        case _:
            other = int(rng.integers(len(header)))
            header[at], header[other] = header[other], header[at]
    return _written(layout, rows, encoding, end, mark), operator


def _binary_headers(layout: Binary, content: bytes, rng: Random) -> tuple[bytes, str]:
    changed = bytearray(content)
    if not changed:
        raise _NotApplicableError
    if layout.fields:
        operator = "field"
        for _ in range(int(rng.integers(1, 4))):
            start, width = _pick(rng, layout.fields)
            word = _pick(rng, _WORDS).encode("utf-8")[:width]
            changed[start : start + width] = word.ljust(width)
    else:
        operator = _operator(
            rng,
            "byte, number, zeros, ones, shifted",
        )
        at = int(rng.integers(min(layout.headers, len(changed))))
        match operator:
            case "byte":
                changed[at] = int(rng.integers(256))
            case "number":
                value = int(_pick(rng, [0, 1, 2, 127, 255, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1]))
                changed[at : at + 4] = value.to_bytes(4, "little")
            case "zeros" | "ones":
                length = int(rng.integers(1, 17))
                changed[at : at + length] = (b"\0" if operator == "zeros" else b"\xff") * length
            case _:
                changed[at:at] = rng.bytes(int(rng.integers(1, 5)))
    return layout.mend(bytes(changed)), operator


def _columns(seed: Seed, entries: Entries, rng: Random) -> str:
    path, content = _file(entries, rng)
    layout = seed.layout(path)
    if isinstance(layout, Tree):
        entries[path], operator = _tree(layout, content, rng, columns=True)
        return operator
    if not isinstance(layout, Text):
        raise _NotApplicableError
    rows = _loaded(layout, content)
    body = rows[layout.headers :]
    width = max(map(len, rows))
    at, other = int(rng.integers(width)), int(rng.integers(width))
    separator = layout.separator
    operator = _operator(
        rng,
        "dropped, dropped in rows, added, swapped, swapped in rows, blank, text, words, ragged, "
        "separator, mixed separators, decimal comma, constant, scaled, huge, nan, quotes, repeated, "
        "negative, rounded, copied, spaces, trailing, cells, thousands, int overflow, sign",
    )
    share = float(_pick(rng, [0.001, 0.05, 0.5, 1.0]))
    some = [row for row, hit in zip(body, (rng.random(len(body)) < share).tolist(), strict=True) if hit]
    cells = [row for row in some if at < len(row)]

    def numbers(change: Callable[[float], float]) -> None:
        for row in cells:
            with suppress(ValueError, OverflowError):
                row[at] = repr(change(float(row[at])))

    match operator:
        case "dropped" | "dropped in rows":
            for row in rows if operator == "dropped" else cells:
                del row[at : at + 1]
        case "added":
            for row in rows if rng.random() < 0.5 else some:
                row.insert(at, _pick(rng, ["0", "1.5", "x", ""]))
        case "swapped" | "swapped in rows":
            for row in rows if operator == "swapped" else some:
                if max(at, other) < len(row):
                    row[at], row[other] = row[other], row[at]
        case "blank" | "nan" | "text" | "huge" | "int overflow":
            new = {"blank": "", "nan": _pick(rng, ["nan", "NaN", "N/A", "null"]), "text": "error", "huge": "1e300"}
            for row in cells:
                row[at] = new.get(operator, "9" * 30)
        case "words" | "cells":
            for row in cells:
                row[at] = _pick(rng, _WORDS)
        case "ragged":
            for row in some:
                if rng.random() < 0.5:
                    del row[at:]
                else:
                    row.extend(["7"] * int(rng.integers(1, 9)))
        case "separator":
            separator = _pick(rng, [",", ";", "\t", "|", " ", ":", ", ", "¦"])
        case "mixed separators":
            for row in some:
                row[:] = [_pick(rng, [",", ";", "\t"]).join(row)]
        case "decimal comma":
            rows[:] = [[cell.replace(".", ",") for cell in row] for row in rows]
            separator = _pick(rng, [separator, ";"])
        case "constant":
            for row in cells:
                row[at] = body[0][min(at, len(body[0]) - 1)]
        case "scaled":
            factor = float(_pick(rng, [1e-3, 9.80665, 1 / 9.80665, 8.0, 1e3, 1e9, 0.0]))
            numbers(lambda number: number * factor)
        case "negative" | "sign":
            numbers(lambda number: -number)
        case "rounded":
            numbers(lambda number: float(round(number)))
        case "quotes":
            for row in some:
                row[:] = [f'"{cell}"' for cell in row] if rng.random() < 0.7 else ['"', *row]
        case "repeated":
            for row in rows:
                row.extend(row[at : at + 1])
        case "copied":
            for row in rows:
                if max(at, other) < len(row):
                    row[at] = row[other]
        case "spaces":
            for row in some:
                row[:] = [f" {cell}  " for cell in row]
        case "trailing":
            for row in rows if rng.random() < 0.5 else some:
                row.append("")
        case _:
            numbers(lambda number: number)
            for row in cells:
                row[at] = "1 234,5" if rng.random() < 0.5 else "1,234.5"
    entries[path] = _written(Text(separator, packed=layout.packed), rows)
    return operator


# --- Instants

_CLOCKS = (
    "forward, back, reset, constant, nan, some nan, huge, negative, swapped, jitter, duplicated, epoch, "
    "milliseconds, seconds, nanoseconds, reversed, zero, wrapped, infinite, random, drift, gap, gaps, "
    "shuffled, stairs, one off, tiny steps, tiny range, repeated block"
)


def clock(time: Times, rng: Random) -> tuple[Times, str]:
    """Instants of any unit as a damaged clock gives them."""
    time = time.astype(np.float64).copy()
    count = len(time)
    if count < 2:
        raise _NotApplicableError
    steps = np.diff(time)
    steps = steps[np.isfinite(steps) & (steps != 0)]
    step = float(np.median(np.abs(steps))) if len(steps) else 1.0
    at = int(rng.integers(1, count))
    some = rng.random(count) < float(_pick(rng, [0.001, 0.05, 0.5]))
    jump = step * 10 ** float(rng.uniform(0, 9))
    operator = _operator(rng, _CLOCKS)
    match operator:
        case "forward" | "back":
            time[at:] += jump if operator == "forward" else -jump
        case "reset":
            time[at:] -= time[at] - time[0]
        case "constant":
            time[:] = time[0]
        case "nan":
            time[:] = np.nan
        case "some nan":
            time[some] = np.nan
        case "huge":
            time[some] = float(_pick(rng, [1e18, 1e25, 1e300, 2.0**63, 2.0**64]))
        case "negative":
            time = -time
        case "swapped":
            other = int(rng.integers(count))
            time[at], time[other] = time[other], time[at]
        case "jitter":
            time += rng.normal(0, step * float(_pick(rng, [0.1, 1, 20])), count)
        case "duplicated":
            time = np.repeat(time[:: int(_pick(rng, [2, 7, 36]))], 36)[:count]
            time = np.pad(time, (0, count - len(time)), mode="edge")
        case "epoch":
            time += float(_pick(rng, [-1, 1, 946_684_800, -315_964_800, 62_135_596_800, -1.7e9])) * step * 50
        case "milliseconds" | "seconds" | "nanoseconds":
            time *= {"milliseconds": 1e3, "seconds": 1e-3, "nanoseconds": 1e9}[operator]
        case "reversed":
            time = time[::-1]
        case "zero":
            time[some] = 0
        case "wrapped":
            time = time[0] + (time - time[0]) % max(abs(time[at] - time[0]), step)
        case "infinite":
            time[some] = np.inf
        case "random":
            time = rng.uniform(-1, 1, count) * 10 ** float(rng.uniform(0, 18))
        case "drift":
            time = time[0] + (time - time[0]) * float(_pick(rng, [1.01, 2, 50, 1e4, 1e-4]))
        case "gap" | "gaps":
            for start in [at] if operator == "gap" else rng.integers(1, count, 20):
                time[start:] += step * int(rng.integers(1, 3000))
        case "shuffled":
            rng.shuffle(time)
        case "stairs":
            time = np.floor((time - time[0]) / (step * 50)) * step * 50 + time[0]
        case "one off":
            time[at] += jump * float(_pick(rng, [-1, 1]))
        case "tiny steps":
            time = np.nextafter(time[0], np.inf) + np.arange(count) * np.spacing(time[0])
        case "tiny range":
            time = time[0] + (time - time[0]) * 1e-9
        case _:
            length = int(rng.integers(1, count))
            time[at:] = np.resize(time[:length], count - at)
    return time, operator


def _as_cell(value: float, like: str) -> str:
    """An instant as the other cells are written."""
    if not np.isfinite(value):
        return str(value)
    if "T" in like or like.count(":") > 1:
        try:
            return (datetime(1970, 1, 1) + timedelta(seconds=value)).isoformat(timespec="milliseconds")
        except (OverflowError, ValueError):
            return "99999-01-01T00:00:00.000"
    return str(round(value)) if like.strip().lstrip("-").isdigit() else f"{value:.6f}"


def _from_cell(cell: str) -> float:
    with suppress(ValueError):
        return float(cell)
    with suppress(ValueError):
        return (datetime.fromisoformat(cell.strip()) - datetime(1970, 1, 1)).total_seconds()
    return np.nan


def _times(seed: Seed, entries: Entries, rng: Random) -> str:
    path, content = _file(entries, rng)
    layout = seed.layout(path)
    if isinstance(layout, Text):
        rows = _loaded(layout, content)
        if layout.time_headers and (not layout.times or rng.random() < 0.5):
            header = rows[int(_pick(rng, layout.time_headers))]
            word = _pick(
                rng,
                [
                    "0",
                    "-1",
                    "1e12",
                    "1e18",
                    "nan",
                    "inf",
                    "",
                    "1e-9",
                    "64.5",
                    "1644226061000",
                    "2022-02-14",
                    "1e300",
                    "x",
                ],
            )
            header[:] = [word] * len(header) if rng.random() < 0.7 else [word, *header[1:]]
            entries[path] = _written(layout, rows)
            return "header"
        if not layout.times:
            raise _NotApplicableError
        body, at = rows[layout.headers :], int(_pick(rng, layout.times))
        body = [row for row in body if at < len(row)]
        if not body:
            raise _NotApplicableError
        like = body[0][at]
        with np.errstate(over="ignore", invalid="ignore"):
            time, operator = clock(np.array([_from_cell(row[at]) for row in body]), rng)
        for row, value in zip(body, time.tolist(), strict=True):
            row[at] = _as_cell(value, like)
        entries[path] = _written(layout, rows)
        return operator
    if isinstance(layout, Tree):
        return _tree_times(layout, entries, path, content, rng)
    if not layout.stride:
        raise _NotApplicableError
    size = np.dtype(layout.kind).itemsize
    data = bytearray(content)
    places = np.arange(layout.first, len(data) - size + 1, layout.stride)
    if len(places) < 2:
        raise _NotApplicableError
    grid = places[:, None] + np.arange(size)
    array = np.frombuffer(bytes(data), np.uint8).copy()
    with np.errstate(over="ignore", invalid="ignore"):
        time, operator = clock(array[grid].copy().view(layout.kind)[:, 0], rng)
        if np.dtype(layout.kind).kind in "ui":
            limits = np.iinfo(layout.kind)
            time = np.nan_to_num(time, nan=0, posinf=limits.max, neginf=limits.min)
            kept = np.mod(time, 2.0 ** (8 * size)).astype(np.uint64).astype(layout.kind)
        else:
            kept = time.astype(layout.kind)
    array[grid] = np.ascontiguousarray(kept).view(np.uint8).reshape(-1, size)
    entries[path] = layout.mend(array.tobytes())
    return operator


# --- Trees: JSON, Avro, MATLAB, Arrow


def _places(tree: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all values."""
    listed: list[tuple[str, ...]] = []
    for name, value in tree.items():
        listed.append((*above, name))
        if isinstance(value, dict):
            listed += _places(value, (*above, name))
    return listed


def _parent(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for name in path[:-1]:
        tree = tree[name]
        if not isinstance(tree, dict):
            raise _NotApplicableError
    if path[-1] not in tree:
        raise _NotApplicableError
    return tree


def _read_tree(layout: Tree, content: bytes) -> dict[str, Any]:
    try:
        tree = layout.load(content)
    except Exception:  # after another mutation
        raise _NotApplicableError from None
    if not isinstance(tree, dict) or not tree:
        raise _NotApplicableError
    return tree


def _dumped(layout: Tree, tree: dict[str, Any]) -> bytes:
    try:
        return layout.dump(tree)
    except Exception:  # what a format cannot hold
        raise _NotApplicableError from None


def _tree(layout: Tree, content: bytes, rng: Random, *, columns: bool) -> tuple[bytes, str]:
    tree = _read_tree(layout, content)
    places = _places(tree)
    arrays = [place for place in places if isinstance(_parent(tree, place)[place[-1]], np.ndarray | list)]
    place = _pick(rng, arrays if columns and arrays else places)
    parent, name = _parent(tree, place), place[-1]
    value = parent[name]
    if not columns:
        operator = str(
            _pick(
                rng, ["renamed", "missing", "repeated", "reordered", "case", "word", "number", "none", "nested", "list"]
            )
        )
        match operator:
            case "renamed":
                parent[name + _pick(rng, ["_", "2", " "])] = parent.pop(name)
            case "missing":
                del parent[name]
            case "repeated":
                parent[f"{name}_copy"] = value
            case "reordered":
                kept = list(parent.items())
                rng.shuffle(kept)
                parent.clear()
                parent.update(kept)
            case "case":
                parent[name.upper() if rng.random() < 0.5 else name.lower()] = parent.pop(name)
            case "word":
                parent[name] = _pick(rng, _WORDS)
            case "number":
                parent[name] = _pick(
                    rng, [0, -1, 1, 2**31, 2**53, -(2**40), 1.5, 1e308, float("nan"), float("inf"), True]
                )
            case "none":
                parent[name] = None
            case "nested":
                parent[name] = {"a": value}
            case _:
                parent[name] = [value]
        return _dumped(layout, tree), operator
    operator = _operator(
        rng,
        "dropped, text, nan, some nan, scaled, shorter, longer, empty, transposed, reversed, constant, "
        "huge, integer, boolean, complex, cube, strings, one, offset, swapped, negative, null, objects, "
        "dates",
    )
    try:
        array = np.asarray(value, np.float64)
    except (ValueError, TypeError):
        raise _NotApplicableError from None
    at = int(rng.integers(max(array.shape[-1] if array.ndim else 1, 1)))
    new: Any = array
    with np.errstate(all="ignore"):
        match operator:
            case "dropped":
                new = array[: max(len(array) - 1, 0)] if array.ndim > 1 else array[:-1] if array.ndim else array
            case "text":
                new = "no numbers"
            case "nan":
                new = array * np.nan
            case "some nan":
                new = np.where(rng.random(array.shape) < 0.1, np.nan, array)
            case "scaled":
                new = array * float(_pick(rng, [1e-3, 9.80665, 1 / 9.80665, 8, 1e3, 1e9, 1e300, 0]))
            case "shorter":
                new = array[..., :at] if array.ndim else array
            case "longer":
                new = np.concatenate([array, array], axis=-1) if array.ndim else array
            case "empty":
                new = array.ravel()[:0]
            case "transposed":
                new = array.T
            case "reversed":
                new = array[..., ::-1] if array.ndim else array
            case "constant":
                new = np.zeros_like(array) + (array.ravel()[0] if array.size else 0)
            case "huge":
                new = np.where(rng.random(array.shape) < 0.01, 1e300, array)
            case "integer":
                new = np.nan_to_num(array).astype(_pick(rng, [np.int8, np.uint16, np.int64]))
            case "boolean":
                new = array > 0
            case "complex":
                new = array + 1j
            case "cube":
                new = np.stack([array, array])
            case "strings":
                new = [str(number) for number in array.ravel()[:5000].tolist()]
            case "one":
                new = array.ravel()[:1]
            case "offset":
                new = array + 1e6
            case "swapped":
                other = _parent(tree, other_place := _pick(rng, arrays or places))
                new, other[other_place[-1]] = other[other_place[-1]], value
            case "negative":
                new = -array
            case "null":
                new = [
                    None if number != number or hit else number
                    for number, hit in zip(array.ravel().tolist(), (rng.random(array.size) < 0.1).tolist(), strict=True)
                ]
            case "dates":
                new = np.nan_to_num(array.ravel()).astype("datetime64[ms]")
            case _:
                new = [[1, "a"], None, {}]
    parent[name] = new.tolist() if isinstance(value, list) and isinstance(new, np.ndarray) else new
    return _dumped(layout, tree), operator


def _tree_times(layout: Tree, entries: Entries, path: bytes, content: bytes, rng: Random) -> str:
    if not layout.times:
        raise _NotApplicableError
    tree = _read_tree(layout, content)
    place = tuple(_pick(rng, layout.times))
    parent = _parent(tree, place)
    value = parent[place[-1]]
    if isinstance(value, np.ndarray | list):
        try:
            array = np.asarray(value, np.float64)
        except (ValueError, TypeError):
            raise _NotApplicableError from None
        with np.errstate(over="ignore", invalid="ignore"):
            time, operator = clock(array.ravel(), rng)
        if isinstance(value, list) and value and isinstance(value[0], int):
            parent[place[-1]] = np.nan_to_num(time).clip(-(2.0**62), 2.0**62).astype(np.int64).tolist()
        else:
            parent[place[-1]] = time.tolist() if isinstance(value, list) else time.reshape(array.shape)
    else:
        operator = "value"
        parent[place[-1]] = type(value)(_pick(rng, [0, -1, 1, 64, 1e3, 1e9, 1.7e15, 1e18, 2**53]))
    entries[path] = _dumped(layout, tree)
    return operator


# --- Lengths and bytes


def _lengths(seed: Seed, entries: Entries, rng: Random) -> str:
    path, content = _file(entries, rng)
    layout = seed.layout(path)
    at = int(rng.integers(len(content) + 1))
    operator = _operator(
        rng,
        "cut, cut, cut head, empty, one row, header, twice, garbage, zeros, before, middle, repeated, few "
        "bytes, all cut, line ends, last byte",
    )
    match operator:
        case "cut":
            entries[path] = content[:at]
        case "cut head":
            entries[path] = content[at:]
        case "empty":
            entries[path] = b""
        case "one row" | "header" | "line ends":
            if not isinstance(layout, Text):
                raise _NotApplicableError
            rows = _loaded(layout, content)
            kept = {"one row": layout.headers + 1, "header": layout.headers}.get(operator, len(rows))
            entries[path] = _written(layout, rows[:kept]) if kept < len(rows) else content + b"\n\r\n\n"
        case "twice":
            entries[path] = content * int(rng.integers(2, 4))
        case "garbage":
            entries[path] = content + rng.bytes(int(rng.integers(1, 2000)))
        case "zeros":
            entries[path] = content + bytes(int(rng.integers(1, 5000)))
        case "before":
            entries[path] = rng.bytes(int(rng.integers(1, 600))) + content
        case "middle":
            entries[path] = content[:at] + content[at + int(rng.integers(1, 9000)) :]
        case "repeated":
            entries[path] = content[:at] + content[max(at - int(rng.integers(1, 9000)), 0) :]
        case "few bytes":
            entries[path] = content[: int(rng.integers(1, 200))]
        case "last byte":
            entries[path] = content[:-1]
        case _:
            share = float(rng.random())
            for other, entry in list(entries.items()):
                if isinstance(entry, bytes):
                    entries[other] = entry[: int(len(entry) * share)]
    return operator


def _bytes(_seed: Seed, entries: Entries, rng: Random) -> str:
    path, content = _file(entries, rng)
    changed = bytearray(content)
    if not changed:
        raise _NotApplicableError
    span = len(changed) if rng.random() < 0.5 else min(len(changed), 4096)
    at, length = int(rng.integers(span)), int(rng.integers(1, 5000))
    operator = str(
        _pick(rng, ["flips", "byte", "zeros", "ones", "random", "inserted", "deleted", "swapped", "blank", "newlines"])
    )
    match operator:
        case "flips":
            for place in rng.integers(span, size=int(rng.integers(1, 50))):
                changed[int(place)] ^= 1 << int(rng.integers(8))
        case "byte":
            changed[at] = int(rng.integers(256))
        case "zeros" | "ones" | "blank" | "newlines":
            fill = {"zeros": b"\0", "ones": b"\xff", "blank": b" ", "newlines": b"\n"}[operator]
            size = len(changed[at : at + length])
            changed[at : at + size] = fill * size
        case "random":
            changed[at : at + length] = rng.bytes(len(changed[at : at + length]))
        case "inserted":
            changed[at:at] = rng.bytes(int(rng.integers(1, 20)))
        case "deleted":
            del changed[at : at + int(rng.integers(1, 20))]
        case _:
            block = changed[at : at + length]
            del changed[at : at + length]
            place = int(rng.integers(len(changed) + 1))
            changed[place:place] = block
    entries[path] = bytes(changed)
    return operator


CATEGORIES: dict[str, Callable[[Seed, Entries, Random], str]] = {
    "names": _names,
    "headers": _headers,
    "columns": _columns,
    "times": _times,
    "lengths": _lengths,
    "bytes": _bytes,
}


def json_tree(*times: tuple[str, ...]) -> Tree:
    """A JSON file; arrays in it stay lists."""

    def dump(tree: dict[str, Any]) -> bytes:
        return json.dumps(tree, default=lambda value: np.asarray(value).tolist()).encode("utf-8", "surrogatepass")

    return Tree(json.loads, dump, times)
