"""Raw recordings for tests: short valid ones to spoil, whole minutes with a known pulse, and batches of either."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.recordings.batches import MANIFEST, writing_batch
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.schema import RECORDING

RATE_HZ = 64
SECONDS = 5  # of a short recording


WITHOUT_PPG: dict[str, Any] = {
    "ppg": [],
    "ppg_rate_hz": None,
    "dark": None,
    "dark_rate_hz": None,
    "dark_offsets_s": None,
}


def recording(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A valid recording of five seconds with every column filled, and `changes` to it."""
    rng = np.random.default_rng(number)
    samples = SECONDS * RATE_HZ
    return {
        "recording_id": f"r{number}",
        "participant_id": "p1",
        "device_id": "sim-wrist-64",
        "started_at": None,
        "ppg": list(rng.uniform(1e5, 2e5, (4, samples)).astype(np.float32)),
        "ppg_rate_hz": float(RATE_HZ),
        "dark": list(rng.uniform(1e3, 2e3, (1, samples)).astype(np.float32)),
        "dark_rate_hz": float(RATE_HZ),
        "dark_offsets_s": [0.0],
        "accel": [np.full(samples, value, np.float32) for value in (0.0, 0.6, 0.8)],
        "accel_rate_hz": float(RATE_HZ),
        "accel_start_s": 0.0,
        "hr_bpm": 60.0,
        "sdnn_ms": 50.0,
        "rmssd_ms": 40.0,
        "reference_source": "simulation",
        "reference_beat_s": [0.5, 1.5, 2.5],
        "reference_hr_s": [1.0, 2.0],
        "reference_hr_bpm": [60.0, 61.0],
        "reference_ibi_end_s": [1.5, 2.5],
        "reference_ibi_s": [1.0, 1.0],
        "event_s": [3.0],
        **changes,
    }


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
    """One recording of one participant on a simulated four-channel device (or an E4, or a phone) that lies still."""

    name: str
    duration_s: float = 60.0
    hr_bpm: float = 70.0
    device_id: str = "sim-wrist-64"
    facts: dict[str, Any] = field(default_factory=dict)  # further columns of the recording
    ppg: npt.NDArray[np.float32] = field(init=False)  # [channels, samples]: damage or empty it as you like
    accel: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        seed = sum(self.name.encode())
        self.ppg = pulse(self.duration_s, self.hr_bpm, DEVICES[self.device_id].ppg_channels or 0, seed)
        rng = np.random.default_rng(seed)
        still = np.array([[0.1], [0.2], [0.97]]) + 0.002 * rng.standard_normal((3, self.ppg.shape[1]))
        still[2] += 0.006 * np.sin(2 * np.pi * 0.25 * np.arange(still.shape[1]) / RATE_HZ)  # breath tilts the wrist
        self.accel = still.astype(np.float32)

    def row(self) -> dict[str, Any]:
        dark = {}
        if DEVICES[self.device_id].dark_slots and len(self.ppg):
            dark = {"dark": [np.zeros(self.ppg.shape[1]) + 500], "dark_rate_hz": RATE_HZ, "dark_offsets_s": [0.0]}
        return {
            "recording_id": f"r-{self.name}",
            "participant_id": self.name,
            "device_id": self.device_id,
            "ppg": list(self.ppg),
            "ppg_rate_hz": RATE_HZ if len(self.ppg) else None,
            "accel": list(self.accel),
            "accel_rate_hz": RATE_HZ if len(self.accel) else None,
            "accel_start_s": 0.0,
            **dark,
            **self.facts,
        }


def phone(name: str, duration_s: float = 240.0) -> Person:
    """Somebody with a phone: acceleration, and no PPG."""
    return Person(name, duration_s, device_id="phone")


def write_batch(landing: Path, recordings: list[dict[str, Any]], batch_id: str = "b1", **tables: pa.Table) -> Path:
    """A batch of the recordings and of participant p1, unless `participants` is given."""
    with writing_batch(landing, batch_id, source="simulation") as batch:
        batch.add("recordings", pa.Table.from_pylist(recordings, RECORDING.arrow()))
        for name, table in ({"participants": pa.table({"participant_id": ["p1"]})} | tables).items():
            batch.add(name, table)
    return landing / batch_id


def land_people(
    home: Home, batch_id: str, people: Sequence[Person], rejected: Sequence[dict[str, str | None]] = ()
) -> None:
    """A batch with one recording of each person, and what its reader rejected."""
    tables = {"participants": pa.table({"participant_id": [person.name for person in people]})}
    if rejected:
        tables["rejected"] = pa.Table.from_pylist(list(rejected))
    write_batch(home.landing, [person.row() for person in people], batch_id, **tables)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def replace_table(folder: Path, path: str, table: pa.Table) -> None:
    """Put another table in the place of a file and have the manifest agree on hash and rows."""
    pq.write_table(table, folder / path)

    def update(manifest: dict[str, Any]) -> None:
        (entry,) = (file for file in manifest["files"] if file["path"] == path)
        entry |= {"sha256": sha256_file(folder / path), "rows": table.num_rows}

    edit_manifest(folder, update)


def write_acceleration_csv(path: Path, accel: npt.NDArray[Any], rate_hz: float) -> Path:
    """Acceleration `[3, samples]` in g as somebody's logger would write it."""
    lines = [f"{number / rate_hz!r},{x!r},{y!r},{z!r}" for number, (x, y, z) in enumerate(accel.T.tolist())]
    path.write_text("time,x,y,z\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path
