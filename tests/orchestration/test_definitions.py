"""What the UI lists says what it is for."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.layout import Home
from orchestration.definitions import build_defs

DEFS = build_defs(Home(Path("/nowhere")))
REPOSITORY = DEFS.get_repository_def()
JOBS = [job for job in REPOSITORY.get_all_jobs() if not job.name.startswith("__")]


def test_assets_and_checks_are_described() -> None:
    graph = DEFS.resolve_asset_graph()
    described = {key.to_user_string(): graph.get(key).description for key in graph.get_all_asset_keys()}
    described |= {key.to_user_string(): graph.get(key).description for key in graph.asset_check_keys}
    assert {"segments", "segments:quarantine_rate"} <= described.keys()
    assert not [name for name, description in described.items() if not description]


@pytest.mark.parametrize("kind", ["jobs", "sensors", "schedules", "resources"])
def test_jobs_sensors_schedules_and_resources_are_described(kind: str) -> None:
    described = {
        "jobs": {job.name: job.description for job in JOBS},
        "sensors": {sensor.name: sensor.description for sensor in REPOSITORY.sensor_defs},
        "schedules": {schedule.name: schedule.description for schedule in REPOSITORY.schedule_defs},
        "resources": {name: resource.description for name, resource in REPOSITORY.get_top_level_resources().items()},
    }[kind]
    assert described
    assert not [name for name, description in described.items() if not description]


def test_what_can_be_configured_is_described() -> None:
    """Every field that the launchpad offers for an asset or an op."""
    fields = {}
    for job in [*JOBS, DEFS.resolve_implicit_global_asset_job_def()]:
        for node in job.nodes:
            config = node.definition.config_schema.config_type if isinstance(node.definition, dg.OpDefinition) else None
            for name, field in (getattr(config, "fields", None) or {}).items():
                fields[f"{node.name}.{name}"] = field.description
    assert {"ppg_teacher.steps", "promoted_encoders.force", "reproduction.preset"} <= fields.keys()
    assert not [name for name, description in fields.items() if not description]
