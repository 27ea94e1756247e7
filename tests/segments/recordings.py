"""Synthetic recordings with planted damage, landed by the real writer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.home.layout import Home
from accelkd.recordings.batches import writing_batch
from accelkd.recordings.devices import DEVICES

RATE_HZ = 64


def pulse(
    duration_s: float, hr_bpm: float, channels: int, seed: int = 0, level: float = 1e5
) -> npt.NDArray[np.float32]:
    """A PPG that rises steeply at every beat, `[channels, samples]` at 64 Hz, its beats a little irregular."""
    rng = np.random.default_rng(seed)
    ibi = 60 / hr_bpm * (1 + 0.02 * rng.standard_normal(int(3 * duration_s)))
    phase_at = np.concatenate([[0.0], np.cumsum(ibi)])
    t = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    phase = np.interp(t, phase_at, np.arange(len(phase_at))) % 1
    wave = np.exp(-0.5 * ((phase - 0.25) / 0.09) ** 2) + 0.3 * np.exp(-0.5 * ((phase - 0.6) / 0.12) ** 2)
    noise = 0.01 * rng.standard_normal((channels, len(t)))
    return (level + 0.01 * level * (wave + noise)).astype(np.float32)


@dataclass
class Person:
    """One recording of one participant on a simulated four-channel device (or an E4) that lies still."""

    name: str
    duration_s: float = 60.0
    hr_bpm: float = 70.0
    device_id: str = "sim-wrist-64"
    facts: dict[str, Any] = field(default_factory=dict)  # further columns of the recording
    ppg: npt.NDArray[np.float32] = field(init=False)  # [channels, samples]: damage it as you like
    accel: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        seed = sum(self.name.encode())
        self.ppg = pulse(self.duration_s, self.hr_bpm, DEVICES[self.device_id].ppg_channels, seed)
        rng = np.random.default_rng(seed)
        still = np.array([[0.1], [0.2], [0.97]]) + 0.002 * rng.standard_normal((3, self.ppg.shape[1]))
        self.accel = still.astype(np.float32)

    def row(self) -> dict[str, Any]:
        dark = {}
        if DEVICES[self.device_id].dark_slots:
            dark = {"dark": [np.zeros(self.ppg.shape[1]) + 500], "dark_rate_hz": RATE_HZ, "dark_offsets_s": [0.0]}
        return {
            "recording_id": f"r-{self.name}",
            "participant_id": self.name,
            "device_id": self.device_id,
            "ppg": list(self.ppg),
            "ppg_rate_hz": RATE_HZ,
            "accel": list(self.accel),
            "accel_rate_hz": RATE_HZ,
            "accel_start_s": 0.0,
            **dark,
            **self.facts,
        }


def land(home: Home, batch_id: str, people: list[Person], rejected: list[dict[str, str]] | None = None) -> None:
    """An arrival batch with one recording of each person."""
    with writing_batch(home.landing, batch_id, source="simulation") as batch:
        batch.add("participants", pa.table({"participant_id": [person.name for person in people]}))
        for start in range(0, len(people), 5):
            columns = [person.row() for person in people[start : start + 5]]
            names = {name for row in columns for name in row}
            batch.add("recordings", pa.table({name: [row.get(name) for row in columns] for name in sorted(names)}))
        if rejected is not None:
            batch.add("rejected", pa.Table.from_pylist(rejected))
