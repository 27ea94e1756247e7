"""The numbers of docs/sensors.md: which accelerometers carry the heart, and what a classical estimator reads from them.

    python benches/sensors.py ../shared/data --home /somewhere/with/space
    python benches/sensors.py ../shared/data --home /somewhere/with/space --device e4=stress-predict-e4

Needs the public recordings that docs/devices.md names; the half minutes of MSCardio, from phones, are read as they are.
It prints the tables as Markdown.
"""

from __future__ import annotations

import argparse
import lzma
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import tables

import rust_dsp
from accelkd.evaluation.beat_locked import TOLERANCE_BPM, agreement, beat_lock
from accelkd.home.layout import Home
from accelkd.operations.sensor_check import HEART_SOUND_HZ, RECOIL_HZ, check_sensors
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.ingest import ingest
from accelkd.segments.schema import DURATION_S, SAMPLES, SAMPLING_RATE_HZ
from accelkd.segments.segment import segment_batch

FOLDERS = {
    "e4": "stress-predict-e4",
    "bami": "bami1-watch",
    "polar": "polar-verity-sense",
    "embraceplus": "empatica-embraceplus",
    "verily": "verily-study-watch",
    "nilspod": "biopsykit-nilspod-chest",
    "phone": "mscardio-phone-scg",
}
PHONES = "mscardio-phone-scg/MSCardio"
GRAVITY_M_S2 = 9.80665
STILL_G = 0.05
PEAKS = (0.0, 0.3, 0.5)

Floats = npt.NDArray[np.float64]


def sensors(home: Home, folders: Mapping[str, str], data: Path) -> None:
    """The check of every device, of the segments that the strict gate keeps."""
    tables.header(
        "device",
        "still minutes",
        "tested",
        "locked at p < 0.01",
        "other beats",
        "wave (mg)",
        "peak",
        "bands agree",
        "by chance",
        "verdict",
    )
    for device, folder in folders.items():
        ingest(device, data / folder, home.landing, device)
        segment_batch(home, device)
        for sensor in check_sensors(home, device):
            tables.row(
                sensor.device_id,
                sensor.still_minutes,
                sensor.tested_minutes,
                f"{sensor.locked_minutes} ({_percent(sensor.locked_share)})" if sensor.tested_minutes else "",
                f"{_percent(sensor.false_alarm_share)} of {sensor.false_alarm_tests}"
                if sensor.false_alarm_tests
                else "",
                "" if sensor.locked_rms_mg is None else f"{sensor.locked_rms_mg:.2f}",
                "" if sensor.peak is None else f"{sensor.peak:.2f}",
                f"{_percent(sensor.bands.share)} of {sensor.bands.segments}" if sensor.bands.segments else "",
                _percent(sensor.bands.by_chance),
                sensor.verdict,
            )


@dataclass(frozen=True)
class Minute:
    """A segment of the loose gate, with its beats."""

    recoil_g: Floats  # [3, 3840]
    pulse: Floats | None  # [1, 3840]: PPG from 0.6 to 4 Hz, of the channel that gives the labels; None without PPG
    ppg_beat_s: Floats | None  # None where the pulse is not usable
    reference_beat_s: Floats | None


def loose_minutes(home: Home, device: str) -> Iterator[Minute]:
    """Minutes that are still but for single movements, as the loose gate keeps them."""
    segment_batch(home, device, gate="loose")
    beats: dict[str, list[float] | None] = {}
    for path in sorted((home.batch(device) / "recordings").glob("*.parquet")):
        table = pq.read_table(path, columns=["recording_id", "reference_beat_s"])
        beats |= dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    for segment in pa.ipc.open_file(str(home.segments(device))).read_all().to_pylist():
        z = np.array(segment["accel"], np.float64).reshape(3, SAMPLES)
        reference = beats[segment["recording_id"]]
        inside = None if reference is None else np.array(reference) - segment["offset_s"]
        ppg = pulse = None
        if segment["ppg"]:
            ppg = np.array(segment["ppg"], np.float64).reshape(-1, SAMPLES)[[segment["label_channel"]]]
            pulse = rust_dsp.band_pass(ppg, SAMPLING_RATE_HZ, (0.6, 4.0))
        yield Minute(
            rust_dsp.band_pass(z * np.array(segment["accel_ac_level"])[:, None], SAMPLING_RATE_HZ, RECOIL_HZ),
            pulse,
            None
            if ppg is None or not segment["label_good"]
            else rust_dsp.label(ppg, polarity=DEVICES[device].polarity).beat_s[0],
            None if inside is None else inside[(inside >= 0) & (inside < DURATION_S)],
        )


