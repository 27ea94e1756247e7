"""Encoders: teachers, the students distilled from them, and which of them are promoted."""

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
from pydantic import Field

from accelkd.cohort.training_set import TrainingSet
from accelkd.home.files import sha256_file
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, EncoderSpec
from accelkd.operations.promote import CRITERIA, evaluate_candidate
from accelkd.registry.history import promoted_version
from assets.cohort import participant_split
from assets.failures import explained
from assets.metadata import figure, markdown_table, presented, tags
from assets.settings import TRAINING_SETTINGS

# torch is imported inside the functions: the code server, which only lists assets, stays small and quick without it.


class PresetChoice(Enum):
    """Named sizes and schedules of accelkd.training.presets."""

    settings = "settings"
    paper = "paper"
    demo = "demo"
    scratch = "scratch"
    night = "night"
    smoke = "smoke"


class Training(dg.Config):
    """For this run alone; the standing choice is in settings.json (`accelkd configure --preset`)."""

    preset: PresetChoice = Field(
        PresetChoice.settings,
        description="Sizes and schedules of the training: one of accelkd.training.presets, or what `settings` says.",
    )
    steps: int | None = Field(None, ge=1, description="Optimiser steps; the schedule scales. Default: the preset's.")
    learning_rate: float | None = Field(None, gt=0, description="Highest learning rate. Default: the preset's.")
    seed: int | None = Field(None, ge=0, description="Of the weights and the order of segments. Default: the preset's.")
    device: str = Field("auto", description="Where to train: auto, cpu or cuda.")
    workers: int | None = Field(
        None,
        ge=1,
        description="Processes of a Ray cluster that train together. Default: ACCELKD_TRAINING_WORKERS, or 1.",
    )


class Promotion(dg.Config):
    """For this run alone."""

    force: str = Field(
        "", description="A reason to promote the encoders trained last whatever they measure; empty to compare."
    )


def _encoder(spec: EncoderSpec) -> dg.AssetsDefinition:
    @dg.asset(
        name=spec.name,
        deps=["segments", participant_split, TRAINING_SETTINGS, *([spec.teacher] if spec.teacher else [])],
        group_name="encoders",
        kinds={"pytorch"},
        owners=["team:research"],
        tags=tags("participant-level", "each-training"),
        pool="training",
        code_version="3",
        description=_description(spec),
    )
    @explained
    def encoder(
        context: dg.AssetExecutionContext, config: Training, home: dg.ResourceParam[Home]
    ) -> dg.MaterializeResult[None]:
        from accelkd.operations.train import load_candidate, train_candidate
        from accelkd.reports.figures import loss_figure
        from accelkd.training.checkpoint import CARD, CURVE, WEIGHTS, read_metrics

        trained = train_candidate(
            home,
            spec.name,
            preset=None if config.preset is PresetChoice.settings else config.preset.value,
            steps=config.steps,
            learning_rate=config.learning_rate,
            seed=config.seed,
            device=config.device,
            workers=config.workers,
        )
        load_candidate(home, spec.name)
        for warning in trained.warnings:
            context.log.warning(warning)
        folder, selected = trained.folder, trained.training_set
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha256_file(folder / WEIGHTS)),
            metadata=presented(
                {
                    "loss_curve": figure(loss_figure(pq.read_table(folder / CURVE), spec.name), "training loss"),
                    **_facts(read_metrics(folder)),
                    "training_warnings": "; ".join(trained.warnings),
                    "card": dg.MetadataValue.md((folder / CARD).read_text(encoding="utf-8")),
                    "model_id": folder.name,
                    **_trained_on(selected),
                    "run_configuration": json.dumps(config.model_dump(mode="json", exclude_defaults=True)),
                    "dagster/uri": str(folder),
                }
            ),
        )

    return encoder


