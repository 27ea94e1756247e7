"""Writing arrival batches: atomic, idempotent, reproducible."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accelkd.recordings.batches import read_manifest, writing_batch
from accelkd.recordings.schema import RECORDING
from tests.support.recordings import recording, write_batch


def test_same_content_has_the_same_bytes_and_changes_nothing(tmp_path: Path) -> None:
    first = write_batch(tmp_path / "one", [recording()])
    second = write_batch(tmp_path / "two", [recording()])
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [str(name) for name in names] == ["manifest.json", "participants.parquet", "recordings/part-00000.parquet"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    inode = (first / "manifest.json").stat().st_ino
    write_batch(tmp_path / "one", [recording()])
    assert (first / "manifest.json").stat().st_ino == inode


def test_other_content_under_the_same_name_is_refused(tmp_path: Path) -> None:
    write_batch(tmp_path, [recording()])
    with pytest.raises(FileExistsError, match="b1"):
        write_batch(tmp_path, [recording(1)])
    assert read_manifest(tmp_path / "b1").rows("recordings") == 1


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def killed() -> None:
        with writing_batch(tmp_path, "b1", source="simulation") as batch:
            batch.add("recordings", pa.Table.from_pylist([recording()], RECORDING.arrow()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert list(tmp_path.iterdir()) == []


def test_samples_survive_bit_by_bit(tmp_path: Path) -> None:
    path = write_batch(tmp_path, [recording(n) for n in range(20)]) / "recordings/part-00000.parquet"
    assert pq.read_table(path).equals(pa.Table.from_pylist([recording(n) for n in range(20)], RECORDING.arrow()))


def test_unknown_and_missing_columns_are_refused(tmp_path: Path) -> None:
    with writing_batch(tmp_path, "b1", source="simulation") as batch:
        with pytest.raises(ValueError, match="weight"):
            batch.add("participants", pa.table({"participant_id": ["p"], "weight": [70.0]}))
        with pytest.raises(KeyError, match="participant_id"):
            batch.add("participants", pa.table({"sex": ["female"]}))
        batch.add("participants", pa.table({"participant_id": ["p"]}))
        with pytest.raises(ValueError, match="twice"):
            batch.add("participants", pa.table({"participant_id": ["q"]}))


@pytest.mark.parametrize("batch_id", ["", "..", "a/b", "a b", ".hidden", "-rf", "b1;drop", "ünï", "x" * 129, "a\n"])
def test_hostile_batch_ids_are_refused(tmp_path: Path, batch_id: str) -> None:
    with pytest.raises(ValueError, match="batch_id"), writing_batch(tmp_path, batch_id, source="simulation"):
        pass
    assert list(tmp_path.iterdir()) == []
