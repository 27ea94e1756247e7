"""Tables of the segment store: what a segment and a quarantined window are.

A column is declared here and nowhere else: the store's Arrow schema, the warehouse's table with its comments, the
lineage in the asset graph and the tables in the docs come from it. What computes a column of SEGMENT is
`accelkd.segments.segment.segment_columns`, which raises for one that is declared and not computed.
"""

from __future__ import annotations

import pyarrow as pa

from accelkd.home.columns import Column, Table
from accelkd.recordings.labels import LABELS

SAMPLING_RATE_HZ = 64
DURATION_S = 60
SAMPLES = SAMPLING_RATE_HZ * DURATION_S  # 3840
ACCEL_AXES = 3


def _recorded(*names: str) -> tuple[str, ...]:
    """Columns of the raw recordings, as sources."""
    return tuple(f"landing.recordings.{name}" for name in names)


_PPG = _recorded("ppg", "ppg_rate_hz", "dark", "dark_rate_hz", "dark_offsets_s")
_ACCEL = _recorded("accel", "accel_rate_hz", "accel_start_s")
_LABEL = (*_PPG, *_recorded("device_id"))
_INTERVALS = _recorded("reference_beat_s", "reference_ibi_end_s", "reference_ibi_s")


def _per_channel(stream: str, channel: str, status: str, sources: tuple[str, ...]) -> tuple[Column, ...]:
    """What is known of each channel of a stream."""
    levels = pa.list_(pa.float64())
    return (
        Column(
            f"{stream}_status",
            pa.list_(pa.uint8()),
            nullable=False,
            sources=sources,
            meaning=f"Per {channel}: {status}",
        ),
        Column(
            f"{stream}_level",
            levels,
            nullable=False,
            sources=sources,
            meaning=f"Per {channel}: mean before detrending, in the unit of the device",
        ),
        Column(
            f"{stream}_ac_level",
            levels,
            nullable=False,
            sources=sources,
            meaning=f"Per {channel}: standard deviation after the band-pass, in the unit of the device",
        ),
        Column(
            f"{stream}_missing",
            levels,
            nullable=False,
            sources=sources,
            meaning=f"Per {channel}: share of samples that were missing",
        ),
    )


