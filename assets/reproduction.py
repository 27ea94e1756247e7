"""The paper's experiments on a simulated cohort of their own, its tables and claims: launched by hand."""

from collections import Counter
from typing import Literal

import dagster as dg
import pyarrow.parquet as pq
from pydantic import Field

from accelkd.home.files import sha256_json
from accelkd.home.layout import Home
from accelkd.warehouse.schema import REPRODUCTION_TABLES
from assets.failures import Failed, explained
from assets.metadata import figure, markdown_table, presented, tags, warehouse_tables

_SHOWN = ["sentence", "paper", "ours", "verdict", "seeds"]  # of the claims


class Reproduction(dg.Config):
    """What to run; everything that was run before with the same configuration, code and data is used again."""

    preset: str = Field("smoke", description="smoke (minutes), small (hours on a CPU) or gpu (the paper's sizes).")
    only: list[str] = Field([], description="Tables and figures, such as table-3; none means all.")
    on: Literal["processes", "ray"] = Field("processes", description="Of this machine, or tasks of a Ray cluster.")
    workers: int | None = Field(None, description="Runs at once; by default the number of cores, or of GPUs.")
    budget_min: float | None = Field(None, description="Minutes after which no new experiment starts.")


@dg.asset(
    kinds={"pytorch", "duckdb", "markdown"},
    group_name="reports",
    owners=["team:research"],
    tags=tags("summaries", "manual"),
    metadata=warehouse_tables(REPRODUCTION_TABLES),
    pool="training",
    code_version="1",
)
@explained
def reproduction(config: Reproduction, home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """`reproduction/REPRODUCTION.md`: every table, figure and claim of the paper, beside ours on a simulated cohort.

    Independent of the recordings that have arrived. Long: launch it by hand with the preset that you want; nothing else
    does. Experiments that failed or were left for lack of time are named; the next launch goes on with them.
    """
    from accelkd.reproduction.experiments import experiment_preset
    from accelkd.reproduction.run import reproduce
    from accelkd.warehouse.reproduction import load_reproduction

    outcome = reproduce(
        home,
        experiment_preset(config.preset),
        only=config.only,
        on=config.on,
        workers=config.workers,
        budget_min=config.budget_min,
        command=f"asset reproduction, preset {config.preset}",
    )
    rows = load_reproduction(home)
    folder = outcome.report.parent
    claims = pq.read_table(folder / "claims.parquet", columns=_SHOWN).to_pylist()
    verdicts = Counter(row["verdict"] for row in claims)
    pictures = {path.stem.replace("-", "_"): path for path in sorted((folder / "figures").glob("*.png"))}
    metadata = presented(
        {
            **{name: figure(path.read_bytes(), name.replace("_", " ")) for name, path in pictures.items()},
            "runs_done": len(outcome.done),
            "runs_left": len(outcome.remaining),
            **{f"claims_{verdict.replace(' ', '_')}": count for verdict, count in sorted(verdicts.items())},
            "claims": markdown_table(claims),
            "preset": config.preset,
            "dagster/row_count": sum(rows.values()),
            "dagster/uri": str(outcome.report),
        }
    )
    if outcome.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in outcome.failed.items())
        raise Failed(f"{len(outcome.failed)} runs failed: {reasons}", metadata)
    return dg.MaterializeResult(data_version=dg.DataVersion(sha256_json([config.preset, claims])), metadata=metadata)
