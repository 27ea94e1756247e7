"""No name that comes from outside becomes a path, SQL or a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from accelkd.cli import main
from accelkd.lake import Lake
from accelkd.recordings.arrivals import arrived_batches, unsettled
from accelkd.recordings.batches import MANIFEST, read_manifest, writing_batch
from accelkd.recordings.ingest import ingest
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.validate import validate_batch
from accelkd.warehouse.load import embedding_table, load_batch, load_embeddings, load_model
from accelkd.warehouse.publish import publish
from accelkd.withdrawal import withdraw
from tests.lakes import land

HOSTILE = [
    "",
    ".",
    "..",
    "../escape",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a b",
    "a\nb",
    "a\x00b",
    ".hidden",
    "-rf",
    "x'; DROP TABLE segments; --",
    'x"; DROP TABLE segments; --',
    "x); ATTACH '/tmp/out.duckdb'; --",
    "$(touch /tmp/hostile)",
    "%2e%2e%2fescape",
    "ａ",  # a full-width letter
    "a" * 129,
]
names = pytest.mark.parametrize("name", HOSTILE)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("loaded"))
    land(lake, "b1", ["p1", "p2"])
    load_batch(lake, "b1")
    return lake


def everything(root: Path) -> list[Path]:
    return sorted(root.parent.rglob("*"))


ENTRIES: dict[str, Callable[[Lake, str], object]] = {
    "Lake.batch": lambda lake, name: lake.batch(name),
    "Lake.segments": lambda lake, name: lake.segments(name),
    "Lake.quarantine": lambda lake, name: lake.quarantine(name),
    "Lake.examples": lambda lake, name: lake.examples(name),
    "Lake.encoder": lambda lake, name: lake.encoder(name),
    "Lake.checkpoint": lambda lake, name: lake.checkpoint("accel_student", name),
    "simulate": lambda lake, name: simulate_batch(lake.landing, name, participants=1, segments=1, seed=1),
    "ingest batch": lambda lake, name: ingest("e4", lake.root, lake.landing, name),
    "ingest device": lambda lake, name: ingest(name, lake.root, lake.landing, "b2"),
    "load_batch": load_batch,
    "load_model encoder": lambda lake, name: load_model(lake, name, "m", []),
    "load_model model": lambda lake, name: load_model(lake, "accel_student", name, []),
    "embedding_table": embedding_table,
    "load_embeddings": lambda lake, name: load_embeddings(
        lake, name, "m", "b1", ["s"], ["p1"], np.zeros((1, 4), np.float32)
    ),
    "withdraw": withdraw,
}


@names
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_hostile_name_is_refused_before_anything_happens(loaded: Lake, entry: str, name: str) -> None:
    before = everything(loaded.root)
    with pytest.raises(ValueError, match=r"not an identifier|has no reader|not a lower-case SQL name"):
        ENTRIES[entry](loaded, name)
    assert everything(loaded.root) == before


@names
def test_a_hostile_participant_recording_or_device_is_a_violation(tmp_path: Path, name: str) -> None:
    if name == "a\x00b":
        pytest.skip("ends a string in some readers; the next test has it as a folder")
    lake = Lake(tmp_path)
    with writing_batch(lake.landing, "b1", source="simulation") as batch:
        batch.add("participants", pa.table({"participant_id": [name]}))
        batch.add(
            "recordings",
            pa.table(
                {
                    **{column: [name] for column in ("recording_id", "participant_id", "device_id")},
                    "ppg": [[[1.0] * 64]],
                    "ppg_rate_hz": [64.0],
                    "accel": [[[1.0] * 64] * 3],
                    "accel_rate_hz": [64.0],
                    "accel_start_s": [0.0],
                }
            ),
        )
    assert "identifier" in {violation.rule for violation in validate_batch(lake.batch("b1"))}


@names
def test_a_manifest_cannot_name_a_file_outside_its_batch(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path)
    land(lake, "b1", ["p1"])
    manifest = lake.batch("b1") / MANIFEST
    good = json.loads(manifest.read_text(encoding="utf-8"))
    for key in ("path", "table"):
        raw = json.loads(json.dumps(good))
        raw["files"][0][key] = name
        manifest.write_text(json.dumps(raw), encoding="utf-8")
        assert "file_name" in {violation.rule for violation in validate_batch(lake.batch("b1"))}
    manifest.write_text(json.dumps({**good, "batch_id": name}), encoding="utf-8")
    assert "batch_id" in {violation.rule for violation in validate_batch(lake.batch("b1"))}


def test_a_folder_with_a_hostile_name_is_told_and_never_a_partition(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    land(lake, "b1", ["p1"])
    hostile = [name for name in HOSTILE if name and "/" not in name and "\x00" not in name and name.strip(".") == name]
    for name in hostile:
        (lake.landing / name).mkdir()
        (lake.landing / name / MANIFEST).write_bytes((lake.batch("b1") / MANIFEST).read_bytes())
    assert arrived_batches(lake) == ["b1"]
    told = {arrival.batch_id: arrival.problem for arrival in unsettled(lake, [])}
    assert all(told[name] for name in hostile)
    assert len(hostile) > 8


@names
@pytest.mark.parametrize(
    "command",
    [
        ["simulate", "--participants", "1", "--segments", "1", "--seed", "1", "--batch={}"],
        ["ingest", "e4", ".", "--batch={}"],
        ["withdraw", "--", "{}"],
    ],
    ids=lambda command: command[0],
)
def test_the_command_line_refuses_with_one_line(
    tmp_path: Path, command: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path / "home"), *(word.format(name) for word in command)]) == 2
    assert "is not an identifier" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_the_tables_are_still_there(loaded: Lake) -> None:
    with duckdb.connect(str(publish(loaded).path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM segments").fetchall() == [(6,)]
    assert read_manifest(loaded.batch("b1")).batch_id == "b1"
