"""Tables of the warehouse. Their DDL and comments are generated from here; views.sql and macros.sql have the rest.

Signals stay in the segment store; a table of embeddings is created when its encoder's are first loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files

import pyarrow as pa

from accelkd.cohort.split import AGE_BANDS, AGE_EDGES_YEARS, LEDGER, UNKNOWN
from accelkd.home.columns import Column, Table
from accelkd.recordings.labels import LABELS
from accelkd.recordings.schema import SURVEY_TARGET
from accelkd.registry.trained_on import TRAINED_ON
from accelkd.segments.schema import QUARANTINE, SEGMENT
from accelkd.segments.store import Modality

_TEXT, _TEXTS, _JSON, _YES_NO = pa.string(), pa.list_(pa.string()), pa.json_(), pa.bool_()
_NUMBER, _COUNT, _VALUE = pa.int32(), pa.int64(), pa.float64()
_INSTANT = pa.timestamp("us", tz="UTC")
_SQL_TYPES = {
    _TEXT: "VARCHAR",
    _JSON: "JSON",
    _YES_NO: "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.uint8(): "UTINYINT",
    _NUMBER: "INTEGER",
    _COUNT: "BIGINT",
    pa.float32(): "FLOAT",
    _VALUE: "DOUBLE",
    _INSTANT: "TIMESTAMP WITH TIME ZONE",
}

MEANS_SUFFIX = "__by_participant"  # of the view of means, after the name of the embeddings
PROJECTED_WIDTH = 128  # of accelkd.models.heads, which imports torch


def _statements(file: str, **replaced: str) -> str:
    text = files("accelkd.warehouse").joinpath(file).read_text(encoding="utf-8")
    for name, sql in replaced.items():
        text = text.replace(f"{{{name}}}", sql)
    return text


def _age_band(age_years: str) -> str:
    """The SQL that names the band of an age as accelkd.cohort.split does."""
    bounded = zip(AGE_EDGES_YEARS, AGE_BANDS, strict=False)
    bands = " ".join(f"WHEN {age_years} < {edge} THEN '{band}'" for edge, band in bounded)
    return f"CASE WHEN isnan(coalesce({age_years}, 'nan')) THEN '{UNKNOWN}' {bands} ELSE '{AGE_BANDS[-1]}' END"


_CATALOG = """coalesce('"' || replace(catalog, '"', '""') || '".', '')"""
VIEWS = "\n".join(
    [
        _statements("views.sql", age_band=_age_band("arg_max(age_years, batch_id)")),
        _statements("macros.sql", catalog=_CATALOG),
    ]
)

_SPLIT = ("split.participant_id", "split.split")
_LABELS = tuple(f"segments.{name}" for name in LABELS)
*_FIRST_LABELS, _LAST_LABEL = LABELS
_TRAITS = ("demographics.age_years", "demographics.bmi_kg_m2", "demographics.sex", "survey_targets.value")
_MODEL, _EMBEDDING = ("embeddings.<encoder>.model_id",), ("embeddings.<encoder>.embedding",)


def embeddings_table(
    encoder: str = "<encoder>", width: int | None = None, *, suffix: str = "", modality: Modality | None = None
) -> Table:
    """The embeddings by one checkpoint of an encoder: `FLOAT[width]`, or lists of any length where it is not given."""
    signals = tuple(f"store.segments.{signal}" for signal in ([modality] if modality else ["ppg", "accel"]))
    return Table(
        f"embeddings.{encoder}{suffix}",
        (
            Column(
                "segment_id",
                _TEXT,
                nullable=False,
                sources=("segments.segment_id",),
                meaning="Segment that was embedded",
            ),
            Column(
                "participant_id",
                _TEXT,
                nullable=False,
                sources=("segments.participant_id",),
                meaning="Pseudonym",
            ),
            Column("batch_id", _TEXT, nullable=False, sources=("segments.batch_id",), meaning="Arrival batch"),
            Column("model_id", _TEXT, nullable=False, meaning="Checkpoint that embedded it; the same in every row"),
            Column(
                "embedding",
                pa.list_(pa.float32(), -1 if width is None else width),
                nullable=False,
                sources=signals,
                meaning="Embedding as the encoder gives it, before any projection head",
            ),
            Column(
                "projected",
                pa.list_(pa.float32(), PROJECTED_WIDTH),
                sources=signals,
                meaning="Embedding after the projection head, in the space that teacher and student share; null where "
                "no head was trained for this checkpoint",
            ),
            Column(
                "projected_by",
                _TEXT,
                meaning="Student's checkpoint that holds the head: only projections by the same one can be compared",
            ),
        ),
        meaning=f"Embeddings of every segment by one checkpoint of {encoder}",
    )


def mean_embeddings(encoder: str = "<encoder>", width: int | None = None) -> Table:
    """The view of every participant's mean embedding."""
    embeddings = embeddings_table(encoder, width)
    return Table(
        f"{embeddings.name}{MEANS_SUFFIX}",
        (
            *embeddings.copied("participant_id"),
            replace(embeddings.copied("model_id")[0], meaning="Checkpoint of the embeddings"),
            Column(
                "segments",
                _COUNT,
                sources=(f"{embeddings.name}.segment_id",),
                meaning="Number of segments that the mean is over",
            ),
            replace(embeddings.copied("embedding")[0], meaning="Mean of the embeddings, not normalised"),
        ),
        meaning=f"Mean embedding of every participant by {encoder}; participant_embedding reads it",
    )


