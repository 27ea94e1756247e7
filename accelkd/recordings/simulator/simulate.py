"""From simulated participants to an arrival batch of raw recordings."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.home.progress import progress
from accelkd.recordings.batches import EncodedRows, Manifest, encode_rows, read_manifest, writing_batch
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.labels import LABELS
from accelkd.recordings.schema import PARTICIPANT, RECORDING, TRUTH
from accelkd.recordings.simulator.answers import survey_answers
from accelkd.recordings.simulator.beats import draw_rhythm, reference
from accelkd.recordings.simulator.faults import damage, draw_duration, draw_faults
from accelkd.recordings.simulator.movements import draw_movements
from accelkd.recordings.simulator.optics import CHANNELS, FULL_SCALE, draw_optics, sample_optics
from accelkd.recordings.simulator.participants import Traits, draw_traits
from accelkd.recordings.simulator.profiles import PROFILES, Profile
from accelkd.recordings.simulator.recoil import draw_recoil, sample_recoil
from accelkd.recordings.simulator.streams import F32, participant_stream

_FIRST_DAY = np.datetime64("2025-01-01", "D")
_BLOCK_SIZE = 16  # recordings of a participant that are computed together: enough for arrays to pay off
_RECORDINGS_PER_FILE = 256
_ACCEL_RANGE_G = 16.0
_ACCEL_STEPS_PER_G = 2.0**15  # 20 bits over the range


@dataclass(frozen=True)
class _Job:
    """Participants `first` to `first + count`: what one file of recordings holds."""

    seed: int
    profile: str
    rate_hz: int
    first: int
    count: int
    segments: int


def simulate_batch(
    landing: Path,
    batch_id: str,
    *,
    participants: int,
    segments: int,
    seed: int,
    profile: str = "realistic",
    rate_hz: int = 64,
    first_participant: int = 0,
    processes: int = 1,
) -> Manifest:
    """Write one arrival batch: `segments` recordings of 60 s for each of `participants` participants.

    A participant and their recordings are fixed by `seed`, their number (from `first_participant` on), `segments`,
    `profile` and `rate_hz`; traits and answers by seed and number alone. The bytes do not depend on `processes`.
    Returns the manifest.

    Raises ValueError for an unknown profile or rate and for numbers out of range, FileExistsError if the batch exists
    with other content.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if simulated_device(PROFILES[profile], rate_hz) not in DEVICES:
        raise ValueError(f"no simulated device samples at {rate_hz} Hz; choose 64 or 256")
    for name, value, minimum in (
        ("participants", participants, 1),
        ("segments", segments, 1),
        ("processes", processes, 1),
        ("seed", seed, 0),
        ("first_participant", first_participant, 0),
    ):
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {value}")
    per_file = max(1, _RECORDINGS_PER_FILE // segments)
    last = first_participant + participants
    jobs = [
        _Job(seed, profile, rate_hz, first, min(per_file, last - first), segments)
        for first in range(first_participant, last, per_file)
    ]
    with writing_batch(landing, batch_id, source="simulation") as batch:
        truths = []
        for recordings, truth in progress(_run(jobs, processes), "simulate", len(jobs)):
            batch.add_encoded(recordings)
            truths.append(truth)
        ids = [participant_id(seed, first_participant + number) for number in range(participants)]
        traits = draw_traits(seed, first_participant, participants)
        batch.add("participants", participant_table(ids, traits))
        batch.add("survey", survey_answers(seed, first_participant, ids, traits))
        batch.add("truth", pa.concat_tables(truths))
    return read_manifest(landing / batch_id)


def simulated_device(profile: Profile, rate_hz: int) -> str:
    """Row of the device table, where there is one."""
    return f"sim-{profile.placement.name}-{rate_hz}"


def participant_id(seed: int, number: int) -> str:
    """Pseudonym of a simulated participant."""
    return f"sim{seed}-{number:06d}"


def _run(jobs: list[_Job], processes: int) -> Iterator[tuple[EncodedRows, pa.Table]]:
    if min(processes, len(jobs)) == 1:
        yield from map(_simulate, jobs)
        return
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_simulate, jobs)


def _simulate(job: _Job) -> tuple[EncodedRows, pa.Table]:
    """Recordings and truth of the participants of one job."""
    traits = draw_traits(job.seed, job.first, job.count)
    minutes = [
        _minutes(job, row, traits.rows(np.full(min(_BLOCK_SIZE, job.segments - start), row)), start)
        for row in range(job.count)
        for start in range(0, job.segments, _BLOCK_SIZE)
    ]
    # Arrow gets arrays, never lists of NumPy values: converting those costs more than simulating them
    per_recording = {
        name: np.concatenate([block.per_recording[name] for block in minutes]) for name in minutes[0].per_recording
    }
    per_beat = {name: np.concatenate([block.per_beat[name] for block in minutes]) for name in minutes[0].per_beat}
    keys = [
        (participant_id(job.seed, job.first + row), segment)
        for row in range(job.count)
        for segment in range(job.segments)
    ]
    n = len(keys)
    rate = pa.array(np.full(n, float(job.rate_hz)))
    beat_s = _lists(per_recording["beats"], pa.array(per_beat["beat_s"]))
    columns = {
        "recording_id": pa.array([f"{participant}-{segment:04d}" for participant, segment in keys]),
        "participant_id": pa.array([participant for participant, _ in keys]),
        # NaN (recording too short) is null
        **{name: pa.array(per_recording[name], from_pandas=True) for name in LABELS},
    }
    recordings = pa.table(
        {
            **columns,
            "device_id": pa.array([simulated_device(PROFILES[job.profile], job.rate_hz)] * n),
            "started_at": pa.array(per_recording["started_us"]).cast(RECORDING["started_at"].type),
            "ppg": _streams([light[:CHANNELS] for block in minutes for light in block.light]),
            "ppg_rate_hz": rate,
            "dark": _streams([light[CHANNELS:] for block in minutes for light in block.light]),
            "dark_rate_hz": rate,
            "dark_offsets_s": _lists(np.ones(n, np.int32), pa.array(np.zeros(n))),
            "accel": _streams([accel for block in minutes for accel in block.accel]),
            "accel_rate_hz": rate,
            "accel_start_s": pa.array(np.zeros(n)),
            "reference_source": pa.array(["simulation"] * n),
            "reference_beat_s": beat_s,
        }
    )
    truth = pa.table(
        {
            **columns,
            **{name: per_recording[name] for name in LABELS},
            "beat_s": beat_s,
            "ectopic": _lists(per_recording["beats"], pa.array(per_beat["ectopic"])),
            **{name: per_recording[name] for name in ("j_wave_mg", "coupling_lost", "movements")},
            **{name: per_recording[name] for name in ("atrial_fibrillation", "breathing_rate_hz")},
        }
    )
    return encode_rows("recordings", recordings), truth.select(TRUTH.names).cast(TRUTH.arrow())


