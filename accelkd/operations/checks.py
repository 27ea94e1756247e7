"""Checks: what must hold of the outputs, measured on the outputs themselves, beside its threshold.

Dagster's asset checks and `accelkd check` report the same verdicts. A blocking check stops what is downstream; the
others only report, and docs/operations.md says what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
from scipy.stats import norm

from accelkd.cohort.loaded import segmented
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import participants_on, read_split
from accelkd.evaluation.collapse import MIN_RANK, MIN_SEGMENTS_FOR_RANK
from accelkd.evaluation.drift import Drift
from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.evaluation.readouts import COVERAGE
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.specs import ENCODERS
from accelkd.operations.drift import embedding_drift, segment_drift
from accelkd.operations.embedding_health import embedding_health
from accelkd.operations.fairness import overall_coverage
from accelkd.operations.repair import readable_batches
from accelkd.operations.segment_quality import label_quality, schema_differences, signals_not_finite
from accelkd.operations.training_loss import loss_change
from accelkd.recordings.arrivals import Arrival, RemovedDeliveries, pending_arrivals, removed_deliveries
from accelkd.registry.history import promoted_models
from accelkd.registry.trained_on import superseded_training_batches
from accelkd.segments.segment import recount
from accelkd.warehouse.check_history import CheckResult, record_check
from accelkd.warehouse.embeddings import embedding_table
from accelkd.warehouse.inspect import (
    coverage,
    heart_rate_errors,
    loaded_batch,
    loaded_batches,
    retrieval_ranks,
    shared_minutes,
    table_contents,
)
from accelkd.warehouse.predictions import typical_shares
from accelkd.warehouse.publish import publishable
from accelkd.warehouse.report_state import report_state
from accelkd.warehouse.sensors import batch_sensor_checks

MAX_QUARANTINED = 0.5  # of a batch's windows, before the batch needs a look
HR_MEDIAN_BPM = (40.0, 130.0)  # of a batch
MIN_GOOD_LABELS = 0.1  # of a batch's segments with PPG
MAX_HR_ERROR_BPM = 5.0  # median difference between label and reference
SPLIT_TOLERANCE = 0.05  # of the share of test participants, beyond what whole participants allow
COVERAGE_TOLERANCE = 0.02  # of the intervals
MAX_NOT_TYPICAL = 0.1  # of a batch's segments; of the training participants one in a hundred
MAX_LOSS_RISE = 1.1  # of the last loss to the first, where a training went on from a low one
MAX_LISTED = 100  # entries of the landing zone in one report
MAX_NORM_RATIO = 10.0  # of the largest or smallest norm to the median

Value = bool | int | float | str | Sequence[str]


@dataclass(frozen=True)
class Verdict:
    """Whether a check passed, and what was measured beside its thresholds."""

    passed: bool
    measured: Mapping[str, Value]  # without what could not be measured
    table: Sequence[Mapping[str, object]] = ()  # rows of the same keys, where there is more to say
    drifts: Sequence[Drift] = ()  # of a check of drift


@dataclass(frozen=True)
class Check:
    """One check: a function of a home, and of a batch where it looks at one, whose docstring says what must hold."""

    asset: str  # whose output it looks at
    function: Callable[..., Verdict]
    per_batch: bool = False
    blocking: bool = False
    encoder: str | None = None  # whose outputs it looks at

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def description(self) -> str:
        return inspect.getdoc(self.function) or ""

    def measure(self, home: Home, batch_id: str | None = None) -> Verdict:
        """The verdict on a home, or on one of its batches, which the warehouse's history of checks keeps.

        It passes where there is nothing to measure, and says why. Raises FileNotFoundError or LookupError without
        outputs.
        """
        if batch_id is not None:
            _refuse_unsegmented(home, batch_id)
        encoder = () if self.encoder is None else (self.encoder,)
        batch_id = batch_id if self.per_batch else None
        try:
            verdict = self.function(home, *encoder, *(() if batch_id is None else (batch_id,)))
        except NothingToMeasureError as reason:
            verdict = Verdict(True, {"not_measured": str(reason)})
        record_verdict(
            home, self.asset, self.name, verdict, blocking=self.blocking, batch_id=batch_id, encoder=self.encoder
        )
        return verdict


def record_verdict(
    home: Home,
    asset: str,
    name: str,
    verdict: Verdict,
    *,
    blocking: bool = False,
    batch_id: str | None = None,
    encoder: str | None = None,
) -> None:
    """Keep a verdict in the warehouse's history of checks; what prevents that is logged, not raised."""
    model_id = None if encoder is None else promoted_models(home).get(encoder)
    passed, measured, drifts = verdict.passed, verdict.measured, verdict.drifts
    record_check(home, CheckResult(asset, name, batch_id, blocking, passed, measured, drifts, encoder, model_id))


