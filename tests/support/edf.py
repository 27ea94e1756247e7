"""EDF, EDF+ and BDF files for tests, byte by byte: also what a library would refuse to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass
class Signal:
    """One signal; `samples` are in `unit`, at `rate_hz`."""

    label: str
    unit: str
    rate_hz: int
    samples: npt.NDArray[np.float64]
    physical: tuple[float, float] = (-100.0, 100.0)


@dataclass
class Edf:
    """A file of data records of one second; `onsets_s` are written as EDF+D has them."""

    signals: list[Signal]
    patient: str = "X X X X"
    recording: str = "Startdate X X X X"
    startdate: str = "01.01.85"
    onsets_s: list[float] = field(default_factory=list)
    declared_records: int | None = None
    is_bdf: bool = False

    def write(self, path: Path) -> Path:
        size = 3 if self.is_bdf else 2
        limit = 2 ** (8 * size - 1)
        records = int(np.ceil(max(len(signal.samples) / signal.rate_hz for signal in self.signals)))
        rows = [(signal, self._digital(signal, records, limit)) for signal in self.signals]
        annotations = "BDF Annotations" if self.is_bdf else "EDF Annotations"
        count = len(rows) + bool(self.onsets_s)
        kept = 60 // size
        reserved = ("BDF+D" if self.is_bdf else "EDF+D") if self.onsets_s else ""
        header = b"\xffBIOSEMI" if self.is_bdf else b"0       "
        for text, width in (
            (self.patient, 80),
            (self.recording, 80),
            (self.startdate, 8),
            ("22.30.00", 8),
            (str(256 * (count + 1)), 8),
            (reserved, 44),
            (str(records if self.declared_records is None else self.declared_records), 8),
            ("1", 8),
            (str(count), 4),
        ):
            header += text.encode("latin-1").ljust(width)
        columns: list[tuple[list[str], int]] = [
            ([signal.label for signal in self.signals] + [annotations], 16),
            ([""] * (len(rows) + 1), 80),
            ([signal.unit for signal in self.signals] + [""], 8),
            ([f"{signal.physical[0]:g}" for signal in self.signals] + ["-1"], 8),
            ([f"{signal.physical[1]:g}" for signal in self.signals] + ["1"], 8),
            ([str(-limit)] * (len(rows) + 1), 8),
            ([str(limit - 1)] * (len(rows) + 1), 8),
            ([""] * (len(rows) + 1), 80),
            ([str(signal.rate_hz) for signal in self.signals] + [str(kept)], 8),
            ([""] * (len(rows) + 1), 32),
        ]
        for texts, width in columns:
            header += b"".join(text.encode("latin-1").ljust(width) for text in texts[:count])
        body = bytearray()
        for record in range(records):
            for signal, digital in rows:
                part = digital[record * signal.rate_hz : (record + 1) * signal.rate_hz]
                wide = part.astype("<i4").view(np.uint8).reshape(-1, 4)
                body += wide[:, :size].tobytes()
            if self.onsets_s:
                body += f"+{self.onsets_s[record]:g}\x14\x14\x00".encode().ljust(kept * size, b"\0")
        path.write_bytes(header + body)
        return path

    def _digital(self, signal: Signal, records: int, limit: int) -> npt.NDArray[np.int64]:
        low, high = signal.physical
        scaled = np.round((signal.samples - low) / (high - low) * (2 * limit - 1)) - limit
        return np.pad(scaled.astype(np.int64), (0, records * signal.rate_hz - len(scaled)), constant_values=-limit)
