"""Whether trained encoders are fit for use: measured on the held-out participants, beside the promoted ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from accelkd.cohort.split import participants_on
from accelkd.evaluation.collapse import MIN_RANK, MIN_SEGMENTS_FOR_RANK, effective_rank
from accelkd.evaluation.evidence import NothingToMeasureError
from accelkd.evaluation.extract import embed, project
from accelkd.evaluation.probes import LabelledEmbeddings, not_probed, probe_segments
from accelkd.evaluation.retrieval import MIN_RETRIEVED, RetrievalResult, retrieve
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, students
from accelkd.operations.repair import readable_batches
from accelkd.recordings.labels import LABELS
from accelkd.registry.history import Models
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import load_encoder, load_heads

Check = Literal["finite", "not_collapsed", "probes", "retrieval"]

TOLERANCE = 0.05  # how much worse than the promoted encoders a candidate may measure: what another seed does to it
KEPT_RANK = 0.5  # share of the effective rank of the promoted encoder
MAX_SEGMENTS = 20_000  # of each side that are embedded: bounds time and memory
_POOLS = 20


@dataclass(frozen=True)
class Criterion:
    """One thing that was measured on a candidate, and what it had to be."""

    check: Check
    name: str  # as numbers are named, with the unit
    what: str
    measured: float
    promoted: float | None  # the same of the promoted encoders; None where there are none
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the measured value is inside its bounds; NaN never is."""
        above = self.at_least is None or self.measured >= self.at_least
        return above and (self.at_most is None or self.measured <= self.at_most)


@dataclass(frozen=True)
class Measured:
    """What was measured on the encoders."""

    not_finite: Mapping[str, int]  # embeddings with a NaN or an infinity, by encoder
    ranks: Mapping[str, float]  # effective rank, by encoder
    errors: Mapping[tuple[str, str], float]  # mean absolute error, by encoder and target
    retrieval: Mapping[str, RetrievalResult]  # of the teacher's embedding from the student's, projected; by student
    not_comparable: str | None = None  # why nothing was measured on held-out participants


def compare(home: Home, candidate: Models, promoted: Models) -> list[Criterion]:
    """Measure candidates, and the promoted encoders if there are any, on the same segments of the same participants.

    The first ones have to be finite and must not have collapsed; later ones, besides, must not be worse than the
    promoted ones by more than TOLERANCE in any probe or in retrieval. Raises FileNotFoundError without a split or
    segments, NothingToMeasureError if there are promoted ones and no held-out segment suits either pair.
    """
    new = measure(home, candidate)
    old = measure(home, promoted) if promoted else Measured({}, {}, {}, {})
    for measured in (new, old) if promoted else ():
        if measured.not_comparable:
            raise NothingToMeasureError(measured.not_comparable)
    criteria = []
    for encoder, bad in new.not_finite.items():
        criteria.append(
            Criterion(
                "finite", f"{encoder}_not_finite", f"{encoder}: embeddings with NaN or infinity", bad, None, at_most=0
            )
        )
        if encoder not in new.ranks:
            continue  # too few segments
        rank = old.ranks.get(encoder)
        at_least = MIN_RANK if rank is None else max(MIN_RANK, KEPT_RANK * rank)
        name, what = f"{encoder}_effective_rank", f"{encoder}: effective rank"
        criteria.append(Criterion("not_collapsed", name, what, new.ranks[encoder], rank, at_least=at_least))
    for (encoder, target), error in new.errors.items():
        before = old.errors.get((encoder, target))
        at_most = None if before is None else (1 + TOLERANCE) * before
        what = f"{encoder}: error of {target} ({LABELS[target].unit})"
        criteria.append(Criterion("probes", f"{encoder}_{target}_mae", what, error, before, at_most=at_most))
    for student, result in new.retrieval.items():
        earlier = old.retrieval.get(student)
        before = None if earlier is None else earlier.mean_rank
        at_most = None if before is None else max(1.0, (1 + TOLERANCE) * before)
        what = f"{student}: mean rank of the own pair among {result.segments:.0f}"
        criteria.append(Criterion("retrieval", f"{student}_mean_rank", what, result.mean_rank, before, at_most=at_most))
    return criteria


