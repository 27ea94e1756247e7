"""Drift: whether a batch looks like the training participants whom the encoders in use have learned from.

A quantity has drifted if it differs by more than a threshold and by more than people differ anyway: participants are
shuffled between batch and cohort, whole, and the largest difference of all shuffles is what chance does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.cohort.curation import segmented_batches
from accelkd.cohort.split import participants_on
from accelkd.current import EncoderName
from accelkd.lake import Lake
from accelkd.warehouse.inspect import batch_embeddings, trained_on

Floats = npt.NDArray[np.float64]

LABELS = ("hr_bpm", "sdnn_ms", "rmssd_ms")
QUALITY = ("motion_p95_g", "label_agreement", "label_template_correlation", "label_coverage", "label_good")
LEVELS = ("ppg_level", "ppg_ac_level", "accel_ac_level")  # in the units of a device: compared within it alone
MOST_INDEX = 0.25  # population stability index: the customary bound of a major shift (Siddiqi 2006, Yurdakul 2018)
MOST_SHIFT = 0.25  # distance of the mean embeddings, in standard deviations of the cohort's embeddings
SHUFFLES = 999  # so that chance alone passes a threshold once in a thousand
COHORT_BATCHES = 8  # at most, spread evenly: the cost of a batch must not grow with the number of batches
_BINS = 10


@dataclass(frozen=True)
class Drift:
    """How far one quantity of a batch lies from the training cohort."""

    quantity: str
    difference: float  # population stability index of a distribution, shift of a mean embedding
    by_chance: float  # the largest of SHUFFLES shuffles of the participants
    bound: float  # MOST_INDEX or MOST_SHIFT
    segments: int  # of the batch
    cohort_segments: int

    @property
    def threshold(self) -> float:
        return max(self.bound, self.by_chance)

    @property
    def drifted(self) -> bool:
        return self.difference > self.threshold


@dataclass(frozen=True)
class Sample:
    """Values of segments, `[segments]` or `[segments, width]`, with the participant of each."""

    values: Floats
    participants: npt.NDArray[np.str_]


def segment_drift(lake: Lake, batch_id: str) -> list[Drift]:
    """Drift of labels, signal quality and signal levels of one batch; empty if there is no other batch to compare with.

    A quantity that nobody has on one side, and the levels of devices that the cohort does not have, are left out.
    """
    compared = _cohort_batches(lake, "ppg_teacher", batch_id)
    if not compared:
        return []
    batch, cohort = _facts(lake, [batch_id]), _training_only(lake, _facts(lake, compared))
    same_device = pc.is_in(cohort.column("device_id"), value_set=batch.column("device_id").unique())
    found = []
    for quantity in (*LABELS, *QUALITY, *LEVELS):
        known = cohort.filter(same_device) if quantity in LEVELS else cohort
        here, there = _sample(batch, quantity), _sample(known, quantity)
        if len(here.values) and len(there.values):
            found.append(stability(quantity, here, there))
    return found


def embedding_drift(lake: Lake, encoder: EncoderName, batch_id: str) -> Drift | None:
    """Shift of the mean embedding of one batch by the encoder in use; None if there is nothing to compare with."""
    compared = _cohort_batches(lake, encoder, batch_id)
    if not compared:
        return None
    here = batch_embeddings(lake, encoder, [batch_id])
    there = _training_only(lake, batch_embeddings(lake, encoder, compared))
    if not here.num_rows or not there.num_rows:
        return None
    return mean_shift("embedding", *(Sample(_matrix(rows), _people(rows)) for rows in (here, there)))


def stability(quantity: str, batch: Sample, cohort: Sample) -> Drift:
    """Population stability index between batch and cohort, over the deciles of both together."""
    together = np.concatenate([batch.values, cohort.values])
    edges = np.unique(np.quantile(together, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.eye(len(edges) + 1)[np.searchsorted(edges, together, side="right")]

    def index(here: Floats, there: Floats) -> Floats:
        # Half a segment more in every bin that has any keeps the logarithm finite
        shares = [(counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True) for counts in (here, there)]
        return np.asarray(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum(axis=-1))

    return _against_chance(quantity, batch, cohort, bins[:, bins.any(axis=0)], index, MOST_INDEX)


def mean_shift(quantity: str, batch: Sample, cohort: Sample) -> Drift:
    """Distance of the means of batch and cohort over the root of the cohort's total variance."""
    spread = float(np.sqrt(cohort.values.var(axis=0).sum())) or 1.0
    together = np.concatenate([batch.values, cohort.values])

    def distance(here: Floats, there: Floats) -> Floats:
        means = [sums[..., :-1] / np.maximum(sums[..., -1:], 1) for sums in (here, there)]
        return np.asarray(np.linalg.norm(means[0] - means[1], axis=-1) / spread)

    with_count = np.column_stack([together, np.ones(len(together))])
    return _against_chance(quantity, batch, cohort, with_count, distance, MOST_SHIFT)