def check_batch(home: Home, batch_id: str) -> Iterator[tuple[Check, Verdict | str]]:
    """Every check of one batch, with its verdict, or why there is nothing to measure yet.

    Raises FileNotFoundError for a batch that was not segmented.
    """
    _refuse_unsegmented(home, batch_id)
    for check in CHECKS:
        if check.per_batch:
            try:
                yield check, check.measure(home, batch_id)
            except (FileNotFoundError, LookupError) as error:
                yield check, str(error)


def _refuse_unsegmented(home: Home, batch_id: str) -> None:
    if not home.quarantine(batch_id).exists():
        raise FileNotFoundError(f"batch {batch_id} was not segmented in {home.root}: materialize `segments` first")


def store_has_its_schema(home: Home, batch_id: str) -> Verdict:
    """The segment store has the columns and types that docs/data-model.md lists."""
    differences = schema_differences(home, batch_id)
    return Verdict(not differences, {"columns_that_differ": len(differences), "differences": differences})


def windows_add_up(home: Home, batch_id: str) -> Verdict:
    """Every window, recording, reference and file of the batch is either a segment or in quarantine with its reason."""
    counts = recount(home, batch_id)
    return Verdict(
        counts.seen == counts.segments + counts.quarantined,
        {"seen": counts.seen, "segments": counts.segments, "quarantined": counts.quarantined},
    )


def quarantine_rate(home: Home, batch_id: str) -> Verdict:
    """Less than half of the windows are quarantined: more says that something is wrong with the device or the gate."""
    counts = recount(home, batch_id)
    rate = counts.quarantined / max(counts.seen, 1)
    return Verdict(rate < MAX_QUARANTINED, {"quarantine_rate": rate, "threshold": MAX_QUARANTINED})


def signals_are_finite(home: Home, batch_id: str) -> Verdict:
    """No NaN and no infinity in any signal of the store."""
    counts = signals_not_finite(home, batch_id)
    return Verdict(
        not any(counts.values()), {f"{modality}_segments_not_finite": count for modality, count in counts.items()}
    )


def labels_are_plausible(home: Home, batch_id: str) -> Verdict:
    """Labels are physiological, some pass the quality gate, and they agree with the reference where it is.

    Labels come from the PPG: passes where no segment has any.
    """
    quality = label_quality(home, batch_id)
    share = quality.good / max(quality.with_ppg, 1)
    low, high = HR_MEDIAN_BPM
    plausible = (
        quality.implausible == 0
        and share >= MIN_GOOD_LABELS
        and (quality.hr_bpm_median is None or low <= quality.hr_bpm_median <= high)
        and (quality.hr_bpm_error_median is None or quality.hr_bpm_error_median <= MAX_HR_ERROR_BPM)
    )
    return Verdict(
        quality.with_ppg == 0 or plausible,
        _known(
            segments_with_ppg=quality.with_ppg,
            implausible_labels=quality.implausible,
            good_share=share,
            good_share_threshold=MIN_GOOD_LABELS,
            hr_bpm_median=quality.hr_bpm_median,
            hr_bpm_median_low=low,
            hr_bpm_median_high=high,
            with_reference=quality.with_reference,
            hr_bpm_error_median=quality.hr_bpm_error_median,
            hr_bpm_error_threshold=MAX_HR_ERROR_BPM,
        ),
    )


def segments_resemble_training(home: Home, batch_id: str) -> Verdict:
    """Labels, signal quality and levels are distributed as in the training cohort, participant by participant."""
    return _drift_verdict(segment_drift(home, batch_id))