BATCHES = Table(
    "batches",
    (
        Column(
            "batch_id",
            _TEXT,
            nullable=False,
            sources=("store.segments.batch_id",),
            meaning="Name of the batch in the landing zone",
        ),
        Column("source", _TEXT, nullable=False, meaning="'simulation', or the device that was ingested"),
        Column(
            "devices",
            _TEXTS,
            nullable=False,
            sources=("landing.recordings.device_id",),
            meaning="Devices of its recordings (docs/devices.md)",
        ),
        Column(
            "recordings",
            _COUNT,
            nullable=False,
            sources=("landing.recordings.recording_id",),
            meaning="Recordings that arrived, good or not",
        ),
        Column(
            "participants",
            _COUNT,
            nullable=False,
            sources=("landing.participants.participant_id",),
            meaning="Participants that the batch describes",
        ),
        Column(
            "segments",
            _COUNT,
            nullable=False,
            sources=("store.segments.segment_id",),
            meaning="Segments cut from it",
        ),
        Column(
            "quarantined",
            _COUNT,
            nullable=False,
            sources=("store.quarantine.reason",),
            meaning="Windows, recordings and files that did not become a segment",
        ),
    ),
    key=("batch_id",),
    meaning="One row per arrival batch that has been loaded",
)

DEMOGRAPHICS = Table(
    "demographics",
    (
        Column(
            "participant_id",
            _TEXT,
            nullable=False,
            sources=("landing.participants.participant_id",),
            meaning="Pseudonym",
        ),
        Column("batch_id", _TEXT, nullable=False, meaning="Batch that says so"),
        Column(
            "sex",
            _TEXT,
            sources=("landing.participants.sex",),
            meaning="Assigned at birth: female or male; null unknown",
        ),
        Column(
            "age_years",
            _VALUE,
            unit="years",
            sources=("landing.participants.age_years",),
            meaning="Self-reported age; null unknown",
        ),
        Column(
            "height_m",
            _VALUE,
            unit="m",
            sources=("landing.participants.height_m",),
            meaning="Height; null unknown",
        ),
        Column(
            "bmi_kg_m2",
            _VALUE,
            unit="kg/m²",
            sources=("landing.participants.bmi_kg_m2",),
            meaning="Body mass index; null unknown",
        ),
        Column(
            "skin_tone",
            _VALUE,
            sources=("landing.participants.skin_tone",),
            meaning="Monk skin tone, 1 (lightest) to 10 (darkest); null unknown",
        ),
    ),
    meaning="Participants as each batch described them; the view participants has one row for each",
)

SURVEY_TARGETS = Table(
    "survey_targets",
    (
        SURVEY_TARGET["participant_id"],
        Column("batch_id", _TEXT, nullable=False, meaning="Batch that the answers came with"),
        SURVEY_TARGET["target"],
        SURVEY_TARGET["value"],
    ),
    meaning="Health targets as the survey of each batch defines them; the view participant_targets has one row for "
    "each",
)

SEGMENTS = Table(
    "segments",
    SEGMENT.copied(
        *(column.name for column in SEGMENT.columns if not pa.types.is_list(column.type)),
        "ppg_status",
        "accel_status",
    ),
    meaning="One row per 60 s segment: when, who, labels, quality; its signals are in the segment store",
)

# Whether a model (a row of `models`) can embed a segment: its input has as many channels as the segment
TAKES = "channels = CASE modality WHEN 'ppg' THEN len(ppg_status) ELSE len(accel_status) END"

QUARANTINED = Table(
    "quarantine",
    (
        QUARANTINE["batch_id"],
        QUARANTINE["unit"],
        QUARANTINE["reason"],
        Column(
            "number",
            _COUNT,
            nullable=False,
            sources=("store.quarantine.reason",),
            meaning="Number of such files, recordings or windows",
        ),
        Column(
            "participants",
            _COUNT,
            nullable=False,
            sources=("store.quarantine.participant_id",),
            meaning="Number of participants concerned, where it is known",
        ),
    ),
    meaning="What did not become a segment, counted by reason; the rows are in quarantine/<batch>.parquet",
)

_STILL = ("segments.motion_p95_g",)
_ONLY_BEATS = (
    *("store.segments.accel", "store.segments.accel_ac_level", "store.segments.ppg"),
    *("segments.label_good", "landing.recordings.reference_beat_s"),
)
_ONLY_BANDS = ("segments.accel_hr_bpm", "landing.recordings.accel")
_BEATS, _BANDS = (*_STILL, *_ONLY_BEATS), (*_STILL, *_ONLY_BANDS)

