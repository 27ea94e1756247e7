"""What two homes that the same arrived in must have in common."""

from __future__ import annotations

import hashlib

import duckdb

from accelkd.home.layout import Home

# What differs when the same is made again: who made and checked it and when, and how long the training took
LEFT_OUT = ("provenance.runs", "main.check_results", "main.drift_history")
WITHOUT_TIMES = {
    "main.models": """REPLACE (json_merge_patch(metrics, '{"wall_s": null, "segments_per_s": null}') AS metrics)""",
}


def contents(home: Home) -> dict[str, str]:
    """What a home must have in common with one that nothing happened to.

    Rows and an ordered hash of every published table (but LEFT_OUT and times), and the bytes of segments,
    quarantine, split, weights and the written report.
    """
    parts = {}
    with duckdb.connect(str(home.published), read_only=True) as connection:
        tables = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            if table in LEFT_OUT:
                continue
            rows, digest = connection.execute(
                f"SELECT count(*), md5(string_agg(t::VARCHAR, chr(10) ORDER BY t::VARCHAR)) "
                f"FROM (SELECT * {WITHOUT_TIMES.get(table, '')} FROM {table}) t"
            ).fetchall()[0]
            parts[table] = f"{rows} rows {digest}"
    files = [home.split, home.reports / "report.md"]
    for pattern in ("segments/*.arrow", "quarantine/*.parquet", "checkpoints/*/*/model.safetensors"):
        files += sorted(path for path in home.root.glob(pattern) if not path.name.startswith("."))
    for path in files:
        parts[home.relative(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return parts


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """Where two homes differ, one line each."""
    return [
        f"{name}: {expected.get(name, 'absent')} expected, {actual.get(name, 'absent')} found"
        for name in sorted(expected.keys() | actual.keys())
        if expected.get(name) != actual.get(name)
    ]
