"""A small home on which the whole pipeline ran, and Dagster on a home."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

import orchestration.instance
from accelkd.home.layout import Home
from orchestration.catch_up import CatchUpOutcome, catch_up
from orchestration.definitions import build_defs
from tests.support.homes import new_home, simulate


@dataclass(frozen=True)
class Pipeline:
    home: Home
    outcome: CatchUpOutcome  # of its only catch-up


def run_pipeline(root: Path) -> Pipeline:
    """Two simulated batches, every asset materialized with the smoke preset, on an instance that the UI can open."""
    home = new_home(root)
    simulate(home, "sim-a")
    simulate(home, "sim-b", first_participant=12)
    with opened_instance(home) as instance:
        return Pipeline(home, catch_up(home, instance))


def opened_instance(home: Home) -> AbstractContextManager[dg.DagsterInstance]:
    """The Dagster instance of a home."""
    return orchestration.instance.opened_instance(home.root / "dagster")


def materialize_batch(
    home: Home, instance: dg.DagsterInstance, batch_id: str, assets: Sequence[str] | None = None
) -> dg.ExecuteInProcessResult:
    """Run the job `per_batch`, or some of its assets, for one batch in this process; success is in the result."""
    instance.add_dynamic_partitions("arrival_batch", [batch_id])
    job = build_defs(home).resolve_job_def("per_batch")
    selection = None if assets is None else [dg.AssetKey(name) for name in assets]
    return job.execute_in_process(
        instance=instance, partition_key=batch_id, asset_selection=selection, raise_on_error=False
    )
