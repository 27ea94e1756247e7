"""Parmay Matrix: `.BIN`, packets of about a minute with acceleration, temperature and a heart rate now and then.

The format is the maker's, as the open readers of actipy and GGIRread describe it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.blocks import Blocks, files_with, recordings_of

_REMARKS = 512  # bytes, empty in the files at hand
_FILE_HEADER = struct.Struct("<4sIHH")  # MDTC, packets, range of the accelerometer (g) and of the gyroscope (degrees/s)
_MAGIC, _PACKET_MAGIC = b"MDTC", b"MDTCPACK"
# Sum, start and end in seconds since 1970, then how many samples of acceleration, gyroscope, temperature, heart rate
_PACKET = struct.Struct("<8sIIIIIII")
_SUMMED_FROM = 12  # the sum is that of what follows it
_SIZES = (6, 6, 4, 4)  # bytes of a sample of each
_RATES_HZ = (5.0, 500.0)
_MAX_PACKET_S = 3600


def find(files: Iterable[Path]) -> Delivery:
    return Delivery(files_with(sorted(path for path in files if path.suffix.lower() == ".bin"), _is_matrix))


def _is_matrix(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_REMARKS + len(_MAGIC))[_REMARKS:] == _MAGIC
    except OSError:
        return False


def read(session: Session) -> list[Recording]:
    name = session.source.name
    content = session.source.read_bytes()
    if len(content) < _REMARKS + _FILE_HEADER.size:
        raise Unreadable("bad_header", f"{name} ends within its header")
    _, _, range_g, _ = _FILE_HEADER.unpack_from(content, _REMARKS)
    if not 1 <= range_g <= 64:
        raise Unreadable("bad_header", f"{name} says a range of {range_g} g")
    notes = []
    damaged = 0
    start_s: list[int] = []
    kept: list[tuple[int, int]] = []  # where the acceleration begins, and its samples
    rates_hz: list[float] = []
    hr_s: list[float] = []
    hr_bpm: list[int] = []
    starts = [match.start() for match in re.finditer(re.escape(_PACKET_MAGIC), content)]
    for number, start in enumerate(starts):
        if start + _PACKET.size > len(content):
            damaged += 1
            continue
        _, stored, from_s, to_s, *counts = _PACKET.unpack_from(content, start)
        end = start + _PACKET.size + sum(count * size for count, size in zip(counts, _SIZES, strict=True))
        samples = counts[0]
        duration_s = to_s - from_s
        plausible = 0 < duration_s <= _MAX_PACKET_S and _RATES_HZ[0] <= samples / duration_s <= _RATES_HZ[1]
        cut = end > len(content) and number == len(starts) - 1
        if cut and plausible:  # the acceleration stands first: what is left of it is good
            samples = min(samples, (len(content) - start - _PACKET.size) // _SIZES[0])
            notes.append("the last packet is cut")
        elif end > len(content) or zlib.crc32(content[start + _SUMMED_FROM : end]) != stored:
            damaged += 1
            continue
        if plausible and samples:
            start_s.append(from_s)
            kept.append((start + _PACKET.size, samples))
            rates_hz.append(counts[0] / duration_s)
        if counts[3] and not cut:
            values = np.frombuffer(content, "<i2", counts[3] * 2, end - counts[3] * _SIZES[3]).reshape(-1, 2)[:, 1]
            hr_bpm += values.tolist()
            hr_s += (from_s + np.arange(counts[3]) * duration_s / counts[3]).tolist()
    if damaged:
        notes.append(f"{damaged} damaged packets left out")

    def decode(rows: slice) -> Signals:
        parts = [np.frombuffer(content, "<i2", samples * 3, begin).reshape(-1, 3) for begin, samples in kept[rows]]
        counts = np.concatenate(parts).T
        accel: Signals = (counts * np.where(counts > 0, range_g / 32767, range_g / 32768)).astype(np.float32)
        accel[(counts == 32767) | (counts == -32768)] = np.nan
        return accel

    times, rates, dropped = _heart_rates(np.array(hr_s), np.array(hr_bpm, np.float64))
    if dropped:
        notes.append(f"{dropped} heart rates that are zero left out")
    facts = Recording(
        reference_source="device" if len(times) else None,
        reference_hr_s=times if len(times) else None,
        reference_hr_bpm=rates if len(times) else None,
    )
    blocks = Blocks(
        np.array(start_s, np.float64),
        np.zeros(len(kept), np.int64),
        np.array([samples for _, samples in kept], np.int64),
        decode,
        resolution_s=1.0,
    )
    return recordings_of(name, blocks, float(np.median(rates_hz)) if rates_hz else 1.0, facts, utc=True, notes=notes)


def _heart_rates(hr_s: Times, hr_bpm: Times) -> tuple[Times, Times, int]:
    """Instants and heart rates in the order of time, and how many were zero: the sensor had none."""
    measured = hr_bpm > 0
    hr_s, hr_bpm = hr_s[measured], hr_bpm[measured]
    order = np.argsort(hr_s, kind="stable")
    return hr_s[order], hr_bpm[order], int((~measured).sum())
