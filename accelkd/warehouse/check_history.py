"""The history of checks and of drift in the warehouse: a row where a result differs from the one before."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from accelkd.evaluation.drift import Drift
from accelkd.home.layout import Home
from accelkd.warehouse.staging import staging

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckResult:
    """One result of a check."""

    asset: str
    check_name: str
    batch_id: str | None  # None where the check looks at all batches
    blocking: bool
    passed: bool
    measured: Mapping[str, Any]
    drifts: Sequence[Drift] = ()
    encoder: str | None = None  # of the embeddings that drifted
    model_id: str | None = None


def record_check(home: Home, result: CheckResult) -> None:
    """Append a result to `check_results`, and its drifts to `drift_history`, unless it is that of the last time.

    A history that cannot be written costs a warning, never the check. Where a warehouse was published and its staging
    file is gone, nothing is written either: a new one would hide that it was lost.
    """
    try:
        if home.published.exists() and not home.staging.exists():
            raise FileNotFoundError(f"{home.staging} is gone")
        with staging(home) as connection:
            _append(connection, result)
    except Exception as error:  # whatever it is: the check itself was measured
        logger.warning("the result of %s is not in the history of checks: %s", result.check_name, error)


def _append(connection: duckdb.DuckDBPyConnection, result: CheckResult) -> None:
    measured = json.dumps(_plain(result.measured), sort_keys=True)
    drifts = [
        (
            drift.quantity,
            *(result.encoder, result.model_id),
            *(drift.difference, drift.by_chance, drift.threshold, drift.drifted),
            *(drift.segments, drift.cohort_segments),
        )
        for drift in result.drifts
    ]
    last = connection.execute(
        "SELECT number, passed, measured FROM check_results "
        "WHERE asset = ? AND check_name = ? AND batch_id IS NOT DISTINCT FROM ? ORDER BY number DESC LIMIT 1",
        [result.asset, result.check_name, result.batch_id],
    ).fetchall()
    for number, passed, before in last:
        columns = "quantity, encoder, model_id, difference, by_chance, threshold, drifted, segments, cohort_segments"
        known = connection.execute(f"SELECT {columns} FROM drift_history WHERE number = ?", [number]).fetchall()
        if (passed, before) == (result.passed, measured) and sorted(known) == sorted(drifts):
            return
    ((number,),) = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM check_results").fetchall()
    connection.execute(
        "INSERT INTO check_results (number, batch_id, check_name, asset, severity, passed, measured, evaluated_at, "
        "run_id) VALUES (?, ?, ?, ?, ?, ?, ?, now(), getvariable('run_id'))",
        [
            *(number, result.batch_id, result.check_name, result.asset),
            *("error" if result.blocking else "warning", result.passed, measured),
        ],
    )
    for drift in drifts:
        connection.execute(
            "INSERT INTO drift_history (number, batch_id, quantity, encoder, model_id, difference, by_chance, "
            "threshold, drifted, segments, cohort_segments, evaluated_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, now())",
            [number, result.batch_id, *drift],
        )


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value  # a scalar of NumPy
    return None if isinstance(value, float) and not math.isfinite(value) else value