SENSOR_CHECKS = Table(
    "sensor_checks",
    (
        Column("batch_id", _TEXT, nullable=False, meaning="Arrival batch"),
        Column("device_id", _TEXT, nullable=False, sources=("segments.device_id",), meaning="Device of its recordings"),
        Column(
            "verdict",
            _TEXT,
            nullable=False,
            sources=(*_BEATS, *_ONLY_BANDS),
            meaning="carries, carries nothing or not decidable: whether its accelerometer shows the heart",
        ),
        Column("reason", _TEXT, nullable=False, sources=(*_BEATS, *_ONLY_BANDS), meaning="Why"),
        Column(
            "still_minutes",
            _COUNT,
            nullable=False,
            sources=_STILL,
            meaning="Segments without movement: 95th percentile of the motion below 0.05 g",
        ),
        Column(
            "tested_minutes", _COUNT, nullable=False, sources=_BEATS, meaning="Of these, with enough beats to be tested"
        ),
        Column(
            "reference_minutes",
            _COUNT,
            nullable=False,
            sources=_BEATS,
            meaning="Of these, with the beats that travelled with the recording, not the PPG's",
        ),
        Column(
            "locked_minutes",
            _COUNT,
            nullable=False,
            sources=_BEATS,
            meaning="Tested minutes whose acceleration is locked to the beats at p < 0.01",
        ),
        Column("locked_share", _VALUE, sources=_BEATS, meaning="Share of the tested minutes that are locked"),
        Column(
            "locked_rms_mg",
            _VALUE,
            unit="mg",
            sources=_BEATS,
            meaning="Median size of the wave that is locked to the beats, over the tested minutes and the axes",
        ),
        Column(
            "false_alarm_tests",
            _COUNT,
            nullable=False,
            sources=_BEATS,
            meaning="Tests with other people's beats, or those of other minutes of the only person",
        ),
        Column("false_alarm_share", _VALUE, sources=_BEATS, meaning="Share of these that are locked"),
        Column(
            "peak",
            _VALUE,
            sources=("segments.accel_hr_peak", *_STILL),
            meaning="Median of accel_hr_peak over the still segments",
        ),
        Column(
            "bands_minutes",
            _COUNT,
            nullable=False,
            sources=_BANDS,
            meaning="Still segments with a rate from 4 to 11 Hz and from the heart sounds; 0 below 88 Hz",
        ),
        Column("bands_share", _VALUE, sources=_BANDS, meaning="Share of these whose two rates are within 3 bpm"),
        Column("bands_by_chance", _VALUE, sources=_BANDS, meaning="The same share for rates of different segments"),
    ),
    key=("batch_id", "device_id"),
    meaning="Whether the accelerometer of each device of a batch carries the heart",
)

SUPERSEDED_BATCHES = Table(
    "superseded_batches",
    (
        Column("batch_id", _TEXT, nullable=False, meaning="The batch that is gone"),
        Column("replaced_by", _TEXT, nullable=False, meaning="The batch that corrects it"),
    ),
    key=("batch_id",),
    meaning="Batches that a correction has replaced; of them only provenance and the history of checks are left",
)

MODELS = Table(
    "models",
    (
        Column("encoder", _TEXT, nullable=False, meaning="ppg_teacher, accel_student, ..."),
        Column(
            "model_id",
            _TEXT,
            nullable=False,
            meaning="Hash of configuration, code, data and split: same inputs, same id",
        ),
        Column("modality", _TEXT, nullable=False, meaning="What it embeds: ppg or accel"),
        Column(
            "channels",
            _NUMBER,
            nullable=False,
            meaning="Channels that it takes; a PPG encoder embeds only segments with as many PPG channels",
        ),
        Column("embedding_dim", _NUMBER, nullable=False, meaning="Width of its embedding"),
        Column("parameters", _COUNT, nullable=False, meaning="Number of its parameters"),
        Column(
            "split_version",
            _TEXT,
            nullable=False,
            meaning="Split whose training participants it was trained on",
        ),
        Column("config", _JSON, nullable=False, meaning="config.json of the checkpoint"),
        Column("metrics", _JSON, nullable=False, meaning="metrics.json of the checkpoint"),
    ),
    key=("encoder", "model_id"),
    meaning="One row per encoder checkpoint that was loaded",
)

CHECK_RESULTS = Table(
    "check_results",
    (
        Column("number", _COUNT, nullable=False, meaning="Number of the result, from 1, in the order of evaluation"),
        Column("batch_id", _TEXT, meaning="Batch that was checked; null where the check looks at all of them"),
        Column("check_name", _TEXT, nullable=False, meaning="Check, as its page in the reference and the UI name it"),
        Column("asset", _TEXT, nullable=False, meaning="Asset whose output was checked"),
        Column("severity", _TEXT, nullable=False, meaning="error: stops what is downstream; warning: only reports"),
        Column("passed", _YES_NO, nullable=False, meaning="Whether it holds"),
        Column("measured", _JSON, nullable=False, meaning="What was measured, beside its thresholds"),
        Column(
            "evaluated_at",
            _INSTANT,
            nullable=False,
            meaning="When it was first evaluated with this result; the same result again adds no row",
        ),
        Column("run_id", _TEXT, meaning="Run of the orchestrator that evaluated it; null for the command line"),
    ),
    key=("number",),
    meaning="History of the checks: a row for each result that differs from the one before",
)

DRIFT_HISTORY = Table(
    "drift_history",
    (
        Column("number", _COUNT, nullable=False, meaning="Number of the result in check_results"),
        Column("batch_id", _TEXT, nullable=False, meaning="Batch that was compared with the training participants"),
        Column("quantity", _TEXT, nullable=False, meaning="What was compared: a column of segments, or embedding"),
        Column("encoder", _TEXT, meaning="Encoder of the embeddings; null for what needs none"),
        Column("model_id", _TEXT, meaning="Its checkpoint"),
        Column(
            "difference",
            _VALUE,
            nullable=False,
            meaning="Population stability index; of embeddings, distance of the means in standard deviations",
        ),
        Column("by_chance", _VALUE, nullable=False, meaning="Largest difference over shuffles of the participants"),
        Column(
            "threshold", _VALUE, nullable=False, meaning="Larger of the customary bound and the difference by chance"
        ),
        Column("drifted", _YES_NO, nullable=False, meaning="Whether the difference is above the threshold"),
        Column("segments", _COUNT, nullable=False, meaning="Segments of the batch"),
        Column("cohort_segments", _COUNT, nullable=False, meaning="Segments that it was compared with"),
        CHECK_RESULTS["evaluated_at"],
    ),
    key=("number", "quantity"),
    meaning="History of drift: how far each batch was from the training participants, in each quantity",
)

