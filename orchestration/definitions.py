"""Everything that Dagster loads, put together over one home. Tests build their own over another.

Belongs here: which assets, checks, jobs, sensors, schedules and resources there are. Does not belong here: any of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import dagster as dg

from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from accelkd.home.settings import Settings
from accelkd.operations.share import refresh_worker
from assets import (
    checks,
    cohort,
    embeddings,
    encoders,
    predictions,
    recordings,
    reports,
    reproduction,
    segments,
    warehouse,
)
from assets import (
    sensors as sensor_assets,
)
from assets.settings import settings_assets
from orchestration.alerts import alert_sensors
from orchestration.fence import run_is_alive
from orchestration.freshness_policies import freshness_policies
from orchestration.jobs import jobs, schedules
from orchestration.lineage_events import lineage_sensors
from orchestration.outside import report_settings
from orchestration.sensors import sensors

# Dagster gives it when it resolves the job of a sensor, whether the sensor has owners or not
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer", category=dg.BetaWarning)

STAGES = [
    recordings,
    segments,
    sensor_assets,
    cohort,
    encoders,
    embeddings,
    predictions,
    warehouse,
    reports,
    reproduction,
]


def build_defs(home: Home) -> dg.Definitions:
    """Definitions over one home. Runs read its settings when they start: a change needs no reload."""
    policies = freshness_policies(home)

    def with_freshness(spec: dg.AssetSpec) -> dg.AssetSpec:
        policy = None if spec.tags.get("cadence") == "manual" else policies.get(str(spec.group_name))
        return spec.replace_attributes(freshness_policy=policy)

    @dg.resource(
        description=f"The home {home.root}: all files of the pipeline. Runs share it; a withdrawal waits for them."
    )
    def home_of_run(context: dg.InitResourceContext) -> Iterator[Home]:
        if context.run is None:  # a sensor's tick
            yield home
            return
        instance, run_id = context.instance, context.run.run_id
        with shared_lock(home):
            refresh_worker(home)
            if instance is None:
                yield replace(home, run_id=run_id)
                return
            report_settings(home, instance)  # so that what this run makes is known to be made with them
            alive = partial(run_is_alive, instance, run_id) if home.store is not None else None
            yield replace(home, run_id=run_id, is_alive=alive)

    @dg.resource(description="What `accelkd configure` has set in settings.json, read for each run.")
    def settings_of_run(_context: dg.InitResourceContext) -> Settings:
        return Settings.load(home)

    stages = [asset for asset in dg.load_assets_from_modules(STAGES) if isinstance(asset, dg.AssetsDefinition)]
    return dg.Definitions(
        assets=[settings_assets, *dg.map_asset_specs(with_freshness, stages)],
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=jobs,
        sensors=[*sensors, *alert_sensors, *lineage_sensors],
        schedules=schedules,
        resources={"home": home_of_run, "settings": settings_of_run},
        executor=dg.in_process_executor,  # a process per step would import torch again each time
    )


defs = build_defs(Home.from_environment())