@dataclass(frozen=True)
class _Minutes:
    """A block of recordings of one participant."""

    light: list[F32]  # each [CHANNELS + 1, samples]
    accel: list[F32]  # each [3, samples]
    per_recording: dict[str, npt.NDArray[np.generic]]  # one value per recording
    per_beat: dict[str, npt.NDArray[np.generic]]  # one value per beat, recording after recording


def _minutes(job: _Job, row: int, traits: Traits, start: int) -> _Minutes:
    """Recordings from number `start` on of participant `row` of a job, one for each row of `traits`."""
    profile = PROFILES[job.profile]
    device = DEVICES[simulated_device(profile, job.rate_hz)]
    number = job.first + row
    rng = participant_stream(job.seed, number, start // _BLOCK_SIZE)
    n = len(traits.age_years)
    # Draw events before sampling them: the same minutes at both rates
    rhythm = draw_rhythm(rng, traits, profile.heart_rate_spread)
    movements = draw_movements(rng, n, profile.movements_per_min, profile.movement_mg)
    faults = draw_faults(rng, n, profile.fault_share)
    duration_s = draw_duration(rng, faults)
    optics = draw_optics(rng, traits, rhythm, movements, profile, (*device.led_offsets_s, 0.0))
    recoil = draw_recoil(rng, traits, rhythm, movements, profile)

    courses = movements.courses(job.rate_hz)
    light = sample_optics(rng, optics, courses, job.rate_hz)
    accel = sample_recoil(rng, recoil, courses, job.rate_hz)
    for i, fault in enumerate(faults):
        damage(rng, fault, light[i], accel[i], job.rate_hz)
    np.rint(light, out=light)
    np.clip(light, 0.0, FULL_SCALE, out=light)
    accel *= np.float32(_ACCEL_STEPS_PER_G)
    np.rint(accel, out=accel)
    accel *= np.float32(1.0 / _ACCEL_STEPS_PER_G)
    np.clip(accel, -_ACCEL_RANGE_G, _ACCEL_RANGE_G, out=accel)

    heart = reference(rhythm, duration_s)
    samples = (duration_s * job.rate_hz).astype(int)
    day = _FIRST_DAY + number % 300 + start + np.arange(n)  # one recording a day
    return _Minutes(
        light=[x[:, :length] for x, length in zip(light, samples, strict=True)],
        accel=[x[:, :length] for x, length in zip(accel, samples, strict=True)],
        per_recording={
            "started_us": day.astype("datetime64[us]").astype(np.int64) + (3.6e9 * rhythm.hour).astype(np.int64),
            "beats": heart.in_recording.sum(axis=1),
            "hr_bpm": heart.hr_bpm,
            "sdnn_ms": heart.sdnn_ms,
            "rmssd_ms": heart.rmssd_ms,
            "j_wave_mg": recoil.j_wave_mg,
            "coupling_lost": recoil.coupling_lost,
            "movements": np.bincount(movements.recording, minlength=n),
            "atrial_fibrillation": rhythm.atrial_fibrillation,
            "breathing_rate_hz": rhythm.breathing_hz,
        },
        per_beat={"beat_s": rhythm.beat_s[heart.in_recording], "ectopic": rhythm.ectopic[heart.in_recording]},
    )


def _streams(signals: list[F32]) -> pa.Array:
    """Signals `[channels, samples]` as one list of lists, channel-major."""
    channels = len(signals[0])
    samples = np.repeat([signal.shape[1] for signal in signals], channels)
    values = pa.array(np.concatenate([signal.reshape(-1) for signal in signals]))
    return _lists(np.full(len(signals), channels), _lists(samples, values))


def _lists(lengths: npt.NDArray[np.generic], values: pa.Array) -> pa.Array:
    """Consecutive `values` as one list for each of `lengths`."""
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values)


def participant_table(ids: list[str], traits: Traits) -> pa.Table:
    """Participants as a batch delivers them, one row for each id, with the traits at the same place."""
    return pa.table(
        {
            "participant_id": pa.array(ids),
            "sex": pa.array(np.where(traits.male > 0, "male", "female")),
            "age_years": pa.array(np.round(traits.age_years, 1)),
            "height_m": pa.array(np.round(traits.height_m, 2)),
            "bmi_kg_m2": pa.array(np.round(traits.bmi_kg_m2, 1)),
            "skin_tone": pa.array(np.floor(1.0 + 10.0 * np.minimum(traits.melanin, 0.999))),
        },
        schema=PARTICIPANT.arrow(),
    )
