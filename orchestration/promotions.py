"""What was promoted or rolled back outside of a run is told to Dagster: embeddings and reports follow."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry

from accelkd.current import current_models, history
from accelkd.lake import Lake
from assets.encoders import encoders_in_use, in_use_version


def untold_promotion(lake: Lake, instance: dg.DagsterInstance) -> dg.AssetMaterialization | None:
    """The event that says which pair is in use, where the last one says something else."""
    models = current_models(lake)
    record = instance.get_latest_data_version_record(encoders_in_use.key)
    told = extract_data_version_from_entry(record.event_log_entry) if record else None
    if not models or (told is not None and told.value == in_use_version(models)):
        return None
    last = history(lake)[-1]
    return dg.AssetMaterialization(
        encoders_in_use.key,
        tags={DATA_VERSION_TAG: in_use_version(models)},
        metadata={
            **{f"{encoder}_in_use": model_id for encoder, model_id in models.items()},
            "decision": last.action,
            "reason": last.reason,
            "decided_at": last.at,
        },
    )


def tell_of_promotions(lake: Lake, instance: dg.DagsterInstance) -> None:
    """Report the event at once."""
    event = untold_promotion(lake, instance)
    if event is not None:
        instance.report_runless_asset_event(event)
