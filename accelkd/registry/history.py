"""Which checkpoints are in use, which wait to be, and what was decided about them.

The history of decisions is the only source: what is in use follows from it, and going back takes its last step back.
A teacher and the student that learned from it are decided about together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from accelkd.home.files import write_json
from accelkd.home.layout import Home
from accelkd.home.locks import file_lock

EncoderName = Literal["ppg_teacher", "accel_student"]
TEACHER: EncoderName = "ppg_teacher"
STUDENT: EncoderName = "accel_student"
Models = Mapping[str, str]  # model id of each encoder, by its name
Action = Literal["promoted", "rejected", "rolled back"]


@dataclass(frozen=True)
class Decision:
    """One line of the history."""

    number: int  # from 1
    at: str  # ISO 8601, UTC
    action: Action
    models: Models  # that are in use from then on; those that were turned down, where rejected
    reason: str
    criteria: Sequence[Mapping[str, Any]]  # what was measured, beside its threshold


def history(home: Home) -> tuple[Decision, ...]:
    """All decisions, the oldest first."""
    path = _history(home)
    return tuple(Decision(**raw) for raw in json.loads(path.read_text(encoding="utf-8"))) if path.exists() else ()


def decide(
    home: Home, action: Action, models: Models, reason: str, criteria: Sequence[Mapping[str, Any]] = ()
) -> Decision:
    """Append a decision to the history. What it puts into use makes the embeddings from now on."""
    folder = _history(home).parent
    with file_lock(folder / ".promotions.lock"):
        before = history(home)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        decision = Decision(len(before) + 1, at, action, dict(models), reason, [dict(one) for one in criteria])
        write_json(_history(home), [asdict(one) for one in (*before, decision)])
    return decision


def promoted_models(home: Home) -> Models:
    """The checkpoints in use; empty before the first promotion."""
    line = _line(home)
    return line[-1] if line else {}


def previous_models(home: Home) -> Models | None:
    """What rolling back would put into use; None where there is nothing to go back to."""
    line = _line(home)
    return line[-2] if len(line) > 1 else None


def active_checkpoint(home: Home, encoder: EncoderName) -> Path:
    """Folder of the checkpoint in use. Raises FileNotFoundError that says what to do when there is none."""
    models = promoted_models(home)
    if encoder not in models:
        raise FileNotFoundError(f"no {encoder} in use in {home.root}: materialize `promoted_encoders` first")
    return home.checkpoint(encoder, models[encoder])


def make_candidate(home: Home, encoder: EncoderName, model_id: str, participants: int) -> None:
    """Note the checkpoint that was trained last, when the split held so many participants: it may be put into use."""
    write_json(home.encoder(encoder) / "candidate.json", {"model_id": model_id, "participants": participants})


def candidate_checkpoint(home: Home, encoder: EncoderName) -> Path:
    """Folder of the checkpoint trained last. Raises FileNotFoundError that says what to do when there is none."""
    return home.checkpoint(encoder, _candidate(home, encoder)["model_id"])


def candidate_is_damaged(home: Home, encoder: EncoderName) -> bool:
    """Whether a checkpoint was trained last and is not there any more with the bytes that were written."""
    from accelkd.training.checkpoint import is_complete  # imports torch

    try:
        return not is_complete(candidate_checkpoint(home, encoder))
    except FileNotFoundError:
        return False


def active_pair_is_damaged(home: Home) -> bool:
    """Whether one of the checkpoints in use is not there any more with the bytes that were written."""
    from accelkd.training.checkpoint import is_complete  # imports torch

    return not all(is_complete(home.checkpoint(*one)) for one in promoted_models(home).items())


def can_replace_damaged_pair(home: Home) -> bool:
    """Whether the pair in use is damaged and another one was trained since."""
    try:
        candidate = {encoder: candidate_checkpoint(home, encoder).name for encoder in (TEACHER, STUDENT)}
    except FileNotFoundError:
        return False
    return candidate != promoted_models(home) and active_pair_is_damaged(home)


def participants_when_trained(home: Home) -> int:
    """Participants in the split when the last student was trained; 0 before the first."""
    try:
        return int(_candidate(home, STUDENT)["participants"])
    except FileNotFoundError:
        return 0


def _candidate(home: Home, encoder: EncoderName) -> dict[str, Any]:
    path = home.encoder(encoder) / "candidate.json"
    if not path.exists():
        raise FileNotFoundError(f"no {encoder} in {home.root}: materialize `{encoder}` first")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _line(home: Home) -> list[Models]:
    """What has been in use, oldest first, without what was gone back from."""
    line: list[Models] = []
    for decision in history(home):
        if decision.action == "promoted":
            line.append(decision.models)
        elif decision.action == "rolled back":
            line.pop()
    return line


def _history(home: Home) -> Path:
    return home.root / "checkpoints" / "promotions.json"
