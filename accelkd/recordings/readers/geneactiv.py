"""GENEActiv of Activinsights: `.bin`, a text header and pages of samples as hexadecimal digits.

The format is that of Activinsights' instructions for users, as GGIRread and other open readers read it. The library for
it loses a whole file to one damaged page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from accelkd.recordings.readers import Delivery, Demographics, Recording, Session, Signals, Unreadable
from accelkd.recordings.readers.blocks import Blocks, files_with, recordings_of, starts_with

_MAGIC = b"Device Identity"
_PAGE = re.compile(rb"Recorded Data\r?\n")
_HEADER_BYTES = 65_536  # at most; genuine ones have 2 kilobytes
_DIGITS = 12  # of a sample: three for each axis, the rest is light and button
_RAILS = (-2048, 2047)
_TIME = "%Y-%m-%d %H:%M:%S:%f"
_MAX_AGE_YEARS = 120


def find(files: Iterable[Path]) -> Delivery:
    bins = sorted(path for path in files if path.suffix.lower() == ".bin")
    return Delivery(files_with(bins, lambda path: starts_with(path, _MAGIC)))


def read(session: Session) -> list[Recording]:
    name = session.source.name
    if not session.source.stat().st_size:
        raise Unreadable("empty_file", f"{name} is empty")
    content = np.memmap(session.source, np.uint8, "r")
    pages = [match.span() for match in _PAGE.finditer(content)]  # type: ignore[call-overload]  # any buffer will do
    if not pages:
        raise Unreadable("empty_file", f"{name} has no page of samples")
    header = _keys(content[: min(pages[0][0], _HEADER_BYTES)].tobytes())
    try:
        gain = np.array([float(header[f"{axis} gain"]) for axis in "xyz"])
        offset = np.array([float(header[f"{axis} offset"]) for axis in "xyz"])
    except (KeyError, ValueError):
        raise Unreadable("bad_header", f"{name} does not hold gain and offset of the three axes") from None
    if not (gain > 0).all():
        raise Unreadable("bad_header", f"{name}: a gain is not positive")

    stamp_s, kept, count, rates_hz = [], [], [], []
    for (_, start), (stop, _) in pairwise([*pages, (len(content), 0)]):
        page = content[start:stop].tobytes()
        fields = _keys(page)
        time_s = _seconds(fields.get("page time", ""))
        samples = len(_digits(page)) // _DIGITS
        if time_s is None or not samples:
            continue
        stamp_s.append(time_s)
        kept.append((start, stop))
        count.append(samples)
        rates_hz.append(_number(fields.get("measurement frequency", "")))
    notes = [f"{len(pages) - len(kept)} damaged or empty pages left out"] if len(kept) < len(pages) else []
    short = sum(samples < max(count) for samples in count) if count else 0
    if short:
        notes.append(f"{short} pages cut after their last readable sample")
    zone_s = _zone_s(header.get("time zone", ""))
    if zone_s is None:
        notes.append("no time zone: the start is not known")

    def decode(rows: slice) -> Signals:
        counts = np.concatenate([_counts(content[start:stop].tobytes()) for start, stop in kept[rows]], axis=1)
        accel: Signals = ((counts * 100.0 - offset[:, None]) / gain[:, None]).astype(np.float32)
        accel[(counts <= _RAILS[0]) | (counts >= _RAILS[1])] = np.nan
        return accel

    facts = Recording(
        sensor_id=header.get("device unique serial code") or None,
        participant=header.get("subject code") or None,
        demographics=_demographics(header),
    )
    blocks = Blocks(
        np.array(stamp_s, np.float64) - (zone_s or 0.0),
        np.zeros(len(kept), np.int64),
        np.array(count, np.int64),
        decode,
    )
    known_hz = [rate_hz for rate_hz in rates_hz if rate_hz is not None and rate_hz > 0]
    nominal_hz = known_hz[0] if known_hz else _number(header.get("measurement frequency", "")) or 0.0
    return recordings_of(name, blocks, nominal_hz, facts, utc=zone_s is not None, notes=notes)


def _keys(text: bytes) -> Mapping[str, str]:
    """The lines `key:value`, keys in small letters."""
    lines = (line.partition(":") for line in text.decode("utf-8", errors="replace").splitlines())
    return {key.strip().lower(): value.strip().strip("\0 ") for key, colon, value in lines if colon}


def _digits(page: bytes) -> bytes:
    """The hexadecimal digits of a page's last line, up to the first byte that is none."""
    line = page.rstrip(b"\r\n\0 ").rpartition(b"\n")[2]
    return b"" if b":" in line else re.match(rb"[0-9A-Fa-f]*", line)[0]  # type: ignore[index]  # matches anything


def _counts(page: bytes) -> Signals:
    """Acceleration `[3, samples]` in counts of twelve bits with a sign."""
    digits = _digits(page)
    data = np.frombuffer(bytes.fromhex(digits[: len(digits) // _DIGITS * _DIGITS].decode()), np.uint8)
    data = data.reshape(-1, _DIGITS // 2).astype(np.int32)
    x = data[:, 0] << 4 | data[:, 1] >> 4
    y = (data[:, 1] & 15) << 8 | data[:, 2]
    z = data[:, 3] << 4 | data[:, 4] >> 4
    counts = np.stack([x, y, z])
    signed: Signals = np.where(counts >= 2048, counts - 4096, counts).astype(np.float64)
    return signed


def _seconds(text: str) -> float | None:
    """Seconds since 1970 of a stamp in local time, as if it were UTC."""
    try:
        return (datetime.strptime(text, _TIME) - datetime(1970, 1, 1)).total_seconds()
    except ValueError:
        return None


def _zone_s(text: str) -> float | None:
    """Seconds that local time is ahead of UTC, as in `GMT +01:00`."""
    match = re.search(r"([+-])(\d{1,2}):?(\d\d)", text)
    return None if match is None else (1 if match[1] == "+" else -1) * (int(match[2]) * 3600 + int(match[3]) * 60)


def _number(text: str) -> float | None:
    match = re.match(r"\s*(\d+(?:[.,]\d+)?)", text)
    return None if match is None else float(match[1].replace(",", "."))


def _demographics(header: Mapping[str, str]) -> Demographics | None:
    """What the header says of the subject; the device's defaults, like a birth in 1800, are no statement."""
    sex = {"male": "male", "female": "female"}.get(header.get("sex", "").lower())
    height, weight_kg = _number(header.get("height", "")), _number(header.get("weight", ""))
    height_m = None if not height else height / 100 if height > 3 else height
    age_years = None
    born = re.match(r"(\d{4})-(\d{1,2})-(\d{1,2})", header.get("date of birth", ""))
    started = _seconds(header.get("start time", ""))
    if born and started is not None:
        age = 1970 + started / (365.25 * 86400) - int(born[1]) - (int(born[2]) - 1) / 12 - (int(born[3]) - 1) / 365.25
        age_years = round(age, 1) if 0 < age < _MAX_AGE_YEARS else None
    bmi = weight_kg / (height_m * height_m) if weight_kg and height_m else None
    if sex is None and age_years is None and height_m is None:
        return None
    return Demographics("male" if sex == "male" else "female" if sex else None, age_years, height_m, bmi)