def tables_hold_the_batch(home: Home, batch_id: str) -> Verdict:
    """The warehouse has one row for each segment of the batch and no other, and its participants are described."""
    loaded = loaded_batch(home, batch_id)
    segmented = recount(home, batch_id).segments
    return Verdict(
        loaded.rows == loaded.segments == segmented and not loaded.participants_unknown,
        {**vars(loaded), "segments_in_store": segmented},
    )


def accelerometer_carries_the_heart(home: Home, batch_id: str) -> Verdict:
    """No device of the batch has an accelerometer that shows nothing of the heart: distilling it would distil noise.

    Passes where too few still minutes have beats to say so; the table shows each device.
    """
    rows = batch_sensor_checks(home, batch_id)
    by_verdict = {
        verdict: ", ".join(str(row["device_id"]) for row in rows if row["verdict"] == verdict) or "none"
        for verdict in ("carries", "carries nothing", "not decidable")
    }
    return Verdict(
        by_verdict["carries nothing"] == "none",
        {verdict.replace(" ", "_"): devices for verdict, devices in by_verdict.items()},
        table=[{"device": row["device_id"], "verdict": row["verdict"], "because": row["reason"]} for row in rows],
    )


def minutes_are_unique(home: Home, batch_id: str) -> Verdict:
    """No minute of a participant came twice, in two recordings of one kind of device: it would count twice."""
    shared = shared_minutes(home, batch_id)
    return Verdict(
        not shared,
        {"segments_shared": sum(shared.values())},
        table=[{"with_batch": other, "segments": count} for other, count in shared.items()],
    )


def split_is_disjoint(home: Home) -> Verdict:
    """No participant is in training and in test, and every participant with a segment is on one side."""
    train, test = (participants_on(home.split, side) for side in ("train", "test"))
    segmented = segmented_participants(home, readable_batches(home)).column("participant_id").to_pylist()
    both, neither = len(train & test), len(set(segmented) - train - test)
    return Verdict(not both and not neither, {"on_both_sides": both, "on_no_side": neither})


def split_is_balanced(home: Home) -> Verdict:
    """The share of test participants is what the settings ask for, to the next whole participant."""
    sides = read_split(home.split).column("split")
    share = sides.to_pylist().count("test") / max(len(sides), 1)
    tolerance, wanted = max(SPLIT_TOLERANCE, 1 / max(len(sides), 1)), Settings.load(home).test_fraction
    return Verdict(
        abs(share - wanted) <= tolerance, {"test_share": share, "test_fraction": wanted, "tolerance": tolerance}
    )


def trained_on_current_batches(home: Home) -> Verdict:
    """No active encoder was trained on a batch that a correction has replaced since."""
    outdated = superseded_training_batches(home, promoted_models(home))
    return Verdict(
        not outdated,
        {"superseded_batches": len(outdated)},
        table=[{"batch": batch_id, "replaced_by": replaced_by} for batch_id, replaced_by in outdated.items()],
    )


def loss_fell(home: Home, encoder: str) -> Verdict:
    """The training loss ended below where it began, and a student's below chance.

    Of a training that went on from trained weights it has not risen by more than a tenth.
    """
    loss = loss_change(home, encoder)
    bound = loss.first * (MAX_LOSS_RISE if loss.went_on else 1)
    return Verdict(loss.last < min(bound, loss.chance or bound), _known(**vars(loss)))


def every_segment_is_embedded(home: Home, encoder: str, batch_id: str) -> Verdict:
    """One finite embedding for every segment of the batch that the encoder can take."""
    covered = coverage(home, encoder, batch_id)
    complete = covered.embedded == covered.segments and not covered.not_finite and not covered.duplicates
    return Verdict(complete, vars(covered))


def one_model_per_table(home: Home, encoder: str, batch_id: str) -> Verdict:
    """The embedding table holds one model, projected by one student at most, and no row without its segment.

    Passes without a row where no segment of the warehouse has what the model takes.
    """
    table = embedding_table(home, encoder, batch_id)
    alike = table.models == 1 or not table.rows
    return Verdict(alike and table.projections <= 1 and not table.orphans, vars(table))


