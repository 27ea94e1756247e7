"""Teacher and student from a segment store to checkpoints."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from accelkd.segments.schema import SAMPLES
from accelkd.segments.store import SegmentStore, write_segments
from accelkd.training import runs, signals
from accelkd.training.checkpoint import (
    export_weights,
    import_weights,
    load_encoder,
    load_heads,
    read_config,
    read_metrics,
)
from accelkd.training.method import EncoderConfig
from accelkd.training.presets import PRESETS
from accelkd.training.runs import measure_speed
from accelkd.training.signals import ResidentSignals
from tests.support import REPOSITORY
from tests.support.segments import segment_rows
from tests.support.training import LONG, train

SMOKE = PRESETS["smoke"]


def teacher(store: SegmentStore, out: Path, config: EncoderConfig = SMOKE.teacher, **options: Any) -> Path:
    return train(store, config, out, name="ppg_teacher", **options)


def student(store: SegmentStore, teacher: Path, out: Path) -> Path:
    return train(store, SMOKE.student, out, name="accel_student", teacher=teacher)


@pytest.fixture(scope="module")
def checkpoints(store: SegmentStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    first = teacher(store, root / "ppg_teacher")
    return first, student(store, first, root / "accel_student")


def test_checkpoint_holds_all_that_one_needs(checkpoints: tuple[Path, Path]) -> None:
    for folder, name in zip(checkpoints, ("ppg_teacher", "accel_student"), strict=True):
        assert folder.parent.name == name
        checksummed = ["config.json", "metrics.json", "model.safetensors", "training.parquet"]
        hashes = [f"{name}.sha256" for name in checksummed]
        assert sorted(path.name for path in folder.iterdir()) == sorted(["CARD.md", *checksummed, *hashes])
        assert list(folder.parent.iterdir()) == [folder]  # no state remains
        config = read_config(folder)
        assert config["model_id"] == folder.name
        assert (config["data_version"], config["split_version"]) == ("data-1", "split-1")
        metrics = read_metrics(folder)
        assert (metrics["participants"], metrics["segments"]) == (3, 19)  # the fourth has too few segments
        card = (folder / "CARD.md").read_text()
        assert folder.name in card
        assert "19 segments of 3 participants" in card
    curve = pq.read_table(checkpoints[1] / "training.parquet")
    assert curve.column_names == ["step", "loss", "learning_rate", "segments_per_s", "chance_loss"]
    assert curve["step"].to_pylist() == [2, 4, 6]
    assert set(curve["chance_loss"].to_pylist()) == {math.log(8)}


def test_encoders_load_and_embed(checkpoints: tuple[Path, Path], store: SegmentStore) -> None:
    for folder, modality, channels in zip(checkpoints, ("ppg", "accel"), (2, 3), strict=True):
        encoder, info = load_encoder(folder)
        assert (info.model_id, info.modality, info.channels, info.width) == (folder.name, modality, channels, 16)
        assert not encoder.training
        with torch.no_grad():
            embedding = encoder(torch.from_numpy(store.signals(info.modality, np.arange(5))).float())
        assert embedding.shape == (5, 16)
        assert embedding.isfinite().all()
        assert embedding.std(dim=0).max() > 0
    assert load_encoder(checkpoints[1])[1].teacher == checkpoints[0].name


def test_heads_load_in_evaluation_mode(checkpoints: tuple[Path, Path]) -> None:
    teacher_head, student_head = load_heads(checkpoints[1])
    x = torch.randn(3, 16)
    for head in (teacher_head, student_head):
        assert head(x).shape == (3, 128)
        torch.testing.assert_close(head(x)[:1], head(x[:1]))  # no statistics of the batch
    assert not torch.equal(teacher_head(x), student_head(x))
    with pytest.raises(ValueError, match="only a distilled student has them"):
        load_heads(checkpoints[0])


def test_a_run_that_is_there_is_not_run_again(checkpoints: tuple[Path, Path], store: SegmentStore) -> None:
    trainings: list[tuple[Path, Callable[[], Path]]] = [
        (checkpoints[0], lambda: teacher(store, checkpoints[0].parent)),
        (checkpoints[1], lambda: student(store, checkpoints[0], checkpoints[1].parent)),
    ]
    for folder, again in trainings:
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert again() == folder
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_same_inputs_give_the_same_bytes_elsewhere(
    checkpoints: tuple[Path, Path], store: SegmentStore, tmp_path: Path
) -> None:
    teacher_again = teacher(store, tmp_path / "ppg_teacher")
    student_again = student(store, teacher_again, tmp_path / "accel_student")
    for folder, again in zip(checkpoints, (teacher_again, student_again), strict=True):
        assert again.name == folder.name
        for name in ("model.safetensors", "config.json"):
            assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_model_id_follows_every_input(
    checkpoints: tuple[Path, Path], store: SegmentStore, rows: np.ndarray, tmp_path: Path
) -> None:
    seeded = replace(SMOKE.teacher, optimisation=replace(SMOKE.teacher.optimisation, seed=1))
    ids = {
        checkpoints[0].name,
        teacher(store, tmp_path, seeded).name,
        teacher(store, tmp_path, rows=rows[:-1]).name,
        teacher(store, tmp_path, data_version="data-2").name,
        teacher(store, tmp_path, split_version="split-2").name,
    }
    assert len(ids) == 5
    other_teacher = teacher(store, tmp_path, seeded)
    assert student(store, other_teacher, tmp_path / "students").name != checkpoints[1].name


def test_teacher_checkpoint_is_untouched_by_distillation(
    checkpoints: tuple[Path, Path], store: SegmentStore, tmp_path: Path
) -> None:
    before = (checkpoints[0] / "model.safetensors").read_bytes()
    student(store, checkpoints[0], tmp_path)
    assert (checkpoints[0] / "model.safetensors").read_bytes() == before


def test_teacher_must_fit_the_segments(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    columns = {"ppg": np.zeros((4, 4 * SAMPLES)), "accel": np.zeros((4, 3 * SAMPLES))}
    write_segments(tmp_path / "four.arrow", [segment_rows(["p"] * 4, columns, 4)])
    with pytest.raises(ValueError, match="takes 2 ppg channels, the segments have 4"):
        student(SegmentStore([tmp_path / "four.arrow"]), checkpoints[0], tmp_path)


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from accelkd.segments.schema import SAMPLES
from accelkd.segments.store import SegmentStore, write_segments
from tests.support.segments import segment_rows
from tests.support.training import LONG, train
train(SegmentStore([Path(sys.argv[1])]), LONG, Path(sys.argv[2]))
"""