def beats_and_movement(home: Home, folders: Mapping[str, str]) -> None:
    """What is locked to which beats where people move a little, and whether the reference runs with the sensor."""
    tables.header(
        "device", "minutes", "locked to the PPG's beats", "locked to the reference's", "PPG locked to the reference's"
    )
    for device in folders:
        minutes = list(loose_minutes(home, device))
        counts = []
        for signal, beats in (
            ("recoil_g", "ppg_beat_s"),
            ("recoil_g", "reference_beat_s"),
            ("pulse", "reference_beat_s"),
        ):
            pairs = [(getattr(minute, signal), getattr(minute, beats)) for minute in minutes]
            locks = [
                beat_lock(values, SAMPLING_RATE_HZ, beat_s)
                for values, beat_s in pairs
                if values is not None and beat_s is not None
            ]
            tested = [lock for lock in locks if lock is not None]
            counts.append(f"{sum(lock.locked for lock in tested)} of {len(tested)}" if tested else "none to test")
        tables.row(device, len(minutes), *counts)


def classical_rates(home: Home, folders: Mapping[str, str]) -> None:
    """The classical heart rate against the label of the same minute, by the least height of its peak.

    Without PPG, against the reference that travelled with the recording.
    """
    tables.header(
        "device", "peak at least", "minutes", "MAE (bpm)", "constant (bpm)", f"within {TOLERANCE_BPM:.0f} bpm"
    )
    for device in folders:
        segment_batch(home, device)
        table = pa.ipc.open_file(str(home.segments(device))).read_all()
        label, rate, peak = (
            np.array(table.column(name).to_pylist(), np.float64)
            for name in (
                "hr_bpm" if DEVICES[device].ppg_channels else "reference_hr_bpm",
                "accel_hr_bpm",
                "accel_hr_peak",
            )
        )
        for least in PEAKS:
            rows = np.isfinite(label) & (peak >= least)
            if rows.any():
                error, spread = np.abs(rate - label)[rows], np.abs(label - np.median(label[rows]))[rows]
                within = (error <= TOLERANCE_BPM).mean()
                tables.row(device, least, rows.sum(), f"{error.mean():.2f}", f"{spread.mean():.2f}", _percent(within))


def phones(folder: Path) -> None:
    """Half minutes of phones on chests: how often the recoil and the heart sounds have the same rate.

    The constants of the estimator were chosen on every other person, in the order of their numbers.
    """
    rows = [
        (number, *rates)
        for number, half_minute, rate_hz in _half_minutes(folder)
        for rates in [_rates(half_minute, rate_hz)]
    ]
    numbers, recoil, sounds, peak = (np.array(column) for column in zip(*rows, strict=True))
    chosen_on = np.isin(numbers, np.unique(numbers)[::2])
    tables.header("people", "peaks at least", "half minutes", "people", "agree within 3 bpm", "by chance")
    for name, side in (("chosen on", chosen_on), ("verified on", ~chosen_on), ("all", np.ones_like(chosen_on))):
        for least in PEAKS:
            kept = side & (peak >= least)
            bands = agreement(recoil[kept], sounds[kept])
            people = len(np.unique(numbers[kept]))
            tables.row(name, least, bands.segments, people, _percent(bands.share), _percent(bands.by_chance))


def _rates(accel: Floats, rate_hz: float) -> tuple[float, float, float]:
    """Rates of recoil and heart sounds, and the lower of their peaks."""
    (recoil, first), (sounds, second) = (
        rust_dsp.recoil_rate(accel, rate_hz, band_hz=band_hz) for band_hz in (RECOIL_HZ, HEART_SOUND_HZ)
    )
    return recoil, sounds, min(first, second)


def _half_minutes(folder: Path) -> Iterator[tuple[int, Floats, float]]:
    """(person, acceleration in g, rate) of the still half minutes of recordings that are long and fast enough."""
    for path in sorted(folder.glob("*/*/uncalibrated_scg.csv.xz")):
        lines = lzma.decompress(path.read_bytes()).decode().splitlines()[1:]
        values = np.array([line.split(",")[1:5] for line in lines if all(line.split(",")[:5])], np.float64)
        time_s = values[:, 0]
        rate_hz = (len(time_s) - 1) / (time_s[-1] - time_s[0])
        if rate_hz < 90 or time_s[-1] < 35:
            continue
        accel = np.ascontiguousarray(values[:, 1:].T / GRAVITY_M_S2)
        width = int(30 * rate_hz)
        for start in range(0, accel.shape[1] - width + 1, width):
            half_minute = np.ascontiguousarray(accel[:, start : start + width])
            if rust_dsp.motion(half_minute, rate_hz)[1] < STILL_G:
                number = re.search(r"Subject_(\d+)", str(path))
                assert number is not None
                yield int(number[1]), half_minute, rate_hz


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one subfolder per dataset")
    parser.add_argument("--home", type=Path, required=True, help="folder for the home that this makes")
    parser.add_argument("--device", action="append", help="device=folder instead of all; may be repeated")
    arguments = parser.parse_args()
    folders = dict(pair.split("=", 1) for pair in arguments.device) if arguments.device else FOLDERS
    home = Home(arguments.home)
    sensors(home, folders, arguments.data)
    beats_and_movement(home, folders)
    classical_rates(home, folders)
    if not arguments.device and (arguments.data / PHONES).is_dir():
        phones(arguments.data / PHONES)


if __name__ == "__main__":
    main()
