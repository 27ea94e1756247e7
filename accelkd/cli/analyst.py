"""Commands of who reads results."""

from __future__ import annotations

from accelkd.cli.arguments import OpenedHome


def summary(*, home: OpenedHome) -> int:
    """Print the counts and results of the published warehouse."""
    from accelkd.warehouse.summary import summary as published_summary

    print(published_summary(home.published))
    return 0
