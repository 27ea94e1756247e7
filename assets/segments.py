"""Segments: one minute each, preprocessed and labelled in Rust; everything else goes to quarantine with its reason."""

import dagster as dg

from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.segments.schema import segment_schema
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from accelkd.warehouse.inspect import documented_columns
from assets.metadata import arrow_columns, counts_table, figure, table, tags
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings

_STREAM = {
    "status": "Per channel: 0 good, else bits 1 short, 2 gap, 4 missing, 8 flat; such a row is zeros",
    "level": "Per channel: mean before detrending, in the unit of the device",
    "ac_level": "Per channel: standard deviation after the band-pass, in the unit of the device",
    "missing": "Per channel: share of samples that were missing",
}
COMMENTS = {
    **{column.name: column.comment or "" for column in documented_columns() if column.table == "segments"},
    **{f"{stream}_{fact}": comment for stream in ("ppg", "accel") for fact, comment in _STREAM.items()},
    "ppg": "The signal, z-scored per channel: [channels × 3840]",
    "accel": "The signal, z-scored per axis: [3 × 3840]",
}

_PPG = [f"raw_recordings.{name}" for name in ("ppg", "ppg_rate_hz", "dark", "dark_rate_hz", "dark_offsets_s")]
_ACCEL = [f"raw_recordings.{name}" for name in ("accel", "accel_rate_hz", "accel_start_s")]
_LABEL = [*_PPG, "raw_recordings.device_id"]
_INTERVALS = [f"raw_recordings.{name}" for name in ("reference_beat_s", "reference_ibi_end_s", "reference_ibi_s")]
LINEAGE = {
    "segment_id": ["raw_recordings.recording_id"],
    **{name: [f"raw_recordings.{name}"] for name in ("recording_id", "participant_id", "device_id", "started_at")},
    "offset_s": [*_PPG[:2], *_ACCEL],
    **dict.fromkeys(("motion_median_g", "motion_p95_g"), _ACCEL),
    **dict.fromkeys(("hr_bpm", "sdnn_ms", "rmssd_ms"), _LABEL),
    **dict.fromkeys(("label_channel", "label_agreement", "label_template_correlation"), _LABEL),
    **dict.fromkeys(("label_coverage", "label_good"), _LABEL),
    "reference_hr_bpm": [
        *(f"raw_recordings.{name}" for name in ("hr_bpm", "reference_hr_s", "reference_hr_bpm")),
        *_INTERVALS,
    ],
    "reference_sdnn_ms": ["raw_recordings.sdnn_ms", *_INTERVALS],
    "reference_rmssd_ms": ["raw_recordings.rmssd_ms", *_INTERVALS],
    "ppg": _LABEL,
    "accel": [*_ACCEL, "raw_recordings.device_id"],
    **{f"ppg_{fact}": _PPG for fact in _STREAM},
    **{f"accel_{fact}": _ACCEL for fact in _STREAM},
}


@dg.asset(
    deps=[raw_recordings],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"rust", "arrow"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-batch"),
    code_version="1",
    metadata={"settings": "motion_gate, hop_s", **table(arrow_columns(segment_schema(1), COMMENTS), LINEAGE)},
)
def segments(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[Home], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[None]:
    """60 s segments of one batch: dark-subtracted, band-passed, resampled to 64 Hz, z-scored, labelled.

    Memory-mapped Arrow IPC with float16 signals. Windows that move too much, have gaps or no pulse, and recordings
    that break a rule, go to quarantine with their reason; the counts always add up. A picture of a few segments is
    written to the reports folder; it shows here only if nobody's signal is in it, that is if the batch is simulated.
    """
    from accelkd.reports.examples import draw_examples
    from accelkd.reports.figures import labels_figure

    batch_id = context.partition_key
    counts = segment_batch(home, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
    store = SegmentStore([home.segments(batch_id)])
    metadata: dict[str, dg.MetadataValue | str | int | float] = {
        "dagster/row_count": counts.segments,
        "dagster/uri": str(home.segments(batch_id)),
        "quarantine_file": dg.MetadataValue.path(home.quarantine(batch_id)),
        "participants": counts.participants,
        "seen": counts.seen,
        "quarantined": counts.quarantined,
        "quarantine_rate": counts.quarantined / max(counts.seen, 1),
        "quarantined_by_reason": counts_table(counts.reasons, "reason"),
        "labels_good": counts.label_good,
        "with_reference": counts.with_reference,
        "motion_gate": settings.motion_gate,
        # As wide as the batch's devices have channels
        **table(arrow_columns(segment_schema(max(store.ppg_channels, 1)), COMMENTS), LINEAGE),
    }
    for label in ("hr_bpm", "sdnn_ms", "rmssd_ms"):
        if (median := getattr(counts, f"{label}_median")) is not None:
            metadata[f"{label}_median"] = median
    if examples := draw_examples(home, batch_id):
        metadata["examples_file"] = dg.MetadataValue.path(examples.path)
        if examples.simulated:
            metadata["examples"] = figure(examples.path.read_bytes(), "a few segments, raw and processed")
        metadata["label_distributions"] = figure(labels_figure(store.metadata), "labels and motion")
    return dg.MaterializeResult(data_version=dg.DataVersion(sha256_file(home.segments(batch_id))), metadata=metadata)
