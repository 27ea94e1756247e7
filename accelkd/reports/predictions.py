"""What is said of predictions: how far they and their intervals hold, for everybody and for whom; also on the cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from accelkd.evaluation.evidence import MIN_TEST
from accelkd.evaluation.participant_probes import TARGET_LABELS
from accelkd.evaluation.subgroups import EVERYBODY
from accelkd.home.files import write_text
from accelkd.recordings.labels import LABELS
from accelkd.reports import markdown
from accelkd.reports.figures import encoder_name
from accelkd.training.checkpoint import CARD

TITLES = {**{name: label.title for name, label in LABELS.items()}, **TARGET_LABELS}
_ON_CARD = "\n## Readouts\n"  # from here on, a card is written again with every report


def prediction_section(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> str:
    """The section of the report: errors and coverage of test participants, then by group."""
    tables = [*errors_and_coverage(connection, models), *errors_by_group(connection, models)]
    if not tables:
        return "## Predictions\n\nNot evaluated.\n"
    return "\n".join(
        [
            "## Predictions",
            "",
            "The table `predictions` has heart rate, SDNN and RMSSD of every embedded segment, and age, BMI, sex and "
            "survey targets of every participant; each number has a 90 % interval.",
            "",
            *tables,
        ]
    )


def add_to_card(folder: Path, connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> None:
    """Write on a checkpoint's card what its readouts read, and for whom; what stood there of it before is replaced."""
    path = folder / CARD
    fits = connection.execute(
        "SELECT target, coalesce(unit, 'area under the curve'), participants, held_out, constant, readout_id "
        "FROM readouts WHERE encoder = ? AND model_id = ? ORDER BY list_position(?, target)",
        [encoder, model_id, [*TITLES]],
    ).fetchall()
    if not fits or not path.exists():
        return
    header = ("target", "unit", "training participants", "held out", "constant")
    lines = [
        f"`{fits[0][-1]}`, in `readouts.safetensors`: errors over held-out folds of training participants.",
        "",
        markdown.table(header, [(TITLES[row[0]], *row[1:-1]) for row in fits]),
        "",
        *errors_and_coverage(connection, {encoder: model_id}),
        *errors_by_group(connection, {encoder: model_id}),
    ]
    text = path.read_text(encoding="utf-8").partition(_ON_CARD)[0]
    write_text(path, f"{text.rstrip()}\n{_ON_CARD}\n" + "\n".join(lines))


def errors_and_coverage(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> list[str]:
    """Lines of Markdown: of everybody in test, error and coverage of each target; none where nothing was measured."""
    rows = connection.execute(
        "SELECT encoder, target, mae, format('{:.2f} to {:.2f}', mae_low, mae_high), 100 * coverage, "
        "format('{:.0f} to {:.0f}', 100 * coverage_low, 100 * coverage_high), unit, fairness_results.participants "
        "FROM fairness_results JOIN readouts USING (encoder, model_id, readout_id, target) "
        "WHERE model_id IN $models AND attribute = $everybody AND mae IS NOT NULL "
        "ORDER BY list_position($models, model_id), list_position($targets, target)",
        {"models": list(models.values()), "targets": [*TITLES], "everybody": EVERYBODY},
    ).fetchall()
    header = ("encoder", "target", "MAE", "95 %", "inside (%)", "95 %", "unit", "people")
    if not rows:
        return []
    return [
        "Of test participants: mean absolute error, and the share of measurements inside the 90 % interval.",
        "",
        markdown.table(header, [(encoder_name(row[0]), TITLES[row[1]], *row[2:]) for row in rows]),
        "",
    ]


def errors_by_group(connection: duckdb.DuckDBPyConnection, models: Mapping[str, str]) -> list[str]:
    """Lines of Markdown: of each group in test, error and coverage of the targets of segments."""
    rows = connection.execute(
        "SELECT encoder, attribute, subgroup, target, participants, not_decidable, "
        "format('{:.2f} ({:.2f} to {:.2f}); {:.0f} %', mae, mae_low, mae_high, 100 * coverage) FROM fairness_results "
        "WHERE model_id IN $models AND list_contains($targets, target) AND attribute <> $everybody "
        "ORDER BY list_position($models, model_id), attribute, subgroup",
        {"models": list(models.values()), "targets": [*LABELS], "everybody": EVERYBODY},
    ).fetchall()
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    people: dict[tuple[str, str, str], int] = {}
    undecided: dict[str, None] = {}
    for encoder, attribute, group, target, number, reason, measured in rows:
        if reason:
            undecided[f"{attribute} {group}"] = None
            continue
        key = (encoder, attribute, group)
        cells.setdefault(key, {})[target] = measured
        people[key] = max(number, people.get(key, 0))
    lines = []
    if cells:
        header = ("encoder", "of", "group", "people", *(f"{label.title} ({label.unit})" for label in LABELS.values()))
        shown: list[Sequence[object]] = [
            (encoder_name(key[0]), *key[1:], people[key], *(of.get(target, "") for target in LABELS))
            for key, of in cells.items()
        ]
        lines += [
            "Whom they hold for: mean absolute error with its 95 % interval over people, and the share of measurements "
            "inside the 90 % interval.",
            "",
            markdown.table(header, shown),
            "",
        ]
    if undecided:
        lines += [f"Too few people in test to say, {MIN_TEST} are needed: {markdown.escape(', '.join(undecided))}.", ""]
    return lines