def measure(home: Home, models: Models) -> Measured:
    """Embed held-out and training segments; probe, count directions, retrieve by each student with its teacher.

    Directions are counted on the held-out ones; where these are fewer than MIN_SEGMENTS_FOR_RANK, on all, and not at
    all where those are. Without a segment on one side nothing is probed or retrieved.
    """
    encoders = {
        spec.name: load_encoder(home.checkpoint(spec.name, models[spec.name]))
        for spec in ENCODERS
        if spec.name in models
    }
    whole = SegmentStore([home.segments(batch_id) for batch_id in readable_batches(home)])
    inputs = sorted({(info.modality, info.channels) for _, info in encoders.values()})
    suited = np.logical_and.reduce([whole.counts(modality) == channels for modality, channels in inputs])
    if not suited.any():
        wanted = " and ".join(f"{channels} {modality}" for modality, channels in inputs)
        reason = f"no segment has the {wanted} channels that {', '.join(models.values())} take"
        return Measured({}, {}, {}, {}, reason)
    store = whole.subset(suited)
    train, test = (_rows(home, store, side) for side in ("train", "test"))
    sides = {"training": train, "test": test}
    lacking = next(
        (f"nobody in {side} has a segment that suits" for side, rows in sides.items() if not len(rows)), None
    )
    counted = len(test) if len(test) >= MIN_SEGMENTS_FOR_RANK else len(train) + len(test)
    participants = np.asarray(store.metadata.column("participant_id").to_pylist())
    not_finite: dict[str, int] = {}
    ranks: dict[str, float] = {}
    errors: dict[tuple[str, str], float] = {}
    embedded: dict[str, npt.NDArray[np.float32]] = {}
    for name, (encoder, info) in encoders.items():
        fitted, held_out = (
            embed(encoder, store, info.modality, rows=rows) if len(rows) else np.empty((0, info.width), np.float32)
            for rows in (train, test)
        )
        bad = int((~np.isfinite(held_out).all(axis=1)).sum() + (~np.isfinite(fitted).all(axis=1)).sum())
        not_finite[name] = bad
        if counted >= MIN_SEGMENTS_FOR_RANK:
            several = held_out if counted == len(test) else np.concatenate([fitted, held_out])
            ranks[name] = effective_rank(several) if not bad else float("nan")
        embedded[name] = held_out
        if not bad and not lacking:
            errors |= {(name, target): error for target, error in _errors(store, train, test, fitted, held_out).items()}
    retrieval = {}
    for student, teacher in students():
        if any(not_finite.get(name, 1) for name in (student.name, teacher)) or len(test) < MIN_RETRIEVED:
            continue
        teacher_head, student_head = load_heads(home.checkpoint(student.name, models[student.name]))
        keys, queries = project(teacher_head, embedded[teacher]), project(student_head, embedded[student.name])
        retrieval[student.name] = retrieve(queries, keys, participants[test].tolist(), pools=_POOLS)
    return Measured(not_finite, ranks, errors, retrieval, lacking)


def _errors(
    store: SegmentStore,
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
    fitted: npt.NDArray[np.float32],
    held_out: npt.NDArray[np.float32],
) -> dict[str, float]:
    """Mean absolute error of each target that can be probed."""
    participants = np.asarray(store.metadata.column("participant_id").to_pylist())
    labels = {target: store.metadata.column(target).to_numpy() for target in LABELS}
    whole = [
        LabelledEmbeddings(matrix, participants[rows], {target: labels[target][rows] for target in labels})
        for matrix, rows in ((fitted, train), (held_out, test))
    ]
    without = not_probed(*whole)
    sides = [
        replace(side, targets={name: side.targets[name] for name in labels if name not in without}) for side in whole
    ]
    return {target: probe.result.mae for (target, _), probe in probe_segments(*sides).items()}


def _rows(home: Home, store: SegmentStore, side: Literal["train", "test"]) -> npt.NDArray[np.intp]:
    """Segments of the participants of one side, evenly thinned to MAX_SEGMENTS."""
    members = participants_on(home.split, side)
    column = store.metadata.column("participant_id")
    on_side = np.array([participant in members for participant in pc.unique(column).to_pylist()])
    code = column.combine_chunks().dictionary_encode().indices.to_numpy()
    rows = np.flatnonzero(on_side[code]) if len(code) else np.empty(0, np.intp)
    return rows[np.linspace(0, len(rows) - 1, MAX_SEGMENTS).astype(np.intp)] if len(rows) > MAX_SEGMENTS else rows
