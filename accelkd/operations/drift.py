"""Drift: whether a batch looks like the training participants whom the promoted encoders have learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from accelkd.cohort.split import participants_on
from accelkd.evaluation.drift import Drift, Floats, Sample, mean_shift, stability
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.repair import readable_batches
from accelkd.recordings.labels import LABELS
from accelkd.warehouse.inspect import batch_embeddings, trained_on

QUALITY = ("motion_p95_g", "label_agreement", "label_template_correlation", "label_coverage", "label_good")
LEVELS = ("ppg_level", "ppg_ac_level", "accel_ac_level")  # in the units of a device: compared within it alone
COHORT_BATCHES = 8  # at most, spread evenly: the cost of a batch must not grow with the number of batches


def segment_drift(home: Home, batch_id: str) -> list[Drift]:
    """Drift of labels, signal quality and signal levels of one batch; empty if there is no other batch to compare with.

    A quantity that one side lacks, and the levels of devices that the cohort does not have, are left out.
    """
    compared = _cohort_batches(home, ENCODERS[0].name, batch_id)
    if not compared:
        return []
    batch, cohort = _facts(home, [batch_id]), _training_only(home, _facts(home, compared))
    same_device = pc.is_in(cohort.column("device_id"), value_set=batch.column("device_id").unique())
    drifts = []
    for quantity in (*LABELS, *QUALITY, *LEVELS):
        comparable = cohort.filter(same_device) if quantity in LEVELS else cohort
        own, others = _sample(batch, quantity), _sample(comparable, quantity)
        if len(own.values) and len(others.values):
            drifts.append(stability(quantity, own, others))
    return drifts


def embedding_drift(home: Home, encoder: str, batch_id: str) -> Drift | None:
    """Shift of the mean embedding of one batch by the promoted encoder; None if there is nothing to compare with."""
    compared = _cohort_batches(home, encoder, batch_id)
    if not compared:
        return None
    own = batch_embeddings(home, encoder, [batch_id])
    others = _training_only(home, batch_embeddings(home, encoder, compared))
    if not own.num_rows or not others.num_rows:
        return None
    return mean_shift("embedding", *(Sample(_matrix(rows), _participants(rows)) for rows in (own, others)))


def _cohort_batches(home: Home, encoder: str, batch_id: str) -> list[str]:
    """Batches to compare with: those that the promoted encoder learned from, or all before the first promotion."""
    readable = readable_batches(home)
    others = [name for name in trained_on(home, encoder) or readable if name != batch_id and name in readable]
    chosen = np.unique(np.linspace(0, len(others) - 1, min(len(others), COHORT_BATCHES)).round().astype(int))
    return [others[i] for i in chosen]


def _training_only(home: Home, rows: pa.Table) -> pa.Table:
    """The rows of all but the test participants; before there is a split, all rows."""
    test = participants_on(home.split, "test") if home.split.exists() else frozenset[str]()
    return rows.filter(
        pc.invert(pc.is_in(rows.column("participant_id"), value_set=pa.array(sorted(test), pa.string())))
    )


def _facts(home: Home, batch_ids: Sequence[str]) -> pa.Table:
    """Labels, quality and levels of the segments of batches; a level is the mean over the channels that are good.

    Without PPG a label is neither good nor bad.
    """
    tables = []
    for batch_id in batch_ids:
        with pa.memory_map(str(home.segments(batch_id))) as source:
            stored = pa.ipc.open_file(source).read_all()
            table = stored.select(["participant_id", "device_id", *LABELS, *QUALITY])
            good = pc.if_else(
                pc.greater(pc.list_value_length(stored.column("ppg_status")), 0), table.column("label_good"), None
            )
            table = table.set_column(table.column_names.index("label_good"), "label_good", good)
            for level in LEVELS:
                table = table.append_column(level, pa.array(_good_mean(stored, level), from_pandas=True))
            tables.append(table)
    return pa.concat_tables(tables)


def _good_mean(stored: pa.Table, level: str) -> npt.NDArray[np.float64]:
    """Mean of a level over the good channels of each segment; NaN where there is none."""
    levels, status = (stored.column(name).combine_chunks() for name in (level, f"{level.partition('_')[0]}_status"))
    row = np.repeat(np.arange(len(levels)), pc.list_value_length(levels).to_numpy())
    good = status.flatten().to_numpy() == 0
    total = np.bincount(row[good], levels.flatten().to_numpy()[good], minlength=len(levels))
    number = np.bincount(row[good], minlength=len(levels))
    return total / np.where(number, number, np.nan)


def _sample(rows: pa.Table, quantity: str) -> Sample:
    known = rows.filter(pc.is_valid(rows.column(quantity)))
    values = known.column(quantity).cast(pa.float64()).to_numpy()
    return Sample(values, _participants(known))


def _participants(rows: pa.Table) -> npt.NDArray[np.str_]:
    return np.asarray(rows.column("participant_id").to_pylist(), np.str_)


def _matrix(rows: pa.Table, column: str = "embedding") -> Floats:
    """A column of lists of one size as `[rows, size]`."""
    values = rows.column(column).combine_chunks().flatten().to_numpy().astype(np.float64)
    return np.reshape(values, (rows.num_rows, -1 if rows.num_rows else 1))
