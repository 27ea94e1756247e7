"""Corrections: which batches one replaces, as the manifests in the landing zone say."""

from __future__ import annotations

from accelkd.home.identifiers import IDENTIFIER
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import Supersession, superseded
from accelkd.recordings.batches import read_manifest


class RefusedBatchError(ValueError):
    """A batch that cannot be used as it is; `also_in` names other batches that hold some of its recordings."""

    def __init__(self, message: str, also_in: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.also_in = also_in


def corrected_batches(home: Home, batch_id: str) -> list[Supersession]:
    """What a landed batch replaces, with all that the replaced ones replace in their turn, as far as they have landed.

    So the correction of a correction replaces the first batch too, whichever of them is loaded first. Raises
    RefusedBatchError for a batch that replaces itself or what is no identifier, for batches that replace each other,
    and where another correction has replaced one of them already.
    """
    known, chain, correction = superseded(home), list[Supersession](), batch_id
    while (replaced := _replaces(home, correction)) is not None:
        if replaced == correction or not IDENTIFIER.fullmatch(replaced):
            if correction != batch_id:
                break  # it is no fault of its correction
            what = "itself" if replaced == batch_id else f"{replaced!r}, which is not an identifier"
            raise RefusedBatchError(f"batch {batch_id} says that it replaces {what}")
        if replaced == batch_id or any(replaced == entry.batch_id for entry in chain):
            circle = " replaces ".join([batch_id, *(entry.batch_id for entry in chain), replaced])
            raise RefusedBatchError(f"batch {circle}: which of them is to stay cannot be known")
        earlier = known.get(replaced)
        if earlier is not None and earlier.replaced_by != correction:
            last = earlier.replaced_by
            while last in known:
                last = known[last].replaced_by
            raise RefusedBatchError(
                f"batch {batch_id} replaces {replaced}, which was replaced by {earlier.replaced_by}: if it is the "
                f"better one, deliver it under another name as a correction of {last}"
            )
        chain.append(Supersession(replaced, correction))
        correction = replaced
    return chain


def late_corrections(home: Home) -> list[Supersession]:
    """What superseded batches say that they replace and that is not superseded yet.

    A correction that landed after its own correction is never loaded, but what it replaces has to go all the same.
    """
    known, late = superseded(home), dict[str, Supersession]()
    for batch_id in known:
        try:
            chain = corrected_batches(home, batch_id)
        except RefusedBatchError:
            continue  # nobody can tell what it replaces, and it is superseded itself
        late.update({entry.batch_id: entry for entry in chain if entry.batch_id not in known})
    return list(late.values())


def _replaces(home: Home, batch_id: str) -> str | None:
    """The batch that a landed one replaces; None also for one that has not landed or cannot be read."""
    try:
        replaced = read_manifest(home.batch(batch_id)).replaces
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return None if replaced is None else str(replaced)
