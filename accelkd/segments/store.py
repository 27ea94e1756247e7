"""The segment store: one uncompressed Arrow IPC file per batch, memory-mapped, signals read without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.home.files import atomic_path, write_checksum
from accelkd.segments.schema import SAMPLES, SEGMENT, metadata_schema

Modality = Literal["ppg", "accel"]
MODALITIES: tuple[Modality, ...] = ("ppg", "accel")


def write_segments(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a store from record batches of SEGMENT; returns the number of segments.

    Streams: at most one record batch is in memory. The file replaces an older one atomically and gets a checksum file.
    """
    rows = 0
    with atomic_path(path) as part, pa.ipc.new_file(str(part), SEGMENT.arrow()) as writer:
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

    `metadata` is a table (`metadata_schema`); signals stay on disk until they are requested. Segments may differ in
    their channels: PPG has none or more, acceleration three axes or none. Raises ValueError if a file lacks a column
    that was declared since.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
        metadata = metadata_schema()
        self.metadata: pa.Table = pa.concat_tables(
            [
                select_columns(table, metadata.names, path).cast(metadata)
                for table, path in zip(tables, paths, strict=True)
            ]
            or [metadata.empty_table()]
        ).combine_chunks()
        self._values: dict[Modality, list[npt.NDArray[np.float16]]] = {}  # of all segments of a chunk
        self._first: dict[Modality, npt.NDArray[np.int64]] = {}  # position of each segment's first value in its chunk
        self._counts: dict[Modality, npt.NDArray[np.int16]] = {}
        for modality in MODALITIES:
            chunks = [chunk for table in tables for chunk in table.column(modality).chunks]
            edges = [_edges(chunk) for chunk in chunks]
            self._values[modality] = [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks]
            self._first[modality] = np.concatenate([np.empty(0, np.int64), *(edge[:-1] for edge in edges)])
            sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(edge) for edge in edges)])
            self._counts[modality] = (sizes // SAMPLES).astype(np.int16)
            self._chunk = np.repeat(np.arange(len(chunks), dtype=np.int32), [len(chunk) for chunk in chunks])

    def __len__(self) -> int:
        return len(self._chunk)

    def subset(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> SegmentStore:
        """A view of some rows, given by their numbers or by a mask."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        view = object.__new__(SegmentStore)
        view.metadata = self.metadata.take(pa.array(chosen))
        view._values = self._values
        view._first = {modality: first[chosen] for modality, first in self._first.items()}
        view._counts = {modality: counts[chosen] for modality, counts in self._counts.items()}
        view._chunk = self._chunk[chosen]
        return view

    def counts(self, modality: Modality) -> npt.NDArray[np.int16]:
        """Number of channels of each segment, `[rows]`; 0 where it lacks the modality."""
        return self._counts[modality]

    def channels(self, modality: Modality) -> int:
        """Number of channels that all segments have; 0 without segments. Raises ValueError where they differ."""
        numbers = np.unique(self._counts[modality])
        if len(numbers) > 1:
            raise ValueError(f"segments differ in their number of {modality} channels: {numbers.tolist()}")
        return int(numbers[0]) if len(numbers) else 0

    def signals(self, modality: Modality, rows: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.float16]:
        """Signals of `rows`, by default all, copied out of the memory map: `[rows, channels, 3840]` float16.

        Raises ValueError if the rows differ in their number of channels.
        """
        rows = np.arange(len(self)) if rows is None else rows
        numbers = np.unique(self._counts[modality][rows])
        if len(numbers) > 1:
            raise ValueError(f"segments differ in their number of {modality} channels: {numbers.tolist()}")
        channels = int(numbers[0]) if len(numbers) else self.channels(modality)
        size = channels * SAMPLES
        out = np.empty((len(rows), size), np.float16)
        if size:
            chunk_of, first = self._chunk[rows], self._first[modality][rows]
            for number in np.unique(chunk_of):
                in_chunk = chunk_of == number
                values = self._values[modality][number]
                if (first[in_chunk] % size).any():  # beside segments of other channels
                    out[in_chunk] = [values[begin : begin + size] for begin in first[in_chunk]]
                else:
                    grid = values[: len(values) // size * size].reshape(-1, size)
                    out[in_chunk] = grid[first[in_chunk] // size]
        return out.reshape(len(rows), channels, SAMPLES)


def _edges(chunk: pa.ListArray | pa.FixedSizeListArray) -> npt.NDArray[np.int64]:
    """Where the signals of each segment begin among the values of a chunk, and where the last one ends."""
    if pa.types.is_fixed_size_list(chunk.type):  # as version 0.1.0 wrote it
        edges = (chunk.offset + np.arange(len(chunk) + 1)) * chunk.type.list_size
    else:
        edges = chunk.offsets.to_numpy()
    return np.asarray(edges, np.int64)