PROMOTIONS = Table(
    "promotions",
    (
        Column(
            "number",
            _NUMBER,
            nullable=False,
            meaning="Number of the decision, from 1; when it was made is in checkpoints/promotions.json",
        ),
        Column("action", _TEXT, nullable=False, meaning="promoted, rejected or rolled back (to this model)"),
        Column("encoder", _TEXT, nullable=False, meaning="ppg_teacher or accel_student"),
        Column("model_id", _TEXT, nullable=False, meaning="Checkpoint that was decided about"),
        Column("reason", _TEXT, nullable=False, meaning="Why"),
        Column(
            "criteria",
            _JSON,
            nullable=False,
            meaning="What was measured on held-out participants, beside its threshold",
        ),
    ),
    key=("number", "encoder"),
    meaning="What was decided about trained encoders, in order; teacher and student share a decision",
)


def _error(name: str, meaning: str, *, nullable: bool = False, of: tuple[str, ...] = _LABELS) -> Column:
    """What a probe of `of` measures; the unit is in a column of its own."""
    return Column(name, _VALUE, nullable=nullable, sources=(*_EMBEDDING, *of, *_SPLIT), meaning=meaning)


def _classical(name: str, meaning: str) -> Column:
    """What the classical estimator measures of the heart rate; null of other targets."""
    sources = ("segments.accel_hr_bpm", "segments.hr_bpm", *_SPLIT)
    return Column(f"classical_{name}", _VALUE, sources=sources, meaning=meaning)


def _batches_version() -> Column:
    return Column(
        "batches_version",
        _TEXT,
        sources=("embeddings.<encoder>.batch_id",),
        meaning="Hash of the batches that it covers, as they were (accelkd.warehouse.report_state); null of earlier "
        "versions of accelkd",
    )


def _status(sources: tuple[str, ...]) -> tuple[Column, Column]:
    """Whether a result decides anything, and why not; null of results of earlier versions."""
    return (
        Column("status", _TEXT, sources=sources, meaning="decidable or not_decidable (docs/evaluation.md)"),
        Column(
            "not_decidable",
            _TEXT,
            sources=sources,
            meaning="Why nothing is decided: too few people, constant, or interval too wide; null where it is",
        ),
    )


PROBE_RESULTS = Table(
    "probe_results",
    (
        Column("encoder", _TEXT, nullable=False, meaning="Encoder whose embeddings were probed"),
        Column("model_id", _TEXT, nullable=False, sources=_MODEL, meaning="Its checkpoint"),
        Column(
            "split_version",
            _TEXT,
            nullable=False,
            sources=_SPLIT,
            meaning="Split that said who is in training and in test",
        ),
        _batches_version(),
        Column("target", _TEXT, nullable=False, meaning=f"{', '.join(_FIRST_LABELS)} or {_LAST_LABEL}"),
        Column("unit", _TEXT, nullable=False, meaning="Unit of the target and its errors"),
        Column(
            "train_participants",
            _COUNT,
            nullable=False,
            sources=_SPLIT,
            meaning="Participants that the probe was fitted on",
        ),
        Column(
            "train_segments",
            _COUNT,
            nullable=False,
            sources=_SPLIT,
            meaning="Segments that the probe was fitted on",
        ),
        Column(
            "test_participants",
            _COUNT,
            nullable=False,
            sources=_SPLIT,
            meaning="Participants that it was measured on",
        ),
        Column("test_segments", _COUNT, nullable=False, sources=_SPLIT, meaning="Segments that it was measured on"),
        _error("ridge_alpha", meaning="Chosen by cross-validation grouped by participant, on standardised embeddings"),
        _error("mae", meaning="Mean absolute error"),
        _error(
            "mae_low",
            nullable=True,
            meaning="Lower end of its 95 % interval over test participants; null for fewer than two",
        ),
        _error("mae_high", nullable=True, meaning="Upper end of it"),
        _error("rmse", meaning="Root mean squared error"),
        _error(
            "pearson_r",
            nullable=True,
            meaning="Pearson correlation of prediction and target; null where one of them is constant",
        ),
        _error("constant_mae", meaning="Mean absolute error of the median of the training targets"),
        _error("constant_rmse", meaning="Root mean squared error of the mean of the training targets"),
        _classical(
            "mae", "Mean absolute error of accel_hr_bpm, which nothing is fitted for, on the same test segments"
        ),
        _classical("mae_low", "Lower end of its 95 % interval over test participants; null for fewer than two"),
        _classical("mae_high", "Upper end of it"),
        _classical("rmse", "Root mean squared error of accel_hr_bpm"),
        _classical(
            "pearson_r", "Pearson correlation of accel_hr_bpm and the label; null where one of them is constant"
        ),
        Column(
            "classical_segments",
            _COUNT,
            sources=("segments.accel_hr_bpm", "segments.hr_bpm", *_SPLIT),
            meaning="Test segments with a label and a rate from the acceleration; null of other targets",
        ),
        *_status((*_EMBEDDING, *_LABELS, *_SPLIT)),
    ),
    key=("encoder", "model_id", "target"),
    meaning="Ridge probes on frozen embeddings: fitted on training, measured on test participants",
)


def _participants_error(name: str, meaning: str) -> Column:
    return _error(name, meaning=meaning, nullable=True, of=_TRAITS)


def _answers(name: str, meaning: str) -> Column:
    return Column(name, _COUNT, sources=(*_TRAITS, *_SPLIT), meaning=meaning)


