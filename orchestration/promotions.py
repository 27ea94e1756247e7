"""What was promoted or rolled back outside of a run is told to Dagster: embeddings and reports follow."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry

from accelkd.home.layout import Home
from accelkd.registry.history import history, promoted_models
from assets.encoders import promoted_encoders, promoted_version


def unreported_promotion(home: Home, instance: dg.DagsterInstance) -> dg.AssetMaterialization | None:
    """The event that says which pair is in use, where the last one says something else."""
    models = promoted_models(home)
    record = instance.get_latest_data_version_record(promoted_encoders.key)
    told = extract_data_version_from_entry(record.event_log_entry) if record else None
    if not models or (told is not None and told.value == promoted_version(models)):
        return None
    last = history(home)[-1]
    return dg.AssetMaterialization(
        promoted_encoders.key,
        tags={DATA_VERSION_TAG: promoted_version(models)},
        metadata={
            **{f"{encoder}_promoted": model_id for encoder, model_id in models.items()},
            "decision": last.action,
            "reason": last.reason,
            "decided_at": last.at,
        },
    )


def report_promotions(home: Home, instance: dg.DagsterInstance) -> None:
    """Report the event at once."""
    event = unreported_promotion(home, instance)
    if event is not None:
        instance.report_runless_asset_event(event)
