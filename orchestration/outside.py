"""What changes outside of runs is reported to Dagster: promotions and rollbacks on the command line, and settings.

Belongs here: the events that say which encoders are promoted and what is set. Does not belong here: promoting
(accelkd.operations), setting (accelkd.home.settings), and what follows (sensors).
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.registry.history import history, promoted_models, promoted_version
from assets.encoders import promoted_encoders
from assets.settings import values
from assets.settings import version as settings_version
from orchestration.dagster_internals import DATA_VERSION_TAG, data_version

Unreported = dg.AssetMaterialization | dg.AssetObservation


def unreported(home: Home, instance: dg.DagsterInstance) -> Sequence[Unreported]:
    """The events that say what is promoted and what is set, where the last ones say something else."""
    return [*_promotion(home, instance), *_settings(home, instance)]


def report_outside(home: Home, instance: dg.DagsterInstance) -> None:
    """Report these events at once."""
    for event in unreported(home, instance):
        instance.report_runless_asset_event(event)


def report_settings(home: Home, instance: dg.DagsterInstance) -> None:
    """Report changed settings at once."""
    for event in _settings(home, instance):
        instance.report_runless_asset_event(event)


def _promotion(home: Home, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    models = promoted_models(home)
    records = instance.fetch_materializations(promoted_encoders.key, limit=1).records
    version = promoted_version(home)
    if not models or (records and data_version(records[0]) == version):
        return []
    last = history(home)[-1]
    return [
        dg.AssetMaterialization(
            promoted_encoders.key,
            tags={DATA_VERSION_TAG: version},
            metadata={
                **{f"{encoder}_promoted": model_id for encoder, model_id in models.items()},
                "decision": last.action,
                "reason": last.reason,
                "decided_at": last.at,
            },
        )
    ]


def _settings(home: Home, instance: dg.DagsterInstance) -> list[dg.AssetObservation]:
    events = []
    for name, chosen in values(Settings.load(home)).items():
        records = instance.fetch_observations(dg.AssetKey(name), limit=1).records
        if not records or data_version(records[0]) != settings_version(chosen):
            events.append(
                dg.AssetObservation(name, tags={DATA_VERSION_TAG: settings_version(chosen)}, metadata=dict(chosen))
            )
    return events
