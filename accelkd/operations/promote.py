"""Promotion: trained encoders are put into use only if they measure up to those in use, and can be taken back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from accelkd.home.layout import Home
from accelkd.registry.history import (
    STUDENT,
    TEACHER,
    Decision,
    Models,
    active_pair_is_damaged,
    candidate_checkpoint,
    decide,
    history,
    previous_models,
    promoted_models,
)
from accelkd.warehouse.embeddings import not_embedded, swap_in
from accelkd.warehouse.load import load_decisions
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate."""

    models: Models  # in use now
    decision: Decision  # about the candidate: just made, or the one that was made about it before


def evaluate_candidate(home: Home, *, force: str | None = None) -> Outcome:
    """Compare the pair that was trained last with the one in use, and put it into use if every criterion passes.

    What was decided about a pair stays decided, so that going back is not undone by the next run; `force`, a reason,
    overrides that and every criterion. With a pair in use that is damaged nothing can be compared: a candidate, also
    one that was turned down, then passes as the first pair does. Tables follow: new embeddings are made beside the old
    ones and swapped in when complete. Raises FileNotFoundError without a trained pair, ValueError if the student
    learned from another teacher.
    """
    from accelkd.operations.compare import compare  # imports torch
    from accelkd.training.checkpoint import read_config

    candidate: Models = {encoder: candidate_checkpoint(home, encoder).name for encoder in (TEACHER, STUDENT)}
    learned_from = read_config(home.checkpoint(STUDENT, candidate[STUDENT]))["teacher"]
    if learned_from != candidate[TEACHER]:
        raise ValueError(
            f"student {candidate[STUDENT]} learned from teacher {learned_from}, not from {candidate[TEACHER]}: "
            "train the student again"
        )
    in_use, damaged = promoted_models(home), active_pair_is_damaged(home)
    known = _known(home, candidate, in_use)
    if known is not None and (candidate == in_use or not (force or damaged)):
        load_decisions(home)  # a warehouse that was built anew learns of it too
        return Outcome(in_use, known)
    comparable = {} if damaged else in_use
    criteria = compare(home, candidate, comparable)
    missed = [one for one in criteria if not one.passed]
    if force:
        reason = f"forced: {force}"
    elif missed:
        first = missed[0]
        reason = f"{first.what} is {first.measured:.4g}, {_bounds(first.at_least, first.at_most)}"
        reason += f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    else:
        alone = "the pair in use is damaged" if in_use else "the first pair"
        reason = "no worse than the pair in use" if comparable else f"{alone}: finite and not collapsed"
    rows: list[dict[str, Any]] = [{**asdict(one), "passed": one.passed} for one in criteria]
    rows = [{name: value if value == value else None for name, value in row.items()} for row in rows]  # NaN is no JSON
    decision = decide(home, "rejected" if missed and not force else "promoted", candidate, reason, rows)
    load_decisions(home)
    return Outcome(promoted_models(home), decision)


def roll_back(home: Home, reason: str) -> Decision:
    """Put the pair that was in use before back into use, and its embeddings back into the tables.

    Its tables were kept, so only what arrived since is embedded; readers see the old tables until all of it is there.
    Raises ValueError where there is nothing to go back to.
    """
    models = previous_models(home)
    if models is None:
        raise ValueError("nothing to go back to: no pair was in use before the present one")
    decision = decide(home, "rolled back", models, reason)
    fill_tables(home)
    load_decisions(home)
    publish(home)
    return decision


def fill_tables(home: Home) -> None:
    """Embed with the encoders in use what they have not embedded, then swap their tables in, all at once."""
    from accelkd.operations.embed import embed_batch  # imports torch

    models = promoted_models(home)
    todo = not_embedded(home, models)
    for encoder in (TEACHER, STUDENT):
        for batch_id in (batch_id for name, batch_id in todo if name == encoder):
            embed_batch(home, encoder, batch_id)
    with staging(home) as connection:
        swap_in(connection, models)


def _known(home: Home, candidate: Models, in_use: Models) -> Decision | None:
    """The last decision about a pair: its promotion, its rejection, or going back from it to another one."""
    decisions = history(home)
    about = [one for one in decisions if one.models == candidate]
    if not about:
        return None
    if candidate == in_use or about[-1].action == "rejected":
        return about[-1]
    return next((one for one in decisions[about[-1].number :] if one.action == "rolled back"), about[-1])


def _bounds(at_least: float | None, at_most: float | None) -> str:
    return f"less than {at_least:.4g}" if at_least is not None else f"more than {at_most:.4g}"
