"""Writing arrival batches: atomic, idempotent, reproducible."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accelkd.home.files import DamagedFileError
from accelkd.recordings.batches import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    BatchFileError,
    open_batch_file,
    read_manifest,
    read_small_table,
    writing_batch,
)
from accelkd.recordings.schema import BATCH_TABLES, RECORDING
from accelkd.recordings.validate import validate_batch
from tests.support.recordings import recording, write_batch

PART = "recordings/part-00000.parquet"


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


LISTED = {"path": PART, "table": "recordings", "rows": 1, "sha256": "0" * 64}
VALID: dict[str, Any] = {
    "schema_version": 1,
    "batch_id": "b1",
    "source": "simulation",
    "devices": ["e4"],
    "replaces": None,
    "files": [LISTED],
}
PATHS = (
    "",
    ".",
    "..",
    "/etc/passwd",
    "../b2/participants.parquet",
    "recordings/../participants.parquet",
    "./participants.parquet",
    "/participants.parquet",
    "participants.parquet/",
    "recordings//part-00000.parquet",
    "recordings\\part-00000.parquet",
    "recordings/part-00000.parquet\n",
    "recordings/part-00000.parquet\0",
    "recordings/part-0000.parquet",
    "recordings/part-٠٠٠٠٠.parquet",  # digits of another script
    "PARTICIPANTS.parquet",
    "\ud800.parquet",
    MANIFEST,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*VALID, *LISTED]),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8), values, max_size=4),
    max_leaves=8,
)
paths = st.sampled_from([*PATHS, *(f"{table}.parquet" for table in BATCH_TABLES), PART]) | st.text(max_size=12)


def almost(valid: dict[str, Any], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A valid object in which a few values are others."""
    changes = st.dictionaries(st.sampled_from(sorted(valid)) | st.text(max_size=4), values, max_size=2)
    return changes.map(lambda changed: valid | changed)


entries = almost(LISTED, json_values | paths | st.sampled_from([*BATCH_TABLES]))
manifests = json_values | st.builds(
    lambda manifest, files: manifest | {"files": files}, almost(VALID, json_values), st.lists(entries, max_size=3)
)


def written(text: str | bytes, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return folder


def assert_safe_or_refused(content: str | bytes) -> None:
    """A manifest is read with nothing but safe paths, or refused by a sentence; the validator agrees."""
    with TemporaryDirectory() as root:
        folder = written(content, Path(root) / "b1")
        try:
            manifest = read_manifest(folder)
        except DamagedFileError as error:
            assert str(error).startswith(f"batch b1: {MANIFEST}: ")  # noqa: PT017
            assert str(error).encode()  # can be logged  # noqa: PT017
            assert [violation.file for violation in validate_batch(folder)] == [MANIFEST]
            return
        assert all(isinstance(value, kind) for value, kind in [(manifest.batch_id, str), (manifest.devices, tuple)])
        for file in manifest.files:
            path = Path(os.path.normpath(folder / file.path))
            assert path == folder / file.path
            assert path.is_relative_to(folder)
            assert path.suffix == ".parquet"
            assert file.table in BATCH_TABLES
            assert file.rows >= 0
            with pytest.raises(FileNotFoundError):
                open_batch_file(folder, file.path)


@settings(max_examples=300)
@given(manifests)
@example(VALID)
@example(VALID | {"files": [LISTED | {"rows": True}]})
@example(VALID | {"files": [LISTED | {"rows": 10**4000}]})
@example(VALID | {"files": [LISTED | {"sha256": "A" * 64}]})
@example(VALID | {"schema_version": True})
@example(VALID | {"schema_version": 1.0})
@example(VALID | {"source": "\ud800"})
@example(VALID | {"replaces": "b1\n"})
def test_every_json_value_is_a_manifest_with_safe_paths_or_refused(value: Any) -> None:
    assert_safe_or_refused(json.dumps(value))


@settings(max_examples=100)
@given(st.binary(max_size=40) | st.text(max_size=40))
@example('{"files": NaN}')
@example("[" * 200_000)
@example('{"a":' * 200_000)
@example("1" * 5000)
@example(json.dumps(VALID).replace('"files"', '"files": [], "files"'))
@example(b"\xef\xbb\xbf" + json.dumps(VALID).encode())
@example(b"")
def test_any_bytes_are_a_manifest_or_refused(content: str | bytes) -> None:
    assert_safe_or_refused(content)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_no_file_of_a_batch_has_is_refused(tmp_path: Path, path: str) -> None:
    folder = written(json.dumps(VALID | {"files": [LISTED, LISTED | {"path": path}]}), tmp_path / "b1")
    with pytest.raises(BatchFileError, match=r"batch b1: manifest\.json: ") as refused:
        read_manifest(folder)
    assert refused.value.rule in ("file_name", "manifest")


def test_a_manifest_says_which_key_is_wrong(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"replace": "b0"}, "unknown ['replace']"),
        ({"devices": "e4"}, "devices is 'e4', expected a list of texts"),
        ({"files": [LISTED | {"rows": -1}]}, "files[0]: rows is -1, expected an integer"),
        ({"files": [LISTED, {"path": PART}]}, "files[1]: missing ['rows', 'sha256', 'table']"),
        ({"schema_version": 2, "other": 1}, "its schema version is 2, expected 1"),
    ]
    for change, sentence in wrong:
        with pytest.raises(DamagedFileError) as refused:
            read_manifest(written(json.dumps(VALID | change), tmp_path / "b1"))
        assert sentence in str(refused.value)


