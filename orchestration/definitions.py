"""Everything that Dagster loads, put together over one home. Tests build their own over another.

Belongs here: which assets, checks, jobs, sensors, schedules and resources there are. Does not belong here: any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import dagster as dg

from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from accelkd.home.settings import Settings
from assets import checks, cohort, embeddings, encoders, recordings, reports, reproduction, segments, warehouse
from orchestration.automation import CONDITIONS, follow_changes
from orchestration.jobs import catch_up, per_batch, report, retrain, rollback, schedules
from orchestration.sensors import sensors

STAGES = [recordings, segments, cohort, encoders, embeddings, warehouse, reports, reproduction]


def build_defs(home: Home) -> dg.Definitions:
    """Definitions over one home. A changed setting shows as a new code version of the assets that it touches."""
    settings = Settings.load(home)

    def versioned(spec: dg.AssetSpec) -> dg.AssetSpec:
        spec = spec.replace_attributes(automation_condition=CONDITIONS.get(str(spec.group_name)))
        names = str(spec.metadata.get("settings", "")).split(", ")
        used = {name: value for name, value in asdict(settings).items() if name in names}
        return spec.replace_attributes(code_version=f"{spec.code_version}+{sha256_json(used)[:8]}") if used else spec

    @dg.resource
    def home_of_run(context: dg.InitResourceContext) -> Iterator[Home]:
        if context.run is None:  # a sensor's tick
            yield home
            return
        with shared_lock(home):
            yield replace(home, run_id=context.run.run_id)

    stages = [asset for asset in dg.load_assets_from_modules(STAGES) if isinstance(asset, dg.AssetsDefinition)]
    return dg.Definitions(
        assets=dg.map_asset_specs(versioned, stages),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        jobs=[per_batch, retrain, report, catch_up, rollback],
        sensors=[*sensors, follow_changes],
        schedules=schedules,
        resources={"home": home_of_run, "settings": settings},
        executor=dg.in_process_executor,  # a process per step would import torch again each time
    )


defs = build_defs(Home.from_environment())
