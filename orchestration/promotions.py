"""What was promoted or rolled back outside of a run is reported to Dagster: embeddings and reports follow.

Belongs here: the event that says which encoders are promoted. Does not belong here: promoting (accelkd.operations).
"""

from __future__ import annotations

import dagster as dg

from accelkd.home.layout import Home
from accelkd.registry.history import history, promoted_models
from assets.encoders import promoted_encoders, promoted_version
from orchestration.dagster_internals import DATA_VERSION_TAG, data_version


def unreported_promotion(home: Home, instance: dg.DagsterInstance) -> dg.AssetMaterialization | None:
    """The event that says which encoders are promoted, where the last one says something else."""
    models = promoted_models(home)
    records = instance.fetch_materializations(promoted_encoders.key, limit=1).records
    if not models or (records and data_version(records[0]) == promoted_version(models)):
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
