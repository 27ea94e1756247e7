"""Tables of an arrival batch: what a recording, a participant and an answer are."""

from __future__ import annotations

import pyarrow as pa

from accelkd.home.columns import Column, Table
from accelkd.recordings.labels import LABELS

SCHEMA_VERSION = 1

_STREAMS = pa.list_(pa.list_(pa.float32()))  # channel-major: [channels][samples]
_SERIES = pa.list_(pa.float64())

RECORDING = Table(
    "landing.recordings",
    (
        Column("recording_id", pa.string(), nullable=False, meaning="identifier, unique over all batches"),
        Column("participant_id", pa.string(), nullable=False, meaning="pseudonym"),
        Column(
            "device_id",
            pa.string(),
            nullable=False,
            meaning="row of the device table (accelkd.recordings.devices)",
        ),
        Column(
            "started_at",
            pa.timestamp("us", tz="UTC"),
            meaning="instant of the start: the first PPG frame, or without PPG the first accelerometer sample; "
            "null where the device records no absolute time",
        ),
        Column(
            "ppg",
            _STREAMS,
            nullable=False,
            meaning="optical channels, none or more, raw counts (exact to 2^24) or the device's unit; NaN = no sample",
        ),
        Column("ppg_rate_hz", pa.float64(), unit="Hz", meaning="sampling rate of `ppg`; null without PPG"),
        Column(
            "ppg_polarity",
            pa.int8(),
            meaning="1 if the pulse is a steep rise of `ppg`, -1 if a steep fall; null as the device table says",
        ),
        Column(
            "dark",
            _STREAMS,
            meaning="dark or ambient slots, same unit as `ppg`; null where the device has none",
        ),
        Column("dark_rate_hz", pa.float64(), unit="Hz", meaning="frame rate of `dark`"),
        Column("dark_offsets_s", _SERIES, unit="s", meaning="instant of each dark slot inside its frame"),
        Column(
            "accel", _STREAMS, nullable=False, meaning="acceleration x, y, z in g, or no axis at all; NaN = no sample"
        ),
        Column("accel_rate_hz", pa.float64(), unit="Hz", meaning="sampling rate of `accel`; null without acceleration"),
        Column(
            "accel_start_s",
            pa.float64(),
            unit="s",
            nullable=False,
            meaning="first accelerometer sample, seconds after the start",
        ),
        *(
            Column(
                label.name,
                pa.float64(),
                unit=label.unit,
                meaning=f"reference {label.title} of the whole recording",
            )
            for label in LABELS.values()
        ),
        Column(
            "reference_source",
            pa.string(),
            meaning="'ecg', 'device' or 'simulation'; null where there is no reference",
        ),
        Column(
            "reference_beat_s",
            _SERIES,
            unit="s",
            meaning="reference beats, seconds after the start",
        ),
        Column(
            "reference_hr_s",
            _SERIES,
            unit="s",
            meaning="instants of `reference_hr_bpm`, seconds after the start",
        ),
        Column("reference_hr_bpm", _SERIES, unit="bpm", meaning="reference heart rate over time"),
        Column(
            "reference_ibi_end_s",
            _SERIES,
            unit="s",
            meaning="ends of the inter-beat intervals in `reference_ibi_s`",
        ),
        Column("reference_ibi_s", _SERIES, unit="s", meaning="reference inter-beat intervals"),
        Column(
            "event_s",
            _SERIES,
            unit="s",
            meaning="marks that the wearer or the app set, seconds after the start",
        ),
        Column("sensor_id", pa.string(), meaning="serial number of the device; null where it is unknown"),
    ),
    key=("recording_id",),
    meaning="Raw recordings of an arrival batch",
)

