"""What `ingest` does with a delivery as a whole."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from accelkd.recordings.batches import read_manifest
from accelkd.recordings.devices import DEVICES, Device
from accelkd.recordings.ingest import ingest
from accelkd.recordings.schema import RECORDING
from accelkd.recordings.validate import validate_batch
from tests.support.odd_entries import GOOD, KINDS, no_longer_than
from tests.support.recordings import recording, write_batch

DOCUMENT = Path(__file__).parents[2] / "docs/devices.md"


@pytest.fixture
def delivery(shared: Path, tmp_path: Path) -> Path:
    """Two BAMI recordings."""
    folder = tmp_path / "delivery"
    folder.mkdir()
    for number in (1, 2):
        shutil.copyfile(shared / f"data/bami1-watch/Subject_{number}.mat", folder / f"Subject_{number}.mat")
    return folder


def test_the_batch_names_its_source_and_its_participants(delivery: Path, tmp_path: Path) -> None:
    summary = ingest("bami", delivery, tmp_path / "landing", "2026-11-bami")
    manifest = read_manifest(tmp_path / "landing/2026-11-bami")
    assert (manifest.source, manifest.devices, manifest.replaces) == ("bami", ("bami",), None)
    assert (manifest.rows("recordings"), manifest.rows("participants"), manifest.rows("rejected")) == (2, 2, 0)
    people = pq.read_table(tmp_path / "landing/2026-11-bami/participants.parquet").to_pylist()
    assert people[0] == {
        "participant_id": "bami-1",
        "sex": None,
        "age_years": None,
        "height_m": None,
        "bmi_kg_m2": None,
        "skin_tone": None,
    }
    assert str(summary).splitlines()[:5] == [
        "device        bami",
        "batch         2026-11-bami",
        "total         2",
        "read          2, from 2 participants, 28.0 minutes",
        "rejected      0",
    ]


def test_a_large_delivery_is_cut_between_participants(delivery: Path, tmp_path: Path) -> None:
    (delivery / "notes.docx").write_bytes(b"?")
    landing = tmp_path / "landing"
    summary = ingest("bami", delivery, landing, "b", replaces="old", max_participants=1)
    assert summary.batch_ids == ("b-001", "b-002")
    manifests = [read_manifest(landing / name) for name in summary.batch_ids]
    assert [manifest.rows("participants") for manifest in manifests] == [1, 1]
    assert [manifest.replaces for manifest in manifests] == ["old", None]
    assert sum(manifest.rows("rejected") for manifest in manifests) == len(summary.rejections) == 1
    assert [validate_batch(landing / name) for name in summary.batch_ids] == [[], []]
    assert ingest("bami", delivery, landing, "b", replaces="old", max_participants=1) == summary


def test_ingesting_the_same_delivery_again_changes_nothing(delivery: Path, tmp_path: Path) -> None:
    first = ingest("bami", delivery, tmp_path / "landing", "b1")
    written = (tmp_path / "landing/b1/manifest.json").stat().st_mtime_ns
    assert ingest("bami", delivery, tmp_path / "landing", "b1") == first
    assert (tmp_path / "landing/b1/manifest.json").stat().st_mtime_ns == written


def test_the_same_samples_do_not_land_twice(delivery: Path, tmp_path: Path) -> None:
    shutil.copyfile(delivery / "Subject_1.mat", delivery / "Subject_9.mat")
    summary = ingest("bami", delivery, tmp_path / "landing", "b1")
    assert summary.read == 2
    assert [(rejection.source_file, rejection.reason, rejection.detail) for rejection in summary.rejections] == [
        ("Subject_9.mat", "duplicate", "the same samples as Subject_1.mat")
    ]
    again = ingest("bami", delivery, tmp_path / "landing", "b2")
    assert (again.read, {rejection.reason for rejection in again.rejections}) == (0, {"duplicate"})
    assert "of batch b1" in again.rejections[0].detail
    assert not (tmp_path / "landing/b2").exists()


def test_odd_entries_of_the_landing_zone_do_not_stop_a_delivery(
    delivery: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    landing = tmp_path / "landing"
    ingest("bami", delivery, landing, "b1")
    write_batch(landing, [recording()], GOOD)
    for kind in KINDS.values():
        kind.make(landing)
    shutil.copytree(landing / "b1", landing / "b2")
    (landing / "b2/recordings/part-00000.parquet").unlink()
    os.mkfifo(landing / "b2/recordings/part-00000.parquet")
    with no_longer_than(60):
        again = ingest("bami", delivery, landing, "b3")
    assert {rejection.reason for rejection in again.rejections} == {"duplicate"}  # of b1, which can be read
    assert "recordings that batch b2 holds may land again" in caplog.text
    caplog.text.encode()  # any log takes it


def test_a_damaged_batch_stops_no_other_delivery(
    delivery: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for batch_id, content in {"damaged": "[1]", "deep": "[" * 100_000}.items():
        (tmp_path / "landing" / batch_id).mkdir(parents=True)
        (tmp_path / "landing" / batch_id / "manifest.json").write_text(content)
    assert ingest("bami", delivery, tmp_path / "landing", "b1").read == 2
    assert ["damaged" in caplog.messages[0], "deep" in caplog.messages[1]] == [True, True]


def test_a_correction_may_bring_the_same_samples_again(delivery: Path, tmp_path: Path) -> None:
    ingest("bami", delivery, tmp_path / "landing", "b1")
    (delivery / "Subject_2.mat").unlink()
    summary = ingest("bami", delivery, tmp_path / "landing", "b2", replaces="b1")
    assert (summary.read, summary.rejections) == (1, ())
    assert read_manifest(tmp_path / "landing/b2").replaces == "b1"


def test_the_current_folder_is_a_delivery_and_a_batch_like_any_other(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared / "data/polar-verity-sense")
    ingest("polar", Path(), tmp_path / "landing", "b1")
    monkeypatch.chdir(tmp_path / "landing/b1")
    assert validate_batch(Path()) == []
    assert pq.read_table("participants.parquet")["participant_id"].to_pylist() == ["polar-verity-sense"]


def test_files_that_nobody_understands_are_named(delivery: Path, tmp_path: Path) -> None:
    (delivery / "holiday.jpg").write_bytes(b"\xff\xd8")
    (delivery / "Subject_x.mat").write_bytes(b"")
    (delivery / "deep").mkdir()
    (delivery / "deep/notes.txt").write_text("")
    (delivery / "participants.csv").write_text("id,age\n")
    for name in ("README.md", ".DS_Store", "LICENSE"):
        (delivery / name).write_text("")
    summary = ingest("bami", delivery, tmp_path / "landing", "b1")
    assert [(rejection.source_file, rejection.reason) for rejection in summary.rejections] == [
        ("Subject_x.mat", "not_recognised"),
        ("deep/notes.txt", "not_recognised"),
        ("holiday.jpg", "not_recognised"),
        ("participants.csv", "not_recognised"),
    ]
    hinted = {rejection.source_file for rejection in summary.rejections if "--participants" in rejection.detail}
    assert hinted == {"participants.csv"}
    assert (summary.total, summary.read, summary.companions) == (6, 2, 3)


def test_nothing_lands_where_nothing_could_be_read(delivery: Path, tmp_path: Path) -> None:
    summary = ingest("troika", delivery, tmp_path / "landing", "b1")
    assert (summary.read, summary.total) == (0, 2)
    assert not (tmp_path / "landing").exists()
    assert "nothing could be read" in str(summary)


@pytest.mark.parametrize(
    "name",
    ["S1'; DROP TABLE segments;--", "Jürgen Müller", "..", "S 1", "$(reboot)", "-rf"],
)
def test_hostile_and_personal_names_do_not_become_participants(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "data/stress-predict-e4/S10"
    folder = tmp_path / "delivery" / "session"
    folder.mkdir(parents=True)
    for file in ("ACC.csv", "BVP.csv"):
        shutil.copyfile(source / file, folder / file)
    (folder / f"tags_{name}.csv").write_text("")
    summary = ingest("e4", tmp_path / "delivery", tmp_path / "landing", "b1")
    expected = 1 if name == "-rf" else 0  # 'e4--rf' is harmless: the device's name comes first
    assert summary.read == expected
    if not expected:
        assert [(rejection.reason, rejection.participant_id) for rejection in summary.rejections] == [
            ("identifier", None)
        ]


@pytest.mark.parametrize("batch_id", ["../b1", "b1/..", "b1 OR 1=1", "日本"])
def test_hostile_batch_ids_are_refused(delivery: Path, tmp_path: Path, batch_id: str) -> None:
    with pytest.raises(ValueError, match="batch_id"):
        ingest("bami", delivery, tmp_path / "landing", batch_id)
    assert not (tmp_path / "landing").exists()


@pytest.mark.parametrize("device", ["sim-wrist-64", "apple-watch", "../e4", "__init__", "text"])
def test_devices_without_a_reader_are_refused(delivery: Path, tmp_path: Path, device: str) -> None:
    with pytest.raises(ValueError, match="known: e4, bami, wrist-edf, troika, polar"):
        ingest(device, delivery, tmp_path / "landing", "b1")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        ingest("bami", tmp_path / "nowhere", tmp_path / "landing", "b1")


def test_the_documented_example_is_a_whole_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    module = ModuleType("accelkd.recordings.readers.band")
    exec(blocks[0], module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(DEVICES, "band", eval(blocks[1], {"Device": Device}))
    (tmp_path / "delivery").mkdir()
    rows = ["red,infrared,x,y,z", *(f"{n},{n + 1},0,0,9.8" for n in range(1000))]
    (tmp_path / "delivery/A7.csv").write_text("\n".join(rows))
    (tmp_path / "delivery/A8.csv").write_text("\n".join([rows[0], *rows[2:], "1,2,3"]))
    (tmp_path / "delivery/A9.csv").write_text("\n".join(["red,x,y,z", *rows[1:]]))
    summary = ingest("band", tmp_path / "delivery", tmp_path / "landing", "b1")
    assert (summary.read, [rejection.reason for rejection in summary.rejections]) == (2, ["bad_header"])
    assert [note.split(": ")[1] for note in summary.notes] == ["the last row, which is cut, left out"]
    assert validate_batch(tmp_path / "landing/b1") == []


def test_the_document_names_every_column_and_device() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in (*RECORDING.names, *DEVICES) if f"`{name}`" not in text] == []
