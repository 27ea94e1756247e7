"""The command `accelkd`, as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelkd.cli import main
from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.recordings.batches import read_manifest
from accelkd.recordings.simulator import simulate_batch
from accelkd.registry.history import promoted_models
from accelkd.segments.segment import segment_batch
from accelkd.training.checkpoint import load_encoder
from accelkd.warehouse.inspect import loaded_batches


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCELKD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_simulated_batch_lands_and_is_valid(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["simulate", "--participants", "2", "--segments", "1", "--seed", "5", "--batch", "b1", "--processes", "1"])
        == 0
    )
    assert "2 participants" in capsys.readouterr().out
    assert main(["validate", "b1"]) == 0
    assert capsys.readouterr().out == "b1: valid\n"
    (home / "landing" / "b1" / "participants.parquet").unlink()
    assert main(["validate", "b1"]) == 1
    assert "participants.parquet" in capsys.readouterr().out


def test_a_large_delivery_is_cut_into_batches(home: Path) -> None:
    command = "simulate --participants 5 --segments 1 --seed 5 --batch big --processes 1 --max-participants 2"
    assert main(command.split()) == 0
    manifests = {name: read_manifest(home / "landing" / name) for name in ("big-001", "big-002", "big-003")}
    assert [manifest.rows("participants") for manifest in manifests.values()] == [2, 2, 1]
    assert main(command.split()) == 0  # the same again changes nothing
    assert {name: read_manifest(home / "landing" / name) for name in manifests} == manifests


def test_rollback_without_anything_to_go_back_to_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(home), "rollback"]) == 2
    assert "nothing to go back to" in capsys.readouterr().err


def test_ingest_ends_well_unless_nothing_could_be_read(
    home: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "sessions", tmp_path / "unreadable"
    (good / "S16").mkdir(parents=True)
    for file in (shared / "data" / "stress-predict-e4" / "S16").iterdir():
        (good / "S16" / file.name).write_bytes(file.read_bytes())
    (good / "S99").mkdir()
    (good / "S99" / "BVP.csv").write_text("not a recording\n", encoding="utf-8")
    (bad / "S99").mkdir(parents=True)
    (bad / "S99" / "BVP.csv").write_text("not a recording\n", encoding="utf-8")
    assert main(["ingest", "e4", str(good), "--batch", "part"]) == 0
    assert (home / "landing" / "part" / "manifest.json").exists()
    assert "rejected" in capsys.readouterr().out
    assert main(["ingest", "e4", str(bad), "--batch", "none"]) == 1
    assert not (home / "landing" / "none").exists()


def test_train_and_promote_are_one_chain(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Home(home)
    simulate_batch(opened.landing, "b1", participants=4, segments=5, seed=1, profile="easy", processes=1)
    segment_batch(opened, "b1")
    extend_split(opened.split, segmented_participants(opened, ["b1"]), seed=0, test_fraction=0.2)
    assert main(["train", "--preset", "smoke", "--device", "cpu"]) == 0
    teacher, student = (Path(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines())
    assert load_encoder(teacher)[1].encoder == "ppg_teacher"
    assert load_encoder(student)[1].teacher == teacher.name
    # In a home whose warehouse holds nothing yet
    assert main(["promote"]) == 0
    assert f"promoted: {teacher.name}, {student.name}" in capsys.readouterr().out
    assert dict(promoted_models(opened)) == {"ppg_teacher": teacher.name, "accel_student": student.name}
    # And where encoders are promoted already: what was trained last is evaluated
    simulate_batch(
        opened.landing, "b2", participants=4, segments=5, seed=1, profile="easy", processes=1, first_participant=4
    )
    segment_batch(opened, "b2")
    extend_split(opened.split, segmented_participants(opened, ["b1", "b2"]), seed=0, test_fraction=0.2)
    assert main(["train", "--preset", "smoke", "--device", "cpu"]) == 0
    second = [line.split("/")[-1] for line in capsys.readouterr().out.splitlines()]
    assert teacher.name not in second
    main(["promote", "--force", "newer"])
    assert f"promoted: {', '.join(second)}: forced: newer" in capsys.readouterr().out
    assert loaded_batches(opened) == {"b1", "b2"}


def test_configure_changes_what_is_asked_and_keeps_the_rest(home: Path) -> None:
    assert main(["configure", "--preset", "demo"]) == 0
    assert main(["configure", "--motion-gate", "loose"]) == 0
    assert Settings.load(Home(home)) == Settings(preset="demo", motion_gate="loose")
    with pytest.raises(SystemExit):
        main(["configure", "--preset", "huge"])


@pytest.mark.parametrize("batch", ["../escape", "a b", "x'; DROP TABLE segments; --", ""])
def test_bad_identifiers_end_with_one_clear_line(home: Path, batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--participants", "1", "--segments", "1", "--seed", "1", "--batch", batch]) == 2
    assert "is not an identifier" in capsys.readouterr().err
    assert not (home / "landing").exists()


def test_summary_without_a_warehouse_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary"]) == 2
    assert str(home) in capsys.readouterr().err