PARTICIPANT = Table(
    "landing.participants",
    (
        Column("participant_id", pa.string(), nullable=False, meaning="pseudonym"),
        Column("sex", pa.string(), meaning="'female' or 'male' (assigned at birth); null unknown"),
        Column("age_years", pa.float64(), unit="years", meaning="self-reported age; null unknown"),
        Column("height_m", pa.float64(), unit="m", meaning="height; null unknown"),
        Column("bmi_kg_m2", pa.float64(), unit="kg/m²", meaning="body mass index; null unknown"),
        Column("skin_tone", pa.float64(), meaning="Monk skin tone, 1 (lightest) to 10 (darkest); null unknown"),
    ),
    key=("participant_id",),
    meaning="Participants that an arrival batch describes",
)

SURVEY = Table(
    "landing.survey",
    (
        Column("participant_id", pa.string(), nullable=False, meaning="pseudonym"),
        Column(
            "question_id",
            pa.string(),
            nullable=False,
            meaning="question of the survey (accelkd.recordings.survey)",
        ),
        Column("answer", pa.string(), nullable=False, meaning="one of the question's choices, verbatim"),
    ),
    key=("participant_id", "question_id"),
    meaning="Answers to the survey that came with an arrival batch",
)

SURVEY_TARGET = Table(
    "survey_target",
    (
        Column(
            "participant_id",
            pa.string(),
            nullable=False,
            sources=("landing.survey.participant_id",),
            meaning="Pseudonym",
        ),
        Column(
            "target",
            pa.string(),
            nullable=False,
            sources=("landing.survey.question_id",),
            meaning="Condition, medication or habit, such as diabetes (accelkd/recordings/survey.py defines all)",
        ),
        Column(
            "value",
            pa.bool_(),
            sources=("landing.survey.question_id", "landing.survey.answer"),
            meaning="True or false; null where the answers say neither, which leaves the participant out",
        ),
    ),
    meaning="Health targets of everybody who answered the survey",
)

TRUTH = Table(
    "landing.truth",
    (
        Column("recording_id", pa.string(), nullable=False, meaning="the recording"),
        Column("participant_id", pa.string(), nullable=False, meaning="the simulated person"),
        Column(
            "beat_s",
            _SERIES,
            unit="s",
            nullable=False,
            meaning="R peaks, seconds after the first PPG frame",
        ),
        Column("ectopic", pa.list_(pa.bool_()), nullable=False, meaning="true where the beat is ectopic"),
        Column("hr_bpm", pa.float64(), unit="bpm", nullable=False, meaning="heart rate over all intervals"),
        Column(
            "sdnn_ms",
            pa.float64(),
            unit="ms",
            nullable=False,
            meaning="SDNN over normal-to-normal intervals",
        ),
        Column(
            "rmssd_ms",
            pa.float64(),
            unit="ms",
            nullable=False,
            meaning="RMSSD over neighbouring normal-to-normal intervals",
        ),
        Column(
            "j_wave_mg",
            pa.float64(),
            unit="mg",
            nullable=False,
            meaning="amplitude of the heart's recoil at the wrist",
        ),
        Column("coupling_lost", pa.bool_(), nullable=False, meaning="minute with the coupling almost gone"),
        Column("movements", pa.int32(), nullable=False, meaning="number of small movements"),
        Column("atrial_fibrillation", pa.bool_(), nullable=False, meaning="minute in atrial fibrillation"),
        Column("breathing_rate_hz", pa.float64(), unit="Hz", nullable=False, meaning="mean breathing rate"),
    ),
    key=("recording_id",),
    meaning="What made each simulated recording: tests compare derived labels with it; training never reads it",
)

REJECTED = Table(
    "landing.rejected",
    (
        Column(
            "source_file",
            pa.string(),
            nullable=False,
            meaning="file or folder, relative to the ingested folder",
        ),
        Column("participant_id", pa.string(), meaning="pseudonym; null where it is unknown"),
        Column("reason", pa.string(), nullable=False, meaning="short machine-readable reason"),
        Column("detail", pa.string(), nullable=False, meaning="what was expected and what was there"),
    ),
    meaning="Source files that a device reader could not turn into a recording",
)

BATCH_TABLES = {
    "recordings": RECORDING,
    "participants": PARTICIPANT,
    "survey": SURVEY,
    "truth": TRUTH,
    "rejected": REJECTED,
}
