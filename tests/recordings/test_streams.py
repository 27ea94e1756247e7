"""Streams are read page by page as Arrow reads them, or left to Arrow."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelkd.recordings.batches import encode_rows
from accelkd.recordings.schema import RECORDING
from accelkd.recordings.simulator.simulate import simulate_batch
from accelkd.recordings.streams import STREAMS, read_stream
from accelkd.recordings.validate import _read_rows, iter_recordings
from tests.support.recordings import recording

KIND = RECORDING.arrow().field("ppg").type
CHANNELS = st.lists(st.floats(width=32), min_size=1, max_size=40)
SOUND = st.lists(st.lists(CHANNELS, min_size=1, max_size=3), min_size=1, max_size=5)
CHANNEL = st.none() | st.lists(st.none() | st.floats(width=32), max_size=12)
ANY = st.lists(st.none() | st.lists(CHANNEL, max_size=3), min_size=1, max_size=5)
LAYOUTS = st.fixed_dictionaries(
    {},
    optional={
        "compression": st.sampled_from(["none", "snappy", "zstd", "lz4", "gzip"]),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.just(1),
        "write_batch_size": st.integers(1, 8),
        "write_statistics": st.booleans(),
        "write_page_checksum": st.booleans(),
    },
)


def write(path: Path, streams: list[Any], is_split: bool = False, **layout: Any) -> None:
    table = pa.table({"ppg": pa.array(streams, KIND)})
    pq.write_table(table, path, use_byte_stream_split=is_split, **layout)


def read(path: Path) -> tuple[pa.ListArray | None, pa.Array]:
    """As pages, and as Arrow does."""
    with path.open("rb") as source, pq.ParquetFile(source) as file:
        return read_stream(source, file, 0, "ppg"), file.read_row_group(0)["ppg"].combine_chunks()


def bits(array: pa.Array) -> tuple[bytes, list[Any]]:
    """Samples and edges: NaN equals NaN."""
    inner = array.values
    return inner.values.to_numpy().tobytes(), [array.offsets.to_pylist(), inner.offsets.to_pylist()]


@given(streams=SOUND, layout=LAYOUTS, is_split=st.booleans())
def test_streams_without_gaps_are_read_as_by_arrow(
    tmp_path_factory: pytest.TempPathFactory, streams: list[Any], layout: dict[str, Any], is_split: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "sound.parquet"
    layout = {"compression": "zstd", "use_dictionary": False, **layout}
    write(path, streams, is_split and not layout["use_dictionary"], **layout)
    pages, expected = read(path)
    expects_pages = (
        layout["compression"] in ("none", "snappy", "zstd")
        and layout.get("data_page_version") != "2.0"
        and not layout["use_dictionary"]
    )
    assert (pages is not None) == expects_pages
    if pages is not None:
        assert bits(pages) == bits(expected)


@given(streams=ANY)
def test_nulls_and_empty_lists_are_left_to_arrow(tmp_path_factory: pytest.TempPathFactory, streams: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    write(path, streams, use_dictionary=False)
    pages, expected = read(path)
    sound = all(stream and all(channel and None not in channel for channel in stream) for stream in streams)
    assert (pages is not None) == sound
    if pages is not None:
        assert bits(pages) == bits(expected)


@settings(max_examples=300)
@given(at=st.integers(4, 2_000), value=st.integers(0, 255), compression=st.sampled_from(["none", "zstd"]))
def test_damaged_pages_are_no_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, compression: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    rng = np.random.default_rng(0)
    write(path, [list(rng.random((2, 20)))] * 6, is_split=True, compression=compression, use_dictionary=False)
    with path.open("rb") as source, pq.ParquetFile(source) as file:
        column = file.metadata.row_group(0).column(0)
        content = bytearray(path.read_bytes())
        content[4 + at % (column.data_page_offset + column.total_compressed_size - 4)] = value
        path.write_bytes(content)
        pages = read_stream(source, file, 0, "ppg")
    assert pages is None or len(pages) == 6


def test_simulated_batches_are_read_page_by_page(tmp_path: Path) -> None:
    simulate_batch(tmp_path, "b1", participants=3, segments=6, seed=0)
    (path,) = tmp_path.glob("b1/recordings/*.parquet")
    with path.open("rb") as source, pq.ParquetFile(source) as file:
        for group in range(file.metadata.num_row_groups):
            for name in STREAMS:
                pages, expected = read_stream(source, file, group, name), file.read_row_group(group, [name])[name]
                assert pages is not None
                assert bits(pages) == bits(expected.combine_chunks())
    rows = pa.Table.from_batches([rows for rows, _ in iter_recordings(tmp_path / "b1")])
    assert rows.equals(pq.read_table(path).cast(rows.schema))
    shutil.rmtree(tmp_path / "b1")


@pytest.mark.parametrize(("samples", "sizes"), [(3_840, [64, 1]), (61_440, [33, 32])])
def test_row_groups_of_long_recordings_have_fewer_rows(samples: int, sizes: list[int]) -> None:
    ppg = list(np.zeros((4, samples), np.float32))
    rows = pa.Table.from_pylist([recording(number, ppg=ppg) for number in range(65)])
    with pq.ParquetFile(io.BytesIO(encode_rows("recordings", rows).content)) as file:
        groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == sizes


@pytest.mark.parametrize("size", [1, 16, 64, 100])
def test_recordings_are_the_same_from_row_groups_of_any_size(tmp_path: Path, size: int) -> None:
    simulate_batch(tmp_path, "b1", participants=8, segments=12, seed=0)
    (path,) = tmp_path.glob("b1/recordings/*.parquet")
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=size)
    rows = pa.Table.from_batches(list(_read_rows(tmp_path / "b1", "recordings/part-00000.parquet")))
    assert rows.equals(table.cast(rows.schema))
