"""How the results of probes look in the UI: numbers to plot, and tables as narrow as its pages.

Imported when a probe has run: what it imports would make the code server slow.
"""

from collections.abc import Sequence

from accelkd.evaluation.classical import ClassicalResult
from accelkd.evaluation.participant_probes import TARGET_LABELS, ParticipantProbeResult
from accelkd.evaluation.probes import ProbeResult
from accelkd.recordings.labels import LABELS
from assets.metadata import markdown_table, transposed


def segment_probes(results: Sequence[ProbeResult], classical: ClassicalResult | None) -> dict[str, object]:
    """Errors of the segment probes as numbers, and all that was measured as a table with a column for each target.

    `classical` is the heart rate without a model on the same test segments.
    """
    measures = [
        {
            "measure": f"{LABELS[result.target].title} ({result.unit})",
            "MAE": result.mae,
            "MAE of a constant": result.constant_mae,
            "MAE of the classical estimator": classical.mae if classical and result.target == "hr_bpm" else None,
            "RMSE": result.rmse,
            "RMSE of a constant": result.constant_rmse,
            "Pearson R": result.pearson_r,
            "training segments": result.train_segments,
            "training participants": result.train_participants,
            "test segments": result.test_segments,
            "test participants": result.test_participants,
        }
        for result in results
    ]
    return {
        **{f"{result.target}_mae": result.mae for result in results},
        **{f"{result.target}_mae_constant": result.constant_mae for result in results},
        "hr_bpm_mae_classical": classical and classical.mae,
        **{f"{result.target}_pearson_r": result.pearson_r for result in results},
        "results": markdown_table(transposed(measures, "measure")),
    }


def participant_probes(results: Sequence[ParticipantProbeResult]) -> dict[str, object]:
    """Errors of the participant probes as numbers, how many areas under the curve beat a coin, and tables of all."""
    areas = [result for result in results if result.auc is not None]
    return {
        **{f"{result.target}_mae": result.mae for result in results if result.mae is not None},
        **{f"{result.target}_mae_constant": result.constant_mae for result in results if result.mae is not None},
        "yes_or_no_targets": len(areas),
        "yes_or_no_above_chance": sum((result.auc_low or 0.0) > 0.5 for result in areas),
        **_tables(results),
    }


def _tables(results: Sequence[ParticipantProbeResult]) -> dict[str, object]:
    """Errors, areas under the curve, and what could not be decided: a table each, as narrow as the page."""
    errors = [
        {
            "measure": f"{TARGET_LABELS[result.target]} ({result.unit})",
            "MAE": result.mae,
            "MAE of a constant": result.constant_mae,
            "RMSE": result.rmse,
            "RMSE of a constant": result.constant_rmse,
            "Pearson R": result.pearson_r,
            "training participants": result.train_participants,
            "test participants": result.test_participants,
        }
        for result in results
        if result.mae is not None
    ]
    areas = [
        {
            "target": TARGET_LABELS[result.target],
            "area under the curve": f"{result.auc:.2f} ({result.auc_low:.2f} to {result.auc_high:.2f})",
            "yes, training": f"{result.train_yes} of {result.train_participants}",
            "yes, test": f"{result.test_yes} of {result.test_participants}",
        }
        for result in results
        if result.auc is not None
    ]
    undecided = [
        {"target": TARGET_LABELS[result.target], "because": result.not_decidable}
        for result in results
        if result.not_decidable
    ]
    return {
        "participant_errors": markdown_table(transposed(errors, "measure")),
        "participant_areas": markdown_table(areas),
        "participant_not_decidable": markdown_table(undecided),
    }
