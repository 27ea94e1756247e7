"""Asset checks: what must hold of the outputs, measured on the outputs themselves."""

import warnings

import dagster as dg
import numpy as np

from accelkd.cohort.curation import segmented_batches
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import participants_on, read_split
from accelkd.lake import Lake
from accelkd.segments.segment import recount
from accelkd.segments.store import Modality, SegmentStore
from accelkd.settings import Settings
from accelkd.training.current import EncoderName
from accelkd.warehouse.inspect import coverage, heart_rate_errors, row_counts
from accelkd.warehouse.load import embedding_table
from accelkd.warehouse.staging import staging_lock
from assets.cohort import participant_split
from assets.embeddings import accel_student_embeddings, ppg_teacher_embeddings
from assets.partitions import arrival_batches
from assets.reports import accel_student_probes, ppg_teacher_probes
from assets.segments import segments
from assets.warehouse import published_warehouse

# Partitioned checks are a preview feature of Dagster 1.13, and the only one that this platform relies on.
warnings.filterwarnings("ignore", message="Specifying a partitions_def", category=dg.PreviewWarning)

MOST_QUARANTINED = 0.5  # of a batch's windows, before somebody should look
SPLIT_TOLERANCE = 0.05  # of the share of test participants, beyond what whole people allow


@dg.asset_check(asset=segments, partitions_def=arrival_batches, blocking=True)
def windows_add_up(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Every window, recording and file of the batch is either a segment or in quarantine with its reason."""
    counts = recount(lake, context.partition_key)
    return dg.AssetCheckResult(
        passed=counts.seen == counts.segments + counts.quarantined,
        metadata={"seen": counts.seen, "segments": counts.segments, "quarantined": counts.quarantined},
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches)
def quarantine_rate(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Less than half of the windows are quarantined: more says that something is wrong with the device or the gate."""
    counts = recount(lake, context.partition_key)
    rate = counts.quarantined / max(counts.seen, 1)
    return dg.AssetCheckResult(
        passed=rate < MOST_QUARANTINED,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"quarantine_rate": rate, "threshold": MOST_QUARANTINED},
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches, blocking=True)
def signals_are_finite(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """No NaN and no infinity in any signal of the store."""
    store = SegmentStore([lake.segments(context.partition_key)])
    modalities: tuple[Modality, ...] = ("ppg", "accel")
    bad = {
        f"{modality}_segments_not_finite": sum(
            int((~np.isfinite(store.signals(modality, rows)).all(axis=(1, 2))).sum())
            for rows in np.array_split(np.arange(len(store)), len(store) // 256 + 1)
        )
        for modality in modalities
    }
    return dg.AssetCheckResult(passed=not any(bad.values()), metadata={"segments": len(store), **bad})


@dg.asset_check(asset=participant_split, blocking=True)
def split_is_disjoint(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Nobody is in training and in test, and everybody with a segment is on one side."""
    train, test = (participants_on(lake.split, side) for side in ("train", "test"))
    people = segmented_participants(lake, list(segmented_batches(lake))).column("participant_id").to_pylist()
    both, neither = len(train & test), len(set(people) - train - test)
    return dg.AssetCheckResult(passed=not both and not neither, metadata={"on_both_sides": both, "on_no_side": neither})


@dg.asset_check(asset=participant_split)
def split_is_balanced(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """The share of test participants is what the settings ask for, to the next whole participant."""
    sides = read_split(lake.split).column("split")
    share = sides.to_pylist().count("test") / max(len(sides), 1)
    tolerance = max(SPLIT_TOLERANCE, 1 / max(len(sides), 1))
    return dg.AssetCheckResult(
        passed=abs(share - settings.test_fraction) <= tolerance,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"test_share": share, "asked_for": settings.test_fraction, "tolerance": tolerance},
    )


def _embedding_checks(encoder: EncoderName, asset: dg.AssetsDefinition) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(asset=asset, partitions_def=arrival_batches, blocking=True)
    def every_segment_is_embedded(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        """One finite embedding for every segment of the batch that the encoder can take."""
        found = coverage(lake, encoder, context.partition_key)
        return dg.AssetCheckResult(
            passed=found.embedded == found.segments and not found.not_finite and not found.duplicates,
            metadata=vars(found),
        )

    @dg.asset_check(asset=asset, partitions_def=arrival_batches, blocking=True)
    def one_model_per_table(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """The embedding table holds one model, and no row without its segment."""
        table = embedding_table(lake, encoder)
        return dg.AssetCheckResult(passed=table.models == 1 and not table.orphans, metadata=vars(table))

    return [every_segment_is_embedded, one_model_per_table]


def _probe_check(encoder: EncoderName, asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset)
    def beats_the_constant_predictor(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        """The heart-rate probe errs less than a constant does: an encoder that fails here learned nothing of use."""
        mae, constant_mae = heart_rate_errors(lake, encoder)
        return dg.AssetCheckResult(
            passed=mae < constant_mae,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"hr_bpm_mae": mae, "hr_bpm_mae_constant": constant_mae},
        )

    return beats_the_constant_predictor


teacher_embedding_checks = _embedding_checks("ppg_teacher", ppg_teacher_embeddings)
student_embedding_checks = _embedding_checks("accel_student", accel_student_embeddings)
teacher_probe_check = _probe_check("ppg_teacher", ppg_teacher_probes)
student_probe_check = _probe_check("accel_student", accel_student_probes)


@dg.asset_check(asset=published_warehouse, blocking=True)
def published_equals_staging(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """The published file has the tables and rows of the staging file, and opens read-only."""
    published = row_counts(lake.published)
    with staging_lock(lake):
        staged = row_counts(lake.staging)
    return dg.AssetCheckResult(
        passed=published == staged,
        metadata={"published_rows": sum(published.values()), "staging_rows": sum(staged.values())},
    )
