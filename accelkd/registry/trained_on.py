"""Who is members a checkpoint: written down when it is trained, true whatever the split and the batches become later.

The list is stored beside the split ledger and not in the checkpoint's folder, so that a checkpoint can be given away
without its participants' pseudonyms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.cohort.training_set import MIN_SEGMENTS, TrainingSet
from accelkd.home.columns import Column, Table
from accelkd.home.files import atomic_path
from accelkd.home.layout import Home
from accelkd.recordings.arrivals import superseded

TRAINED_ON = Table(
    "cohort.trained_on",
    (
        Column("participant_id", pa.string(), meaning="Pseudonym; null for somebody who has withdrawn since"),
        Column("batch_id", pa.string(), nullable=False, meaning="Batch of the segments"),
        Column("segments", pa.int64(), nullable=False, meaning="Number of the segments"),
    ),
    meaning="Whose segments one checkpoint was trained on",
)
_BATCHES = b"batch_ids"  # of the training set, also those without a training participant


def whose_segments(selected: TrainingSet) -> pa.Table:
    """Participants with as many segments as the sampler needs: their batches and numbers of segments (TRAINED_ON)."""
    rows = selected.store.metadata.select(["participant_id", "batch_id"]).take(selected.rows)
    _, code, count = np.unique(
        rows.column("participant_id").to_numpy(zero_copy_only=False), return_inverse=True, return_counts=True
    )
    counted = (
        rows.filter(pa.array(count[code] >= MIN_SEGMENTS))
        .group_by(["participant_id", "batch_id"], use_threads=False)
        .aggregate([([], "count_all")])
    )
    return (
        counted.rename_columns(TRAINED_ON.names)
        .cast(TRAINED_ON.arrow())
        .sort_by([("participant_id", "ascending"), ("batch_id", "ascending")])
    )


def write_trained_on(home: Home, encoder: str, model_id: str, members: pa.Table, batch_ids: Sequence[str]) -> None:
    """Write down whose segments (TRAINED_ON) of which batches the checkpoint was trained on.

    Raises ValueError if the checkpoint says that it was trained on other numbers of participants or segments.
    """
    from accelkd.training.checkpoint import read_metrics  # imports torch

    metrics = read_metrics(home.checkpoint(encoder, model_id))
    participants = len(pc.unique(members.column("participant_id")))
    segments = pc.sum(members.column("segments")).as_py() or 0
    if (participants, segments) != (metrics["participants"], metrics["segments"]):
        raise ValueError(
            f"{encoder} {model_id} was trained on {metrics['segments']} segments of {metrics['participants']} "
            f"participants, not on {segments} of {participants}"
        )
    _write(home, encoder, model_id, members, batch_ids)


def adopt_trained_on(home: Home, encoder: str, model_id: str, origin: Home | None) -> None:
    """Write down whom a checkpoint from elsewhere was trained on, as its own home says, and that no batch here was.

    Nobody is listed where that is not known.
    """
    listed = origin is not None and origin.trained_on(encoder, model_id).exists()
    members = read_trained_on(origin, encoder, model_id)[0] if origin is not None and listed else None
    _write(home, encoder, model_id, TRAINED_ON.arrow().empty_table() if members is None else members, ())


def is_adopted(home: Home, encoder: str, model_id: str) -> bool:
    """Whether a checkpoint was trained elsewhere."""
    return home.trained_on(encoder, model_id).exists() and not read_trained_on(home, encoder, model_id)[1]


def read_trained_on(home: Home, encoder: str, model_id: str) -> tuple[pa.Table, tuple[str, ...]]:
    """Participants (TRAINED_ON) and batches of a checkpoint's training set.

    Raises FileNotFoundError that says what to do if they were not written down.
    """
    path = home.trained_on(encoder, model_id)
    if not path.exists():
        raise FileNotFoundError(f"{path}: it is not recorded who {encoder} {model_id} learned from; train it again")
    table = pq.read_table(path)
    return table.replace_schema_metadata(None), tuple(json.loads(table.schema.metadata[_BATCHES]))


def all_trained_on(home: Home) -> tuple[frozenset[str], bool]:
    """Everybody whom a checkpoint of the home was trained on, and whether that is known of every checkpoint."""
    folder = home.root / "cohort" / "trained_on"
    listed = {(path.parent.name, path.stem): path for path in folder.glob("*/[!.]*.parquet")}
    checkpoints = (path.parent for path in (home.root / "checkpoints").glob("*/[!.]*/config.json"))
    columns = (pq.read_table(path, columns=["participant_id"]).column(0) for path in listed.values())
    participants = {participant for column in columns for participant in pc.unique(column).to_pylist()} - {None}
    return frozenset(participants), {(path.parent.name, path.name) for path in checkpoints} <= listed.keys()


def superseded_training_batches(home: Home, models: Mapping[str, str]) -> dict[str, str]:
    """Batches that checkpoints (model id by encoder) were trained on and that are superseded, with their corrections.

    A checkpoint of which it is not recorded is passed over.
    """
    replaced = superseded(home)
    recorded = [model for model in models.items() if home.trained_on(*model).exists()]
    batch_ids = {batch_id for model in recorded for batch_id in read_trained_on(home, *model)[1]}
    return {batch_id: replaced[batch_id].replaced_by for batch_id in sorted(batch_ids & replaced.keys())}


def forget_trained_on(home: Home, encoder: str, model_id: str, participant_id: str) -> bool:
    """Blank a withdrawn participant in the list of one checkpoint; returns whether it listed them.

    Their row stays, without a name: the checkpoint still holds what it learned. A student whose teacher learned from
    them does not list them unless it did too.
    """
    table, batch_ids = read_trained_on(home, encoder, model_id)
    column = table.column("participant_id")
    own = pc.fill_null(pc.equal(column, participant_id), False)
    listed: bool = pc.any(own).as_py() or False
    if listed:
        blanked = pc.if_else(own, pa.scalar(None, pa.string()), column)
        _write(home, encoder, model_id, table.set_column(0, TRAINED_ON.arrow().field(0), blanked), batch_ids)
    return listed


def _write(home: Home, encoder: str, model_id: str, table: pa.Table, batch_ids: Sequence[str]) -> None:
    with atomic_path(home.trained_on(encoder, model_id)) as part:
        pq.write_table(table.replace_schema_metadata({_BATCHES: json.dumps(list(batch_ids))}), part, compression="zstd")
