"""Readouts of the promoted encoders, and what they predict for every embedded segment and participant."""

from dataclasses import asdict
from typing import Any

import dagster as dg

from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.warehouse.schema import FAIRNESS_RESULTS, PREDICTIONS, READOUTS
from assets.cohort import participant_split
from assets.failures import explained
from assets.metadata import markdown_table, presented, tags, warehouse_tables

_EMBEDDINGS = [f"{spec.name}_embeddings" for spec in ENCODERS]


@dg.asset(
    deps=[*_EMBEDDINGS, participant_split],
    group_name="reports",
    kinds={"scikitlearn", "duckdb"},
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    metadata={"dagster/table_name": "readouts", **warehouse_tables([READOUTS])},
    pool="duckdb_writer",
    code_version="1",
)
@explained
def readouts(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """The fits that predict from embeddings, with 90 % intervals, kept as `readouts.safetensors` beside the weights.

    Fitted on training participants. They stay while new batches arrive, and are fitted again for other encoders, for
    half as many labelled participants again, or where a batch that they were fitted on has changed.
    """
    from accelkd.operations.readouts import refresh_readouts

    refreshed = refresh_readouts(home)
    rows = [
        {
            "target": f"{fitted.encoder}: {readout.target}",
            "unit": readout.unit or "area under the curve",
            "held out": readout.held_out,
            "constant": readout.constant,
            "participants": readout.participants,
        }
        for fitted in refreshed
        if fitted.readouts is not None
        for readout in fitted.readouts.of.values()
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(
            sha256_json([fitted.readouts.readout_id if fitted.readouts else fitted.status for fitted in refreshed])
        ),
        metadata=presented(
            {
                "readouts": len(rows),
                "fits": markdown_table(rows),
                **{f"{fitted.encoder}_status": fitted.status for fitted in refreshed},
                **{
                    f"{fitted.encoder}_readout_id": fitted.readouts.readout_id
                    for fitted in refreshed
                    if fitted.readouts
                },
                "dagster/row_count": len(rows),
            }
        ),
    )


@dg.asset(
    deps=[*_EMBEDDINGS, readouts],
    group_name="reports",
    kinds={"numpy", "duckdb"},
    owners=["team:data-engineering", "team:research"],
    tags=tags("participant-level", "each-report"),
    metadata={"dagster/table_name": "predictions", **warehouse_tables([PREDICTIONS])},
    pool="duckdb_writer",
    code_version="1",
)
@explained
def predictions(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """Heart rate, SDNN, RMSSD of every segment; age, BMI, sex and survey targets of every participant; with intervals.

    For all that is embedded, with or without a label. Only batches whose embeddings or readouts changed are predicted.
    """
    from accelkd.operations.readouts import predict_all

    predicted = predict_all(home)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(
            sha256_json([[done.encoder, done.readouts.readout_id, done.embeddings] for done in predicted])
        ),
        metadata=presented(
            {
                "predictions": sum(done.rows for done in predicted),
                "segments_unlike_training": sum(done.not_typical for done in predicted),
                **{f"{done.encoder}_predicted_now": ", ".join(done.batches) or "none" for done in predicted},
                "dagster/row_count": sum(done.rows for done in predicted),
                "dagster/uri": str(home.staging),
            }
        ),
    )


@dg.asset(
    deps=[predictions, participant_split],
    group_name="reports",
    kinds={"numpy", "duckdb"},
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    metadata={"dagster/table_name": "fairness_results", **warehouse_tables([FAIRNESS_RESULTS])},
    pool="duckdb_writer",
    code_version="1",
)
@explained
def fairness(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """Whom predictions hold for: error, coverage of the intervals and ranking by sex, age, BMI, skin tone and device.

    Of test participants. A group of fewer than ten people decides nothing, and says so.
    """
    from accelkd.operations.fairness import measure_fairness

    measured = measure_fairness(home)
    rows: list[dict[str, Any]] = [
        {"encoder": of.encoder, "target": target, **asdict(result)}
        for of in measured
        for target, results in of.results.items()
        for result in results
    ]
    overall = [row for row in rows if row["attribute"] == "everybody" and row["coverage"] is not None]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_json([[of.readout_id for of in measured], rows])),
        metadata=presented(
            {
                **{f"{row['encoder']}_{row['target']}_coverage": row["coverage"] for row in overall},
                "groups": len(rows),
                "groups_not_decidable": sum(row["status"] == "not_decidable" for row in rows),
                "everybody": markdown_table(
                    [
                        {
                            "target": f"{row['encoder']}: {row['target']}",
                            "MAE": row["mae"],
                            "coverage": row["coverage"],
                            "participants": row["participants"],
                        }
                        for row in overall
                    ]
                ),
                "dagster/row_count": len(rows),
            }
        ),
    )
