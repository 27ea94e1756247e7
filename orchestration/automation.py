"""Conditions: what Dagster materializes by itself when something upstream has really changed.

Belongs here: which groups follow a change, and when. Does not belong here: what is missing or stale whatever the
reason (freshness), and what runs on a schedule or on request (jobs, sensors).
"""

from __future__ import annotations

import dagster as dg

_CHANGED = dg.AutomationCondition.any_deps_match(
    (dg.AutomationCondition.data_version_changed() & ~dg.AutomationCondition.executed_with_root_target()).with_label(
        "changed elsewhere"
    )
    | dg.AutomationCondition.will_be_requested()
)

# Assets over all batches: split, reports, published file. A batch that failed does not hold them up, so it is enough
# that something of each upstream asset is there; they wait until all runs that feed them have ended.
REFRESH = (
    _CHANGED.since_last_handled()
    & dg.AutomationCondition.all_deps_match(~dg.AutomationCondition.missing())
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("inputs changed")

# Embeddings of a batch: its segments changed, or other encoders were promoted. All batches that are requested at the
# same time become one backfill.
FOLLOW = (
    _CHANGED.since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("segments or encoders changed")

CONDITIONS = {"cohort": REFRESH, "reports": REFRESH, "warehouse": REFRESH, "embeddings": FOLLOW}  # by group

HOUR_S = 3600
follow_changes = dg.AutomationConditionSensorDefinition(
    "follow_changes",
    target=dg.AssetSelection.groups(*CONDITIONS),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    run_tags={"dagster/max_runtime": str(12 * HOUR_S)},
    description="Embeds by newly promoted encoders; refreshes split, reports and published file when inputs changed.",
)
