"""Axivity AX3 and AX6: `.cwa`, a header of 1024 bytes and sectors of 512 bytes.

The format is Open Movement's (cwa.h, Docs/ax3/ax3-technical.md). The library for it loses a whole file to one damaged
sector, and spaces samples by the nominal rate, which is a percent off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.blocks import Blocks, files_with, recordings_of

SECTOR = 512
_SECTOR_START = re.compile(rb"AX\xfc\x01")
_HEADER = 1024
_HEADER_TEXT = slice(64, 64 + 448)
_FIELDS = np.dtype(
    [
        ("magic", "S2"),
        ("length", "<u2"),
        ("fraction", "<u2"),  # of the stamp, where the highest bit is set
        ("session", "<u4"),
        ("sequence", "<u4"),
        ("time", "<u4"),
        ("light", "<u2"),  # and the sensitivity
        ("temperature", "<u2"),
        ("events", "u1"),
        ("battery", "u1"),
        ("rate", "u1"),  # and the range
        ("layout", "u1"),  # axes and bytes per value
        ("offset", "<i2"),  # of the sample that the stamp belongs to
        ("count", "<u2"),
        ("data", "u1", 480),
        ("checksum", "<u2"),
    ]
)
_LAYOUTS = {0x30: (0, 3), 0x32: (0, 3), 0x62: (3, 6), 0x92: (3, 9)}  # first axis of the acceleration, axes
_PACKED = 0x30  # three values of ten bits and their common exponent in four bytes
_BASE_COUNTS_PER_G = 256
_CHUNK_SECTORS = 4096
# A gyroscope that stands in the place of the acceleration: both lie still, and the other one measures gravity
_STILL_G, _GRAVITY_G = 0.03, 0.1


def find(files: Iterable[Path]) -> Delivery:
    return Delivery(files_with(sorted(files), lambda path: path.suffix.lower() == ".cwa"))


def read(session: Session) -> list[Recording]:
    name = session.source.name
    if not session.source.stat().st_size:
        raise Unreadable("empty_file", f"{name} is empty")
    content = np.memmap(session.source, np.uint8, "r")
    starts = np.fromiter((match.start() for match in _SECTOR_START.finditer(content)), np.int64)  # type: ignore[call-overload]  # any buffer will do
    starts = starts[starts + SECTOR <= len(content)]
    if not starts.size:
        raise Unreadable("unreadable_file", f"{name} has no sector of samples")
    notes = []
    fields = {key: _field(content, starts, key) for key in ("time", "fraction", "light", "rate", "layout", "offset")}
    fields["count"] = _field(content, starts, "count")
    time_s, dated = _stamps(fields["time"])
    good = dated & (fields["count"] > 0) & _sums_hold(content, starts)
    layouts, number = np.unique(fields["layout"][good], return_counts=True)
    if not good.any() or int(layouts[number.argmax()]) not in _LAYOUTS:
        raise Unreadable("unreadable_file", f"{name} has no sound sector of acceleration")
    layout = int(layouts[number.argmax()])
    axes = _LAYOUTS[layout][1]
    capacity = 120 if layout == _PACKED else 480 // (2 * axes)
    good &= (fields["layout"] == layout) & (fields["count"] <= capacity)
    if not good.any():
        raise Unreadable("unreadable_file", f"{name} has no sound sector of acceleration")
    lost = (len(content) - _HEADER) // SECTOR - int(good.sum())
    if lost > 0:
        notes.append(f"{lost} damaged or empty sectors left out")
    starts, time_s = starts[good], time_s[good]
    fields = {key: values[good].astype(np.int64) for key, values in fields.items()}
    nominal_hz = 3200 / 2.0 ** (15 - (fields["rate"] & 15))
    fraction_s = np.where(fields["fraction"] & 0x8000, (fields["fraction"] & 0x7FFF) / 0x8000, 0.0)
    # Where the stamp has a fraction, the offset was reduced by the samples in it, for readers that do not know of it
    stamped = fields["offset"] + (fraction_s * nominal_hz).astype(np.int64)

    def decode(rows: slice) -> Signals:
        data = content[starts[rows, None] + np.arange(30, 510)]
        return _acceleration(
            data, fields["count"][rows], layout, fields["light"][rows] >> 13, 16.0 / 2 ** (fields["rate"][rows] >> 6)
        )

    if axes > 3:
        swapped = _swapped(content, starts, fields, layout)
        if swapped.any():
            sound = decode

            def decode(rows: slice) -> Signals:
                samples = sound(rows)
                samples[:, np.repeat(swapped[rows], fields["count"][rows])] = np.nan
                return samples

            notes.append(f"{swapped.sum()} sectors with acceleration and gyroscope exchanged left out")
    header = content[:_HEADER].tobytes()
    facts = Recording(sensor_id=_sensor_id(header), participant=_subject(header))
    # The clock is set to local time, and no zone is stored
    blocks = Blocks(time_s + fraction_s, stamped, fields["count"], decode)
    return recordings_of(name, blocks, float(np.median(nominal_hz)), facts, utc=False, notes=notes)


def _field(content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], name: str) -> npt.NDArray[Any]:
    """One number of every sector."""
    kind, place = _FIELDS.fields[name][:2] if _FIELDS.fields else (np.dtype("u1"), 0)
    number = content[starts[:, None] + np.arange(place, place + kind.itemsize)]
    values: npt.NDArray[Any] = np.ascontiguousarray(number).view(kind)[:, 0]
    return values


def _stamps(packed: npt.NDArray[np.uint32]) -> tuple[Times, npt.NDArray[np.bool_]]:
    """Seconds since 1970 of stamps of bit fields (year, month, day, hour, minute, second), and which are dates."""
    packed = packed.astype(np.int64)
    year, month, day = 2000 + (packed >> 26), packed >> 22 & 15, packed >> 17 & 31
    hour, minute, second = packed >> 12 & 31, packed >> 6 & 63, packed & 63
    dated = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    months = (year - 1970) * 12 + np.where(dated, month, 1) - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    return (days * 86400 + hour * 3600 + minute * 60 + second).astype(np.float64), dated


def _sums_hold(content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the words of each sector add up to zero; the first firmware stores no checksum, but zero."""
    sound = np.empty(len(starts), bool)
    for rows, sectors in _sectors(content, starts, slice(0, SECTOR)):
        words = sectors.view("<u2")
        sound[rows] = (words[:, -1] == 0) | (words.sum(axis=1, dtype=np.uint16) == 0)
    return sound


