"""ActiGraph: `.gt3x`, a ZIP with `info.txt` and either `log.bin` (records of a second) or `activity.bin` (NHANES).

The format is that of ActiGraph's documentation (github.com/actigraph/GT3X-File-Format and NHANES-GT3X-File-Format). The
library for it loses a whole file to one damaged record.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Demographics, Recording, Session, Signals, Unreadable
from accelkd.recordings.readers.blocks import Blocks, files_with, recordings_of

_ACTIVITY, _PARAMETERS, _ACTIVITY2 = 0x00, 0x15, 0x1A
_SEPARATOR = 0x1E
_RECORD = struct.Struct("<BBIH")  # separator, type, seconds of local time, bytes that follow
_LOCAL_FILE = struct.Struct("<4sHHHHHIIIHH")  # of a ZIP
MAX_MEMBER_BYTES = 4 << 30
_TICKS_PER_S, _TICKS_1970 = 10_000_000, 621_355_968_000_000_000
_TWELVE_BITS = 2047
_SCALE_BY_SERIAL = {"NEO": 341.0, "CLE": 341.0, "MOS": 256.0, "TAS": 256.0, "MRA": 341.0}  # counts per g
_SCALE_PARAMETER = (0, 55)  # address space and identifier of the acceleration's scale


def find(files: Iterable[Path]) -> Delivery:
    return Delivery(files_with(sorted(files), lambda path: path.suffix.lower() == ".gt3x"))


def read(session: Session) -> list[Recording]:
    name = session.source.name
    content = session.source.read_bytes()
    if not content:
        raise Unreadable("empty_file", f"{name} is empty")
    info_text, whole = _member(content, "info.txt", name)
    info = _info(info_text or b"")
    notes = [] if info else ["no info.txt: rate and scale are those of the records, the time zone is not known"]
    log, log_whole = _member(content, "log.bin", name)
    stream, stream_whole = _member(content, "activity.bin", name)
    if log is None and stream is None:
        raise Unreadable("missing_file", f"{name} holds neither log.bin nor activity.bin")
    if not (whole and log_whole and stream_whole):
        notes.append("the archive is damaged: read as far as it goes")
    rate_hz = _number(info.get("sample rate"))
    zone_s = _zone_s(info.get("timezone", ""))
    if log is not None:
        blocks, damaged = _log(log, info)
        if damaged:
            notes.append(f"{damaged} bytes between sound records left out")
        if rate_hz is None and len(blocks.count):
            rate_hz = float(np.median(blocks.count))
    else:
        blocks = _stream(stream or b"", rate_hz, info, name)
    facts = Recording(
        sensor_id=info.get("serial number") or None,
        participant=info.get("subject name") or None,
        demographics=_demographics(info),
    )
    if zone_s is not None:
        blocks = Blocks(blocks.stamp_s - zone_s, blocks.stamped, blocks.count, blocks.decode)
    return recordings_of(name, blocks, rate_hz or 0.0, facts, utc=zone_s is not None, notes=notes)


def _member(content: bytes, name: str, archive: str) -> tuple[bytes | None, bool]:
    """A file of a ZIP that may be cut or damaged, as far as it can be read, and whether it is whole; None without it.

    A ZIP that is cut has lost its list of files, but each file has its name before it.
    """
    for match in re.finditer(rb"PK\x03\x04", content):
        start = match.start()
        if start + _LOCAL_FILE.size > len(content):
            break
        _, _, flags, method, _, _, crc, packed, _, length, extra = _LOCAL_FILE.unpack_from(content, start)
        begin = start + _LOCAL_FILE.size
        if content[begin : begin + length].decode("utf-8", errors="replace").lower() != name:
            continue
        begin += length + extra
        if flags & 8 or packed == 0xFFFFFFFF:  # sizes stand behind the file or elsewhere
            crc, packed = _listed(content, start)
        data = content[begin : begin + packed] if packed else content[begin:]
        if method == zipfile.ZIP_DEFLATED:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                held = unpacker.decompress(data, MAX_MEMBER_BYTES)
            except zlib.error:
                held = _before_error(data)
            if unpacker.unconsumed_tail:
                raise Unreadable("too_large", f"{archive}: {name} has more than {MAX_MEMBER_BYTES} bytes")
        elif method == zipfile.ZIP_STORED:
            held = data
        else:
            raise Unreadable("unreadable_file", f"{archive}: {name} is compressed by method {method}")
        return held, not crc or zlib.crc32(held) == crc
    return None, True


def _listed(content: bytes, start: int) -> tuple[int, int]:
    """Checksum and packed size of the file at `start` by the list at the archive's end; zero where it is lost."""
    for match in re.finditer(rb"PK\x01\x02", content):
        entry = match.start()
        if entry + 46 <= len(content) and struct.unpack_from("<I", content, entry + 42)[0] == start:
            crc, packed = struct.unpack_from("<II", content, entry + 16)
            return crc, 0 if packed == 0xFFFFFFFF else packed
    return 0, 0