def _against_chance(
    quantity: str,
    batch: Sample,
    cohort: Sample,
    rows: Floats,
    difference: Callable[[Floats, Floats], Floats],
    bound: float,
) -> Drift:
    """Apply `difference` to the sums of `rows` [segments, columns] of both sides, as they are and shuffled.

    Minutes of one person are alike, so whole participants change sides: a person of both sides counts as two.
    """
    people, here = np.unique(batch.participants, return_inverse=True)
    others, there = np.unique(cohort.participants, return_inverse=True)
    sums = np.zeros((len(people) + len(others), rows.shape[1]))
    np.add.at(sums, np.concatenate([here, there + len(people)]), rows)
    in_batch = np.arange(len(sums)) < len(people)
    shuffled = np.random.default_rng(0).permuted(np.tile(in_batch, (SHUFFLES, 1)), axis=1)
    sides = np.concatenate([in_batch[None], shuffled]).astype(np.float64)
    differences = difference(sides @ sums, (1 - sides) @ sums)
    return Drift(
        quantity,
        difference=float(differences[0]),
        by_chance=float(differences[1:].max()),
        bound=bound,
        segments=len(batch.values),
        cohort_segments=len(cohort.values),
    )


def _cohort_batches(lake: Lake, encoder: EncoderName, batch_id: str) -> list[str]:
    """Batches to compare with: those that the encoder in use learned from, or all while there is none."""
    there = segmented_batches(lake)
    others = [name for name in trained_on(lake, encoder) or there if name != batch_id and name in there]
    chosen = np.unique(np.linspace(0, len(others) - 1, min(len(others), COHORT_BATCHES)).round().astype(int))
    return [others[i] for i in chosen]


def _training_only(lake: Lake, rows: pa.Table) -> pa.Table:
    """The rows of everybody but the test participants; before there is a split, of everybody."""
    test = participants_on(lake.split, "test") if lake.split.exists() else frozenset[str]()
    return rows.filter(
        pc.invert(pc.is_in(rows.column("participant_id"), value_set=pa.array(sorted(test), pa.string())))
    )


def _facts(lake: Lake, batch_ids: Sequence[str]) -> pa.Table:
    """Labels, quality and levels of the segments of batches; a level is the mean over the channels that are good."""
    tables = []
    for batch_id in batch_ids:
        with pa.memory_map(str(lake.segments(batch_id))) as source:
            stored = pa.ipc.open_file(source).read_all()
            table = stored.select(["participant_id", "device_id", *LABELS, *QUALITY])
            for level in LEVELS:
                values = _matrix(stored, level)
                good = _matrix(stored, f"{level.partition('_')[0]}_status") == 0
                number = good.sum(axis=1)
                means = np.where(good, values, 0).sum(axis=1) / np.where(number, number, np.nan)
                table = table.append_column(level, pa.array(means, from_pandas=True))
            tables.append(table)
    return pa.concat_tables(tables)


def _sample(rows: pa.Table, quantity: str) -> Sample:
    known = rows.filter(pc.is_valid(rows.column(quantity)))
    values = known.column(quantity).cast(pa.float64()).to_numpy()
    return Sample(values, _people(known))


def _people(rows: pa.Table) -> npt.NDArray[np.str_]:
    return np.asarray(rows.column("participant_id").to_pylist(), np.str_)


def _matrix(rows: pa.Table, column: str = "embedding") -> Floats:
    """A column of lists of one size as `[rows, size]`."""
    values = rows.column(column).combine_chunks().flatten().to_numpy().astype(np.float64)
    return np.reshape(values, (rows.num_rows, -1 if rows.num_rows else 1))
