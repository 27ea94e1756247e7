"""The results of a reproduction as rows of the warehouse."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from accelkd.home.behaviour import code_stamp
from accelkd.home.files import sha256_file, sha256_json
from accelkd.home.layout import Home
from accelkd.warehouse.provenance import Artifact, record
from accelkd.warehouse.staging import staging

TABLES = ("results", "retrieval", "claims")


def load_reproduction(home: Home) -> dict[str, int]:
    """Load the result files under `reproduction/`, in place of what was loaded before; returns the rows of each table.

    Raises FileNotFoundError where no experiments have been run.
    """
    folder = home.root / "reproduction"
    rows = {}
    with staging(home) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM reproduction.{table}")
            columns = [name for (name, *_) in connection.execute(f"DESCRIBE reproduction.{table}").fetchall()]
            arriving = pq.read_table(folder / f"{table}.parquet", columns=columns)
            connection.register("arriving", arriving)
            connection.execute(f"INSERT INTO reproduction.{table} BY NAME FROM arriving ORDER BY ALL")
            rows[table] = arriving.num_rows
        names = ["cohort.json", *(f"{table}.parquet" for table in TABLES)]
        files = [
            Artifact("file", f"reproduction/{name}", sha256_file(folder / name), f"reproduction/{name}")
            for name in names
        ]
        for file in files:
            record(connection, file, [])
        facts = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
        made = Artifact(
            "reproduction",
            "reproduction",
            sha256_json([file.version for file in files]),
            "reproduction",
            code_stamp("accelkd.reproduction"),
            {name: facts[name] for name in ("preset", "profile", "seeds", "data_version", "split_version")},
        )
        record(connection, made, files)
    return rows
