"""The encoders that come with the package: what their cards promise, on what is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

import accelkd
from accelkd.cli import main
from accelkd.models.bundled import EXAMPLE, NAMES, STUDENT, TEACHER, bundled_folder
from accelkd.training.checkpoint import is_complete, load_heads, read_config, read_weights
from tests.support.recordings import RATE_HZ, Person, write_acceleration_csv

MAX_FILE_BYTES, MAX_BYTES = 4e6, 8e6


@pytest.mark.parametrize("name", NAMES)
def test_an_example_gives_what_its_card_promises(name: str) -> None:
    encoder = accelkd.load_encoder(name)
    example = load_file(bundled_folder(name) / EXAMPLE)
    embedding = accelkd.embed(encoder, example["segment"], device="cpu")
    size = float(np.sqrt((example["embedding"] ** 2).mean()))
    np.testing.assert_allclose(embedding, example["embedding"], atol=1e-3 * size)
    assert encoder.readouts is not None
    assert sorted(encoder.readouts.of) == ["hr_bpm", "rmssd_ms", "sdnn_ms"]
    assert encoder.readouts.model_id == encoder.model_id
    for readout in encoder.readouts.of.values():
        standardised = (embedding - readout.mean) / readout.scale
        value = np.clip(readout.intercept + standardised @ readout.weights, *readout.label_range)
        np.testing.assert_allclose(value, example[readout.target], atol=0.1)


@pytest.mark.parametrize("name", [name for name in NAMES if name != TEACHER])
def test_no_student_loses_to_a_constant(name: str) -> None:
    encoder = accelkd.load_encoder(name)
    assert encoder.readouts is not None
    assert all(readout.held_out < readout.constant for readout in encoder.readouts.of.values())
    assert encoder.readouts.of["hr_bpm"].reads
    if name == STUDENT:  # the default of `accelkd predict` reads all three beyond doubt
        assert all(readout.reads for readout in encoder.readouts.of.values())
    assert encoder.teacher == accelkd.load_encoder(TEACHER).model_id
    _, own_head = load_heads(bundled_folder(name))  # which finds a minute's PPG
    assert own_head(torch.zeros(2, encoder.width)).shape == (2, 128)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_its_head_and_no_gaps(name: str) -> None:
    card = ModelCard.load(bundled_folder(name) / "README.md")
    assert card.data.to_dict()["library_name"] == "accelkd"
    assert card.data.to_dict()["model_name"] == name
    assert read_config(bundled_folder(name))["model_id"] in card.text
    assert "None" not in card.text
    for heading in ("Training", "What it reads of simulated people", "For whom", "On real recordings", "Not for"):
        assert f"\n## {heading}\n" in card.text


def test_weights_are_small_and_whole() -> None:
    for name in NAMES:
        assert is_complete(bundled_folder(name))
        matrices = [tensor for tensor in read_weights(bundled_folder(name)).values() if tensor.dim() > 1]
        assert matrices
        assert {tensor.dtype for tensor in matrices} == {torch.float16}
    files = [path.stat().st_size for path in bundled_folder(STUDENT).parent.rglob("*") if path.is_file()]
    assert max(files) < MAX_FILE_BYTES
    assert sum(files) < MAX_BYTES
    assert {path.name for path in bundled_folder(STUDENT).parent.iterdir() if path.is_dir()} - {"__pycache__"} == {
        *NAMES
    }


def test_a_file_is_read_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCELKD_HOME", raising=False)
    write_acceleration_csv(Path("walk.csv"), Person("p1", 130.0).accel, RATE_HZ)
    assert main(["predict", "walk.csv"]) == 0
    header, *minutes = capsys.readouterr().out.splitlines()
    assert header.split() == ["participant_id", "recording_id", "offset_s", "hr_bpm", "sdnn_ms", "rmssd_ms"]
    assert [line.split()[2] for line in minutes] == ["0", "60"]
    assert [path.name for path in tmp_path.iterdir()] == ["walk.csv"]


def test_the_pair_is_adopted_by_its_names(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    assert main([*home, "adopt", TEACHER, STUDENT]) == 0
    adopted, bundled = accelkd.load_encoder("accel_student", home=tmp_path), accelkd.load_encoder(STUDENT)
    assert adopted.model_id == bundled.model_id
    assert adopted.readouts is not None
    assert bundled.readouts is not None
    assert adopted.readouts.readout_id == bundled.readouts.readout_id
    assert main([*home, "adopt", "accel-kd-xxl"]) == 2


def test_an_unknown_name_lists_what_comes_with_the_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"with the package: {', '.join(NAMES)}"):
        accelkd.load_encoder("accel-kd-xxl", home=tmp_path)
    with pytest.raises(LookupError, match="no encoder 'accel-kd-xxl' comes with the package"):
        bundled_folder("accel-kd-xxl")
