"""Small files of binary formats, written after their documentation: variants that the real recordings lack."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]  # [samples, 3]
START_S = 1_700_000_000  # 2023-11-14 22:13:20


def wrist(samples: int, counts_per_g: float, seed: int = 0) -> Counts:
    """A wrist that lies nearly still, in counts."""
    rng = np.random.default_rng(seed)
    accel = np.array([0.6, 0.0, 0.8]) + rng.normal(0, 0.02, (samples, 3))
    return np.round(accel * counts_per_g).astype(np.int64)


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def cwa(
    counts: Counts,
    *,
    rate_hz: float = 100.0,
    true_rate_hz: float | None = None,
    range_g: int = 8,
    upper_id: int = 0xFFFF,
) -> bytes:
    """An AX3 file of values of two bytes, 80 in a sector, stamped at the first one."""
    header = bytearray(b"MD" + struct.pack("<HBHIH", 1020, 0x17, 4711, 1, upper_id) + b"\xff" * 1011)[:1024]
    header[64:512] = b"_p=left+wrist&_sc=S7".ljust(448, b"\xff")
    code = 15 - round(np.log2(3200 / rate_hz)) | (4 - round(np.log2(range_g))) << 6
    sectors = [bytes(header)]
    for number, start in enumerate(range(0, len(counts), 80)):
        part = counts[start : start + 80]
        at_s = START_S + start / (true_rate_hz or rate_hz)
        date, fraction = _date(int(at_s)), int((at_s % 1) * 0x8000)
        stamp = (
            (date.year - 2000) << 26 | date.month << 22 | date.day << 17
            | date.hour << 12 | date.minute << 6 | date.second
        )  # fmt: skip
        offset = -((fraction << 1) * int(rate_hz) >> 16)
        sector = struct.pack(
            "<2sHHIIIHHBBBBhH",
            b"AX",
            508,
            fraction | 0x8000,
            1,
            number,
            stamp,
            0,
            0,
            0,
            0,
            code,
            0x32,
            offset,
            len(part),
        )
        sector += part.astype("<i2").tobytes().ljust(480, b"\0")
        total = int(np.frombuffer(sector, "<u2").sum(dtype=np.uint16))
        sectors.append(sector + struct.pack("<H", -total & 0xFFFF))
    return b"".join(sectors)


def geneactiv(counts: Counts, *, rate_hz: float = 50.0, zone: str = "GMT -02:00") -> bytes:
    """Pages of 300 samples of 256 counts per g."""
    head = [
        "Device Identity", "Device Unique Serial Code:034567", "", "Configuration Info",
        f"Measurement Frequency:{rate_hz} Hz", "Start Time:2023-11-14 22:13:20:000", f"Time Zone:{zone}", "",
        "Subject Info", "Subject Code:G5", "Date of Birth:1983-11-15", "Sex:Female", "Height:170", "Weight:60", "",
        "Calibration Data", *(line for axis in "xyz" for line in (f"{axis} gain:25600", f"{axis} offset:0")),
    ]  # fmt: skip
    pages = ["\r\n".join(head)]
    for number, start in enumerate(range(0, len(counts), 300)):
        at_s = START_S + start / rate_hz
        time = f"{_date(at_s):%Y-%m-%d %H:%M:%S}:{round(at_s % 1 * 1000):03d}"
        digits = "".join(
            f"{x & 4095:03X}{y & 4095:03X}{z & 4095:03X}000" for x, y, z in counts[start : start + 300].tolist()
        )
        pages.append(
            f"Recorded Data\r\nDevice Unique Serial Code:034567\r\nSequence Number:{number}\r\nPage Time:{time}\r\n"
            f"Measurement Frequency:{rate_hz}\r\n{digits}"
        )
    return "\r\n".join(pages).encode() + b"\r\n"


def _twelve_bits(counts: Counts) -> bytes:
    nibbles = "".join(f"{y & 4095:03x}{x & 4095:03x}{z & 4095:03x}" for x, y, z in counts.tolist())
    return bytes.fromhex(nibbles + "0" * (len(nibbles) % 2))


def gt3x(
    counts: Counts, *, rate_hz: int = 30, kind: int = 0x1A, info: dict[str, str] | None = None, nhanes: bool = False
) -> bytes:
    """A `.gt3x` of records of a second, or of the first format, at 256 counts per g."""
    ticks = (START_S + 62_135_596_800) * 10_000_000
    lines = {
        "Serial Number": "MOS2D12345678",
        "Sample Rate": str(rate_hz),
        "Start Date": str(ticks),
        "TimeZone": "-05:00:00",
        "Acceleration Scale": "256.0",
        "Acceleration Max": "8.0",
        "Subject Name": "A5",
        "Sex": "Male",
        "Age": "40",
        **(info or {}),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("info.txt", "".join(f"{key}: {value}\r\n" for key, value in lines.items() if value))
        if nhanes:
            archive.writestr("activity.bin", _twelve_bits(counts))
        else:
            archive.writestr("log.bin", b"".join(gt3x_records(counts, rate_hz, kind)))
    return file.getvalue()


def gt3x_records(counts: Counts, rate_hz: int, kind: int) -> list[bytes]:
    records = []
    for second, start in enumerate(range(0, len(counts), rate_hz)):
        part = counts[start : start + rate_hz]
        payload = _twelve_bits(part) if kind == 0 else part.astype("<i2").tobytes()
        record = struct.pack("<BBIH", 0x1E, kind, START_S + second, len(payload)) + payload
        records.append(record + bytes([int(np.bitwise_xor.reduce(np.frombuffer(record, np.uint8))) ^ 0xFF]))
    return records


def matrix_packet(counts: Counts, start_s: int, end_s: int, hr_bpm: tuple[int, ...] = ()) -> bytes:
    rest = struct.pack("<IIIIII", start_s, end_s, len(counts), 0, 0, len(hr_bpm))
    rest += counts.astype("<i2").tobytes() + b"".join(struct.pack("<hh", 0, bpm) for bpm in hr_bpm)
    return b"MDTCPACK" + struct.pack("<I", zlib.crc32(rest)) + rest


def matrix(packets: list[bytes], range_g: int = 8) -> bytes:
    return bytes(512) + struct.pack("<4sIHH", b"MDTC", len(packets), range_g, 2000) + b"".join(packets)


def write_avro(path: Path, record: dict[str, Any]) -> None:
    """One record, with the schema that its values imply."""
    import fastavro

    def schema(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            fields = [{"name": key, "type": schema(f"{name}_{key}", part)} for key, part in value.items()]
            return {"type": "record", "name": name, "fields": fields}
        if isinstance(value, list):
            return {"type": "array", "items": "double" if any(isinstance(part, float) for part in value) else "long"}
        return {int: "long", float: "double", str: "string"}[type(value)]

    with path.open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema("Session", record)), [record])


def tsdf(
    folder: Path, stream: str, channels: dict[str, tuple[str, float]], values: npt.NDArray[Any], rate_hz: float
) -> None:
    """A stream of a TSDF recording: `{channel: (unit, scale)}`, values `[rows, channels]` of type int."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = len(values)
    order = ">" if values.dtype.byteorder == ">" else "<"
    meta = {
        "subject_id": "V3",
        "device_id": "Verily Study Watch",
        "start_iso8601": "2023-11-14T22:13:20Z",
        "end_iso8601": "2023-11-14T23:13:20Z",
        "endianness": "big" if order == ">" else "little",
        "rows": rows,
        "sensors": [
            {
                "file_name": f"{stream}_time.bin",
                "channels": ["time"],
                "units": ["time_delta_ms"],
                "data_type": "float",
                "bits": 32,
            },
            {
                "file_name": f"{stream}_values.bin",
                "channels": list(channels),
                "units": [unit for unit, _ in channels.values()],
                "scale_factors": [scale for _, scale in channels.values()],
                "data_type": "int",
                "bits": values.dtype.itemsize * 8,
            },
        ],
    }
    (folder / f"{stream}_meta.json").write_text(json.dumps(meta), encoding="utf-8")
    deltas = np.full(rows, 1000 / rate_hz, order + "f4")
    deltas[0] = 0
    deltas.tofile(folder / f"{stream}_time.bin")
    values.tofile(folder / f"{stream}_values.bin")


def nilspod(
    counts: Counts, ecg: npt.NDArray[np.int64], *, rate_code: int = 4, range_g: int = 16, first: int = 0
) -> bytes:
    """A file of a node on the chest: acceleration and ECG."""
    header = bytearray(52)
    header[0], header[1], header[2], header[4], header[8] = 52, 14, 0x21, rate_code, range_g
    header[15:19] = struct.pack("<I", START_S)
    header[23:27] = struct.pack("<I", len(counts))
    header[35:41] = bytes([1, 2, 3, 4, 5, 6])
    header[49:52] = bytes([0, 18, 0])
    rows = np.zeros(len(counts), [("accel", "<i2", 3), ("ecg", "<i4"), ("counter", "<u4")])
    rows["accel"], rows["ecg"], rows["counter"] = counts, ecg, first + np.arange(len(counts))
    return bytes(header) + rows.tobytes()
