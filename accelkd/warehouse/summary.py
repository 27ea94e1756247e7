"""The short table that a person reads after a run: counts and results of the published warehouse."""

from __future__ import annotations

from pathlib import Path

import duckdb

from accelkd.recordings.labels import LABELS
from accelkd.warehouse.embeddings import loaded_models
from accelkd.warehouse.report_state import not_measured


def summary(published: Path) -> str:
    """Participants, recordings, segments, quarantine, probe errors beside the constant's, retrieval, as text.

    What could not be measured is listed with its reason.

    Raises FileNotFoundError that says what to do where nothing is published.
    """
    if not published.exists():
        raise FileNotFoundError(f"nothing is published at {published}: materialize the warehouse first")
    with duckdb.connect(str(published), read_only=True) as connection:
        lines = [*_counts(connection), *_probes(connection), *_retrieval(connection), *_not_measured(connection)]
    return "\n".join(lines)


def _counts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    recordings, segments, quarantined = connection.execute(
        "SELECT coalesce(sum(recordings), 0)::BIGINT, coalesce(sum(segments), 0)::BIGINT, "
        "coalesce(sum(quarantined), 0)::BIGINT FROM batches"
    ).fetchall()[0]
    people, train, test = connection.execute(
        "SELECT count(*), count(*) FILTER (split = 'train'), count(*) FILTER (split = 'test') FROM participants"
    ).fetchall()[0]
    reasons = connection.execute(
        "SELECT reason, sum(number)::BIGINT FROM quarantine GROUP BY reason ORDER BY 2 DESC, 1"
    ).fetchall()
    listed = ": " + ", ".join(f"{number:,} {reason}" for reason, number in reasons) if reasons else ""
    return [
        f"{people:,} participants ({train:,} training, {test:,} test)",
        f"{recordings:,} recordings, {segments:,} segments",
        f"{quarantined:,} quarantined{listed}",
    ]


def _probes(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Mean absolute errors: a line for each target, a column for each active model."""
    models = loaded_models(connection)
    errors: dict[tuple[str, str], float] = {}
    constants: dict[str, tuple[float, float | None, str]] = {}
    for encoder, model_id in models.items():
        for target, mae, constant, classical, unit in connection.execute(
            "SELECT target, mae, constant_mae, classical_mae, unit FROM probe_results "
            "WHERE encoder = ? AND model_id = ?",
            [encoder, model_id],
        ).fetchall():
            errors[target, encoder] = mae
            constants[target] = constant, classical, unit
    if not constants:
        return []
    encoders = [encoder for encoder in models if any((t, encoder) in errors for t in constants)]
    lines = [
        "",
        f"{'mean absolute error (test)':<28}" + "".join(f"{name:>16}" for name in (*encoders, "classical", "constant")),
    ]
    for target, label in LABELS.items():
        if target in constants:
            constant, classical, unit = constants[target]
            cells = [f"{errors[target, e]:.2f}" if (target, e) in errors else "" for e in encoders]
            cells.append("" if classical is None else f"{classical:.2f}")
            name = f"{label.title} ({unit})"
            lines.append(f"{name:<28}" + "".join(f"{cell:>16}" for cell in (*cells, f"{constant:.2f}")))
    return lines


def _retrieval(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute(
        "SELECT query_encoder, key_encoder, top1_percent, chance_top1_percent, mean_rank, chance_mean_rank "
        "FROM retrieval_results WHERE space = 'projected' AND query_model_id IN $models AND key_model_id IN $models "
        "ORDER BY ALL",
        {"models": list(loaded_models(connection).values())},
    ).fetchall()
    if not rows:
        return []
    lines = ["", f"{'retrieval (projected, test)':<28}" + "".join(f"{name:>16}" for name in ("top-1", "mean rank"))]
    for query, key, top1, chance_top1, rank, chance_rank in rows:
        direction = f"{query.partition('_')[0]} finds {key.partition('_')[0]}"
        lines.append(f"{direction:<28}{f'{top1:.1f} %':>16}{f'{rank:.1f}':>16}")
        lines.append(f"{'  chance':<28}{f'{chance_top1:.1f} %':>16}{f'{chance_rank:.1f}':>16}")
    return lines


def _not_measured(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """What the promoted encoders have no result of, with the reason, also of one that nothing could be embedded by."""
    promoted = connection.execute(
        "SELECT encoder, arg_max(model_id, number) FROM promotions WHERE action <> 'rejected' "
        "GROUP BY encoder ORDER BY encoder DESC"
    ).fetchall()
    lines = [
        f"  {kind} of {encoder}: {reason}"
        for kind in ("probe", "retrieval")
        for encoder, model_id in promoted
        for reason in not_measured(connection, f"{kind}:{encoder}/{model_id}")
    ]
    return ["", "not measured", *lines] if lines else []
