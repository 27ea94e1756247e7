"""`accelkd.load_encoder` and `accelkd.embed`: what the warehouse holds, for arrays of any kind, and clear errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import accelkd
from accelkd.api import encoders
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home

NAME = "accel_student"
Signals = npt.NDArray[np.float16]


@pytest.fixture
def encoder(home: Home) -> accelkd.Encoder:
    return accelkd.load_encoder(NAME, home=home.root)


@pytest.fixture(scope="module")
def signals(home: Home) -> Signals:
    """All segments of the batch, `[6, 3, 3840]` float16, in the order of the store."""
    return accelkd.open_home(home.root).segments().signals("accel")


def folder(home: Home, name: str = NAME) -> Path:
    (checkpoint,) = (path for path in home.encoder(name).iterdir() if path.is_dir())
    return checkpoint


def test_an_encoder_is_found_by_name_and_by_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(home.root))
    monkeypatch.chdir(home.root)
    for source in (NAME, folder(home), str(folder(home)), f"./checkpoints/{NAME}/{folder(home).name}"):
        encoder = accelkd.load_encoder(source)
        assert_type(encoder, accelkd.Encoder)
        assert (encoder.name, encoder.modality, encoder.channels) == (NAME, "accel", 3)
        assert encoder.model_id == folder(home).name
        assert not encoder.module.training
        assert encoder.module(torch.zeros(2, 3, 3840)).shape == (2, encoder.width)
    assert repr(encoder).startswith(
        f"Encoder(name='{NAME}', model_id='{encoder.model_id}', modality='accel', channels=3"
    )
    with pytest.raises(FrozenInstanceError):
        encoder.width = 1  # type: ignore[misc]  # what must fail


def test_an_unknown_name_is_answered_with_what_there_is(home: Home, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'student' is promoted in the home .*promoted there: accel_student"):
        accelkd.load_encoder("student", home=home.root)
    with pytest.raises(FileNotFoundError, match=r"trained but not promoted.*: ppg_teacher\)"):
        accelkd.load_encoder("ppg_teacher", home=home.root)
    with pytest.raises(
        FileNotFoundError, match=r"promoted there: none; with the package: .*a path, such as './accel_student'"
    ):
        accelkd.load_encoder(NAME, home=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no checkpoint: there is no config\.json in it"):
        accelkd.load_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_checkpoint_is_not_loaded(home: Home, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder(home), copy)
    content = bytearray((copy / file).read_bytes())
    content[-2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"{file} is damaged: its SHA-256"):
        accelkd.load_encoder(copy)


def test_embeddings_are_those_of_the_warehouse(home: Home, encoder: accelkd.Encoder, signals: Signals) -> None:
    opened = accelkd.open_home(home.root)
    with opened.warehouse() as warehouse:
        rows = warehouse.sql("SELECT segment_id, embedding FROM embeddings.accel_student").fetchall()
    stored = {segment_id: np.array(embedding, np.float32) for segment_id, embedding in rows}
    segment_ids = opened.segments().metadata.column("segment_id").to_pylist()
    embeddings = accelkd.embed(encoder, signals, device="cpu")
    assert_type(embeddings, npt.NDArray[np.float32])
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, [stored[segment_id] for segment_id in segment_ids])


def read_only(signals: Signals) -> Signals:
    copy = signals.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize(
    "form",
    [
        lambda signals: signals.astype(np.float32),
        lambda signals: signals.astype(np.float64),
        lambda signals: signals.astype(">f4"),
        lambda signals: np.asfortranarray(signals),
        lambda signals: np.ma.masked_array(signals),
        read_only,
        torch.from_numpy,
        lambda signals: torch.from_numpy(signals).double(),
        lambda signals: torch.from_numpy(signals).float().requires_grad_(),
        lambda signals: torch.from_numpy(signals).transpose(1, 2).contiguous().transpose(1, 2),
    ],
)
def test_what_comes_in_comes_out(encoder: accelkd.Encoder, signals: Signals, form: Callable[[Signals], Any]) -> None:
    given = form(signals)
    embeddings = accelkd.embed(encoder, given, device="cpu")
    assert isinstance(embeddings, torch.Tensor if isinstance(given, torch.Tensor) else np.ndarray)
    np.testing.assert_array_equal(np.asarray(embeddings), accelkd.embed(encoder, signals, device="cpu"))


def test_embeddings_of_a_tensor_can_be_trained_on(encoder: accelkd.Encoder, signals: Signals) -> None:
    embeddings = accelkd.embed(encoder, torch.from_numpy(signals))
    assert_type(embeddings, torch.Tensor)
    probe = torch.nn.Linear(encoder.width, 1)
    probe(embeddings).sum().backward()
    assert probe.weight.grad is not None


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_tensor_of_a_gpu_gives_a_tensor_there(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """On a GPU that is not there: fake tensors have devices, but no values that could be checked."""
    computed_on = []

    class Means(torch.nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            computed_on.append(x.device.type)
            return super().forward(x.reshape(len(x), 3, 16, 240).mean(3))

    monkeypatch.setattr(encoders, "_check_z_scored", lambda *_: None)
    encoder = accelkd.Encoder("means", "0", "accel", 3, 48, None, module=Means())  # type: ignore[arg-type]  # a stand-in
    with FakeTensorMode(allow_non_fake_inputs=False):
        embeddings = accelkd.embed(encoder, torch.randn(300, 3, 3840, device="cuda"), device=device)
    assert (embeddings.shape, embeddings.device.type) == ((300, 48), "cuda")
    assert computed_on == 2 * ["cuda" if device == "auto" else "cpu"]


def test_numbers_of_segments(encoder: accelkd.Encoder, signals: Signals) -> None:
    single = accelkd.embed(encoder, signals[0])
    assert single.shape == (1, encoder.width)
    assert accelkd.embed(encoder, signals[:0]).shape == (0, encoder.width)
    many = accelkd.embed(encoder, np.tile(signals, (50, 1, 1)))  # more than a batch
    assert many.shape == (300, encoder.width)
    np.testing.assert_allclose(many[::6], np.repeat(single, 50, 0), atol=1e-5)


def test_an_encoder_in_training_stays_in_training(encoder: accelkd.Encoder, signals: Signals) -> None:
    expected = accelkd.embed(encoder, signals)
    encoder.module.train()
    np.testing.assert_array_equal(accelkd.embed(encoder, signals), expected)
    assert encoder.module.training


def test_a_recording_becomes_embeddings_in_three_lines(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(home.root))
    noise = np.random.default_rng(0).standard_normal((3, 50 * 180))
    accel = np.array([[0.1], [0.2], [0.97]]) + 0.002 * noise

    encoder = accelkd.load_encoder("accel_student")
    windows = accelkd.preprocess(accel=accel, rate_hz=50)
    embeddings = accelkd.embed(encoder, windows.signals[windows.usable])

    assert embeddings.shape == (3, encoder.width)
    assert np.isfinite(embeddings).all()


def spoiled(value: float) -> Callable[[Signals], Signals]:
    def spoil(signals: Signals) -> Signals:
        copy = signals.copy()
        copy[4, 1, 7] = value
        return copy

    return spoil


def without(segment: int, axes: slice) -> Callable[[Signals], Signals]:
    def clear(signals: Signals) -> Signals:
        copy = signals.copy()
        copy[segment, axes] = 0
        return copy

    return clear


BAD: dict[str, tuple[Callable[[Signals], Any], type[Exception], str]] = {
    "NaN": (spoiled(np.nan), ValueError, "segment 4 of signals holds NaN or infinite"),
    "infinite": (spoiled(np.inf), ValueError, "segment 4 of signals holds NaN or infinite"),
    "beyond float32": (
        lambda signals: np.where(np.arange(3840) == 3, 1e300, signals.astype(float)),
        ValueError,
        "segment 0 of signals holds NaN or infinite",
    ),
    "all zeros": (without(2, slice(None)), ValueError, "segment 2 of signals is all zeros"),
    "counts as floats": (
        lambda signals: 1e5 + 1e3 * signals.astype(np.float32),
        ValueError,
        "segment 0 .* is not z-scored",
    ),
    "acceleration in g": (
        lambda signals: 0.01 * signals,
        ValueError,
        "segment 0 of signals is not z-scored.*preprocess",
    ),
    "one raw axis": (
        lambda signals: torch.from_numpy(signals).float() + torch.tensor([0, 0, 1.0])[:, None],
        ValueError,
        "segment 0 of signals is not z-scored",
    ),
    "integers": (
        lambda signals: (1000 * signals).astype(np.int16),
        TypeError,
        "z-scored floats, found int16: preprocess",
    ),
    "integer tensor": (lambda signals: torch.from_numpy(signals).int(), TypeError, "found torch.int32"),
    "complex": (lambda signals: signals.astype(complex), TypeError, "found complex128"),
    "list": (lambda signals: signals.tolist(), TypeError, "NumPy array or a torch tensor, found list"),
    "masked": (lambda signals: np.ma.masked_less(signals, 0), ValueError, "masked: a segment has no missing samples"),
    "channels": (
        lambda signals: signals[:, :2],
        ValueError,
        r"accel_student takes accel segments \[segments, 3, 3840\].*\[6, 2, 3840\]",
    ),
    "length": (lambda signals: signals[..., :3000], ValueError, r"found \[6, 3, 3000\]: preprocess makes them"),
    "transposed": (lambda signals: signals.transpose(0, 2, 1), ValueError, r"found \[6, 3840, 3\]"),
    "flat": (lambda signals: signals[0, 0], ValueError, r"found \[3840\]"),
    "four dimensions": (lambda signals: signals[None], ValueError, r"found \[1, 6, 3, 3840\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_signals_are_refused_by_rule(encoder: accelkd.Encoder, signals: Signals, case: str) -> None:
    form, error, message = BAD[case]
    with pytest.raises(error, match=f"(?s){message}"):
        accelkd.embed(encoder, form(signals))


def test_a_flat_axis_is_embedded(encoder: accelkd.Encoder, signals: Signals) -> None:
    assert np.isfinite(accelkd.embed(encoder, without(2, slice(2, 3))(signals))).all()


def test_windows_that_are_not_usable_are_refused(encoder: accelkd.Encoder) -> None:
    accel = np.array([[0.1], [0.2], [0.97]]) + 0.002 * np.random.default_rng(0).standard_normal((3, 50 * 120))
    accel[1, 3500:3600] = np.nan
    windows = accelkd.preprocess(accel=accel, rate_hz=50)
    with pytest.raises(ValueError, match=r"segment 1 of signals holds NaN.*windows that are not usable are NaN"):
        accelkd.embed(encoder, windows.signals)
    assert accelkd.embed(encoder, windows.signals[windows.usable]).shape[0] == 1
    with pytest.raises(TypeError, match="found Windows"):
        accelkd.embed(encoder, windows)  # type: ignore[call-overload]  # what must fail


def test_only_an_encoder_embeds(home: Home, encoder: accelkd.Encoder, signals: Signals) -> None:
    with pytest.raises(TypeError, match="what load_encoder returns, found PosixPath"):
        accelkd.embed(folder(home), signals)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="what load_encoder returns, found Encoder"):
        accelkd.embed(encoder.module, signals)  # type: ignore[call-overload]
