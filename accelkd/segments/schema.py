"""The Arrow schemas of a segment and of a quarantined window."""

from __future__ import annotations

import pyarrow as pa

SAMPLING_RATE_HZ = 64
DURATION_S = 60
SAMPLES = SAMPLING_RATE_HZ * DURATION_S  # 3840
ACCEL_AXES = 3

# Columns of a segment that are not signals, in the order of the store. Labels are null where the quality gate fails.
METADATA = pa.schema(
    [
        pa.field("segment_id", pa.string(), nullable=False),
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("participant_id", pa.string(), nullable=False),
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),  # of the window; null where the device has no clock
        pa.field("offset_s", pa.float64(), nullable=False),  # of the window in its recording
        pa.field("motion_median_g", pa.float64(), nullable=False),
        pa.field("motion_p95_g", pa.float64(), nullable=False),
        # From the PPG, by accelkd's own beat finder
        pa.field("hr_bpm", pa.float64()),
        pa.field("sdnn_ms", pa.float64()),
        pa.field("rmssd_ms", pa.float64()),
        pa.field("label_channel", pa.int8()),  # PPG channel that the labels come from
        pa.field("label_agreement", pa.float64()),  # of two beat finders
        pa.field("label_template_correlation", pa.float64()),
        pa.field("label_coverage", pa.float64()),
        pa.field("label_good", pa.bool_(), nullable=False),
        # From what travelled with the recording (ECG, device, simulation)
        pa.field("reference_hr_bpm", pa.float64()),
        pa.field("reference_sdnn_ms", pa.float64()),
        pa.field("reference_rmssd_ms", pa.float64()),
    ]
)


def segment_schema(ppg_channels: int) -> pa.Schema:
    """Schema of a store: METADATA, per-channel facts, and the z-scored signals `[channels × 3840]` as float16."""
    per_channel = []
    for stream, channels in (("ppg", ppg_channels), ("accel", ACCEL_AXES)):
        per_channel += [
            pa.field(f"{stream}_status", pa.list_(pa.uint8(), channels), nullable=False),  # 0 = good, else zeros
            pa.field(f"{stream}_level", pa.list_(pa.float64(), channels), nullable=False),  # mean before detrending
            pa.field(f"{stream}_ac_level", pa.list_(pa.float64(), channels), nullable=False),  # sd after band-pass
            pa.field(f"{stream}_missing", pa.list_(pa.float64(), channels), nullable=False),  # fraction of samples
        ]
    signals = [
        pa.field("ppg", pa.list_(pa.float16(), ppg_channels * SAMPLES), nullable=False),
        pa.field("accel", pa.list_(pa.float16(), ACCEL_AXES * SAMPLES), nullable=False),
    ]
    return pa.schema([*METADATA, *per_channel, *signals])


# One row per window (or whole recording, or source file) that did not become a segment.
QUARANTINE = pa.schema(
    [
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("recording_id", pa.string()),  # null where a file never became a recording
        pa.field("participant_id", pa.string()),
        pa.field("unit", pa.string(), nullable=False),  # 'file', 'recording' or 'window'
        pa.field("offset_s", pa.float64()),  # of the window; null for a file or a recording
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