def _sectors(
    content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], part: slice
) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
    """The bytes of a part of each sector, some thousand sectors at a time."""
    within = np.arange(part.start, part.stop)
    for start in range(0, len(starts), _CHUNK_SECTORS):
        rows = slice(start, start + _CHUNK_SECTORS)
        yield rows, content[starts[rows, None] + within]


def _acceleration(
    data: npt.NDArray[np.uint8],
    count: npt.NDArray[np.int64],
    layout: int,
    sensitivity: npt.NDArray[np.int64],
    range_g: npt.NDArray[np.float64],
) -> Signals:
    """Acceleration in g of some sectors, NaN at the rails of the range that was configured."""
    first, axes = _LAYOUTS[layout]
    used = np.arange(120 if layout == _PACKED else 480 // (2 * axes)) < count[:, None]
    if layout == _PACKED:
        packed = np.ascontiguousarray(data).view("<u4")
        exponent = packed >> 30
        tens = np.stack([packed << (22 - 10 * axis) for axis in range(3)]).astype(np.uint32).view(np.int32) >> 22
        counts = (tens << exponent.astype(np.int32))[:, used]
        step_g = range_g / 512
    else:
        values = np.ascontiguousarray(data[:, : 480 // (2 * axes) * 2 * axes]).view("<i2")
        counts = np.moveaxis(values.reshape(len(data), -1, axes)[:, :, first : first + 3], 2, 0)[:, used]
        step_g = 1 / (_BASE_COUNTS_PER_G * 2.0**sensitivity)
    scale = np.repeat(1 / (_BASE_COUNTS_PER_G * 2.0**sensitivity), count)
    accel = (counts * scale).astype(np.float32)
    accel[np.abs(accel) >= np.repeat(range_g - step_g, count).astype(np.float32)] = np.nan
    return accel


def _swapped(
    content: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    fields: dict[str, npt.NDArray[np.int64]],
    layout: int,
) -> npt.NDArray[np.bool_]:
    """Sectors in which the gyroscope stands in the place of the acceleration, as in the first seconds of some files.

    Only sectors that lie still show it; those that move are like the next ones that lie still, and left out where these
    differ before and after.
    """
    axes = _LAYOUTS[layout][1]
    size = 480 // (2 * axes) * 2 * axes
    order = np.zeros(len(starts), np.int8)  # 1 as documented, -1 exchanged, 0 not known
    full = fields["count"] == 480 // (2 * axes)
    for rows, data in _sectors(content, starts, slice(30, 30 + size)):
        values = data.view("<i2").reshape(len(data), -1, axes)[:, :, :6].astype(np.float32)
        values /= (_BASE_COUNTS_PER_G * 2.0 ** (fields["light"][rows] >> 13))[:, None, None]
        still = full[rows] & (values.std(axis=1).max(axis=1) < _STILL_G)
        gyroscope, gravity = np.linalg.norm(values.mean(axis=1).reshape(-1, 2, 3), axis=2).T
        order[rows][still & (np.abs(gravity - 1) < _GRAVITY_G)] = 1
        order[rows][still & (gravity < 0.5) & (np.abs(gyroscope - 1) < _GRAVITY_G)] = -1
    known = np.flatnonzero(order)
    if not (order == -1).any():
        return np.zeros(len(starts), bool)
    everywhere = np.arange(len(starts))
    before = order[known[np.clip(np.searchsorted(known, everywhere, "right") - 1, 0, None)]]
    after = order[known[np.clip(np.searchsorted(known, everywhere), None, len(known) - 1)]]
    exchanged: npt.NDArray[np.bool_] = (before == -1) | (after == -1)
    return exchanged


def _sensor_id(header: bytes) -> str | None:
    """The serial number; its upper half is missing in the first firmware."""
    if header[:2] != b"MD" or len(header) < _HEADER:
        return None
    lower, upper = (int.from_bytes(header[place : place + 2], "little") for place in (5, 11))
    return str(lower | (0 if upper == 0xFFFF else upper) << 16)


def _subject(header: bytes) -> str | None:
    """The subject's code in the annotation, which is written like the query of an address."""
    if header[:2] != b"MD":
        return None
    text = header[_HEADER_TEXT].split(b"\xff")[0].rstrip(b" \0").decode("ascii", errors="replace")
    return parse_qs(text).get("_sc", [""])[0].strip() or None
