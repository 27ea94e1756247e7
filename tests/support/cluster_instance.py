"""Dagster's instance of a cluster: deploy/ray/dagster.yaml with a new PostgreSQL database for its storage."""

from __future__ import annotations

import re
from uuid import uuid4

import psycopg

from accelkd.home.layout import Home
from tests.support import REPOSITORY
from tests.support.services import Postgres


def cluster_instance(home: Home, server: Postgres) -> dict[str, str]:
    """Write the configuration of a home's instance, which looks after its runs every second; the variables it needs."""
    text = (REPOSITORY / "deploy" / "ray" / "dagster.yaml").read_text(encoding="utf-8")
    (home.root / "dagster").mkdir(parents=True)
    quick = re.sub(r"(poll_interval|free_slots_after_run_end)_seconds: \d+", r"\1_seconds: 1", text)
    (home.root / "dagster" / "dagster.yaml").write_text(quick, encoding="utf-8")
    name = f"dagster_{uuid4().hex}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    address = server.dsn.rpartition("/")[0].replace("postgresql:", "postgresql+psycopg2:")
    return {"ACCELKD_DAGSTER_POSTGRES_URL": f"{address}/{name}"}
