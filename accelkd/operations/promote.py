"""Promotion: trained encoders are promoted only if they measure up to the promoted ones, and can be rolled back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from accelkd.cohort.split import SplitError, participants_on
from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.home.layout import Home
from accelkd.models.specs import students
from accelkd.operations.repair import repairing
from accelkd.operations.train import load_candidate
from accelkd.registry.history import (
    Decision,
    Models,
    candidate_models,
    decide,
    history,
    previous_models,
    promoted_are_damaged,
    promoted_models,
)
from accelkd.registry.trained_on import read_trained_on, superseded_training_batches
from accelkd.warehouse.embeddings import not_embedded, swap_in
from accelkd.warehouse.inspect import is_loaded
from accelkd.warehouse.load import load_decisions
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging

# What candidates are measured by (accelkd.operations.compare)
CRITERIA = {
    "finite": "No embedding of the candidates holds NaN or infinity.",
    "not_collapsed": "The candidates' embeddings use enough directions (effective rank).",
    "probes": "Heart-rate, SDNN and RMSSD errors on held-out participants are no worse than those of the promoted.",
    "retrieval": "Each student finds its teacher's embedding of its own minute no worse than the promoted one.",
}
_PASSED = {"finite": "finite", "not_collapsed": "not collapsed"}


@dataclass(frozen=True)
class PromotionOutcome:
    """What became of the candidates."""

    models: Models  # promoted now
    decision: Decision  # about the candidates: just made, or the one that was made about them before


def promote(home: Home, *, force: str | None = None) -> PromotionOutcome:
    """Evaluate the encoders trained last; then fill the tables of what is promoted, and publish.

    Candidates are loaded first, with the batches and the split that they were trained on, where the warehouse does not
    hold them yet. Raises like `evaluate_candidate`.
    """
    for encoder, model_id in candidate_models(home).items():
        if not is_loaded(home, encoder, model_id):
            load_candidate(home, encoder)
    outcome = evaluate_candidate(home, force=force)
    fill_tables(home)
    publish(home)
    return outcome


def evaluate_candidate(home: Home, *, force: str | None = None) -> PromotionOutcome:
    """Compare the encoders trained last with the promoted ones, and promote them if every criterion passes.

    What was decided stays decided, so that a rollback is not undone by the next run; `force`, a reason, overrides that
    and every criterion. With a damaged promoted checkpoint nothing can be compared: candidates, also rejected ones,
    then pass as the first ones do. Tables follow: new embeddings are made beside the old ones and swapped in when
    complete. Candidates that no held-out segment lets compare with the promoted ones are rejected, with the reason. The
    reason names the batches that were superseded since the candidates were trained on them. Raises FileNotFoundError
    without candidates, ValueError if a student learned from another teacher, SplitError if somebody
    whom they were trained on is a test participant.
    """
    from accelkd.operations.compare import compare  # imports torch

    candidate = candidate_models(home)
    _check_teachers(home, candidate)
    promoted, damaged = promoted_models(home), promoted_are_damaged(home)
    known = _known_decision(home, candidate, promoted)
    if known is not None and (candidate == promoted or not (force or damaged)):
        load_decisions(home)  # a rebuilt warehouse learns of it too
        return PromotionOutcome(promoted, known)
    comparable = {} if damaged else promoted
    _check_held_out(home, candidate)
    not_comparable: NothingToMeasureError | None = None
    try:
        criteria = repairing(home, partial(compare, home, candidate, comparable))
    except NothingToMeasureError as error:
        criteria, not_comparable = [], error
    missed = [criterion for criterion in criteria if not criterion.passed]
    if force:
        reason = f"forced: {force}"
    elif not_comparable:
        reason = f"not measured beside the promoted encoders, which stay: {not_comparable}"
    elif missed:
        first = missed[0]
        reason = f"{first.what} is {first.measured:.4g}, {_bounds(first.at_least, first.at_most)}"
        reason += f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    elif comparable:
        reason = "no worse than the promoted encoders"
    else:
        why = "the promoted encoders are damaged" if promoted else "the first encoders"
        passed = {criterion.check for criterion in criteria}
        reason = f"{why}: {' and '.join(_PASSED[check] for check in _PASSED if check in passed) or 'not measured'}"
    if outdated := superseded_training_batches(home, candidate):
        reason += f"; trained on {', '.join(outdated)}, superseded since"
    rows: list[dict[str, Any]] = [{**asdict(criterion), "passed": criterion.passed} for criterion in criteria]
    rows = [{name: value if value == value else None for name, value in row.items()} for row in rows]  # NaN is no JSON
    rejected = (missed or not_comparable) and not force
    decision = decide(home, "rejected" if rejected else "promoted", candidate, reason, rows)
    load_decisions(home)
    return PromotionOutcome(promoted_models(home), decision)


def roll_back(home: Home, reason: str) -> Decision:
    """Promote the previous encoders again, and swap their embeddings back into the tables.

    Their tables were kept, so only what arrived since is embedded; readers see the old tables until all of it is there.
    Raises ValueError where there is nothing to go back to.
    """
    models = previous_models(home)
    if models is None:
        raise ValueError("nothing to go back to: no encoders were promoted before the present ones")
    decision = decide(home, "rolled back", models, reason)
    fill_tables(home)
    load_decisions(home)
    publish(home)
    return decision


def fill_tables(home: Home) -> None:
    """Embed with the promoted encoders what they have not embedded, then swap their tables in, all at once."""
    from accelkd.operations.embed import embed_batch  # imports torch

    models = promoted_models(home)
    for encoder, batch_id in not_embedded(home, models):
        embed_batch(home, encoder, batch_id)
    with staging(home) as connection:
        swap_in(home, connection, models)


def _check_teachers(home: Home, candidate: Models) -> None:
    from accelkd.training.checkpoint import read_config

    for student, teacher in students():
        model_id = candidate[student.name]
        learned_from = read_config(home.checkpoint(student.name, model_id))["teacher"]
        if learned_from != candidate[teacher]:
            raise ValueError(
                f"{student.name} {model_id} learned from teacher {learned_from}, not from {candidate[teacher]}: "
                "train the student again"
            )


def _check_held_out(home: Home, candidate: Models) -> None:
    """Whoever left the split while a training went on, and came again, may be on the other side now."""
    for encoder, model_id in candidate.items():
        trained_on, _ = read_trained_on(home, encoder, model_id)
        both = participants_on(home.split, "test") & set(trained_on.column("participant_id").to_pylist())
        if both:
            raise SplitError(
                f"{encoder} {model_id} was trained on {len(both)} participants who are in test now: train it again"
            )


def _known_decision(home: Home, candidate: Models, promoted: Models) -> Decision | None:
    """The last decision about the candidates: their promotion, their rejection, or a rollback from them."""
    decisions = history(home)
    about = [decision for decision in decisions if decision.models == candidate]
    if not about:
        return None
    if candidate == promoted or about[-1].action == "rejected":
        return about[-1]
    later = decisions[about[-1].number :]
    return next((decision for decision in later if decision.action == "rolled back"), about[-1])


def _bounds(at_least: float | None, at_most: float | None) -> str:
    return f"less than {at_least:.4g}" if at_least is not None else f"more than {at_most:.4g}"