def test_the_largest_batch_has_a_manifest_and_a_larger_file_is_not_read(tmp_path: Path) -> None:
    files = [LISTED | {"path": f"recordings/part-{number:05d}.parquet"} for number in range(100_000)]
    folder = written(json.dumps(VALID | {"files": files}, indent=2), tmp_path / "b1")
    assert len(read_manifest(folder).files) == 100_000
    with (folder / MANIFEST).open("ab") as file:
        file.truncate(2 * MAX_MANIFEST_BYTES)
    with pytest.raises(DamagedFileError, match="more than"):
        read_manifest(folder)


def a_link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / f"outside-{path.name}"))


def a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", [MANIFEST, "participants.parquet", PART])
@pytest.mark.parametrize("change", [a_link, a_dangling_link, a_pipe, a_socket, a_folder])
def test_nothing_but_a_regular_file_is_read(tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    folder = write_batch(tmp_path, [recording()])
    change(folder / name)
    with pytest.raises(BatchFileError, match=f"batch b1: {name}: "):
        open_batch_file(folder, name)
    if name == MANIFEST:
        with pytest.raises(BatchFileError, match="batch b1: "):
            read_manifest(folder)
    violations = validate_batch(folder)
    assert "not_a_regular_file" in {violation.rule for violation in violations if violation.file == name}


@pytest.mark.parametrize("name", ["b1", "b1/recordings"])
def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    folder = write_batch(tmp_path / "landing", [recording()])
    link = tmp_path / "landing" / name
    link.symlink_to(shutil.move(link, tmp_path / "outside"))
    with pytest.raises(BatchFileError, match="symbolic link"):
        open_batch_file(folder, PART)
    rule = "not_a_folder" if name == "b1" else "not_a_regular_file"
    assert rule in {violation.rule for violation in validate_batch(folder)}


def test_a_link_that_no_manifest_lists_is_a_violation(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording()])
    (folder / "more").symlink_to(tmp_path)
    assert [violation.rule for violation in validate_batch(folder)] == ["not_a_regular_file"]


def test_a_small_table_is_read_only_as_it_was_listed(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording()])
    assert read_small_table(folder, "participants").num_rows == 1
    a_link(folder / "participants.parquet")
    with pytest.raises(DamagedFileError, match="symbolic link"):
        read_small_table(folder, "participants")