PARTICIPANT_PROBE_RESULTS = Table(
    "participant_probe_results",
    (
        Column(
            "encoder",
            _TEXT,
            nullable=False,
            meaning="Encoder whose embeddings were probed, averaged over each participant",
        ),
        PROBE_RESULTS["model_id"],
        PROBE_RESULTS["split_version"],
        _batches_version(),
        Column(
            "target",
            _TEXT,
            nullable=False,
            meaning="age, bmi, sex or a health target of the survey (accelkd/recordings/survey.py)",
        ),
        Column("unit", _TEXT, meaning="Unit of age and BMI and their errors; null of yes-or-no targets"),
        Column(
            "train_participants",
            _COUNT,
            nullable=False,
            sources=_SPLIT,
            meaning="Training participants that have a value",
        ),
        Column(
            "test_participants",
            _COUNT,
            nullable=False,
            sources=_SPLIT,
            meaning="Test participants that have a value",
        ),
        _answers("train_yes", meaning="Training participants with yes (of sex: male); null of age and BMI"),
        _answers("train_no", meaning="Training participants with no"),
        _answers("test_yes", meaning="Test participants with yes"),
        _answers("test_no", meaning="Test participants with no"),
        _participants_error(
            "ridge_alpha",
            meaning="Chosen by cross-validation inside the training participants, on standardised embeddings",
        ),
        _participants_error("mae", meaning="Mean absolute error; null of yes-or-no targets"),
        _participants_error("mae_low", meaning="Lower end of its 95 % interval; null for fewer than two participants"),
        _participants_error("mae_high", meaning="Upper end of it"),
        _participants_error("rmse", meaning="Root mean squared error"),
        _participants_error(
            "pearson_r",
            meaning="Pearson correlation of prediction and value; null where one of them is constant",
        ),
        _participants_error("constant_mae", meaning="Mean absolute error of the median of the training values"),
        _participants_error("constant_rmse", meaning="Root mean squared error of the mean of the training values"),
        _participants_error(
            "auc",
            meaning="Area under the ROC curve; null of age and BMI, and where so few people decide nothing",
        ),
        _participants_error(
            "auc_low",
            meaning="Lower end of its 95 % interval, also where it is too wide to decide anything; sort by this",
        ),
        _participants_error("auc_high", meaning="Upper end of it"),
        *_status((*_EMBEDDING, *_TRAITS, *_SPLIT)),
    ),
    key=("encoder", "model_id", "target"),
    meaning="Ridge probes of participants: age, BMI, sex and health targets from mean embeddings",
)


PROBE_PREDICTIONS = Table(
    "probe_predictions",
    (
        PROBE_RESULTS["encoder"],
        PROBE_RESULTS["model_id"],
        PROBE_RESULTS["split_version"],
        PROBE_RESULTS["batches_version"],
        Column(
            "target",
            _TEXT,
            nullable=False,
            meaning="A target of probe_results or of participant_probe_results",
        ),
        Column(
            "participant_id",
            _TEXT,
            nullable=False,
            sources=("split.participant_id",),
            meaning="Pseudonym",
        ),
        Column(
            "segment_id",
            _TEXT,
            sources=("segments.segment_id",),
            meaning="Segment that was predicted; null where the row is about the whole participant",
        ),
        Column("side", _TEXT, nullable=False, sources=("split.split",), meaning="Side of the split: test"),
        Column(
            "segments",
            _COUNT,
            nullable=False,
            sources=("embeddings.<encoder>.segment_id",),
            meaning="Segments that the row is the mean over: 1 for a segment's own row",
        ),
        Column(
            "measured",
            pa.float32(),
            nullable=False,
            sources=(*_LABELS, *_TRAITS),
            meaning="Value in the target's unit; 1 yes, 0 no (of sex: 1 male)",
        ),
        Column(
            "predicted",
            pa.float32(),
            nullable=False,
            sources=(*_EMBEDDING, *_LABELS, *_TRAITS, *_SPLIT),
            meaning="Prediction in the target's unit; of yes-or-no targets the probability of yes",
        ),
        Column(
            "absolute_error",
            pa.float32(),
            nullable=False,
            sources=(*_EMBEDDING, *_LABELS, *_TRAITS, *_SPLIT),
            meaning="Absolute difference of the two; in a row that is a mean over segments, the mean of theirs",
        ),
    ),
    meaning="What the probes of each encoder's last probed model predict for every test participant and segment",
)


_READ = (*_EMBEDDING, *_LABELS, *_TRAITS, *_SPLIT)

READOUTS = Table(
    "readouts",
    (
        PROBE_RESULTS["encoder"],
        PROBE_RESULTS["model_id"],
        Column("readout_id", _TEXT, nullable=False, meaning="Hash of readouts.safetensors beside the weights"),
        Column("target", _TEXT, nullable=False, meaning="What is predicted, as in probe_predictions"),
        Column("level", _TEXT, nullable=False, meaning="segment, or participant: from the mean of the embeddings"),
        Column("unit", _TEXT, meaning="Unit of the value; null of yes-or-no targets, whose value is a probability"),
        Column("participants", _COUNT, nullable=False, sources=_READ, meaning="Training participants with a label"),
        Column("samples", _COUNT, nullable=False, sources=_READ, meaning="Labels that it was fitted on"),
        Column("ridge_alpha", _VALUE, nullable=False, sources=_READ, meaning="Penalty, as of scikit-learn"),
        Column("lowest_label", _VALUE, nullable=False, sources=_READ, meaning="Smallest label; no value is below"),
        Column("highest_label", _VALUE, nullable=False, sources=_READ, meaning="Largest label; no value is above"),
        Column(
            "held_out",
            _VALUE,
            nullable=False,
            sources=_READ,
            meaning="Mean absolute error over held-out folds of the training participants; of yes-or-no targets the "
            "area under the ROC curve",
        ),
        Column(
            "constant",
            _VALUE,
            nullable=False,
            sources=_READ,
            meaning="The same of a constant: of the labels' median; 0.5",
        ),
        Column(
            "reads",
            _YES_NO,
            nullable=False,
            sources=_READ,
            meaning="Whether it is better, by its 95 % interval over people",
        ),
    ),
    key=("encoder", "target"),
    meaning="Fits that predict from the embeddings of the promoted encoders, kept beside their weights",
)