def _before_error(data: bytes) -> bytes:
    """What can be unpacked before the byte that makes the rest unreadable."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    held = bytearray()
    for start in range(0, len(data), 256):
        try:
            held += unpacker.decompress(data[start : start + 256])
        except zlib.error:
            break
        if len(held) > MAX_MEMBER_BYTES:
            break
    return bytes(held)


def _info(text: bytes) -> Mapping[str, str]:
    """The lines `key: value`, keys in small letters."""
    lines = (line.partition(":") for line in text.decode("utf-8-sig", errors="replace").splitlines())
    return {key.strip().lower(): value.strip() for key, colon, value in lines if colon}


def _records(log: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type, seconds, start and end of the payload of each record whose checksum holds."""
    data = np.frombuffer(log, np.uint8)
    start = 0
    while start + _RECORD.size < len(log):
        separator, kind, time_s, size = _RECORD.unpack_from(log, start)
        end = start + _RECORD.size + size
        if (
            separator == _SEPARATOR
            and end < len(log)
            and int(np.bitwise_xor.reduce(data[start:end])) ^ 0xFF == log[end]
        ):
            yield kind, time_s, start + _RECORD.size, end
            start = end + 1
            continue
        start = log.find(_SEPARATOR, start + 1)
        if start < 0:
            return


def _log(log: bytes, info: Mapping[str, str]) -> tuple[Blocks, int]:
    """The blocks of a log, and how many bytes belong to no sound record."""
    sound = 0
    entries = []
    scale = _scale(info)
    for kind, time_s, start, end in _records(log):
        sound += end - start + _RECORD.size + 1
        if kind == _PARAMETERS:
            scale = scale or _scale_parameter(log[start:end])
        samples = (end - start) // 6 if kind == _ACTIVITY2 else (end - start) * 8 // 36 if kind == _ACTIVITY else 0
        if samples:  # an activity record of one byte says that the device slept, or was connected
            entries.append((time_s, kind, start, end, samples))
    if scale is None:
        raise Unreadable("accel_unit", "neither info.txt nor the log says the scale of the acceleration")
    table = np.array(entries, np.int64).reshape(-1, 5)
    limit = _limit(info, scale)

    def decode(rows: slice) -> Signals:
        parts = [
            np.frombuffer(log, "<i2", samples * 3, start).reshape(-1, 3).T.astype(np.int32)
            if kind == _ACTIVITY2
            else _twelve_bits(log[start:end])
            for _, kind, start, end, samples in table[rows].tolist()
        ]
        return _in_g(np.concatenate(parts, axis=1), scale, limit)

    blocks = Blocks(table[:, 0].astype(np.float64), np.zeros(len(table), np.int64), table[:, 4], decode)
    return blocks, len(log) - sound


