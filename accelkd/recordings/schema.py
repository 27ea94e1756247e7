"""Arrow schemas of an arrival batch: what a recording, a participant and an answer are."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

_STREAMS = pa.list_(pa.list_(pa.float32()))  # channel-major: [channels][samples]
_TIMES_S = pa.list_(pa.float64())


def _field(name: str, kind: pa.DataType, meaning: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"comment": meaning})


RECORDING = pa.schema(
    [
        _field("recording_id", pa.string(), "identifier, unique over all batches", nullable=False),
        _field("participant_id", pa.string(), "pseudonym", nullable=False),
        _field("device_id", pa.string(), "row of the device table (accelkd.recordings.devices)", nullable=False),
        _field(
            "started_at",
            pa.timestamp("us", tz="UTC"),
            "instant of the first PPG frame; null where the device tells no absolute time",
        ),
        _field(
            "ppg",
            _STREAMS,
            "optical channels, raw counts (exact to 2^24) or the device's unit; NaN = no sample",
            nullable=False,
        ),
        _field("ppg_rate_hz", pa.float64(), "sampling rate of `ppg`", nullable=False),
        _field("dark", _STREAMS, "dark or ambient slots, same unit as `ppg`; null where the device has none"),
        _field("dark_rate_hz", pa.float64(), "frame rate of `dark`"),
        _field("dark_offsets_s", pa.list_(pa.float64()), "instant of each dark slot inside its frame"),
        _field("accel", _STREAMS, "acceleration x, y, z in g; NaN = no sample", nullable=False),
        _field("accel_rate_hz", pa.float64(), "sampling rate of `accel`", nullable=False),
        _field(
            "accel_start_s",
            pa.float64(),
            "first accelerometer sample, seconds after the first PPG frame",
            nullable=False,
        ),
        _field("hr_bpm", pa.float64(), "reference heart rate of the whole recording"),
        _field("sdnn_ms", pa.float64(), "reference SDNN of the whole recording"),
        _field("rmssd_ms", pa.float64(), "reference RMSSD of the whole recording"),
        _field(
            "reference_source",
            pa.string(),
            "'ecg', 'device' or 'simulation'; null where there is no reference",
        ),
        _field("reference_beat_s", _TIMES_S, "reference beats, seconds after the first PPG frame"),
        _field("reference_hr_s", _TIMES_S, "instants of `reference_hr_bpm`, seconds after the first PPG frame"),
        _field("reference_hr_bpm", pa.list_(pa.float64()), "reference heart rate over time"),
        _field("reference_ibi_end_s", _TIMES_S, "ends of the inter-beat intervals in `reference_ibi_s`"),
        _field("reference_ibi_s", pa.list_(pa.float64()), "reference inter-beat intervals"),
        _field("event_s", _TIMES_S, "marks that the wearer or the app set, seconds after the first PPG frame"),
    ]
)

PARTICIPANT = pa.schema(
    [
        _field("participant_id", pa.string(), "pseudonym", nullable=False),
        _field("sex", pa.string(), "'female' or 'male' (assigned at birth); null unknown"),
        _field("age_years", pa.float64(), "self-reported age; null unknown"),
        _field("height_m", pa.float64(), "height; null unknown"),
        _field("bmi_kg_m2", pa.float64(), "body mass index; null unknown"),
    ]
)

SURVEY = pa.schema(
    [
        _field("participant_id", pa.string(), "pseudonym", nullable=False),
        _field("question_id", pa.string(), "question of the survey (accelkd.recordings.survey)", nullable=False),
        _field("answer", pa.string(), "one of the question's choices, verbatim", nullable=False),
    ]
)

# One simulated recording: what made it. Tests compare derived labels with it; training never reads it.
TRUTH = pa.schema(
    [
        _field("recording_id", pa.string(), "the recording", nullable=False),
        _field("participant_id", pa.string(), "the simulated person", nullable=False),
        _field("beat_s", _TIMES_S, "R peaks, seconds after the first PPG frame", nullable=False),
        _field("ectopic", pa.list_(pa.bool_()), "true where the beat is ectopic", nullable=False),
        _field("hr_bpm", pa.float64(), "heart rate over all intervals", nullable=False),
        _field("sdnn_ms", pa.float64(), "SDNN over normal-to-normal intervals", nullable=False),
        _field("rmssd_ms", pa.float64(), "RMSSD over neighbouring normal-to-normal intervals", nullable=False),
        _field("j_wave_mg", pa.float64(), "amplitude of the heart's recoil at the wrist", nullable=False),
        _field("coupling_lost", pa.bool_(), "minute with the coupling almost gone", nullable=False),
        _field("movements", pa.int32(), "number of small movements", nullable=False),
        _field("atrial_fibrillation", pa.bool_(), "minute in atrial fibrillation", nullable=False),
        _field("breathing_rate_hz", pa.float64(), "mean breathing rate", nullable=False),
    ]
)

# What a device reader could not turn into a recording.
REJECTED = pa.schema(
    [
        _field("source_file", pa.string(), "file or folder, relative to the ingested folder", nullable=False),
        _field("participant_id", pa.string(), "pseudonym, null where it could not be told"),
        _field("reason", pa.string(), "short machine-readable reason", nullable=False),
        _field("detail", pa.string(), "what was expected and what was found", nullable=False),
    ]
)

BATCH_TABLES = {
    "recordings": RECORDING,
    "participants": PARTICIPANT,
    "survey": SURVEY,
    "truth": TRUTH,
    "rejected": REJECTED,
}