PREDICTIONS = Table(
    "predictions",
    (
        PROBE_RESULTS["encoder"],
        PROBE_RESULTS["model_id"],
        READOUTS["readout_id"],
        READOUTS["target"],
        Column(
            "participant_id",
            _TEXT,
            nullable=False,
            sources=("embeddings.<encoder>.participant_id",),
            meaning="Pseudonym",
        ),
        Column(
            "segment_id",
            _TEXT,
            sources=("embeddings.<encoder>.segment_id",),
            meaning="Segment; null where the row is about the whole participant",
        ),
        Column("batch_id", _TEXT, meaning="Arrival batch of the segment; null where the row is about the participant"),
        Column(
            "segments",
            _COUNT,
            nullable=False,
            sources=("embeddings.<encoder>.segment_id",),
            meaning="Segments whose embeddings the value is read from: 1, or all of the participant's",
        ),
        Column(
            "value",
            pa.float32(),
            nullable=False,
            sources=_READ,
            meaning="Prediction in the target's unit; of yes-or-no targets the probability of yes (of sex: of male)",
        ),
        Column(
            "low",
            pa.float32(),
            sources=_READ,
            meaning="Lower bound of the 90 % interval; null of yes-or-no targets",
        ),
        Column(
            "high",
            pa.float32(),
            sources=_READ,
            meaning="Upper bound of the 90 % interval; null of yes-or-no targets",
        ),
        Column(
            "typical",
            _YES_NO,
            nullable=False,
            sources=_EMBEDDING,
            meaning="Whether the embedding is like those of training; of a participant, those of most segments. Where "
            "it is not, the interval promises nothing",
        ),
    ),
    meaning="What the readouts predict for every embedded segment and participant, with or without a label",
)


_JUDGED = ("predictions.value", *_LABELS, *_TRAITS, *_SPLIT)


def _judged(name: str, meaning: str) -> Column:
    """What predictions are for one group."""
    return Column(name, _VALUE, sources=_JUDGED, meaning=meaning)


FAIRNESS_RESULTS = Table(
    "fairness_results",
    (
        PROBE_RESULTS["encoder"],
        PROBE_RESULTS["model_id"],
        READOUTS["readout_id"],
        READOUTS["target"],
        Column("attribute", _TEXT, nullable=False, meaning="sex, age, BMI, skin tone or device; or everybody"),
        Column("subgroup", _TEXT, nullable=False, meaning="Which group of the attribute"),
        Column("participants", _COUNT, nullable=False, sources=_JUDGED, meaning="Test participants with a label"),
        Column("samples", _COUNT, nullable=False, sources=_JUDGED, meaning="Their segments, or themselves"),
        _judged("mae", "Mean absolute error in the target's unit; null of yes-or-no targets"),
        _judged("mae_low", "Lower bound of its 95 % interval over people"),
        _judged("mae_high", "Upper bound of its 95 % interval over people"),
        _judged("bias", "Mean of prediction minus measurement"),
        _judged("coverage", "Share of the measurements inside the 90 % intervals"),
        _judged("coverage_low", "Lower bound of its 95 % interval over people"),
        _judged("coverage_high", "Upper bound of its 95 % interval over people"),
        _judged("auc", "Area under the ROC curve; null of numbers"),
        _judged("auc_low", "Lower bound of its 95 % interval"),
        _judged("auc_high", "Upper bound of its 95 % interval"),
        *_status(_JUDGED),
    ),
    meaning="Whom predictions hold for: errors, coverage and ranking of test participants, by group",
)


def _ranks(people: tuple[str, ...] = (), ranks: tuple[str, ...] = ()) -> tuple[Column, ...]:
    """What retrieval measures; `people` and `ranks` are the sources of the pools' sizes and of the ranks in them."""
    return (
        Column(
            "participants",
            _VALUE,
            nullable=False,
            sources=people,
            meaning="Mean number of participants of a pool",
        ),
        Column("segments", _VALUE, nullable=False, sources=people, meaning="Mean number of candidates of a pool"),
        Column(
            "top1_percent",
            _VALUE,
            unit="%",
            nullable=False,
            sources=ranks,
            meaning="Queries whose own pair ranks first, mean over pools",
        ),
        Column(
            "top1_percent_sd",
            _VALUE,
            unit="%",
            nullable=False,
            sources=ranks,
            meaning="Standard deviation over pools",
        ),
        Column(
            "mean_rank",
            _VALUE,
            nullable=False,
            sources=ranks,
            meaning="Mean rank of the own pair, mean over pools; 1 is perfect",
        ),
        Column("mean_rank_sd", _VALUE, nullable=False, sources=ranks, meaning="Standard deviation over pools"),
        Column(
            "chance_top1_percent",
            _VALUE,
            unit="%",
            nullable=False,
            meaning="Of a random ranking of the same pools",
        ),
        Column("chance_mean_rank", _VALUE, nullable=False, meaning="Of a random ranking of the same pools"),
    )