def _trained_on(selected: TrainingSet | None) -> dict[str, object]:
    if selected is None:
        return {"training_batches": "none: no segment here has what it learns from; it was adopted from elsewhere"}
    return {
        "training_batches": ", ".join(selected.batch_ids),
        "training_segments": len(selected.rows),
        "batches_left_out": ", ".join(selected.left_out) or "none",
        "batches_not_loaded": ", ".join(selected.not_loaded) or "none",
        "data_version": selected.data_version,
        "split_version": selected.split_version,
    }


def _facts(metrics: Mapping[str, object]) -> dict[str, object]:
    """The numbers and texts of a checkpoint's metrics, the loss first; how it was trained is on its card."""
    facts = {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}
    return {name: facts[name] for name in sorted(facts, key=lambda name: "loss" not in name) if name != "trained"}


def _description(spec: EncoderSpec) -> str:
    if spec.teacher is None:
        how = "pre-trained by masked autoencoding on the training participants' segments (paper, section 3.1)."
        loss = ""
    else:
        how = f"distilled from the frozen {spec.teacher} by a multi-modal InfoNCE (paper, section 3.2)."
        loss = " A loss of ln(batch size) is chance."
    return (
        f"{spec.title[0].upper()}{spec.title[1:]}, {how}\n\nThe checkpoint's name is a hash of configuration, code, "
        "data and split: with nothing changed the one that is there is used again, an interrupted training continues."
        f"{loss}"
    )


encoder_assets = [_encoder(spec) for spec in ENCODERS]


@dg.asset(
    deps=[spec.name for spec in ENCODERS],
    group_name="encoders",
    kinds={"json"},
    owners=["team:research"],
    tags=tags("summaries", "each-training"),
    pool="training",
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(name, asset="promoted_encoders", description=description)
        for name, description in CRITERIA.items()
    ],
)
@explained
def promoted_encoders(
    context: dg.AssetExecutionContext, config: Promotion, home: dg.ResourceParam[Home]
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster does not know its own generic beside checks
    """The encoders that embed from now on: those trained last, if they are no worse than the promoted ones.

    Compared on the held-out participants. Where one fails a check, none is promoted, and the checks say why; the
    promoted ones stay. The job `rollback` (or `accelkd rollback`) goes back to those before.
    """
    outcome = evaluate_candidate(home, force=config.force or None)
    decision, models = outcome.decision, outcome.models
    context.log.info(f"{decision.action}: {decision.reason}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(promoted_version(home)),
        metadata=presented(
            {
                **_measured(decision.criteria),
                "decision": decision.action,
                "reason": decision.reason,
                "forced": config.force,
                "decided_at": decision.at,
                **{f"{encoder}_promoted": model_id for encoder, model_id in models.items()},
                "candidate": ", ".join(decision.models.values()),
            }
        ),
        check_results=[
            dg.AssetCheckResult(
                check_name=name,
                passed=all(row["passed"] for row in decision.criteria if row["check"] == name),
                severity=dg.AssetCheckSeverity.WARN,  # the promoted encoders are as good as they were
                metadata=presented(_measured([row for row in decision.criteria if row["check"] == name])),
            )
            for name in CRITERIA
        ],
    )


def _measured(criteria: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Each criterion as a number by its name, and all of them as a table beside what was allowed."""
    return {
        **{row["name"]: row["measured"] for row in criteria if "name" in row},  # which older decisions lack
        "measured": markdown_table(
            [
                {
                    "what": row["what"],
                    "measured": row["measured"],
                    "allowed": _allowed(row["at_least"], row["at_most"], row["promoted"]),
                    "passed": "yes" if row["passed"] else "no",
                }
                for row in criteria
            ]
        ),
    }


def _allowed(at_least: float | None, at_most: float | None, promoted: float | None) -> str:
    bounds = [f"{sign} {bound:.4g}" for sign, bound in (("≥", at_least), ("≤", at_most)) if bound is not None]
    return " and ".join(bounds) + (f" (promoted: {promoted:.4g})" if promoted is not None else "")
