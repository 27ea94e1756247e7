"""Freshness policies: how old the last materialization of an asset may be before somebody should look.

A policy knows the age of an asset alone, and an asset that is as old as its inputs is not late. So only what has a
clock has a policy: encoders, which the weekly schedule trains, and, in a home that expects a delivery every so many
days (setting `expected_arrival_days`), everything that follows a delivery.

Belongs here: the windows, by group. Does not belong here: what is missing or stale (freshness).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from accelkd.home.layout import Home
from accelkd.home.settings import Settings

WEEKLY = timedelta(days=7)
TRAINING = timedelta(days=2)  # that one training may take, and a night to repeat what failed
FOLLOWING = timedelta(days=1)  # until what follows a delivery is there: the nightly backfill has run meanwhile

ON_ARRIVAL = ("recordings", "segments")
AFTER_ARRIVAL = ("embeddings", "cohort", "reports", "warehouse")


def freshness_policies(home: Home) -> Mapping[str, dg.FreshnessPolicy]:
    """The policy of each group that has one, by the settings of a home when its definitions are loaded."""
    try:
        days = Settings.load(home).expected_arrival_days
    except ValueError:  # every run says what is wrong with the settings; the definitions load nevertheless
        days = 0
    policies = {"encoders": _window(2 * WEEKLY + TRAINING, warn=WEEKLY + TRAINING)}
    if days:
        expected = timedelta(days=days)
        policies |= {group: _window(2 * expected, warn=expected) for group in ON_ARRIVAL}
        policies |= {group: _window(2 * expected + FOLLOWING, warn=expected + FOLLOWING) for group in AFTER_ARRIVAL}
    return policies


def _window(fail: timedelta, *, warn: timedelta) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