def _stream(stream: bytes, rate_hz: float | None, info: Mapping[str, str], name: str) -> Blocks:
    """The first format: samples without stamps, from the start on, in blocks of 64 seconds."""
    ticks, scale = _number(info.get("start date")), _scale(info)
    if rate_hz is None or ticks is None or scale is None:
        raise Unreadable("bad_header", f"{name}: info.txt does not say the sample rate, the start and the scale")
    size = max(int(rate_hz), 1) * 64
    samples = len(stream) * 8 // 36
    first = np.arange(0, samples, size)
    count = np.minimum(samples - first, size)
    limit = _limit(info, scale)

    def decode(rows: slice) -> Signals:
        begin, number = int(first[rows][0]), int(count[rows].sum())  # an even number of samples are whole bytes
        return _in_g(_twelve_bits(stream[begin * 9 // 2 : begin * 9 // 2 + -(-number * 9 // 2)]), scale, limit)

    stamp_s = (ticks - _TICKS_1970) / _TICKS_PER_S + first / rate_hz
    return Blocks(stamp_s, np.zeros(len(first), np.int64), count, decode)


def _twelve_bits(payload: bytes) -> npt.NDArray[np.int32]:
    """Counts `[x, y, z]` of samples y, x, z in twelve bits each, with a sign, the highest digits first."""
    samples = len(payload) * 8 // 36
    data = np.frombuffer(payload, np.uint8).astype(np.int32)
    data = np.append(data, np.zeros(-len(data) % 3, np.int32)).reshape(-1, 3)
    pairs = np.stack([data[:, 0] << 4 | data[:, 1] >> 4, (data[:, 1] & 15) << 8 | data[:, 2]], axis=1)
    counts = pairs.reshape(-1)[: samples * 3].reshape(-1, 3)
    signed: npt.NDArray[np.int32] = np.where(counts >= 2048, counts - 4096, counts)[:, [1, 0, 2]].T
    return signed


def _in_g(counts: npt.NDArray[np.int32], scale: float, limit: float) -> Signals:
    accel = (counts / scale).astype(np.float32)
    accel[np.abs(counts) >= limit] = np.nan
    return accel


def _scale(info: Mapping[str, str]) -> float | None:
    """Counts per g, as the file says or by the device's kind."""
    scale = _number(info.get("acceleration scale"))
    return scale or _SCALE_BY_SERIAL.get(info.get("serial number", "")[:3].upper())


def _limit(info: Mapping[str, str], scale: float) -> float:
    """The first counts that are the rail of the range."""
    highest = _number(info.get("acceleration max"))
    return min(highest * scale - 1, 32767) if highest else _TWELVE_BITS


def _scale_parameter(payload: bytes) -> float | None:
    """Counts per g among the parameters, a fraction of 24 bits and an exponent."""
    for at in range(0, len(payload) - 7, 8):
        space, name, value = struct.unpack_from("<HHI", payload, at)
        if (space, name) == _SCALE_PARAMETER:
            exponent = (value >> 24) - 256 if value >> 31 else value >> 24
            fraction = (value & 0xFFFFFF) - (1 << 24) if value & 0x800000 else value & 0xFFFFFF
            scale = fraction / 8_388_608 * 2.0**exponent
            return scale if 1 <= scale < 1e5 else None
    return None


def _number(text: str | None) -> float | None:
    match = re.match(r"\s*(-?\d+(?:[.,]\d+)?)", text or "")
    return float(match[1].replace(",", ".")) if match and float(match[1].replace(",", ".")) > 0 else None


def _zone_s(text: str) -> float | None:
    """Seconds that local time is ahead of UTC, as in `-05:00:00`."""
    match = re.match(r"\s*([+-]?)(\d{1,2}):(\d\d)", text)
    return None if match is None else (-1 if match[1] == "-" else 1) * (int(match[2]) * 3600 + int(match[3]) * 60)


def _demographics(info: Mapping[str, str]) -> Demographics | None:
    """What info.txt says of the subject: height in cm, weight in kg."""
    words: dict[str, Literal["female", "male"]] = {"male": "male", "m": "male", "female": "female", "f": "female"}
    sex, age_years = words.get(info.get("sex", "").lower()), _number(info.get("age"))
    height_cm, weight_kg = _number(info.get("height")), _number(info.get("mass") or info.get("weight"))
    height_m = height_cm / 100 if height_cm else None
    if sex is None and age_years is None and height_m is None:
        return None
    return Demographics(sex, age_years, height_m, weight_kg / height_m**2 if weight_kg and height_m else None)
