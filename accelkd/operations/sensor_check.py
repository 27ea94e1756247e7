"""Whether the accelerometer of each device of a batch carries the heart: what the asset and `check-sensor` both call.

In still minutes with beats the acceleration is compared with them (accelkd.evaluation.beat_locked), and with other
people's, which measures the false alarms. Beats are the PPG's own where they are usable, because they share the clock
of the acceleration (those of a separate recorder may wander by more than a recoil lasts), else those that travelled
with the recording. Without beats, the rate of the recoil is compared with that of the heart sounds, which raw
acceleration has if it is sampled fast enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import rust_dsp
from accelkd.evaluation.beat_locked import MIN_BEATS, BeatLock, SensorCheck, agreement, beat_lock, verdict
from accelkd.home.layout import Home
from accelkd.operations.repair import repairing
from accelkd.recordings.batches import open_batch_file, read_manifest
from accelkd.recordings.devices import DEVICES
from accelkd.segments.schema import ACCEL_AXES, DURATION_S, SAMPLING_RATE_HZ
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import Modality, SegmentStore

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

RECOIL_HZ, HEART_SOUND_HZ = (4.0, 11.0), (18.0, 44.0)
# 95th percentile of the motion, as of the strict gate: movement shakes PPG and acceleration alike, and beats that were
# taken from such a PPG are locked to it
MAX_STILL_G = 0.05
MAX_MINUTES = 2_000  # of a device, spread evenly: a share is known to a percent, and a large batch costs no more
PARTNERS = 4  # minutes whose beats each minute is tested with for the false alarms
_CHUNK_SIZE = 64  # segments that are read at a time


@dataclass(frozen=True)
class _Landed:
    """What the landed recordings know of segments, by row."""

    beat_s: Mapping[int, Floats]  # reference beats, seconds from the start of the segment
    heart_sound_bpm: Mapping[int, float]  # NaN where there is no rate


def check_sensors(home: Home, batch_id: str) -> list[SensorCheck]:
    """Measure the accelerometer of every device of a segmented batch, by the devices' names.

    Reads the segment store and the landed recordings once, a row group at a time, and at most MAX_MINUTES of a device.
    Damaged segments are repaired first. Raises FileNotFoundError for a batch that was not segmented, or whose landed
    files are gone.
    """
    if not home.quarantine(batch_id).exists() and not home.segments(batch_id).exists():
        raise FileNotFoundError(f"batch {batch_id} was not segmented in {home.root}: materialize `segments` first")
    repairing(home, partial(verify_segments, home, batch_id), [batch_id])
    store = SegmentStore([home.segments(batch_id)])
    still = _rows_with(store, "accel")
    still = still[store.metadata.column("motion_p95_g").to_numpy()[still] < MAX_STILL_G]
    devices = np.asarray(store.metadata.column("device_id").to_pylist(), np.str_)[still]
    rows = {device_id: still[devices == device_id] for device_id in np.unique(devices).tolist()}
    measured = {device_id: _spread(of_device) for device_id, of_device in rows.items()}
    landed = _landed(home, batch_id, store, np.sort(np.concatenate([*measured.values(), np.empty(0, np.intp)])))
    levels_g = _accel_levels(home, batch_id)
    return [
        _check_device(store, device_id, len(rows[device_id]), measured[device_id], levels_g, landed)
        for device_id in measured
    ]


def _check_device(
    store: SegmentStore, device_id: str, still: int, rows: Rows, levels_g: Floats, landed: _Landed
) -> SensorCheck:
    metadata = store.metadata
    from_ppg = _ppg_beats(store, device_id, rows)
    own = from_ppg | {row: landed.beat_s[row] for row in rows.tolist() if row in landed.beat_s and row not in from_ppg}
    tested = np.array(sorted(row for row, beat_s in own.items() if len(beat_s) >= MIN_BEATS), np.intp)
    people = np.asarray(metadata.column("participant_id").to_pylist(), np.str_)
    partners = _partners(people[tested])
    locks: dict[int, BeatLock] = {}
    false_alarms: list[bool] = []
    for start in range(0, len(tested), _CHUNK_SIZE):
        chunk = tested[start : start + _CHUNK_SIZE]
        for number, (row, accel_g) in enumerate(_recoil(store, chunk, levels_g), start):
            lock = beat_lock(accel_g, SAMPLING_RATE_HZ, own[row])
            if lock is None:
                continue
            locks[row] = lock
            others = (beat_lock(accel_g, SAMPLING_RATE_HZ, own[tested[other]]) for other in partners[number])
            false_alarms += [other.locked for other in others if other is not None]
    rates, peaks = (
        metadata.column(name).to_numpy()[rows].astype(np.float64) for name in ("accel_hr_bpm", "accel_hr_peak")
    )
    bands = agreement(rates, np.array([landed.heart_sound_bpm.get(row, np.nan) for row in rows.tolist()]))
    locked = sum(lock.locked for lock in locks.values())
    false_alarm_share = float(np.mean(false_alarms)) if false_alarms else None
    said, reason = verdict(len(locks), locked, false_alarm_share, bands)
    return SensorCheck(
        device_id=device_id,
        still_minutes=still,
        tested_minutes=len(locks),
        reference_minutes=len(locks.keys() - from_ppg.keys()),
        locked_minutes=locked,
        locked_rms_mg=float(np.median([lock.rms_mg for lock in locks.values()])) if locks else None,
        false_alarm_tests=len(false_alarms),
        false_alarm_share=false_alarm_share,
        peak=float(np.nanmedian(peaks)) if np.isfinite(peaks).any() else None,
        bands=bands,
        verdict=said,
        reason=reason,
    )


def _rows_with(store: SegmentStore, modality: Modality) -> Rows:
    """Rows of the segments that have a modality."""
    return np.flatnonzero(store.counts(modality))


def _spread(rows: Rows) -> Rows:
    """At most MAX_MINUTES of rows, evenly."""
    if len(rows) <= MAX_MINUTES:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_MINUTES).astype(np.intp)]


def _accel_levels(home: Home, batch_id: str) -> Floats:
    """Standard deviation of each axis of each segment, `[segments, 3]` in g; NaN where there is no acceleration."""
    with pa.memory_map(str(home.segments(batch_id))) as source:
        levels = pa.ipc.open_file(source).read_all().column("accel_ac_level").combine_chunks()
        present = pc.list_value_length(levels).to_numpy() == ACCEL_AXES
        levels_g = np.full((len(levels), ACCEL_AXES), np.nan)
        levels_g[present] = levels.flatten().to_numpy().reshape(-1, ACCEL_AXES)
    return levels_g


def _recoil(store: SegmentStore, rows: Rows, levels_g: Floats) -> Iterator[tuple[int, Floats]]:
    """Acceleration in the band of the recoil, in g, of each row."""
    for row, z in zip(rows.tolist(), store.signals("accel", rows).astype(np.float64), strict=True):
        yield row, rust_dsp.band_pass(z * levels_g[row][:, None], SAMPLING_RATE_HZ, RECOIL_HZ)


def _ppg_beats(store: SegmentStore, device_id: str, rows: Rows) -> dict[int, Floats]:
    """Beats of the PPG channel that gives the labels, of the rows whose labels passed the quality gate."""
    rows = np.intersect1d(rows, _rows_with(store, "ppg"))
    good = np.asarray(store.metadata.column("label_good").to_pylist(), np.bool_)
    rows = rows[good[rows]]
    channels = store.metadata.column("label_channel").to_pylist()
    polarity = DEVICES[device_id].polarity if device_id in DEVICES else None
    beats: dict[int, Floats] = {}
    counts = store.counts("ppg")[rows]
    for count in np.unique(counts):
        alike = rows[counts == count]
        for start in range(0, len(alike), _CHUNK_SIZE):
            chunk = alike[start : start + _CHUNK_SIZE]
            channel = [channels[row] for row in chunk.tolist()]
            labels = rust_dsp.label(store.signals("ppg", chunk)[np.arange(len(chunk)), channel], polarity=polarity)
            beats |= dict(zip(chunk.tolist(), labels.beat_s, strict=True))
    return {row: beat_s for row, beat_s in beats.items() if np.isfinite(beat_s).sum() >= MIN_BEATS}


def _partners(people: npt.NDArray[np.str_]) -> list[list[int]]:
    """For each minute PARTNERS others, spread over the minutes: of other people, or of the only person there is."""
    count = len(people)
    if count < 2:
        return [[] for _ in range(count)]
    order = np.argsort(people, kind="stable")  # position → minute
    place = np.empty(count, np.intp)
    place[order] = np.arange(count)
    ends = np.searchsorted(people[order], people[order], "right")  # position → where the next person begins
    steps = {max(1, round(count * step / (PARTNERS + 1))) for step in range(1, PARTNERS + 1)}
    alone = ends[0] == count
    partners = []
    for minute in range(count):
        positions = ((place[minute] + step) % count for step in sorted(steps))
        others = {
            int(order[position if alone or people[order[position]] != people[minute] else ends[position] % count])
            for position in positions
        }
        partners.append(sorted(others - {minute}))
    return partners


def _landed(home: Home, batch_id: str, store: SegmentStore, rows: Rows) -> _Landed:
    """Reference beats and heart-sound rates of segments, from the landed recordings that they were cut from."""
    offsets_s = store.metadata.column("offset_s").to_numpy()
    names = store.metadata.column("recording_id")
    segments: dict[str, list[int]] = {}
    for row in rows.tolist():
        segments.setdefault(names[row].as_py(), []).append(row)
    beat_s: dict[int, Floats] = {}
    heart_sound_bpm: dict[int, float] = {}
    for recording in _recordings(home, batch_id, segments):
        if recording["reference_beat_s"] is not None:
            beats = np.asarray(recording["reference_beat_s"], np.float64)
            for row in segments[recording["recording_id"]]:
                inside = (beats >= offsets_s[row]) & (beats < offsets_s[row] + DURATION_S)
                beat_s[row] = beats[inside] - offsets_s[row]
        if (accel := recording["accel"]) is not None:
            rate_hz = recording["accel_rate_hz"]
            for row in segments[recording["recording_id"]]:
                start = max(0, int(np.floor((offsets_s[row] - recording["accel_start_s"]) * rate_hz + 0.5)))
                window = accel[:, start : start + int(np.floor(DURATION_S * rate_hz + 0.5))]
                heart_sound_bpm[row], _ = rust_dsp.recoil_rate(window, rate_hz, band_hz=HEART_SOUND_HZ)
    return _Landed(beat_s, heart_sound_bpm)


def _recordings(home: Home, batch_id: str, wanted: Mapping[str, Sequence[int]]) -> Iterator[dict[str, Any]]:
    """Facts of the recordings of a batch that are wanted; `accel` [3, samples] only where it holds the heart sounds."""
    folder = home.batch(batch_id)
    facts = ["recording_id", "accel_rate_hz", "accel_start_s", "reference_beat_s"]
    for entry in read_manifest(folder).files:
        if entry.table != "recordings":
            continue
        with open_batch_file(folder, entry.path) as source, pq.ParquetFile(source) as file:
            for group in range(file.num_row_groups):
                recordings = file.read_row_group(group, columns=facts).to_pylist()
                recordings = [recording for recording in recordings if recording["recording_id"] in wanted]
                if any(_holds_heart_sounds(recording) for recording in recordings):
                    streams = file.read_row_group(group, columns=["recording_id", "accel"])
                    by_name = dict(zip(streams.column(0).to_pylist(), streams.column(1), strict=True))
                else:
                    by_name = {}
                for recording in recordings:
                    stream = by_name.get(recording["recording_id"]) if _holds_heart_sounds(recording) else None
                    yield {**recording, "accel": None if stream is None or not stream.is_valid else _samples(stream)}


def _holds_heart_sounds(recording: Mapping[str, Any]) -> bool:
    return (recording["accel_rate_hz"] or 0.0) > 2 * HEART_SOUND_HZ[1]


def _samples(stream: pa.ListScalar) -> npt.NDArray[np.float32]:
    """One stream of a recording, `[axes, samples]`, without a copy."""
    flat: npt.NDArray[np.float32] = stream.values.flatten().to_numpy()
    return flat.reshape(len(stream.values), -1)
