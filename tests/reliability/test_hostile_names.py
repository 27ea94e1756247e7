"""No name that comes from outside becomes a path, SQL or a command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from accelkd.cli import main
from accelkd.home.files import DamagedFileError, sha256_file
from accelkd.home.layout import Home
from accelkd.operations.withdraw import withdraw
from accelkd.recordings.arrivals import arrived_batches, pending_arrivals
from accelkd.recordings.batches import MANIFEST, read_manifest, writing_batch
from accelkd.recordings.ingest import ingest
from accelkd.recordings.listing import printable
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.validate import BatchError, iter_recordings, validate_batch
from accelkd.recordings.withdrawn import enrol
from accelkd.reports.example_segments import example_segments
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.embedding_files import embedding_rows
from accelkd.warehouse.embeddings import embedding_table, load_embeddings
from accelkd.warehouse.load import load_batch, load_model
from accelkd.warehouse.publish import publish
from tests.support.homes import copy_home, land, simulate
from tests.support.recordings import edit_manifest

PART = "recordings/part-00000.parquet"

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
    home = Home(tmp_path_factory.mktemp("loaded") / "home")
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
        home, name, embedding_rows(name, "m", "b1", ["s"], ["p1"], np.zeros((1, 4), np.float32))
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


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A batch through segments and tables, and `victim.parquet` beside the home: of the same participant."""
    home = Home(tmp_path_factory.mktemp("landed") / "home")
    simulate(home, "b1", participants=1, segments=1)
    segment_batch(home, "b1")
    load_batch(home, "b1")
    edit_manifest(home.batch("b1"), lambda manifest: manifest.update(source="e4"))  # so that ingestion compares it
    shutil.copyfile(home.batch("b1") / "participants.parquet", home.root.parent / "victim.parquet")
    return home


def listed_elsewhere(home: Home, victim: Path) -> None:
    """Every file that the manifest lists is the victim, once by an absolute path, once by one with dots."""
    paths = [str(victim), f"../../../{victim.name}"]

    def change(manifest: dict[str, Any]) -> None:
        for number, entry in enumerate(manifest["files"]):
            entry |= {"path": paths[number % 2], "sha256": sha256_file(victim), "rows": 1}

    edit_manifest(home.batch("b1"), change)


def file_linked(home: Home, victim: Path) -> None:
    for path in (home.batch("b1") / "participants.parquet", home.batch("b1") / PART):
        path.unlink()
        path.symlink_to(victim)


def folder_linked(home: Home, victim: Path) -> None:
    shutil.copyfile(victim, victim.parent / "part-00000.parquet")
    shutil.rmtree(home.batch("b1") / "recordings")
    (home.batch("b1") / "recordings").symlink_to(victim.parent)


def batch_linked(home: Home, victim: Path) -> None:
    shutil.move(home.batch("b1"), victim.parent / "b1")
    home.batch("b1").symlink_to(victim.parent / "b1")


def manifest_linked(home: Home, victim: Path) -> None:
    shutil.move(home.batch("b1") / MANIFEST, victim.parent / "linked.json")
    (home.batch("b1") / MANIFEST).symlink_to(victim.parent / "linked.json")


def refused_by_validation(home: Home, _: pytest.LogCaptureFixture) -> None:
    assert any(violation.fatal for violation in validate_batch(home.batch("b1")))


def not_segmented(home: Home, _: pytest.LogCaptureFixture) -> None:
    with pytest.raises((DamagedFileError, BatchError)):
        segment_batch(home, "b1")


def no_recordings(home: Home, _: pytest.LogCaptureFixture) -> None:
    with pytest.raises((DamagedFileError, BatchError)):
        next(iter_recordings(home.batch("b1")))


def no_pictures(home: Home, _: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DamagedFileError):
        example_segments(home, "b1")


def ingest_goes_on(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    (home.root / "delivery").mkdir()
    ingest("e4", home.root / "delivery", home.landing, "b2")
    assert "batch b1 holds may land again" in caplog.text


def withdrawn_elsewhere_only(home: Home, _: pytest.LogCaptureFixture) -> None:
    done = withdraw(home, "sim3-000000")
    assert done.not_searched
    assert any(path.startswith("landing/b1") for path in done.not_searched)


@pytest.mark.parametrize(
    "use",
    [refused_by_validation, no_recordings, not_segmented, no_pictures, ingest_goes_on, withdrawn_elsewhere_only],
)
@pytest.mark.parametrize("attack", [listed_elsewhere, file_linked, folder_linked, batch_linked, manifest_linked])
def test_nothing_outside_of_a_batch_is_read_as_its_file_or_written(
    landed: Home,
    tmp_path: Path,
    attack: Callable[[Home, Path], None],
    use: Callable[[Home, pytest.LogCaptureFixture], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    home, victim = copy_home(landed, tmp_path / "home"), tmp_path / "outside/victim.parquet"
    victim.parent.mkdir()
    shutil.copyfile(landed.root.parent / "victim.parquet", victim)
    attack(home, victim)
    outside = {path: path.read_bytes() for path in victim.parent.rglob("*") if path.is_file()}
    use(home, caplog)
    assert {path: path.read_bytes() for path in victim.parent.rglob("*") if path.is_file()} == outside


REGISTER_CHANGES = [
    *((".withdrawn.json", change) for change in ("link", "pipe", "cut")),  # gone: nobody has withdrawn
    *((".withdrawn.key", change) for change in ("link", "pipe", "cut", "gone")),
]


@pytest.mark.parametrize(("name", "change"), REGISTER_CHANGES)
def test_a_register_that_cannot_be_trusted_stops_what_asks_it(
    landed: Home, tmp_path: Path, name: str, change: str
) -> None:
    home = copy_home(landed, tmp_path / "home")
    enrol(home.landing, "somebody")
    path = home.landing / name
    content = path.read_bytes()
    path.unlink()
    if change == "link":
        (tmp_path / "outside").write_bytes(content)
        path.symlink_to(tmp_path / "outside")
    elif change == "pipe":
        os.mkfifo(path)
    elif change == "cut":
        path.write_bytes(content[:-3])
    for ask in (
        lambda: validate_batch(home.batch("b1")),
        lambda: simulate(home, "b2", 5, participants=1, segments=1),
        lambda: enrol(home.landing, "person"),
    ):
        with pytest.raises(DamagedFileError, match="register of withdrawn participants cannot be read"):
            ask()


def test_a_folder_with_a_hostile_name_is_reported_and_never_a_partition(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, "b1", ["p1"])
    hostile = [name for name in HOSTILE if name and "/" not in name and "\x00" not in name and name.strip(".") == name]
    for name in hostile:
        (home.landing / name).mkdir()
        (home.landing / name / MANIFEST).write_bytes((home.batch("b1") / MANIFEST).read_bytes())
    assert arrived_batches(home) == ["b1"]
    problems = {arrival.batch_id: arrival.problem for arrival in pending_arrivals(home, [])}
    assert all(problems[printable(name)] for name in hostile)
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
