"""Segments: one minute each, preprocessed and labelled in Rust; everything else goes to quarantine with its reason."""

from typing import Any

import dagster as dg

from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.share import landing_unit, segments_unit
from accelkd.segments.schema import SEGMENT
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from assets.failures import explained
from assets.metadata import counts_table, figure, file_table, presented, tags
from assets.partitions import arrival_batches, current_batch
from assets.recordings import raw_recordings
from assets.settings import SEGMENT_SETTINGS


@dg.asset(
    deps=[raw_recordings, SEGMENT_SETTINGS],
    partitions_def=arrival_batches,
    group_name="segments",
    kinds={"rust", "arrow"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-batch"),
    code_version=f"1.{SEGMENT.version}",  # with another column every batch is segmented again
    metadata=file_table(SEGMENT),
)
@explained
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
    with current_batch(home, batch_id, makes=segments_unit(batch_id), reads=[landing_unit(batch_id)]):
        counts = segment_batch(home, batch_id, gate=settings.motion_gate, hop_s=settings.hop_s)
        store = SegmentStore([home.segments(batch_id)])
        examples = draw_examples(home, batch_id)
        version = sha256_file(home.segments(batch_id))
    metadata: dict[str, Any] = {
        "segments": counts.segments,
        "participants": counts.participants,
        "seen": counts.seen,
        "quarantined": counts.quarantined,
        "quarantine_rate": counts.quarantined / max(counts.seen, 1),
        "quarantined_by_reason": counts_table(counts.reasons, "reason"),
        "labels_good": counts.label_good,
        "with_reference": counts.with_reference,
        "channels": counts_table(
            {f"{count} {modality}": rows for modality, of in counts.channels.items() for count, rows in of.items()},
            "channels",
        ),
        **{f"{label}_median": median for label, median in counts.label_medians.items()},
        "motion_gate": settings.motion_gate,
        "quarantine_file": home.relative(home.quarantine(batch_id)),
        "dagster/row_count": counts.segments,
        "dagster/uri": str(home.segments(batch_id)),
    }
    if examples:
        metadata["examples_file"] = home.relative(examples.path)
        if examples.simulated:
            metadata["examples"] = figure(examples.path.read_bytes(), "a few segments, raw and processed")
        metadata["label_distributions"] = figure(labels_figure(store.metadata), "labels and motion")
    return dg.MaterializeResult(data_version=dg.DataVersion(version), metadata=presented(metadata))
