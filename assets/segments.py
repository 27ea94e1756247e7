"""Segments: one minute each, preprocessed and labelled in Rust; everything else goes to quarantine with its reason."""

import dagster as dg

from accelkd.files import sha256_file
from accelkd.lake import Lake
from accelkd.segments.examples import example_segments
from accelkd.segments.schema import METADATA
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from accelkd.settings import Settings
from assets.metadata import column_schema, counts_table, figure
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings


@dg.asset(
    deps=[raw_recordings],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"rust", "arrow"},
    owners=["team:data-engineering"],
    code_version="1",
    metadata={"settings": "motion_gate, hop_s", "dagster/column_schema": column_schema(METADATA)},
)
def segments(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[None]:
    """60 s segments of one batch: dark-subtracted, band-passed, resampled to 64 Hz, z-scored, labelled.

    Memory-mapped Arrow IPC with float16 signals. Windows that move too much, have gaps or no pulse, and recordings
    that break a rule, go to quarantine with their reason; the counts always add up.
    """
    from accelkd.evaluation.figures import labels_figure, segments_figure

    batch_id = context.partition_key
    counts = segment_batch(lake, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
    examples = example_segments(lake, batch_id)
    metadata: dict[str, dg.MetadataValue | str | int | float] = {
        "dagster/row_count": counts.segments,
        "dagster/uri": str(lake.segments(batch_id)),
        "participants": counts.participants,
        "seen": counts.seen,
        "quarantined": counts.quarantined,
        "quarantined_by_reason": counts_table(counts.reasons, "reason"),
        "labels_good": counts.label_good,
        "with_reference": counts.with_reference,
        "motion_gate": settings.motion_gate,
    }
    for label in ("hr_bpm", "sdnn_ms", "rmssd_ms"):
        if (median := getattr(counts, f"{label}_median")) is not None:
            metadata[f"{label}_median"] = median
    if examples:
        labels = SegmentStore([lake.segments(batch_id)]).metadata
        metadata["examples"] = figure(segments_figure(examples), "a few segments, raw and processed")
        metadata["label_distributions"] = figure(labels_figure(labels), "labels and motion")
    return dg.MaterializeResult(data_version=dg.DataVersion(sha256_file(lake.segments(batch_id))), metadata=metadata)