def embeddings_have_not_collapsed(home: Home, encoder: str, batch_id: str) -> Verdict:
    """Embeddings point in several directions (effective rank) and are of similar norm."""
    health = embedding_health(home, encoder, batch_id)
    low, middle, high = (norm or 0.0 for norm in (health.norm_smallest, health.norm_median, health.norm_largest))
    alike = low > 0 and middle <= MAX_NORM_RATIO * low and high <= MAX_NORM_RATIO * middle
    several = health.segments < MIN_SEGMENTS_FOR_RANK or (health.effective_rank or 0.0) >= MIN_RANK
    return Verdict(
        health.segments == 0 or (alike and several),
        _known(**vars(health), effective_rank_threshold=MIN_RANK, norm_ratio_threshold=MAX_NORM_RATIO),
    )


def embeddings_resemble_training(home: Home, encoder: str, batch_id: str) -> Verdict:
    """The mean embedding is where that of the training cohort is."""
    drift = embedding_drift(home, encoder, batch_id)
    return _drift_verdict([drift] if drift else [])


def beats_the_constant_predictor(home: Home, encoder: str) -> Verdict:
    """The heart-rate probe errs less than a constant does: an encoder that fails here learned nothing of use.

    On few people either may happen by chance; `not_decidable` then says why.
    """
    mae, constant_mae, not_decidable = heart_rate_errors(home, encoder)
    return Verdict(
        mae < constant_mae, _known(hr_bpm_mae=mae, hr_bpm_mae_constant=constant_mae, not_decidable=not_decidable)
    )


def embeddings_are_typical(home: Home) -> Verdict:
    """Segments of every batch lie where those of training lie: elsewhere the intervals of predictions promise nothing.

    One segment in a hundred of the training participants themselves does not.
    """
    shares = typical_shares(home)
    unlike = [row for row in shares if row["not_typical"] > MAX_NOT_TYPICAL]
    return Verdict(
        not unlike,
        {
            "batches_unlike_training": len({row["batch"] for row in unlike}),
            "largest_share": max(row["not_typical"] for row in shares),
            "threshold": MAX_NOT_TYPICAL,
        },
        table=unlike[:MAX_LISTED],
    )


def intervals_hold(home: Home) -> Verdict:
    """Nine of ten measurements of test participants lie inside the 90 % intervals, to 2 points and what chance allows.

    Chance allows the share's 95 % interval over people, wider for as many encoders and targets as are looked at.
    """
    rows = overall_coverage(home)
    wider = float(norm.isf(0.025 / len(rows)) / norm.isf(0.025))  # Bonferroni's
    off = [
        row
        for row in rows
        if row["coverage"] + wider * (row["coverage_high"] - row["coverage"]) < COVERAGE - COVERAGE_TOLERANCE
        or row["coverage"] - wider * (row["coverage"] - row["coverage_low"]) > COVERAGE + COVERAGE_TOLERANCE
    ]
    return Verdict(
        not off,
        {f"{row['encoder']}_{row['target']}_coverage": row["coverage"] for row in rows},
        table=[{name: row[name] for name in ("encoder", "target", "coverage", "participants")} for row in off],
    )


def retrieval_beats_chance(home: Home) -> Verdict:
    """In the space of the projection heads the own pair ranks before the middle, in both directions."""
    ranks = retrieval_ranks(home)
    return Verdict(
        all(rank < chance for rank, chance in ranks.values()),
        {
            f"{direction}_{name}": value
            for direction, pair in ranks.items()
            for name, value in zip(("mean_rank", "chance_mean_rank"), pair, strict=True)
        },
    )


def published_equals_staging(home: Home) -> Verdict:
    """The published file has the rows of the staging file that belong together, and opens read-only."""
    published, staged = table_contents(home.published), publishable(home)
    different = sorted(name for name in published | staged if published.get(name) != staged.get(name))
    return Verdict(
        not different,
        {
            "published_rows": sum(count for count, _ in published.values()),
            "staging_rows": sum(count for count, _ in staged.values()),
            "tables_that_differ": ", ".join(different) or "none",
        },
    )


def reports_are_current(home: Home) -> Verdict:
    """Every report has been made, of the loaded split, the promoted encoders and all loaded batches.

    Results that are of something else are left out of the published file; making the reports again brings them back.
    What could not be measured is listed with its reason.
    """
    state = report_state(home)
    parts = {
        "missing": state.missing,
        "mixed": state.mixed,
        "uncovered_batches": state.uncovered,
        "not_measured": state.not_measured,
    }
    return Verdict(
        state.is_current,
        {name: len(entries) for name, entries in parts.items()},
        table=[{"what": name, "which": entry} for name, entries in parts.items() for entry in entries[:MAX_LISTED]],
    )


