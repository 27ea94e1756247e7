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
from accelkd.home.layout import Home
from accelkd.operations.withdraw import withdraw
from accelkd.recordings.arrivals import arrived_batches, pending_arrivals
from accelkd.recordings.batches import MANIFEST, read_manifest, writing_batch
from accelkd.recordings.ingest import ingest
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.validate import validate_batch
from accelkd.warehouse.embeddings import embedding_table, load_embeddings
from accelkd.warehouse.load import load_batch, load_model
from accelkd.warehouse.publish import publish
from tests.support.homes import land

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
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("loaded"))
    land(home, "b1", ["p1", "p2"])
    load_batch(home, "b1")
    return home


def everything(root: Path) -> list[Path]:
    return sorted(root.parent.rglob("*"))


ENTRIES: dict[str, Callable[[Home, str], object]] = {
    "Home.batch": lambda home, name: home.batch(name),
    "Home.segments": lambda home, name: home.segments(name),
    "Home.quarantine": lambda home, name: home.quarantine(name),
    "Home.examples": lambda home, name: home.examples(name),
    "Home.encoder": lambda home, name: home.encoder(name),
    "Home.checkpoint": lambda home, name: home.checkpoint("accel_student", name),
    "simulate": lambda home, name: simulate_batch(home.landing, name, participants=1, segments=1, seed=1),
    "ingest batch": lambda home, name: ingest("e4", home.root, home.landing, name),
    "ingest device": lambda home, name: ingest(name, home.root, home.landing, "b2"),
    "load_batch": load_batch,
    "load_model encoder": lambda home, name: load_model(home, name, "m", []),
    "load_model model": lambda home, name: load_model(home, "accel_student", name, []),
    "embedding_table": embedding_table,
    "load_embeddings": lambda home, name: load_embeddings(
        home, name, "m", "b1", ["s"], ["p1"], np.zeros((1, 4), np.float32)
    ),
    "withdraw": withdraw,
}


@names
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_hostile_name_is_refused_before_anything_happens(loaded: Home, entry: str, name: str) -> None:
    before = everything(loaded.root)
    with pytest.raises(ValueError, match=r"not an identifier|has no reader|not a lower-case SQL name"):
        ENTRIES[entry](loaded, name)
    assert everything(loaded.root) == before


@names
def test_a_hostile_participant_recording_or_device_is_a_violation(tmp_path: Path, name: str) -> None:
    if name == "a\x00b":
        pytest.skip("ends a string in some readers; the next test has it as a folder")
    home = Home(tmp_path)
    with writing_batch(home.landing, "b1", source="simulation") as batch:
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
    assert "identifier" in {violation.rule for violation in validate_batch(home.batch("b1"))}


@names
def test_a_manifest_cannot_name_a_file_outside_its_batch(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    manifest = home.batch("b1") / MANIFEST
    good = json.loads(manifest.read_text(encoding="utf-8"))
    for key in ("path", "table"):
        raw = json.loads(json.dumps(good))
        raw["files"][0][key] = name
        manifest.write_text(json.dumps(raw), encoding="utf-8")
        assert "file_name" in {violation.rule for violation in validate_batch(home.batch("b1"))}
    manifest.write_text(json.dumps({**good, "batch_id": name}), encoding="utf-8")
    assert "batch_id" in {violation.rule for violation in validate_batch(home.batch("b1"))}


def test_a_folder_with_a_hostile_name_is_reported_and_never_a_partition(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    hostile = [name for name in HOSTILE if name and "/" not in name and "\x00" not in name and name.strip(".") == name]
    for name in hostile:
        (home.landing / name).mkdir()
        (home.landing / name / MANIFEST).write_bytes((home.batch("b1") / MANIFEST).read_bytes())
    assert arrived_batches(home) == ["b1"]
    problems = {arrival.batch_id: arrival.problem for arrival in pending_arrivals(home, [])}
    assert all(problems[name] for name in hostile)
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


def test_the_tables_are_still_there(loaded: Home) -> None:
    with duckdb.connect(str(publish(loaded).path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM segments").fetchall() == [(6,)]
    assert read_manifest(loaded.batch("b1")).batch_id == "b1"
