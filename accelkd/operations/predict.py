"""Predictions from recordings that are in no home: files are read, segmented, embedded and read out, and left behind.

The steps are the pipeline's own, in a temporary home: the same recording gives the same numbers here and there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.evaluation.extract import embed
from accelkd.evaluation.readouts import Predicted, Readouts, predict, read_participants
from accelkd.home.layout import Home
from accelkd.home.settings import MotionGate
from accelkd.models.encoders import AnyEncoder
from accelkd.recordings.describe import describe, devices_of
from accelkd.recordings.ingest import ingest
from accelkd.recordings.mapping import Mapping, is_table, parse_mapping, read_mapping
from accelkd.recordings.readers.table import table_reader
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import Modality, SegmentStore

_BATCH = "predicted"
_NAME = "recording"  # of the participant of a single file
_ADVICE = "`accelkd ingest --describe` proposes a mapping to complete and to give with --mapping"
_VALUES = [
    ("target", pa.string()),
    ("unit", pa.string()),
    ("value", pa.float32()),
    ("low", pa.float32()),
    ("high", pa.float32()),
    ("typical", pa.bool_()),
]
SEGMENT_PREDICTION = pa.schema(
    [
        ("participant_id", pa.string()),
        ("recording_id", pa.string()),
        ("started_at", pa.timestamp("us", tz="UTC")),
        ("offset_s", pa.float64()),
        *_VALUES,
    ]
)
PARTICIPANT_PREDICTION = pa.schema([("participant_id", pa.string()), ("segments", pa.int64()), *_VALUES])


@dataclass(frozen=True, eq=False)
class RecordingPredictions:
    """What an encoder reads in recordings, and what it could not read."""

    segments: pa.Table  # SEGMENT_PREDICTION: a row for each usable minute and target
    participants: pa.Table  # PARTICIPANT_PREDICTION: a row for each participant and target
    left_out: tuple[str, ...]  # files, recordings and minutes without a prediction, with the reason
    notes: tuple[str, ...]  # how the files were understood


def predict_recordings(
    source: Path,
    module: AnyEncoder,
    modality: Modality,
    readouts: Readouts,
    *,
    device: str | None = None,
    mapping: Path | None = None,
    participant_from: str | None = None,
    gate: MotionGate = "strict",
    hop_s: float = 60.0,
    compute_on: str = "auto",
) -> RecordingPredictions:
    """Predictions for a file, or for a folder as a device's software exported it.

    `device` is a name of the device table; without it, the file's format is recognised. A table (CSV and the like) may
    need a `mapping` (docs/own-recordings.md): without one, its columns and units are those that `accelkd ingest
    --describe` proposes, which the notes say. A single file is of one participant, `recording`.

    Raises FileNotFoundError without the file, ValueError for what is no recording or lacks the encoder's modality, with
    the reason of every file.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    with tempfile.TemporaryDirectory(prefix="accelkd-") as scratch:
        home = Home(Path(scratch) / "home")
        folder = source
        if source.is_file():
            folder, participant_from = _folder_of(source, Path(scratch)), participant_from or "path"
        chosen, understood, notes = _understood(source, device, mapping)
        summary = ingest(
            chosen,
            folder,
            home.landing,
            _BATCH,
            participant_from=participant_from,
            reader=None if understood is None else table_reader(understood),
            companions=[] if mapping is None else [mapping],
        )
        rejected = [f"{entry.source_file}: {entry.reason}: {entry.detail}" for entry in summary.rejections]
        if not summary.read:
            raise ValueError(f"{source}: no recording could be read: {'; '.join(rejected) or 'there is no file'}")
        for batch_id in summary.batch_ids:
            segment_batch(home, batch_id, gate=gate, hop_s=hop_s)
        quarantined = [line for batch_id in summary.batch_ids for line in _quarantined(home, batch_id)]
        whole = SegmentStore([home.segments(batch_id) for batch_id in summary.batch_ids])
        channels = int(getattr(module, "channels", 0))
        store = whole.subset(whole.counts(modality) == channels)
        lacking = len(whole) - len(store)
        if lacking:
            quarantined.append(f"{lacking} minutes have not the {channels} {modality} channels that the encoder takes")
        matrix = embed(module, store, modality, compute_on) if len(store) else np.empty((0, 1), np.float32)
        # The files go with the folder: what is shown must not point into them
        started_at, offset_s = (store.metadata.column(name).combine_chunks() for name in ("started_at", "offset_s"))
        people, recordings = (
            np.asarray(store.metadata.column(name).to_pylist(), np.str_) for name in ("participant_id", "recording_id")
        )
        keys = {
            "participant_id": pa.array(people.tolist(), pa.string()),
            "recording_id": pa.array(recordings.tolist(), pa.string()),
            "started_at": pa.array(started_at.to_pylist(), pa.timestamp("us", tz="UTC")),
            "offset_s": pa.array(offset_s.to_pylist(), pa.float64()),
        }
    return RecordingPredictions(
        of_segments(readouts, matrix, keys, SEGMENT_PREDICTION),
        of_participants(readouts, matrix, people),
        (*rejected, *quarantined),
        (*notes, *summary.notes),
    )


