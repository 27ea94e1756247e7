"""The segment store: one uncompressed Arrow IPC file per batch, memory-mapped, signals read without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.home.files import atomic_path, write_checksum
from accelkd.segments.schema import ACCEL_AXES, SAMPLES, metadata_schema, segment_schema

Modality = Literal["ppg", "accel"]


def write_segments(path: Path, ppg_channels: int, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a store from record batches of `segment_schema(ppg_channels)`; returns the number of segments.

    Streams: at most one record batch is in memory. The file replaces an older one atomically and gets a checksum file.
    """
    rows = 0
    with atomic_path(path) as part, pa.ipc.new_file(str(part), segment_schema(ppg_channels)) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    write_checksum(path)
    return rows


def select_columns(store: pa.Table, names: Sequence[str], path: Path) -> pa.Table:
    """Columns of the store at `path`. Raises ValueError for those that were declared after it was written."""
    if missing := [name for name in names if name not in store.column_names]:
        raise ValueError(f"{path} has no {', '.join(missing)}: materialize `segments` of its batch again")
    return store.select(names)


class SegmentStore:
    """Read-only view over the segments of one or several batches, in the order of `paths`.

    `metadata` is a table (`metadata_schema`); signals stay on disk until they are requested. Raises ValueError
    if the files differ in their number of PPG channels, or one lacks a column that was declared since.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
        channels = {table.schema.field("ppg").type.list_size // SAMPLES for table in tables}
        if len(channels) > 1:
            raise ValueError(
                "segment files differ in their number of PPG channels: "
                + ", ".join(
                    f"{p.name} has {t.schema.field('ppg').type.list_size // SAMPLES}"
                    for p, t in zip(paths, tables, strict=True)
                )
            )
        self.ppg_channels: int = channels.pop() if channels else 0
        metadata = metadata_schema()
        self.metadata: pa.Table = pa.concat_tables(
            [select_columns(table, metadata.names, path) for table, path in zip(tables, paths, strict=True)]
            or [metadata.empty_table()]
        ).combine_chunks()
        self._signals: dict[Modality, list[npt.NDArray[np.float16]]] = {
            "ppg": [_mapped(chunk, self.ppg_channels) for table in tables for chunk in table.column("ppg").chunks],
            "accel": [_mapped(chunk, ACCEL_AXES) for table in tables for chunk in table.column("accel").chunks],
        }
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._signals["ppg"])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def channels(self, modality: Modality) -> int:
        """Number of channels of a modality's signals."""
        return self.ppg_channels if modality == "ppg" else ACCEL_AXES

    def signals(self, modality: Modality, rows: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.float16]:
        """Signals of `rows`, by default all, copied out of the memory map: `[rows, channels, 3840]` float16."""
        rows = np.arange(len(self)) if rows is None else rows
        out = np.empty((len(rows), self.channels(modality), SAMPLES), np.float16)
        chunk_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(chunk_of):
            in_chunk = chunk_of == number
            out[in_chunk] = self._signals[modality][number][rows[in_chunk] - self._starts[number]]
        return out


def _mapped(chunk: pa.FixedSizeListArray, channels: int) -> npt.NDArray[np.float16]:
    """Signals of a chunk, `[rows, channels, 3840]`, in the memory map."""
    values = chunk.values.slice(chunk.offset * channels * SAMPLES, len(chunk) * channels * SAMPLES)
    flat: npt.NDArray[np.float16] = values.to_numpy(zero_copy_only=True)
    return flat.reshape(len(chunk), channels, SAMPLES)
