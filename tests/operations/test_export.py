"""Encoders that leave Python: each format gives the embeddings of torch, and its folder says how to use it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import accelkd
from accelkd.cli import main
from accelkd.home.files import DamagedFileError, sha256_file, write_checksum
from accelkd.home.layout import Home
from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.encoders import AnyEncoder, EncoderShape, build_encoder
from accelkd.models.transformer import TransformerShape
from accelkd.operations.export import MAX_DIFFERENCE, Package, compare, export_encoder, preprocessing_rules
from accelkd.operations.portable import Format, convert, load_portable
from accelkd.registry.history import decide
from accelkd.segments.schema import SAMPLES
from tests.support.homes import EMBEDDING_WIDTH, checkpoint

SHAPES: dict[str, EncoderShape] = {
    "transformer": TransformerShape(width=16, layers=1, heads=2, mlp=32),
    "transformer with a stem": TransformerShape(width=16, layers=1, heads=2, mlp=32, stem="convolutional"),
    "efficientnet": EfficientNetShape(width=16, width_multiplier=0.125),
}
# Largest difference of int8 that these random weights have, as a share of the embeddings' root mean square, and room
MAX_INT8 = {"transformer": 0.1, "transformer with a stem": 0.1, "efficientnet": 2.0}


def needs(to: Format) -> None:
    """Skip where the library of a format is not installed: it is an extra."""
    library = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}[to]
    pytest.importorskip(library, reason=f"the extra {to} is not installed")


def encoder(shape: EncoderShape) -> AnyEncoder:
    """Random weights; the statistics of batch normalisation are those of noise, as after a training."""
    torch.manual_seed(0)
    module = build_encoder(3, shape)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = None  # of all batches alike
    with torch.no_grad():
        module.train()(torch.randn(8, 3, SAMPLES))
    return module.eval()


CASES = [
    *((name, "onnx") for name in SHAPES),
    ("transformer with a stem", "executorch"),  # all that a plain one has, and convolutions
    pytest.param("efficientnet", "executorch", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "to"), CASES)
def test_other_formats_give_the_embeddings_of_torch(name: str, to: Format, tmp_path: Path) -> None:
    needs(to)
    module, segments = encoder(SHAPES[name]), torch.randn(3, 3, SAMPLES)
    convert(module, tmp_path / "float", to)
    difference = compare(module, tmp_path / "float", to, segments)
    assert difference.segments == 3
    assert 0 < difference.mean <= difference.largest <= MAX_DIFFERENCE
    if (name, to) != ("efficientnet", "executorch"):  # whose second conversion takes another half minute
        # And int8 is smaller, and close
        convert(module, tmp_path / "int8", to, int8=True, calibration=torch.randn(4, 3, SAMPLES))
        assert (tmp_path / "int8").stat().st_size < (tmp_path / "float").stat().st_size
        assert MAX_DIFFERENCE < compare(module, tmp_path / "int8", to, segments).largest < MAX_INT8[name]
    if to == "onnx":  # whose batches have any size
        run = load_portable(tmp_path / "float", to, threads=1)
        torch.testing.assert_close(torch.cat([run(segments[:1]), run(segments[1:])]), run(segments), atol=1e-5, rtol=0)
        assert {path.name for path in tmp_path.iterdir()} == {"float", "int8"}  # nothing lies beside them


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a promoted pair."""
    home = Home(tmp_path / "home")
    teacher = checkpoint(home, "ppg_teacher")
    student = checkpoint(home, "accel_student", teacher=teacher)
    decide(home, "promoted", {"ppg_teacher": teacher, "accel_student": student}, "a test")
    return home


def student_folder(home: Home) -> Path:
    return next(home.encoder("accel_student").iterdir())


def test_a_package_holds_what_its_use_needs(home: Home, tmp_path: Path) -> None:
    needs("onnx")
    signals = np.random.default_rng(0).standard_normal((2, 3, SAMPLES)).astype(np.float32)
    expected = accelkd.embed(accelkd.load_encoder("accel_student", home=home.root), signals, device="cpu")
    readouts = student_folder(home) / "readouts.safetensors"
    readouts.write_bytes(b"weights of readouts")
    write_checksum(readouts)
    package = export_encoder(home, "accel_student", tmp_path / "out", to="onnx")
    assert sorted(path.name for path in package.folder.iterdir()) == [
        "model.onnx",
        "preprocessing.json",
        "readouts.safetensors",
    ]
    assert (package.folder / "readouts.safetensors").read_bytes() == b"weights of readouts"
    described = json.loads((package.folder / "preprocessing.json").read_text())
    assert described["input"] == {"name": "segments", "shape": ["batch", 3, 3840], "dtype": "float32"}
    assert described["output"] == {"name": "embeddings", "shape": ["batch", EMBEDDING_WIDTH], "dtype": "float32"}
    assert described["model"]["model_id"] == student_folder(home).name
    assert described["files"] == {
        name: {"sha256": sha256_file(package.folder / name), "bytes": (package.folder / name).stat().st_size}
        for name in ("model.onnx", "readouts.safetensors")
    }
    assert described["preprocessing"] == json.loads(json.dumps(preprocessing_rules("accel")))
    assert described["difference_from_torch"]["largest"] <= MAX_DIFFERENCE
    assert {"accelkd", "rust_dsp", "torch", "onnxruntime"} <= described["versions"].keys()
    assert b".py" not in package.model.read_bytes()  # a path of the machine that exported it
    # What the package says is enough to get the embedding that Python gives
    model = load_portable(package.model, "onnx")
    np.testing.assert_allclose(model(torch.from_numpy(signals)).numpy(), expected, atol=MAX_DIFFERENCE)
    readouts.write_bytes(b"other readouts")
    with pytest.raises(DamagedFileError, match=r"readouts\.safetensors"):
        export_encoder(home, "accel_student", tmp_path / "again", to="onnx")