CHECKS = (
    Check("segments", store_has_its_schema, per_batch=True, blocking=True),
    Check("segments", windows_add_up, per_batch=True, blocking=True),
    Check("segments", signals_are_finite, per_batch=True, blocking=True),
    Check("segments", quarantine_rate, per_batch=True),
    Check("segments", labels_are_plausible, per_batch=True),
    Check("segments", segments_resemble_training, per_batch=True),
    Check("segment_tables", tables_hold_the_batch, per_batch=True, blocking=True),
    Check("segment_tables", minutes_are_unique, per_batch=True),
    Check("sensor_check", accelerometer_carries_the_heart, per_batch=True),
    Check("participant_split", split_is_disjoint, blocking=True),
    Check("participant_split", split_is_balanced),
    Check("participant_split", trained_on_current_batches),
    *(
        check
        for name in (spec.name for spec in ENCODERS)
        for check in (
            Check(name, loss_fell, encoder=name),
            Check(f"{name}_embeddings", every_segment_is_embedded, per_batch=True, blocking=True, encoder=name),
            Check(f"{name}_embeddings", one_model_per_table, per_batch=True, blocking=True, encoder=name),
            Check(f"{name}_embeddings", embeddings_have_not_collapsed, per_batch=True, blocking=True, encoder=name),
            Check(f"{name}_embeddings", embeddings_resemble_training, per_batch=True, encoder=name),
            Check(f"{name}_probes", beats_the_constant_predictor, encoder=name),
        )
    ),
    Check("predictions", embeddings_are_typical),
    Check("fairness", intervals_hold),
    Check("retrieval", retrieval_beats_chance),
    Check("published_warehouse", published_equals_staging, blocking=True),
    Check("published_warehouse", reports_are_current),
)


def landing_zone(arrivals: Sequence[Arrival]) -> Verdict:
    """Nothing in the landing zone waits for a person: no stalled, damaged, unknown or removed batch, nothing else."""
    unusable = [arrival for arrival in arrivals if arrival.problem]
    arriving = [arrival for arrival in arrivals if not arrival.arrived and not arrival.problem]
    return Verdict(
        not unusable,
        {"not_usable": len(unusable), "still_arriving": len(arriving)},
        table=[{"batch": arrival.batch_id, "reason": arrival.problem} for arrival in unusable[:MAX_LISTED]],
    )


def check_landing_zone(home: Home, known: Collection[str]) -> Verdict:
    """The verdict on the landing zone of a home in which these batches are known."""
    return landing_zone([*pending_arrivals(home, known), *removed_from_landing_zone(home, known).missing])


def removed_from_landing_zone(home: Home, known: Collection[str]) -> RemovedDeliveries:
    """The known batches whose folder is gone; the warehouse is asked only if there are any, which may have to wait."""
    removed = removed_deliveries(home, known, None)
    return removed_deliveries(home, known, _loaded_batches(home)) if removed.missing else removed


def _loaded_batches(home: Home) -> set[str] | None:
    """Batches that the warehouse holds; None where that is not known."""
    if not home.staging.exists():  # not made yet, or lost
        return None if home.published.exists() or segmented(home) else set()
    try:
        return loaded_batches(home)
    except (duckdb.Error, RuntimeError):
        return None


def _known(**measured: Value | None) -> dict[str, Value]:
    """Without what could not be measured."""
    return {name: value for name, value in measured.items() if value is not None}


def _drift_verdict(drifts: Sequence[Drift]) -> Verdict:
    drifted = [drift.quantity for drift in drifts if drift.drifted]
    nothing = "nothing" if drifts else "no other batch to compare with yet"
    return Verdict(
        not drifted,
        {
            "drifted": ", ".join(drifted) or nothing,
            **{drift.quantity: drift.difference for drift in drifts},
            **{f"{drift.quantity}_threshold": drift.threshold for drift in drifts},
        },
        table=[{**vars(drift), "threshold": drift.threshold, "drifted": drift.drifted} for drift in drifts],
        drifts=drifts,
    )
