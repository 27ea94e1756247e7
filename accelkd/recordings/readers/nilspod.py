"""NilsPod of Portabiles, as exported by its app: `.bin` with acceleration, and an ECG where the node lies on the chest.

The format is that of firmware 0.12 to 0.18 as `nilspodlib` documents it; that library needs pandas and four others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Unreadable
from accelkd.recordings.readers.blocks import files_with
from accelkd.recordings.readers.ecg import reference_beats
from accelkd.recordings.timeline import Piece, assemble, place

_HEADER_BYTES = (40, 64)
# In their order within a sample: flag, name, bytes
_SENSORS = (
    (0x02, "gyro", 6),
    (0x01, "acc", 6),
    (0x04, "mag", 6),
    (0x08, "baro", 2),
    (0x10, "analog", 6),
    (0x20, "ecg", 4),
    (0x40, "ppg", 4),
    (0x80, "temperature", 2),
)
_COUNTER_BYTES = 4
_RATES_HZ = {1: 1024.0, 2: 512.0, 4: 256.0, 5: 204.8, 10: 102.4, 20: 51.2, 40: 25.6, 80: 12.8, 160: 6.4}
_RANGES_G = (2, 4, 8, 16)
_OLDEST, _WIDE_FLAGS, _WIDE_ANALOG = (0, 12), (0, 14), (0, 18)  # firmware from which on the layout holds
_CONSECUTIVE = 4  # samples whose counters follow each other, from which on they are sound
_SCANNED = 1024  # samples or bytes that are looked at together
_DAY_S = 86_400


@dataclass(frozen=True)
class _Header:
    size: int
    sample_bytes: int
    places: dict[str, int]  # of each sensor within a sample
    rate_hz: float
    range_g: int
    start_s: int
    samples: int
    address: str


def find(files: Iterable[Path]) -> Delivery:
    bins = sorted(path for path in files if path.suffix.lower() == ".bin")
    return Delivery(files_with(bins, lambda path: _header(_first_bytes(path)) is not None))


def read(session: Session) -> list[Recording]:
    name = session.source.name
    content = session.source.read_bytes()
    header = _header(content[: _HEADER_BYTES[1]])
    if header is None:
        raise Unreadable("bad_header", f"{name} has no header of firmware 0.12 or later")
    notes = []
    starts, skipped = _sample_starts(content, header)
    if header.samples:
        starts = starts[: header.samples]  # the last page of the memory is written whole
    if len(starts) < 2:
        raise Unreadable("empty_file", f"{name} has less than two samples")
    if len(starts) < header.samples:
        notes.append(f"{len(starts)} of {header.samples} samples")
    if skipped:
        notes.append(f"{skipped} bytes between sound samples left out")
    data = np.frombuffer(content, np.uint8)[starts[:, None] + np.arange(header.sample_bytes)]
    counter = _column(data, header.sample_bytes - _COUNTER_BYTES, "<u4", 1)[0].astype(np.int64)
    # It counts from midnight on and begins again there
    midnights = np.cumsum(np.diff(counter, prepend=counter[0]) < -_DAY_S * header.rate_hz / 2)
    counter += midnights * round(_DAY_S * header.rate_hz)
    # The header's start is in whole seconds, the counter's in samples: of midnight in UTC
    midnight_s = round((header.start_s - counter[0] / header.rate_hz) / _DAY_S) * _DAY_S
    time_s = counter / header.rate_hz + midnight_s
    if abs(time_s[0] - header.start_s) > 60:  # no counter of the day
        time_s += header.start_s - time_s[0]

    accel_pieces: list[Piece] = []
    beat_s = None
    if "acc" in header.places:
        counts = _column(data, header.places["acc"], "<i2", 3)
        accel: Signals = (counts * (header.range_g / 32768)).astype(np.float32)
        accel[(counts == 32767) | (counts == -32768)] = np.nan
        accel_pieces, corrected = place(time_s, accel, name="acceleration")
        notes += corrected
    if not accel_pieces:
        raise Unreadable("empty_file", f"{name} holds no acceleration")
    if "ecg" in header.places:
        ecg = _column(data, header.places["ecg"], "<i4", 1).astype(np.float32)
        beat_s = reference_beats(place(time_s, ecg)[0], notes)
    if "ppg" in header.places:
        notes.append("the PPG of the node is not read")
    facts = Recording(
        reference_source=None if beat_s is None else "ecg",
        reference_beat_s=beat_s,
        sensor_id=header.address,
    )
    recordings: list[Recording] = []
    for piece in accel_pieces:  # each by itself: where the clock was set back, they may overlap
        recordings += assemble((), (piece,), facts, utc=True)
    return [replace(recordings[0], notes=tuple(notes)), *recordings[1:]]


def _sample_starts(content: bytes, header: _Header) -> tuple[npt.NDArray[np.int64], int]:
    """Where the samples begin, and how many bytes belong to none.

    The counter, which ends each sample, says so: where it does not go on, bytes were lost or damaged.
    """
    size, behind = header.sample_bytes, header.sample_bytes - _COUNTER_BYTES
    data = np.frombuffer(content, np.uint8)
    runs: list[npt.NDArray[np.int64]] = []
    at, skipped, length = header.size, 0, _SCANNED
    while at + size <= len(content):
        rows = min((len(content) - at) // size, length)
        counter = data[at : at + rows * size].reshape(rows, size)[:, behind:].copy().view("<u4")[:, 0].astype(np.int64)
        breaks = np.flatnonzero(np.diff(counter) != 1)
        good = int(breaks[0]) + 1 if len(breaks) else rows
        if good >= _CONSECUTIVE or not len(breaks):
            runs.append(at + np.arange(good) * size)
            at += good * size
            length = length * 4 if not len(breaks) else _SCANNED
            continue
        window = data[at : at + _SCANNED + _CONSECUTIVE * size].astype(np.int64)
        words = window[:-3] | window[1:-2] << 8 | window[2:-1] << 16 | window[3:] << 24
        steps = words[size:] - words[:-size]
        tested = max(len(steps) - (_CONSECUTIVE - 2) * size, 0)
        ends = np.ones(tested, bool)
        for later in range(_CONSECUTIVE - 1):
            ends &= steps[later * size : later * size + tested] == 1
        following = np.flatnonzero(ends[behind + 1 :])
        move = int(following[0]) + 1 if len(following) else _SCANNED
        skipped += min(move, len(content) - at)
        at += move
    return (np.concatenate(runs) if runs else np.empty(0, np.int64)), skipped


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES[1])
    except OSError:
        return b""


def _header(content: bytes) -> _Header | None:
    """The header of a file, None where it is not one; the bytes of the sensors must add up to those of a sample."""
    size = content[0] if content else 0
    if not _HEADER_BYTES[0] <= size <= len(content):
        return None
    firmware = tuple(content[size - 3 : size - 1])
    header = content[1:size]
    if firmware < _OLDEST:
        return None
    if firmware < _WIDE_FLAGS:  # one byte of flags less, and a group of nodes that is gone
        header = header[:2] + b"\0" + header[2:6] + header[7:]
    sample_bytes, flags, rate, acc_range = header[0], header[1], header[3], header[7]
    if rate not in _RATES_HZ or acc_range not in _RANGES_G:
        return None
    places, at = {}, 0
    for flag, sensor, length in _SENSORS:
        if flags & flag:
            places[sensor] = at
            at += 3 if sensor == "analog" and firmware < _WIDE_ANALOG else length
    if at + _COUNTER_BYTES != sample_bytes:
        return None
    return _Header(
        size=size,
        sample_bytes=sample_bytes,
        places=places,
        rate_hz=_RATES_HZ[rate],
        range_g=acc_range,
        start_s=int.from_bytes(header[14:18], "little"),
        samples=int.from_bytes(header[22:26], "little"),
        address=header[34:40][::-1].hex(),
    )


def _column(data: npt.NDArray[np.uint8], at: int, kind: str, columns: int) -> npt.NDArray[Any]:
    """Numbers of each sample, `[columns, samples]`."""
    length = np.dtype(kind).itemsize * columns
    numbers: npt.NDArray[Any] = np.ascontiguousarray(data[:, at : at + length]).view(kind).T
    return numbers
