"""Dagster over `assets`: definitions, jobs, schedules, sensors, the launcher and the catch-up.

Belongs here: when an asset is materialized, and in which process. Does not belong here: the assets themselves (assets),
and anything that a script without Dagster could want (accelkd).
"""