def test_killed_process_resumes_to_the_same_bytes(store: SegmentStore, store_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store_path), str(out)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while not list(out.glob(".*.state.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(out.glob("*/config.json"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bytes are promised for the same number of threads
    try:
        resumed, unbroken = train(store, LONG, out), train(store, LONG, tmp_path / "unbroken")
    finally:
        torch.set_num_threads(threads)
    assert (resumed / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
    curves = [pq.read_table(folder / "training.parquet", columns=["step", "loss"]) for folder in (resumed, unbroken)]
    assert curves[0].equals(curves[1])


def test_weights_travel_as_one_small_file(
    checkpoints: tuple[Path, Path], store: SegmentStore, rows: np.ndarray, tmp_path: Path
) -> None:
    for checkpoint in checkpoints:
        file = tmp_path / f"{checkpoint.parent.name}.safetensors"
        export_weights(checkpoint, file)
        again = import_weights(file, tmp_path / checkpoint.parent.name)
        assert again.name == checkpoint.name
        assert read_config(again) == read_config(checkpoint)
        assert "rounded to float16" in read_metrics(again)["notes"]
        (encoder, info), (rounded, same) = load_encoder(checkpoint), load_encoder(again)
        assert info == same
        signals = torch.from_numpy(store.signals(info.modality, rows)).float()
        with torch.inference_mode():
            torch.testing.assert_close(rounded(signals), encoder(signals), rtol=1e-2, atol=1e-2)
        before = (again / "model.safetensors").stat().st_mtime_ns
        assert import_weights(file, tmp_path / checkpoint.parent.name) == again
        assert (again / "model.safetensors").stat().st_mtime_ns == before
    load_heads(again)
    # It teaches
    assert student(store, tmp_path / "ppg_teacher" / checkpoints[0].name, tmp_path / "taught").exists()


def test_a_file_that_is_no_exported_checkpoint_is_named(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    for file in (tmp_path / "noise.safetensors", checkpoints[0] / "model.safetensors"):
        with pytest.raises(ValueError, match=f"{file.name} holds no exported checkpoint"):
            import_weights(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_measuring_the_speed_leaves_nothing_behind(store: SegmentStore, rows: np.ndarray) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    speed = measure_speed(store, rows, SMOKE.teacher, device="cpu")
    assert torch.equal(torch.rand(1), expected)  # not even in the random state
    assert speed.segments_per_s > 0
    assert speed.flop_per_segment > 1e5
    assert (speed.mfu, speed.notes) == (None, ())


def test_a_copy_on_the_device_trains_to_the_same_bytes(store: SegmentStore, tmp_path: Path) -> None:
    resident = ResidentSignals(store, torch.device("cpu"))
    mapped, copied = (
        teacher(store, tmp_path / name, resident=signals) / "model.safetensors"
        for name, signals in (("mapped", None), ("copied", resident))
    )
    assert mapped.read_bytes() == copied.read_bytes()


def test_a_cohort_that_does_not_fit_is_read_from_the_disk_with_a_warning(
    store: SegmentStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "free_bytes", lambda _: 1_000)
    assert runs._resident(store, torch.device("cpu"), ["ppg"]) is None
    assert "reading batches from the disk: 22 segments take" in capsys.readouterr().err
