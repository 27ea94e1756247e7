"""Asset checks: each reports a verdict of accelkd.operations.checks, where thresholds and measurements are.

What a blocking check refuses stops what is downstream, in the same run and in a catch-up. The others warn.
"""

import warnings
from inspect import getdoc
from typing import Any

import dagster as dg

from accelkd.home.layout import Home
from accelkd.operations.checks import CHECKS, Check, Verdict, check_landing_zone, record_verdict
from accelkd.operations.checks import landing_zone as landing_verdict
from assets.failures import explained
from assets.metadata import figure, markdown_table, presented
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings

# Partitioned checks are a preview feature of Dagster 1.13, and the only one that this platform relies on.
warnings.filterwarnings("ignore", message="Specifying a partitions_def", category=dg.PreviewWarning)


def check_result(verdict: Verdict, *, blocking: bool = False) -> dg.AssetCheckResult:
    """A verdict as Dagster keeps it: what was measured as metadata, with the table and the figure where it has one."""
    metadata: dict[str, Any] = dict(verdict.measured)
    if verdict.table:
        metadata["details"] = markdown_table(verdict.table)
    if verdict.drifts:
        from accelkd.reports.figures import drift_figure  # imports matplotlib

        png = drift_figure(verdict.drifts)
        metadata["differences"] = figure(png, "difference from the training cohort, and its threshold")
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=verdict.passed, severity=severity, metadata=presented(metadata))


def _asset_check(check: Check) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name=check.name,
        asset=check.asset,
        description=check.description,
        blocking=check.blocking,
        partitions_def=arrival_batches if check.per_batch else None,
    )
    @explained
    def measure(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
        batch_id = context.partition_key if check.per_batch else None
        return check_result(check.measure(home, batch_id), blocking=check.blocking)

    return measure


@dg.asset_check(asset=raw_recordings, description=f"{getdoc(landing_verdict)} The sensor looks too.")
@explained
def landing_zone(context: dg.AssetCheckExecutionContext, home: dg.ResourceParam[Home]) -> dg.AssetCheckResult:
    known = set(context.instance.get_dynamic_partitions(str(arrival_batches.name)))
    verdict = check_landing_zone(home, known)
    record_verdict(home, "raw_recordings", "landing_zone", verdict)
    return check_result(verdict)


asset_checks = [_asset_check(check) for check in CHECKS]
