"""Is a trained pair of encoders fit for use: measured on the held-out participants, beside the pair in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch

from accelkd.cohort.split import participants_on
from accelkd.cohort.training_set import segmented_batches
from accelkd.evaluation.collapse import effective_rank
from accelkd.evaluation.extract import embed
from accelkd.evaluation.probes import TARGETS, LabelledEmbeddings, probe_segments
from accelkd.evaluation.retrieval import RetrievalResult, retrieve
from accelkd.home.layout import Home
from accelkd.registry.history import STUDENT, TEACHER, EncoderName, Models
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import load_encoder, load_heads

Check = Literal["finite", "not_collapsed", "probes", "retrieval"]
CHECKS: tuple[Check, ...] = ("finite", "not_collapsed", "probes", "retrieval")

TOLERANCE = 0.05  # how much worse than the pair in use a candidate may measure: what another seed does to it
MIN_RANK = 1.5  # effective rank of embeddings that still tell segments apart
KEPT_RANK = 0.5  # share of the effective rank of the pair in use
MAX_SEGMENTS = 20_000  # of each side that are embedded: bounds time and memory
_POOLS = 20


@dataclass(frozen=True)
class Criterion:
    """One thing that was measured on a candidate, and what it had to be."""

    check: Check
    what: str
    measured: float
    in_use: float | None  # the same of the pair in use; None where there is none
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the measured value is inside its bounds; NaN never is."""
        above = self.at_least is None or self.measured >= self.at_least
        return above and (self.at_most is None or self.measured <= self.at_most)


@dataclass(frozen=True)
class Measured:
    """What was measured on one pair."""

    not_finite: Mapping[EncoderName, int]  # embeddings with a NaN or an infinity
    ranks: Mapping[EncoderName, float]
    errors: Mapping[tuple[EncoderName, str], float]  # mean absolute error by encoder and target
    retrieval: RetrievalResult | None  # of PPG from acceleration, projected


def compare(home: Home, candidate: Models, in_use: Models) -> list[Criterion]:
    """Measure a candidate pair, and the pair in use if there is one, on the same segments of the same participants.

    A first pair has to be finite and must not have collapsed; a later one, besides, must not be worse than the pair in
    use by more than TOLERANCE in any probe or in retrieval. Raises FileNotFoundError without a split or segments,
    ValueError where no segment suits the teacher.
    """
    new = measure(home, candidate)
    old = measure(home, in_use) if in_use else None
    criteria = []
    for encoder in (TEACHER, STUDENT):
        bad = new.not_finite[encoder]
        criteria.append(Criterion("finite", f"{encoder}: embeddings with NaN or infinity", bad, None, at_most=0))
        rank, least = old.ranks[encoder] if old else None, MIN_RANK
        if rank is not None:
            least = max(MIN_RANK, KEPT_RANK * rank)
        told = f"{encoder}: effective rank"
        criteria.append(Criterion("not_collapsed", told, new.ranks[encoder], rank, at_least=least))
    for (encoder, target), error in new.errors.items():
        was = old.errors.get((encoder, target)) if old else None
        most = None if was is None else (1 + TOLERANCE) * was
        criteria.append(
            Criterion("probes", f"{encoder}: error of {target} ({TARGETS[target]})", error, was, None, most)
        )
    if new.retrieval:
        was = old.retrieval.mean_rank if old and old.retrieval else None
        most = None if was is None else max(1.0, (1 + TOLERANCE) * was)
        told = f"mean rank of the own PPG among {new.retrieval.segments:.0f}"
        criteria.append(Criterion("retrieval", told, new.retrieval.mean_rank, was, None, most))
    return criteria


def measure(home: Home, models: Models) -> Measured:
    """Embed held-out and training segments with a pair; probe, retrieve and count directions."""
    encoders = {encoder: load_encoder(home.checkpoint(encoder, models[encoder])) for encoder in (TEACHER, STUDENT)}
    channels = encoders[TEACHER][1].channels
    suiting = [batch_id for batch_id, count in segmented_batches(home).items() if count == channels]
    if not suiting:
        raise ValueError(f"no batch has the {channels} PPG channels that teacher {models[TEACHER]} takes")
    store = SegmentStore([home.segments(batch_id) for batch_id in suiting])
    train, test = (_rows(home, store, side) for side in ("train", "test"))
    if not len(train) or not len(test):
        raise ValueError("a comparison needs segments of training and of test participants")
    people = np.asarray(store.metadata.column("participant_id").to_pylist())
    not_finite: dict[EncoderName, int] = {}
    ranks: dict[EncoderName, float] = {}
    errors: dict[tuple[EncoderName, str], float] = {}
    embedded: dict[EncoderName, npt.NDArray[np.float32]] = {}
    for name, (encoder, info) in encoders.items():
        fitted, held_out = (embed(encoder, store, info.modality, rows=rows) for rows in (train, test))
        bad = int((~np.isfinite(held_out).all(axis=1)).sum() + (~np.isfinite(fitted).all(axis=1)).sum())
        not_finite[name] = bad
        ranks[name] = effective_rank(held_out) if not bad else float("nan")
        embedded[name] = held_out
        if not bad:
            errors |= {(name, target): error for target, error in _errors(store, train, test, fitted, held_out).items()}
    retrieval = None
    if not any(not_finite.values()):
        ppg_head, accel_head = load_heads(home.checkpoint(STUDENT, models[STUDENT]))
        with torch.inference_mode():
            ppg = ppg_head(torch.from_numpy(embedded[TEACHER])).numpy()
            accel = accel_head(torch.from_numpy(embedded[STUDENT])).numpy()
        retrieval = retrieve(accel, ppg, people[test].tolist(), pools=_POOLS)
    return Measured(not_finite, ranks, errors, retrieval)


def _errors(
    store: SegmentStore,
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
    fitted: npt.NDArray[np.float32],
    held_out: npt.NDArray[np.float32],
) -> dict[str, float]:
    """Mean absolute error of each target that has labels on both sides, of two training participants at least."""
    people = np.asarray(store.metadata.column("participant_id").to_pylist())
    labels = {target: store.metadata.column(target).to_numpy() for target in TARGETS}
    usable = [
        target
        for target, y in labels.items()
        if len(np.unique(people[train[np.isfinite(y[train])]])) > 1 and np.isfinite(y[test]).any()
    ]
    sides = [
        LabelledEmbeddings(matrix, people[rows], {target: labels[target][rows] for target in usable})
        for matrix, rows in ((fitted, train), (held_out, test))
    ]
    return {target: probe.result.mae for (target, _), probe in probe_segments(*sides).items()} if usable else {}


def _rows(home: Home, store: SegmentStore, side: Literal["train", "test"]) -> npt.NDArray[np.intp]:
    """Segments of the participants of one side, evenly thinned to MAX_SEGMENTS."""
    members = participants_on(home.split, side)
    on_side = np.array([who in members for who in pc.unique(store.metadata.column("participant_id")).to_pylist()])
    code = store.metadata.column("participant_id").combine_chunks().dictionary_encode().indices.to_numpy()
    rows = np.flatnonzero(on_side[code]) if len(code) else np.empty(0, np.intp)
    return rows[np.linspace(0, len(rows) - 1, MAX_SEGMENTS).astype(np.intp)] if len(rows) > MAX_SEGMENTS else rows
