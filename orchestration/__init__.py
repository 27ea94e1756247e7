"""Definitions, resources, partitions, sensors, jobs and checks for Dagster."""