# Lists are as long as the stream that they are named after has channels, the signals themselves 3840 times that: a
# modality that a segment lacks has empty lists.
SEGMENT = Table(
    "store.segments",
    (
        Column(
            "segment_id",
            pa.string(),
            nullable=False,
            sources=_recorded("recording_id"),
            meaning="Hash of recording and offset: the same in every run",
        ),
        Column(
            "recording_id",
            pa.string(),
            nullable=False,
            sources=_recorded("recording_id"),
            meaning="Recording that it was cut from",
        ),
        Column(
            "participant_id",
            pa.string(),
            nullable=False,
            sources=_recorded("participant_id"),
            meaning="Pseudonym",
        ),
        Column("batch_id", pa.string(), nullable=False, meaning="Arrival batch"),
        Column(
            "device_id",
            pa.string(),
            nullable=False,
            sources=_recorded("device_id"),
            meaning="Device (docs/devices.md)",
        ),
        Column(
            "started_at",
            pa.timestamp("us", tz="UTC"),
            sources=_recorded("started_at"),
            meaning="Instant of its start; null where the device records no absolute time",
        ),
        Column(
            "offset_s",
            pa.float64(),
            unit="s",
            nullable=False,
            sources=(*_PPG[:2], *_ACCEL),
            meaning="Seconds from the start of the recording",
        ),
        Column(
            "motion_median_g",
            pa.float64(),
            unit="g",
            sources=_ACCEL,
            meaning="Median over its seconds of the spread of acceleration; null without acceleration",
        ),
        Column(
            "motion_p95_g",
            pa.float64(),
            unit="g",
            sources=_ACCEL,
            meaning="95th percentile over its seconds of the spread of acceleration; null without acceleration",
        ),
        Column(
            "hr_bpm",
            pa.float64(),
            unit=LABELS["hr_bpm"].unit,
            sources=_LABEL,
            meaning="Heart rate from the PPG; null unless label_good",
        ),
        Column(
            "sdnn_ms",
            pa.float64(),
            unit=LABELS["sdnn_ms"].unit,
            sources=_LABEL,
            meaning="Standard deviation of normal-to-normal intervals from the PPG; null unless label_good",
        ),
        Column(
            "rmssd_ms",
            pa.float64(),
            unit=LABELS["rmssd_ms"].unit,
            sources=_LABEL,
            meaning="Root mean square of successive differences from the PPG; null unless label_good",
        ),
        Column(
            "label_channel",
            pa.int8(),
            sources=_LABEL,
            meaning="PPG channel that the labels come from, from 0",
        ),
        Column(
            "label_agreement",
            pa.float64(),
            sources=_LABEL,
            meaning="Share of beats that two independent beat finders agree on",
        ),
        Column(
            "label_template_correlation",
            pa.float64(),
            sources=_LABEL,
            meaning="Mean correlation of each beat with the mean beat",
        ),
        Column(
            "label_coverage",
            pa.float64(),
            sources=_LABEL,
            meaning="Share of the minute covered by accepted intervals",
        ),
        Column(
            "label_good",
            pa.bool_(),
            nullable=False,
            sources=_LABEL,
            meaning="Agreement, template correlation and coverage all pass",
        ),
        Column(
            "reference_hr_bpm",
            pa.float64(),
            unit=LABELS["hr_bpm"].unit,
            sources=(*_recorded("hr_bpm", "reference_hr_s", "reference_hr_bpm"), *_INTERVALS),
            meaning="Heart rate from what travelled with the recording (ECG, device or simulation)",
        ),
        Column(
            "reference_sdnn_ms",
            pa.float64(),
            unit=LABELS["sdnn_ms"].unit,
            sources=(*_recorded("sdnn_ms"), *_INTERVALS),
            meaning="SDNN from what travelled with the recording",
        ),
        Column(
            "reference_rmssd_ms",
            pa.float64(),
            unit=LABELS["rmssd_ms"].unit,
            sources=(*_recorded("rmssd_ms"), *_INTERVALS),
            meaning="RMSSD from what travelled with the recording",
        ),
        Column(
            "accel_hr_bpm",
            pa.float64(),
            unit=LABELS["hr_bpm"].unit,
            sources=_ACCEL,
            meaning="Heart rate from the acceleration without a model (docs/sensors.md); null where there is none",
        ),
        Column(
            "accel_hr_peak",
            pa.float64(),
            sources=_ACCEL,
            meaning="How sure accel_hr_bpm is: height of the autocorrelation's peak, 0 to 1; below 0.3 rather noise",
        ),
        *_per_channel(
            "ppg",
            "PPG channel",
            "0 good, else bits 1 short, 2 gap, 4 missing, 8 flat; such a row is zeros",
            _PPG,
        ),
        *_per_channel(
            "accel",
            "accelerometer axis",
            "0 good, else bits 1 short, 2 gap, 4 missing, 8 flat",
            _ACCEL,
        ),
        Column(
            "ppg",
            pa.list_(pa.float16()),
            nullable=False,
            sources=_LABEL,
            meaning="The signal, z-scored per channel: [channels × 3840]; empty without PPG",
        ),
        Column(
            "accel",
            pa.list_(pa.float16()),
            nullable=False,
            sources=(*_ACCEL, *_recorded("device_id")),
            meaning="The signal, z-scored per axis: [3 × 3840]; empty without acceleration",
        ),
    ),
    key=("segment_id",),
    meaning="One row per 60 s segment: when, who, labels, quality, signals",
)

QUARANTINE = Table(
    "store.quarantine",
    (
        Column("batch_id", pa.string(), nullable=False, meaning="Arrival batch"),
        Column(
            "recording_id",
            pa.string(),
            sources=_recorded("recording_id"),
            meaning="Recording; null where a file never became one",
        ),
        Column(
            "participant_id",
            pa.string(),
            sources=_recorded("participant_id"),
            meaning="Pseudonym; null where it is unknown",
        ),
        Column(
            "unit",
            pa.string(),
            nullable=False,
            meaning="file, recording or window; or what was dropped alone: reference, participant, answer",
        ),
        Column(
            "offset_s",
            pa.float64(),
            unit="s",
            sources=(*_PPG[:2], *_ACCEL),
            meaning="Seconds from the start of the recording to the window; null for a file or a recording",
        ),
        Column(
            "reason",
            pa.string(),
            nullable=False,
            sources=_recorded("ppg", "dark", "accel"),
            meaning="Why (docs/data-model.md lists the reasons)",
        ),
        Column("detail", pa.string(), nullable=False, meaning="What was measured or expected"),
    ),
    meaning="One row per window, recording or source file that did not become a segment",
)


def metadata_schema() -> pa.Schema:
    """The columns of SEGMENT that hold one value, which is all but the channels' quality and the signals."""
    return pa.schema([field for field in SEGMENT.arrow() if not pa.types.is_list(field.type)])
