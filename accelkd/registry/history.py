"""Which encoders are promoted, which are candidates, and what was decided about them.

The history of decisions is the only source: what is promoted follows from it, and a rollback takes its last step back.
All encoders of the pipeline (accelkd.models.specs) are decided about together: a student learned from its teacher.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from accelkd.home.files import recorded_checksum, write_json
from accelkd.home.identifiers import IDENTIFIER
from accelkd.home.layout import Home
from accelkd.home.locks import home_lock
from accelkd.models import bundled
from accelkd.models.specs import ENCODERS, students

Models = Mapping[str, str]  # model id of each encoder, by its name
Action = Literal["promoted", "rejected", "rolled back"]


@dataclass(frozen=True)
class Decision:
    """One line of the history."""

    number: int  # from 1
    at: str  # ISO 8601, UTC
    action: Action
    models: Models  # promoted from then on; those that did not pass, where rejected
    reason: str
    criteria: Sequence[Mapping[str, Any]]  # what was measured, beside its threshold


def history(home: Home) -> tuple[Decision, ...]:
    """All decisions, the oldest first."""
    path = _history_file(home)
    return tuple(Decision(**raw) for raw in json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ()


def decide(
    home: Home, action: Action, models: Models, reason: str, criteria: Sequence[Mapping[str, Any]] = ()
) -> Decision:
    """Append a decision to the history. What it promotes makes the embeddings from now on."""
    path = _history_file(home)
    with home_lock(home, home.relative(path.with_name(".promotions.lock"))):
        before = history(home)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        decision = Decision(len(before) + 1, at, action, dict(models), reason, [dict(row) for row in criteria])
        write_json(path, [asdict(line) for line in (*before, decision)])
    return decision


def checkpoint_folder(home: Home, source: str | os.PathLike[str]) -> Path:
    """Folder of a checkpoint: the promoted or bundled one of that name, or the path itself.

    A string that is an identifier is a name; a path object, or a string with a separator, is a folder. Raises
    FileNotFoundError, with a list of what there is, where no encoder of that name is promoted or bundled.
    """
    if not (isinstance(source, str) and IDENTIFIER.fullmatch(source)):
        return Path(source)
    if source in bundled.NAMES:
        return bundled.bundled_folder(source)
    models = promoted_models(home)
    if source in models:
        return home.checkpoint(source, models[source])
    trained = sorted(path.name for path in (home.root / "checkpoints").glob("*/") if path.name not in models)
    there = f"promoted there: {', '.join(sorted(models)) or 'none'}; with the package: {', '.join(bundled.NAMES)}"
    if trained:
        there += f"; trained but not promoted, to be loaded by the folder of a checkpoint: {', '.join(trained)}"
    raise FileNotFoundError(
        f"no encoder {source!r} is promoted in the home {home.root} ({there}). "
        f"Another home is named by ACCELKD_HOME or home=, a checkpoint folder by a path, such as './{source}'"
    )


def promoted_models(home: Home) -> Models:
    """The promoted checkpoints; empty before the first promotion."""
    active = active_models(home)
    return active[-1] if active else {}


def promoted_version(home: Home) -> str:
    """Identity of what is promoted, models and weights by their checksums; empty where nothing is.

    A checkpoint that was lost and trained again may have other weights under the same name.
    """
    versions = []
    for encoder, model_id in sorted(promoted_models(home).items()):
        try:
            weights = recorded_checksum(home.weights(encoder, model_id))[:16]
        except FileNotFoundError:
            weights = "missing"
        versions.append(f"{model_id}@{weights}")
    return ":".join(versions)


def previous_models(home: Home) -> Models | None:
    """What a rollback would promote again; None where there is nothing to go back to."""
    active = active_models(home)
    return active[-2] if len(active) > 1 else None


def active_models(home: Home) -> list[Models]:
    """What was promoted one after the other, oldest first, rollbacks undone."""
    active: list[Models] = []
    for decision in history(home):
        if decision.action == "promoted":
            active.append(decision.models)
        elif decision.action == "rolled back":
            active.pop()
    return active


def refuse_unpromoted(home: Home) -> None:
    """Raise FileNotFoundError that says what to do where no encoder is promoted."""
    if not promoted_models(home):
        raise FileNotFoundError(f"no encoder is promoted in {home.root}: materialize `promoted_encoders` first")


def promoted_checkpoint(home: Home, encoder: str) -> Path:
    """Folder of the promoted checkpoint. Raises FileNotFoundError that says what to do when there is none."""
    models = promoted_models(home)
    if encoder not in models:
        raise FileNotFoundError(f"no {encoder} is promoted in {home.root}: materialize `promoted_encoders` first")
    return home.checkpoint(encoder, models[encoder])


def head_checkpoint(encoder: str, models: Models) -> tuple[str, str] | None:
    """The student, and which of `models` it is, whose checkpoint holds the projection head of an encoder's embeddings.

    Of a student its own; of a teacher that of its first student, which it was trained beside. None without a student.
    """
    for spec, teacher in students():
        if encoder in (spec.name, teacher) and spec.name in models:
            return spec.name, models[spec.name]
    return None


def make_candidate(home: Home, encoder: str, model_id: str, participants: int) -> None:
    """Record the checkpoint that was trained last, when the split held so many participants: it may be promoted."""
    write_json(home.encoder(encoder) / "candidate.json", {"model_id": model_id, "participants": participants})


def candidate_checkpoint(home: Home, encoder: str) -> Path:
    """Folder of the checkpoint trained last. Raises FileNotFoundError that says what to do when there is none."""
    return home.checkpoint(encoder, _candidate(home, encoder)["model_id"])


def candidate_models(home: Home) -> Models:
    """The checkpoints trained last, of all encoders. Raises FileNotFoundError like `candidate_checkpoint`."""
    return {spec.name: candidate_checkpoint(home, spec.name).name for spec in ENCODERS}


def candidate_is_damaged(home: Home, encoder: str) -> bool:
    """Whether a checkpoint was trained last and is not there any more with the bytes that were written."""
    from accelkd.training.checkpoint import is_complete  # imports torch

    try:
        return not is_complete(candidate_checkpoint(home, encoder))
    except FileNotFoundError:
        return False


def promoted_are_damaged(home: Home) -> bool:
    """Whether one of the promoted checkpoints is not there any more with the bytes that were written."""
    from accelkd.training.checkpoint import is_complete  # imports torch

    return not all(is_complete(home.checkpoint(*model)) for model in promoted_models(home).items())


def can_replace_damaged(home: Home) -> bool:
    """Whether promoted checkpoints are damaged and others were trained since."""
    try:
        candidate = candidate_models(home)
    except FileNotFoundError:
        return False
    return candidate != promoted_models(home) and promoted_are_damaged(home)


def participants_when_trained(home: Home) -> int:
    """Participants in the split when the encoders were trained last; 0 before the first training."""
    try:
        return int(_candidate(home, ENCODERS[-1].name)["participants"])
    except FileNotFoundError:
        return 0


def _candidate(home: Home, encoder: str) -> dict[str, Any]:
    path = home.encoder(encoder) / "candidate.json"
    if not path.exists():
        raise FileNotFoundError(f"no {encoder} in {home.root}: materialize `{encoder}` first")
    candidate: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return candidate


def _history_file(home: Home) -> Path:
    return home.root / "checkpoints" / "promotions.json"
