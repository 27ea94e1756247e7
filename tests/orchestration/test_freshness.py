"""Staleness where Dagster itself does not look: over a hundred partitions and more."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.layout import Home
from orchestration.dagster_internals import DATA_VERSION_TAG, UNTRACKED_PARTITIONS
from orchestration.freshness import Freshness

BATCHES = [f"b{number}" for number in range(UNTRACKED_PARTITIONS)]


@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="batch"))
def tables() -> None: ...


@dg.asset(deps=[tables])
def report() -> None: ...


def materialize_tables(instance: dg.DagsterInstance, batch_id: str, version: str) -> None:
    event = dg.AssetMaterialization(tables.key, partition=batch_id, tags={DATA_VERSION_TAG: version})
    instance.report_runless_asset_event(event)


@pytest.mark.parametrize(
    ("batch_id", "version", "stale"),
    [("b7", "1", False), ("b7", "2", True), ("late", "1", True)],
    ids=["the same again", "another version", "a new partition"],
)
def test_an_asset_over_many_partitions_is_stale_once_one_of_them_has_changed(
    tmp_path: Path, batch_id: str, version: str, stale: bool
) -> None:
    graph = dg.Definitions(assets=[tables, report]).resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("batch", [*BATCHES, "late"])
        for name in BATCHES:
            materialize_tables(instance, name, "1")
        assert dg.materialize([report], instance=instance).success

        def is_stale() -> bool:
            return Freshness(Home(tmp_path), instance, graph).is_stale_or_missing(report.key, None, retrain=True)

        assert not is_stale()
        materialize_tables(instance, batch_id, version)
        assert is_stale() is stale