def of_segments(
    readouts: Readouts, matrix: npt.NDArray[np.float32], keys: Dictionary[str, pa.Array], schema: pa.Schema
) -> pa.Table:
    """Rows of `schema` for each segment's embedding in `matrix` [segments, width] and each target of segments.

    `keys` has the columns beside the values, a row for each segment. Segment after segment, targets in their order.
    """
    of = {readout.target: predict(readout, matrix) for readout in readouts.at("segment")} if len(matrix) else {}
    return _rows(readouts, of, keys, readouts.typical.contains(matrix) if of else None, schema)


def of_participants(
    readouts: Readouts, matrix: npt.NDArray[np.float32], participants: npt.NDArray[np.str_]
) -> pa.Table:
    """Rows of PARTICIPANT_PREDICTION from the mean embedding of each participant."""
    if not len(matrix):
        return PARTICIPANT_PREDICTION.empty_table()
    read = read_participants(readouts, matrix, participants)
    keys = {"participant_id": pa.array(read.names.tolist(), pa.string()), "segments": pa.array(read.segments)}
    return _rows(readouts, read.of, keys, read.typical, PARTICIPANT_PREDICTION)


def _rows(
    readouts: Readouts,
    of: Dictionary[str, Predicted],
    keys: Dictionary[str, pa.Array],
    typical: npt.NDArray[np.bool_] | None,
    schema: pa.Schema,
) -> pa.Table:
    """A row for each row of `keys` and each target: row after row, targets in their order."""
    if typical is None or not of:
        return schema.empty_table()
    rows = len(typical)
    repeated = {name: column.take(pa.array(np.repeat(np.arange(rows), len(of)))) for name, column in keys.items()}
    values = {
        name: pa.array(
            np.stack([getattr(predicted, name) for predicted in of.values()], axis=1).ravel().astype(np.float32),
            from_pandas=True,
        )
        for name in ("value", "low", "high")
    }
    return pa.table(
        {
            **repeated,
            "target": pa.array([*of] * rows, pa.string()),
            "unit": pa.array([readouts.of[target].unit for target in of] * rows, pa.string()),
            **values,
            "typical": pa.array(np.repeat(typical, len(of))),
        }
    ).select(schema.names)


def _folder_of(file: Path, scratch: Path) -> Path:
    """A folder that holds a copy of the file as the only thing of its participant."""
    folder = scratch / "delivery"
    inner = folder / _NAME
    inner.mkdir(parents=True)
    shutil.copyfile(file, inner / file.name)
    return folder


def _understood(source: Path, device: str | None, mapping: Path | None) -> tuple[str, Mapping | None, list[str]]:
    """The device, for a table what its columns mean, and what of it was found by looking."""
    if mapping is not None:
        return "table", read_mapping(mapping), []
    if device not in (None, "table"):
        return device, None, []
    for file in _files(source) if device is None else ():
        if devices := devices_of(file):
            if len(devices) > 1:
                raise ValueError(f"{file} may be of {' or '.join(devices)}: name the device")
            return devices[0], None, [f"read as a file of {devices[0]}"]
    return "table", *_proposed(_first_file(source))


def _proposed(file: Path) -> tuple[Mapping, list[str]]:
    """The mapping that describing a table proposes, where it says enough. Raises ValueError where it does not."""
    text = describe(file)
    try:
        proposed = parse_mapping(text)
    except ValueError as error:
        raise ValueError(f"{file}: {error}; {_ADVICE}") from None
    if proposed.ppg is None and proposed.accel is None:
        raise ValueError(f"{file}: no column is known to be PPG or acceleration; {_ADVICE}")
    said = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return proposed.model_copy(update={"participant": None}), [f"understood: {' '.join(said)}"]


def _files(source: Path) -> list[Path]:
    return [source] if source.is_file() else sorted(path for path in source.rglob("[!.]*") if path.is_file())


def _first_file(source: Path) -> Path:
    tables = [path for path in _files(source) if is_table(path)]
    if not tables:
        raise ValueError(f"{source}: no file is of a known format or a table of text, Parquet, Feather or MAT")
    return tables[0]


def _quarantined(home: Home, batch_id: str) -> list[str]:
    """What did not become a segment, with its reason; files are among the rejections."""
    rows = pq.read_table(home.quarantine(batch_id)).to_pylist()
    return [
        f"{row['recording_id']}"
        + ("" if row["offset_s"] is None else f" at {row['offset_s']:g} s")
        + f": {row['reason']}: {row['detail']}"
        for row in rows
        if row["unit"] in ("recording", "window")
    ]
