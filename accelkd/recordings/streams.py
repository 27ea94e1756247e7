"""The signals of landed recordings out of Parquet, page by page.

Arrow decodes two levels for every sample of a list of lists, which takes longer than everything else on the way from
landing to segment. Where no list is empty and nothing is null, as in recordings, the levels are a few long runs.
"""

from __future__ import annotations

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import rust_dsp

STREAMS = ("ppg", "dark", "accel")
MAX_VALUES = 2**24  # that are read at once: Arrow needs less memory for more of them
_CODECS = {"UNCOMPRESSED": None, "SNAPPY": "snappy", "ZSTD": "zstd"}


def read_stream(source: io.BufferedReader, file: pq.ParquetFile, group: int, name: str) -> pa.ListArray | None:
    """A stream of a row group of `file`, which was opened from `source`: the array that Arrow would read.

    None where a list is empty, a value is null or the file is written in a way that is not expected; also where it is
    damaged, which is for Arrow to find.
    """
    metadata = file.metadata.row_group(group)
    paths = [metadata.column(index).path_in_schema for index in range(metadata.num_columns)]
    (index,) = (index for index, path in enumerate(paths) if path.partition(".")[0] == name)
    column, schema = metadata.column(index), file.schema.column(index)
    is_expected = column.physical_type == "FLOAT" and column.compression in _CODECS and not column.has_dictionary_page
    if not is_expected or schema.max_repetition_level != 2:
        return None
    end = column.data_page_offset + column.total_compressed_size
    if not 0 < column.data_page_offset < end <= os.fstat(source.fileno()).st_size or column.num_values > MAX_VALUES:
        return None
    memory = pa.allocate_buffer(column.total_compressed_size)  # of Arrow's pool, which is used again
    chunk = np.frombuffer(memory, np.uint8)
    source.seek(column.data_page_offset)
    if source.readinto(memory) < len(chunk):
        return None
    pages = rust_dsp.parquet_pages(chunk)
    if pages is None or sum(samples for *_, samples, _ in pages) != column.num_values:
        return None
    codec = _CODECS[column.compression]
    bodies = []
    for start, compressed, uncompressed, samples, is_split in pages:
        body = chunk[start : start + compressed]
        if uncompressed > 8 * samples + 64:  # four bytes of each, and less than one for its levels
            return None
        if codec is not None:
            try:
                body = pa.decompress(pa.py_buffer(body), uncompressed, codec)
            except (pa.ArrowException, OSError):
                return None
        bodies.append((np.frombuffer(body, np.uint8), samples, is_split))
    memory = pa.allocate_buffer(4 * column.num_values)
    edges = rust_dsp.read_pages(bodies, schema.max_definition_level, np.frombuffer(memory, np.float32))
    if edges is None or len(edges[1]) != metadata.num_rows + 1:
        return None
    channels, recordings = map(pa.array, edges)
    samples = pa.Array.from_buffers(pa.float32(), column.num_values, [None, memory])
    return pa.ListArray.from_arrays(recordings, pa.ListArray.from_arrays(channels, samples))
