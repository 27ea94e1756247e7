"""Provenance: which artifact was made from which, so that a number can be followed back to raw files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Artifact:
    """A file, checkpoint, table partition or report."""

    kind: str
    name: str
    version: str  # SHA-256 of a file, identity of a checkpoint or split
    path: str | None = None  # relative to the home
    code_version: str | None = None  # of the package that made it (accelkd.home.behaviour); None for what arrived
    configuration: Mapping[str, object] | None = None  # the settings that it was made with

    @property
    def artifact_id(self) -> str:
        return f"{self.kind}:{self.name}"


def record(connection: duckdb.DuckDBPyConnection, artifact: Artifact, inputs: Sequence[Artifact]) -> None:
    """Write that `artifact` is now of its version and was made from `inputs`; what was said of it before is replaced.

    Inputs that are not known yet are written too; known ones keep their current version, and the edge the one used.
    The run is that of the home that `connection` was opened for.
    """
    connection.execute(f"INSERT OR REPLACE INTO {_ARTIFACTS}", _row(artifact))
    connection.execute(
        "INSERT OR REPLACE INTO provenance.runs (artifact_id, version, run_id, recorded_at) "
        "VALUES (?, ?, getvariable('run_id'), now())",
        [artifact.artifact_id, artifact.version],
    )
    connection.execute("DELETE FROM provenance.edges WHERE artifact_id = ?", [artifact.artifact_id])
    if inputs:
        connection.executemany(f"INSERT OR IGNORE INTO {_ARTIFACTS}", [_row(source) for source in inputs])
        connection.executemany(
            "INSERT INTO provenance.edges (artifact_id, input_id, input_version) VALUES (?, ?, ?)",
            [(artifact.artifact_id, source.artifact_id, source.version) for source in inputs],
        )


def known_artifact(connection: duckdb.DuckDBPyConnection, kind: str, name: str) -> Artifact:
    """The artifact as it is now. Raises LookupError if it was not recorded."""
    rows = connection.execute(
        "SELECT version, path, code_version FROM provenance.artifacts WHERE artifact_id = ?", [f"{kind}:{name}"]
    ).fetchall()
    if not rows:
        raise LookupError(f"{kind} {name!r} is not in the warehouse: load it first")
    return Artifact(kind, name, *rows[0])


_ARTIFACTS = (
    "provenance.artifacts (artifact_id, kind, path, version, code_version, configuration) VALUES (?, ?, ?, ?, ?, ?)"
)


def _row(artifact: Artifact) -> tuple[str | None, ...]:
    settings = None if artifact.configuration is None else json.dumps(artifact.configuration, sort_keys=True)
    return (artifact.artifact_id, artifact.kind, artifact.path, artifact.version, artifact.code_version, settings)
