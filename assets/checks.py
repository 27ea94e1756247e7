"""Asset checks: what must hold of the outputs, measured on the outputs themselves, beside its threshold.

A blocking check stops what is downstream in the same run, and the conditions that embed a batch wait for it. The others
only tell: docs/operations.md says what to do.
"""

import warnings
from collections.abc import Sequence

import dagster as dg

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import participants_on, read_split
from accelkd.cohort.training_set import segmented_batches
from accelkd.evaluation.drift import Drift
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.drift import embedding_drift, segment_drift
from accelkd.operations.embedding_health import embedding_health
from accelkd.operations.segment_quality import label_quality, schema_differences, signals_not_finite
from accelkd.operations.training_loss import loss_change
from accelkd.registry.history import EncoderName
from accelkd.segments.segment import recount
from accelkd.warehouse.embeddings import embedding_table
from accelkd.warehouse.inspect import coverage, heart_rate_errors, loaded_batch, retrieval_ranks, table_contents
from accelkd.warehouse.staging import staging_lock
from assets.cohort import participant_split
from assets.embeddings import accel_student_embeddings, ppg_teacher_embeddings
from assets.encoders import accel_student, ppg_teacher
from assets.metadata import figure, markdown_table
from assets.partitions import arrival_batches
from assets.reports import accel_student_probes, ppg_teacher_probes, retrieval
from assets.segments import segments
from assets.warehouse import published_warehouse, segment_tables

# Partitioned checks are a preview feature of Dagster 1.13, and the only one that this platform relies on.
warnings.filterwarnings("ignore", message="Specifying a partitions_def", category=dg.PreviewWarning)

MAX_QUARANTINED = 0.5  # of a batch's windows, before somebody should look
HR_MEDIAN_BPM = (40.0, 130.0)  # of a batch
MIN_GOOD_LABELS = 0.1  # of a batch's segments
MAX_HR_ERROR_BPM = 5.0  # median difference between label and reference
SPLIT_TOLERANCE = 0.05  # of the share of test participants, beyond what whole people allow
MIN_EFFECTIVE_RANK = 1.5  # of a batch's embeddings, as a promotion asks for (accelkd.operations.compare)
MIN_FOR_RANK = 20  # segments: fewer point in few directions anyway
MAX_NORM_RATIO = 10.0  # of the largest or smallest norm to the median


