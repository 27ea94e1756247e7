"""The cohort: which participant is in training and which in test."""

import dagster as dg

from accelkd.cohort.split import LEDGER, read_split, strata_table
from accelkd.home.layout import Home
from accelkd.operations.split import split_participants
from assets.metadata import figure, markdown_table, tags, warehouse_tables
from assets.settings import SPLIT_SETTINGS
from assets.warehouse import segment_tables


@dg.asset(
    deps=[segment_tables, SPLIT_SETTINGS],
    group_name="cohort",
    kinds={"parquet", "duckdb"},
    owners=["team:data-engineering"],
    tags=tags("participant-level", "each-training"),
    pool="duckdb_writer",
    code_version="1",
    metadata={
        "dagster/table_name": "split",
        **warehouse_tables([LEDGER]),
    },
)
def participant_split(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """The split ledger: participants, never segments, 80/20, stratified by sex × age band × device.

    Extends the ledger by the participants that have segments and are not in it yet; nobody who is in it moves.
    """
    from accelkd.reports.figures import split_figure

    summary = split_participants(home)
    ledger = read_split(home.split)
    strata = strata_table(ledger).rename_columns(["device", "sex", "age", "side", "participants"])
    return dg.MaterializeResult(
        data_version=dg.DataVersion(summary.split_version),
        metadata={
            "dagster/row_count": summary.participants,
            "dagster/uri": str(home.split),
            "added": summary.added,
            "train": summary.train,
            "test": summary.test,
            "test_share": summary.test / max(summary.participants, 1),
            "strata": summary.strata,
            "largest_deviation": summary.largest_deviation,
            "balance": figure(split_figure(ledger), "participants in training and in test, by stratum"),
            "participants_by_stratum": markdown_table(strata.to_pylist()),
        },
    )
