"""The cohort: which participant is in training and which in test."""

import dagster as dg

from accelkd.cohort.split import LEDGER, STRATA, read_split, strata_table
from accelkd.home.layout import Home
from accelkd.operations.split import split_participants
from assets.failures import explained
from assets.metadata import counts_table, figure, markdown_table, presented, tags, warehouse_tables
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
@explained
def participant_split(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """The split ledger: participants, never segments, 80/20, stratified by sex × age band × device.

    Extends the ledger by the participants that have segments in a loaded batch and are not in it yet; nobody who is in
    it moves. Whoever came only with a batch that was superseded or refused leaves, unless a checkpoint was trained on
    them.
    """
    from accelkd.reports.figures import split_figure

    extended = split_participants(home)
    summary = extended.summary
    ledger = read_split(home.split)
    strata: dict[str, dict[str, int]] = {}
    for row in strata_table(ledger).to_pylist():
        stratum = strata.setdefault(", ".join(row[name] for name in STRATA), {"train": 0, "test": 0})
        stratum[row["split"]] = row["participants"]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(summary.split_version),
        metadata=presented(
            {
                "balance": figure(split_figure(ledger), "participants in training and in test, by stratum"),
                "participants_train": summary.train,
                "participants_test": summary.test,
                "participants_added": summary.added,
                "test_share": summary.test / max(summary.participants, 1),
                "strata": summary.strata,
                "largest_deviation_participants": summary.largest_deviation,
                "participants_by_stratum": markdown_table(
                    [{"stratum": stratum, **sides} for stratum, sides in strata.items()]
                ),
                "removed": counts_table(extended.removed, "batch"),
                "batches_not_loaded": ", ".join(extended.not_loaded) or "none",
                "dagster/row_count": summary.participants,
                "dagster/uri": str(home.split),
            }
        ),
    )
