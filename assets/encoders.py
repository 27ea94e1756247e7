"""Encoders: the PPG teacher, and the accelerometer student distilled from it."""

import json
from enum import Enum
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
from pydantic import Field

from accelkd.cohort.split import read_split
from accelkd.cohort.training_set import training_set
from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.promote import evaluate_candidate
from accelkd.registry.history import STUDENT, TEACHER, EncoderName, Models, candidate_checkpoint, make_candidate
from accelkd.registry.trained_on import whose_segments, write_trained_on
from accelkd.warehouse.load import load_model
from assets.cohort import participant_split
from assets.metadata import figure, markdown_table, tags
from assets.segments import segments

# torch is imported inside the functions: the code server, which only lists assets, stays small and quick without it.
CHECKS = {
    "finite": "No embedding of the candidate holds NaN or infinity.",
    "not_collapsed": "The candidate's embeddings use enough directions (effective rank).",
    "probes": "The candidate's heart-rate, SDNN and RMSSD errors on held-out participants are no worse than in use.",
    "retrieval": "The candidate's student finds the teacher's embedding of its own minute no worse than in use.",
}


class PresetChoice(Enum):
    """Named sizes and schedules of accelkd.training.presets."""

    settings = "settings"
    paper = "paper"
    demo = "demo"
    smoke = "smoke"


class Training(dg.Config):
    """For this run alone; the standing choice is in settings.json (`accelkd configure --preset`)."""

    preset: PresetChoice = Field(
        PresetChoice.settings,
        description="Sizes and schedules of the training: `paper`, `demo`, `smoke`, or what `settings` says.",
    )
    steps: int | None = Field(None, ge=1, description="Optimiser steps; the schedule scales. Default: the preset's.")
    learning_rate: float | None = Field(None, gt=0, description="Highest learning rate. Default: the preset's.")
    seed: int | None = Field(None, ge=0, description="Of the weights and the order of segments. Default: the preset's.")
    device: str = Field("auto", description="Where to train: auto, cpu or cuda.")


class Promotion(dg.Config):
    """For this run alone."""

    force: str = Field(
        "", description="A reason to promote the pair trained last whatever it measures; empty to compare."
    )


@dg.asset(
    deps=[segments, participant_split],
    group_name="encoders",
    kinds={"pytorch"},
    owners=["team:research"],
    tags=tags("participant-level", "each-training"),
    pool="training",
    code_version="1",
    metadata={"settings": "preset"},
)
def ppg_teacher(
    config: Training, home: dg.ResourceParam[Home], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[None]:
    """PPG teacher, pre-trained by masked autoencoding on the training participants' segments (paper, section 3.1).

    The checkpoint's name is a hash of configuration, code, data and split: with nothing changed the one that is there
    is used again, and an interrupted training continues.
    """
    return _train(home, TEACHER, config, settings)


@dg.asset(
    deps=[segments, participant_split, ppg_teacher],
    group_name="encoders",
    kinds={"pytorch"},
    owners=["team:research"],
    tags=tags("participant-level", "each-training"),
    pool="training",
    code_version="2",
    metadata={"settings": "preset"},
)
def accel_student(
    config: Training, home: dg.ResourceParam[Home], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[None]:
    """Accelerometer student, distilled from the frozen PPG teacher by a multi-modal InfoNCE (paper, section 3.2).

    Reuses and resumes like the teacher. A loss of ln(batch size) is chance.
    """
    return _train(home, STUDENT, config, settings, teacher=candidate_checkpoint(home, TEACHER))


@dg.asset(
    deps=[ppg_teacher, accel_student],
    group_name="encoders",
    kinds={"json"},
    owners=["team:research"],
    tags=tags("summaries", "each-training"),
    pool="training",
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(name, asset="promoted_encoders", description=description)
        for name, description in CHECKS.items()
    ],
)
def promoted_encoders(
    context: dg.AssetExecutionContext, config: Promotion, home: dg.ResourceParam[Home]
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster does not know its own generic beside checks
    """Teacher and student that embed from now on: the pair trained last, if it is no worse than the pair in use.

    Compared on the held-out participants. A pair that fails a check is not put into use, and the checks say why; what
    is in use goes on being used. The job `rollback` (or `accelkd rollback`) goes back to the pair before.
    """
    outcome = evaluate_candidate(home, force=config.force or None)
    decision, models = outcome.decision, outcome.models
    context.log.info(f"{decision.action}: {decision.reason}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(promoted_version(models)),
        metadata={
            **{f"{encoder}_in_use": model_id for encoder, model_id in models.items()},
            "candidate": ", ".join(decision.models.values()),
            "decision": decision.action,
            "reason": decision.reason,
            "decided_at": decision.at,
            "measured": markdown_table(decision.criteria),
            **({"forced": config.force} if config.force else {}),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=name,
                passed=all(row["passed"] for row in decision.criteria if row["check"] == name),
                severity=dg.AssetCheckSeverity.WARN,  # the pair in use is as good as it was
                metadata={"measured": markdown_table([row for row in decision.criteria if row["check"] == name])},
            )
            for name in CHECKS
        ],
    )


def promoted_version(models: Models) -> str:
    """Data version of `promoted_encoders`: which pair it is."""
    return ":".join(model_id for _, model_id in sorted(models.items()))


def _train(
    home: Home, encoder: EncoderName, config: Training, settings: Settings, teacher: Path | None = None
) -> dg.MaterializeResult[None]:
    """Train on what there is, write down on whom, and note the checkpoint as the one trained last."""
    from accelkd.reports.figures import loss_figure
    from accelkd.training.checkpoint import CARD, CURVE, METRICS, WEIGHTS
    from accelkd.training.presets import adjusted, preset
    from accelkd.training.runs import train_encoder

    curated = training_set(home)
    chosen = preset(settings.preset if config.preset is PresetChoice.settings else config.preset.value)
    folder = train_encoder(
        curated.store,
        curated.rows,
        adjusted(  # type: ignore[type-var]  # takes the one or the other
            chosen.teacher if encoder == TEACHER else chosen.student,
            steps=config.steps,
            learning_rate=config.learning_rate,
            seed=config.seed,
        ),
        home.encoder(encoder),
        name=encoder,
        data_version=curated.data_version,
        split_version=curated.split_version,
        teacher=teacher,
        device=config.device,
    )
    make_candidate(home, encoder, folder.name, read_split(home.split).num_rows)
    write_trained_on(home, encoder, folder.name, whose_segments(curated), curated.batch_ids)
    load_model(home, encoder, folder.name, curated.batch_ids)
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(folder / WEIGHTS)),
        metadata={
            "model_id": folder.name,
            "run_configuration": json.dumps(config.model_dump(mode="json", exclude_defaults=True)),
            "dagster/uri": str(folder),
            "training_batches": ", ".join(curated.batch_ids),
            "batches_left_out": ", ".join(curated.left_out) or "none",
            "data_version": curated.data_version,
            "split_version": curated.split_version,
            **{name: value for name, value in metrics.items() if isinstance(value, int | float | str)},
            "card": dg.MetadataValue.md((folder / CARD).read_text(encoding="utf-8")),
            "loss_curve": figure(loss_figure(pq.read_table(folder / CURVE), encoder), "training loss"),
        },
    )