RETRIEVAL_RESULTS = Table(
    "retrieval_results",
    (
        Column("query_encoder", _TEXT, nullable=False, meaning="Encoder of the query"),
        Column("query_model_id", _TEXT, nullable=False, sources=_MODEL, meaning="Its checkpoint"),
        Column("key_encoder", _TEXT, nullable=False, meaning="Encoder of the candidates"),
        Column("key_model_id", _TEXT, nullable=False, sources=_MODEL, meaning="Its checkpoint"),
        Column(
            "split_version",
            _TEXT,
            nullable=False,
            sources=_SPLIT,
            meaning="Split that said who is in test",
        ),
        _batches_version(),
        Column(
            "space",
            _TEXT,
            nullable=False,
            meaning="projected: after the trained heads; raw: the embeddings themselves",
        ),
        Column("pools", _NUMBER, nullable=False, meaning="Number of bootstrap candidate pools"),
        *_ranks(_SPLIT, (*_EMBEDDING, *_SPLIT)),
        *_status(_SPLIT),
    ),
    key=("query_encoder", "query_model_id", "key_encoder", "key_model_id", "space"),
    meaning="How well one modality finds the same minute of the other, in test participants",
)

REPRODUCTION_RESULTS = Table(
    "reproduction.results",
    (
        Column(
            "experiment",
            _TEXT,
            nullable=False,
            meaning="What was trained (docs/reproduction.md); constant is the best constant of the training labels, "
            "classical the heart rate from acceleration without a model",
        ),
        Column("seed", _COUNT, nullable=False, meaning="Seed of its training"),
        Column(
            "target",
            _TEXT,
            nullable=False,
            meaning=f"{', '.join(LABELS)}, age, bmi, sex or a health target of the survey",
        ),
        Column(
            "level",
            _TEXT,
            nullable=False,
            meaning="segment: one sample is a minute; participant: one is the mean embedding of a person",
        ),
        Column(
            "label_fraction",
            _VALUE,
            nullable=False,
            meaning="Share of the training labels that the probe or the supervised encoder got",
        ),
        Column("metric", _TEXT, nullable=False, meaning="mae, rmse, pearson_r or auc"),
        Column("value", _VALUE, meaning="On the test participants; null where it is undefined"),
        Column("train_n", _COUNT, nullable=False, meaning="Segments or participants that it was fitted on"),
        Column("test_n", _COUNT, nullable=False, meaning="Segments or participants that it was measured on"),
    ),
    meaning="The paper's experiments on a simulated cohort: one row for each encoder, target, share of labels and "
    "metric",
)

REPRODUCTION_RETRIEVAL = Table(
    "reproduction.retrieval",
    (
        Column("experiment", _TEXT, nullable=False, meaning="Accelerometer encoder"),
        Column(
            "teacher",
            _TEXT,
            nullable=False,
            meaning="PPG encoder: its teacher, or the one that it was aligned with",
        ),
        Column("seed", _COUNT, nullable=False, meaning="Seed of its training"),
        Column(
            "space",
            _TEXT,
            nullable=False,
            meaning="projected: after the trained heads; raw: the embeddings themselves; procrustes: after alignment",
        ),
        Column("direction", _TEXT, nullable=False, meaning="ppg_from_accel or accel_from_ppg"),
        Column("pools", _COUNT, nullable=False, meaning="Number of bootstrap candidate pools"),
        *_ranks(),
    ),
    meaning="The paper's retrieval experiments (tables 1 and 8) on a simulated cohort",
)

REPRODUCTION_CLAIMS = Table(
    "reproduction.claims",
    (
        Column("claim_id", _TEXT, nullable=False, meaning="Short name of the claim"),
        Column("sentence", _TEXT, nullable=False, meaning="The claim in our words"),
        Column("where_in_paper", _TEXT, nullable=False, meaning="Sections and tables"),
        Column("rule", _TEXT, nullable=False, meaning="When it holds"),
        Column("paper", _TEXT, nullable=False, meaning="The paper's figures"),
        Column("ours", _TEXT, nullable=False, meaning="Ours"),
        Column("verdict", _TEXT, nullable=False, meaning="holds, does not hold or not decidable"),
        Column("seeds", _COUNT, nullable=False, meaning="Seeds that it rests on"),
        Column("note", _TEXT, nullable=False, meaning="What to know when reading it"),
    ),
    key=("claim_id",),
    meaning="Every comparative claim of the paper, and whether it holds on the simulated cohort",
)

ARTIFACTS = Table(
    "provenance.artifacts",
    (
        Column("artifact_id", _TEXT, nullable=False, meaning="kind:name, such as segments:2026-11-a"),
        Column(
            "kind",
            _TEXT,
            nullable=False,
            meaning="file, batch, segments, quarantine, tables, sensors, split, model, embeddings, probe, retrieval, "
            "map, reproduction or report",
        ),
        Column("path", _TEXT, meaning="Where it lies, relative to the home; null for rows of a table"),
        Column(
            "version",
            _TEXT,
            nullable=False,
            meaning="SHA-256 of a file, identity of a checkpoint or split, hash of the inputs or results otherwise",
        ),
        Column(
            "code_version",
            _TEXT,
            meaning="Package that made it and the hash of its source text; null for what arrived",
        ),
        Column(
            "configuration",
            _JSON,
            meaning="Settings that it was made with; null where there are none",
        ),
    ),
    key=("artifact_id",),
    meaning="Every file, checkpoint, table partition and report, as it is now",
)