@dg.asset_check(asset=segments, partitions_def=arrival_batches, blocking=True)
def store_has_its_schema(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """The segment store has the columns and types that docs/data-model.md lists."""
    differences = schema_differences(home, context.partition_key)
    return dg.AssetCheckResult(
        passed=not differences, metadata={"columns_that_differ": len(differences), "differences": differences}
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches, blocking=True)
def windows_add_up(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """Every window, recording and file of the batch is either a segment or in quarantine with its reason."""
    counts = recount(home, context.partition_key)
    return dg.AssetCheckResult(
        passed=counts.seen == counts.segments + counts.quarantined,
        metadata={"seen": counts.seen, "segments": counts.segments, "quarantined": counts.quarantined},
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches)
def quarantine_rate(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """Less than half of the windows are quarantined: more says that something is wrong with the device or the gate."""
    counts = recount(home, context.partition_key)
    rate = counts.quarantined / max(counts.seen, 1)
    return dg.AssetCheckResult(
        passed=rate < MAX_QUARANTINED,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"quarantine_rate": rate, "threshold": MAX_QUARANTINED},
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches, blocking=True)
def signals_are_finite(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """No NaN and no infinity in any signal of the store."""
    bad = signals_not_finite(home, context.partition_key)
    return dg.AssetCheckResult(
        passed=not any(bad.values()),
        metadata={f"{modality}_segments_not_finite": number for modality, number in bad.items()},
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches)
def labels_are_plausible(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """Labels are those of living people, some pass the quality gate, and they agree with the reference where it is."""
    found = label_quality(home, context.partition_key)
    share = found.good / max(found.segments, 1)
    low, high = HR_MEDIAN_BPM
    return dg.AssetCheckResult(
        passed=found.segments == 0
        or (
            found.implausible == 0
            and share >= MIN_GOOD_LABELS
            and (found.hr_bpm_median is None or low <= found.hr_bpm_median <= high)
            and (found.hr_bpm_error_median is None or found.hr_bpm_error_median <= MAX_HR_ERROR_BPM)
        ),
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_known(
            implausible_labels=found.implausible,
            good_share=share,
            good_share_threshold=MIN_GOOD_LABELS,
            hr_bpm_median=found.hr_bpm_median,
            hr_bpm_median_range=f"{low:.0f} to {high:.0f}",
            with_reference=found.with_reference,
            hr_bpm_error_median=found.hr_bpm_error_median,
            hr_bpm_error_threshold=MAX_HR_ERROR_BPM,
        ),
    )


@dg.asset_check(asset=segments, partitions_def=arrival_batches)
def segments_resemble_training(
    context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]
) -> dg.AssetCheckResult:
    """Labels, signal quality and signal levels are distributed as in the training cohort; compared people by people."""
    return _drift_result(segment_drift(home, context.partition_key))


@dg.asset_check(asset=segment_tables, partitions_def=arrival_batches, blocking=True)
def tables_hold_the_batch(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """The warehouse has one row for each segment of the batch and none besides, and its participants are described."""
    found = loaded_batch(home, context.partition_key)
    segmented = recount(home, context.partition_key).segments
    return dg.AssetCheckResult(
        passed=found.rows == found.segments == segmented and not found.participants_unknown,
        metadata={**vars(found), "segments_in_store": segmented},
    )


@dg.asset_check(asset=participant_split, blocking=True)
def split_is_disjoint(home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """Nobody is in training and in test, and everybody with a segment is on one side."""
    train, test = (participants_on(home.split, side) for side in ("train", "test"))
    people = segmented_participants(home, list(segmented_batches(home))).column("participant_id").to_pylist()
    both, neither = len(train & test), len(set(people) - train - test)
    return dg.AssetCheckResult(passed=not both and not neither, metadata={"on_both_sides": both, "on_no_side": neither})


@dg.asset_check(asset=participant_split)
def split_is_balanced(home: dg.ResourceParam[Home], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """The share of test participants is what the settings ask for, to the next whole participant."""
    sides = read_split(home.split).column("split")
    share = sides.to_pylist().count("test") / max(len(sides), 1)
    tolerance = max(SPLIT_TOLERANCE, 1 / max(len(sides), 1))
    return dg.AssetCheckResult(
        passed=abs(share - settings.test_fraction) <= tolerance,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"test_share": share, "asked_for": settings.test_fraction, "tolerance": tolerance},
    )


def _training_check(encoder: EncoderName, asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset)
    def loss_fell(home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
        """The training loss ended below where it began, and a student's below chance."""
        loss = loss_change(home, encoder)
        return dg.AssetCheckResult(
            passed=loss.last < min(loss.first, loss.chance or loss.first),
            severity=dg.AssetCheckSeverity.WARN,
            metadata=_known(**vars(loss)),
        )

    return loss_fell


def _embedding_checks(encoder: EncoderName, asset: dg.AssetsDefinition) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(asset=asset, partitions_def=arrival_batches, blocking=True)
    def every_segment_is_embedded(
        context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]
    ) -> dg.AssetCheckResult:
        """One finite embedding for every segment of the batch that the encoder can take."""
        found = coverage(home, encoder, context.partition_key)
        return dg.AssetCheckResult(
            passed=found.embedded == found.segments and not found.not_finite and not found.duplicates,
            metadata=vars(found),
        )

    @dg.asset_check(asset=asset, partitions_def=arrival_batches, blocking=True)
    def one_model_per_table(home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
        """The embedding table holds one model, and no row without its segment."""
        table = embedding_table(home, encoder)
        return dg.AssetCheckResult(passed=table.models == 1 and not table.orphans, metadata=vars(table))

    @dg.asset_check(asset=asset, partitions_def=arrival_batches, blocking=True)
    def embeddings_have_not_collapsed(
        context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]
    ) -> dg.AssetCheckResult:
        """Embeddings point in several directions (effective rank) and are of similar norm."""
        found = embedding_health(home, encoder, context.partition_key)
        low, middle, high = (norm or 0.0 for norm in (found.norm_smallest, found.norm_median, found.norm_largest))
        alike = low > 0 and middle <= MAX_NORM_RATIO * low and high <= MAX_NORM_RATIO * middle
        several = found.segments < MIN_FOR_RANK or (found.effective_rank or 0.0) >= MIN_EFFECTIVE_RANK
        return dg.AssetCheckResult(
            passed=found.segments == 0 or (alike and several),
            metadata=_known(
                **vars(found), effective_rank_threshold=MIN_EFFECTIVE_RANK, norm_ratio_threshold=MAX_NORM_RATIO
            ),
        )

    @dg.asset_check(asset=asset, partitions_def=arrival_batches)
    def embeddings_resemble_training(
        context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]
    ) -> dg.AssetCheckResult:
        """The mean embedding is where that of the training cohort is."""
        drift = embedding_drift(home, encoder, context.partition_key)
        return _drift_result([drift] if drift else [])

    return [
        every_segment_is_embedded,
        one_model_per_table,
        embeddings_have_not_collapsed,
        embeddings_resemble_training,
    ]


def _probe_check(encoder: EncoderName, asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset)
    def beats_the_constant_predictor(home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
        """The heart-rate probe errs less than a constant does: an encoder that fails here learned nothing of use."""
        mae, constant_mae = heart_rate_errors(home, encoder)
        return dg.AssetCheckResult(
            passed=mae < constant_mae,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"hr_bpm_mae": mae, "hr_bpm_mae_constant": constant_mae},
        )

    return beats_the_constant_predictor


@dg.asset_check(asset=retrieval)
def retrieval_beats_chance(home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """In the space of the projection heads the own pair ranks before the middle, in both directions."""
    ranks = retrieval_ranks(home)
    return dg.AssetCheckResult(
        passed=all(rank < chance for rank, chance in ranks.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            f"{direction}_{name}": value
            for direction, pair in ranks.items()
            for name, value in zip(("mean_rank", "chance_mean_rank"), pair, strict=True)
        },
    )


def _known(**metadata: float | str | None) -> dict[str, float | str]:
    """Without what could not be measured."""
    return {name: value for name, value in metadata.items() if value is not None}


def _drift_result(drifts: Sequence[Drift]) -> dg.AssetCheckResult:
    from accelkd.reports.figures import drift_figure

    drifted = [drift.quantity for drift in drifts if drift.drifted]
    metadata: dict[str, dg.MetadataValue | str | float] = {
        "drifted": ", ".join(drifted) or ("nothing" if drifts else "no other batch to compare with yet")
    }
    for drift in drifts:
        metadata[drift.quantity] = drift.difference
    if drifts:
        metadata["thresholds"] = markdown_table(
            [{**vars(drift), "threshold": drift.threshold, "drifted": drift.drifted} for drift in drifts]
        )
        metadata["differences"] = figure(drift_figure(drifts), "difference from the training cohort, and its threshold")
    return dg.AssetCheckResult(passed=not drifted, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


teacher_training_check = _training_check("ppg_teacher", ppg_teacher)
student_training_check = _training_check("accel_student", accel_student)
teacher_embedding_checks = _embedding_checks("ppg_teacher", ppg_teacher_embeddings)
student_embedding_checks = _embedding_checks("accel_student", accel_student_embeddings)
teacher_probe_check = _probe_check("ppg_teacher", ppg_teacher_probes)
student_probe_check = _probe_check("accel_student", accel_student_probes)


@dg.asset_check(asset=published_warehouse, blocking=True)
def published_equals_staging(home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    """The published file has the tables of the staging file with the same rows, and opens read-only."""
    published = table_contents(home.published)
    with staging_lock(home):
        staged = table_contents(home.staging)
    different = sorted(name for name in published | staged if published.get(name) != staged.get(name))
    return dg.AssetCheckResult(
        passed=not different,
        metadata={
            "published_rows": sum(count for count, _ in published.values()),
            "staging_rows": sum(count for count, _ in staged.values()),
            "tables_that_differ": ", ".join(different) or "none",
        },
    )