def test_preprocessing_has_the_numbers_of_the_signal_processing() -> None:
    accel, ppg = preprocessing_rules("accel"), preprocessing_rules("ppg")
    steps = {step["name"]: step for step in accel["steps"]}
    assert (accel["sampling_rate_hz"], accel["window_s"], accel["samples"]) == (64, 60, 3840)
    assert list(steps) == ["gaps", "line", "resampling", "band_pass", "z_score"]
    assert (steps["gaps"]["max_gap_s"], steps["gaps"]["max_missing"]) == (0.25, 0.02)
    assert (steps["band_pass"]["band_hz"], steps["band_pass"]["mirrored_s"]) == ((1, 20), 4)
    assert [step["band_hz"] for step in ppg["steps"] if step["name"] == "band_pass"] == [(0.5, 12)]
    assert accel["motion_gate"]["max_g"] == 0.05
    assert "motion_gate" not in ppg


def test_a_package_is_replaced_and_nothing_else_is(home: Home, tmp_path: Path) -> None:
    needs("onnx")
    out = tmp_path / "out"
    for source, int8 in (("ppg_teacher", False), (student_folder(home), True)):
        export_encoder(home, source, out, to="onnx", int8=int8)
        described = json.loads((out / "preprocessing.json").read_text())
        assert described["int8"] is int8
        assert described["readouts"] is None
    assert described["model"]["encoder"] == "accel_student"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(ValueError, match="holds no exported encoder: name a new folder"):
        export_encoder(home, "accel_student", tmp_path / "thesis", to="onnx")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "words"


@pytest.mark.parametrize("int8", [False, True])
def test_core_ml_is_converted(home: Home, tmp_path: Path, int8: bool) -> None:
    needs("coreml")
    package = export_encoder(home, "accel_student", tmp_path / "out", to="coreml", int8=int8)
    import coremltools

    description = coremltools.models.MLModel(str(package.model), skip_model_load=True).get_spec().description
    assert [(item.name, list(item.type.multiArrayType.shape)) for item in description.input] == [
        ("segments", [1, 3, 3840])
    ]
    assert [item.name for item in description.output] == ["embeddings"]
    assert package.difference is None
    files = json.loads((package.folder / "preprocessing.json").read_text())["files"]
    assert all(name.startswith("model.mlpackage/") for name in files)


BAD: dict[str, tuple[Callable[[Home, Path], Package], type[Exception], str]] = {
    "no such name": (
        lambda home, out: export_encoder(home, "another_student", out, to="onnx"),
        FileNotFoundError,
        r"no encoder 'another_student' is promoted .* accel_student, ppg_teacher",
    ),
    "no checkpoint": (
        lambda home, out: export_encoder(home, home.root / "nowhere", out, to="onnx"),
        FileNotFoundError,
        "nowhere holds no checkpoint",
    ),
    "calibrated for nothing": (
        lambda home, out: export_encoder(home, "accel_student", out, to="onnx", int8=True, calibrate="b1"),
        ValueError,
        "--calibrate is for int8 of an EfficientNet",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str, home: Home, tmp_path: Path) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call(home, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("to", "library"), [("onnx", "onnxruntime"), ("executorch", "executorch"), ("coreml", "coremltools")]
)
def test_a_missing_library_is_named_with_its_extra(
    to: Format, library: str, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library] or [library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"{library}.* is not installed: pip install 'accelkd\[{to}\]'"):
        export_encoder(home, "accel_student", tmp_path / "out", to=to)
    assert not (tmp_path / "out").exists()


def test_int8_of_an_efficientnet_needs_segments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8 of an EfficientNet needs segments to calibrate"):
        convert(encoder(SHAPES["efficientnet"]), tmp_path / "model", "onnx", int8=True)


def test_the_command_exports(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("onnx")
    command = ["--home", str(home.root), "export", "accel_student", "--to", "onnx", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "model.onnx: 0." in (printed := capsys.readouterr().out)
    assert "of torch" in printed
    assert main([*command[:-1], str(tmp_path / "out2"), "--calibrate", "b1"]) == 2
    assert "--calibrate is for int8" in capsys.readouterr().err