EDGES = Table(
    "provenance.edges",
    (
        Column("artifact_id", _TEXT, nullable=False, meaning="The artifact"),
        Column("input_id", _TEXT, nullable=False, meaning="What it was made from"),
        Column(
            "input_version",
            _TEXT,
            nullable=False,
            meaning="The version that it was made from; the artifact is stale where this is not the current one",
        ),
    ),
    key=("artifact_id", "input_id"),
    meaning="What each artifact was made from",
)

RUNS = Table(
    "provenance.runs",
    (
        Column("artifact_id", _TEXT, nullable=False, meaning="The artifact"),
        Column("version", _TEXT, nullable=False, meaning="The version that the run made"),
        Column("run_id", _TEXT, meaning="Run of the orchestrator, as its UI names it; null where none made it"),
        Column("recorded_at", _INSTANT, nullable=False, meaning="When it was written into the warehouse"),
    ),
    key=("artifact_id", "version"),
    meaning="Which run made each version of an artifact last; the one table that differs when the same is made again",
)

MODEL_PARTICIPANTS = Table(
    "provenance.model_participants",
    (
        Column("encoder", _TEXT, nullable=False, meaning="Encoder of the checkpoint"),
        Column("model_id", _TEXT, nullable=False, meaning="The checkpoint"),
        *TRAINED_ON.copied(),
    ),
    meaning="Whose segments each checkpoint itself was trained on, written down when it was trained; participants_in "
    "adds its teacher's",
)

EMBEDDING_FILES = Table(
    "provenance.embedding_files",
    (
        Column("relation", _TEXT, nullable=False, meaning="View of the schema `embeddings` that reads the file"),
        Column("batch_id", _TEXT, nullable=False, meaning="Arrival batch"),
        Column("model_id", _TEXT, nullable=False, meaning="Checkpoint that embedded it"),
        Column("object", _TEXT, nullable=False, meaning="Path below `warehouse/objects`, which ends with the SHA-256"),
        Column("rows", _COUNT, nullable=False, meaning="Number of rows"),
        Column("hash_sum", _TEXT, nullable=False, meaning="Sum of the hashes of its rows, for the content version"),
    ),
    meaning="Files of embeddings; only where the home has a store, and embeddings are views",
)

SCHEMA_VERSION = Table(
    "schema_version",
    (
        Column(
            "sha256",
            _TEXT,
            nullable=False,
            meaning="SHA-256 of the statements of accelkd/warehouse/schema.py, views.sql and macros.sql",
        ),
        Column(
            "migrations",
            _COUNT,
            nullable=False,
            meaning="How many migrations of accelkd/warehouse/migrations.py the file has been through",
        ),
    ),
    meaning="Which version of the schema made this file",
)

BATCH_TABLES = (BATCHES, DEMOGRAPHICS, SURVEY_TARGETS, SEGMENTS, QUARANTINED)  # loaded batch by batch
TABLES_WITH_BATCHES = (*BATCH_TABLES, SENSOR_CHECKS)  # all rows of a batch go when it is taken out
HISTORY_TABLES = (CHECK_RESULTS, DRIFT_HISTORY)  # grow when nothing of the content changes
REPRODUCTION_TABLES = (REPRODUCTION_RESULTS, REPRODUCTION_RETRIEVAL, REPRODUCTION_CLAIMS)
TABLES = (
    *TABLES_WITH_BATCHES,
    LEDGER,
    SUPERSEDED_BATCHES,
    MODELS,
    PROMOTIONS,
    *HISTORY_TABLES,
    PROBE_RESULTS,
    PARTICIPANT_PROBE_RESULTS,
    PROBE_PREDICTIONS,
    READOUTS,
    PREDICTIONS,
    FAIRNESS_RESULTS,
    RETRIEVAL_RESULTS,
    *REPRODUCTION_TABLES,
    ARTIFACTS,
    EDGES,
    RUNS,
    MODEL_PARTICIPANTS,
    SCHEMA_VERSION,
)


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's type of an Arrow type. Raises KeyError for one that no column has."""
    if pa.types.is_fixed_size_list(kind):
        return f"{sql_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return _SQL_TYPES[kind]


def create(table: Table) -> str:
    """The statement that creates a table."""
    (single,) = table.key if len(table.key) == 1 else (None,)
    lines = [
        f"{column.name} {sql_type(column.type)}"
        + (" PRIMARY KEY" if column.name == single else "" if column.nullable else " NOT NULL")
        for column in table.columns
    ]
    if table.key and single is None:
        lines.append(f"PRIMARY KEY ({', '.join(table.key)})")
    return f"CREATE TABLE {table.name} (\n    " + ",\n    ".join(lines) + "\n);"


def comments(table: Table, kind: str = "TABLE") -> str:
    """The statements that comment a table, or a view, and its columns."""
    lines = [f"COMMENT ON {kind} {table.name} IS {_quoted(table.meaning)};"]
    lines += [f"COMMENT ON COLUMN {table.name}.{column.name} IS {_quoted(column.comment)};" for column in table.columns]
    return "\n".join(lines)


def schemas(tables: Iterable[Table]) -> str:
    """The statements that create what tables lie in beside the main schema, and the schema of the embeddings."""
    names = dict.fromkeys(["embeddings", *(name for table in tables if (name := table.name.rpartition(".")[0]))])
    return "\n".join(f"CREATE SCHEMA IF NOT EXISTS {name};" for name in names)


def schema_sql(tables: Iterable[Table] = TABLES, views: str = VIEWS) -> str:
    """The statements that create a warehouse in which nothing has been loaded."""
    tables = tuple(tables)
    return "\n\n".join([schemas(tables), *(f"{create(table)}\n{comments(table)}" for table in tables), views])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
