"""Provenance: which artifact was made from which, so that a number can be followed back to raw files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Artifact:
    """A file, checkpoint, table partition or report."""

    kind: str
    name: str
    version: str  # SHA-256 of a file, identity of a checkpoint or split
    path: str | None = None  # relative to the home

    @property
    def artifact_id(self) -> str:
        return f"{self.kind}:{self.name}"


def record(connection: duckdb.DuckDBPyConnection, artifact: Artifact, inputs: Sequence[Artifact]) -> None:
    """Write that `artifact` is now of its version and was made from `inputs`; what was said of it before is replaced.

    Inputs that are not known yet are written too; known ones keep their current version, and the edge the one used.
    """
    connection.executemany(
        "INSERT OR REPLACE INTO provenance.artifacts VALUES (?, ?, ?, ?)",
        [(artifact.artifact_id, artifact.kind, artifact.path, artifact.version)],
    )
    connection.execute("DELETE FROM provenance.edges WHERE artifact_id = ?", [artifact.artifact_id])
    if inputs:
        connection.executemany(
            "INSERT OR IGNORE INTO provenance.artifacts VALUES (?, ?, ?, ?)",
            [(one.artifact_id, one.kind, one.path, one.version) for one in inputs],
        )
        connection.executemany(
            "INSERT INTO provenance.edges VALUES (?, ?, ?)",
            [(artifact.artifact_id, one.artifact_id, one.version) for one in inputs],
        )


def known_artifact(connection: duckdb.DuckDBPyConnection, kind: str, name: str) -> Artifact:
    """The artifact as it is now. Raises LookupError if nobody recorded it."""
    rows = connection.execute(
        "SELECT version, path FROM provenance.artifacts WHERE artifact_id = ?", [f"{kind}:{name}"]
    ).fetchall()
    if not rows:
        raise LookupError(f"{kind} {name!r} is not in the warehouse: load it first")
    return Artifact(kind, name, *rows[0])
