"""Trained encoders: loaded from a checkpoint, applied to arrays of z-scored segments."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accelkd.evaluation.extract import BATCH_SIZE, embed_in_batches
from accelkd.evaluation.readouts import READOUTS, Readouts, read_readouts
from accelkd.home.layout import Home
from accelkd.models.encoders import AnyEncoder
from accelkd.registry.history import checkpoint_folder
from accelkd.segments.schema import SAMPLES
from accelkd.segments.store import Modality
from accelkd.training import checkpoint
from accelkd.training.signals import to_device
from accelkd.training.trainer import pick_device

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Of a z-scored channel, which an augmentation may have changed; raw samples lie far outside
_MAX_MEAN, _STANDARD_DEVIATION = 0.5, (0.5, 2.0)


@dataclass(frozen=True, eq=False)
class Encoder:
    """A trained encoder: z-scored segments `[batch, channels, 3840]` to embeddings `[batch, width]`.

    - `name`: "accel_student", "ppg_teacher", or the name of an experiment's encoder.
    - `model_id`: of the checkpoint; the same weights have the same id.
    - `modality`, `channels`: what it takes, "accel" or "ppg", and how many channels of it.
    - `width`: of the embedding.
    - `teacher`: model id of the teacher that it was distilled from, or None.
    - `readouts`: what reads health from its embeddings (`accelkd.predict`), or None where nothing was fitted.
    - `module`: the `torch.nn.Module`, in evaluation mode, for gradients and fine-tuning.
    """

    name: str
    model_id: str
    modality: Modality
    channels: int
    width: int
    teacher: str | None
    module: AnyEncoder = field(repr=False)
    readouts: Readouts | None = field(default=None, repr=False)


def load_encoder(source: str | os.PathLike[str], *, home: str | os.PathLike[str] | None = None) -> Encoder:
    """Load a trained encoder on the CPU: a bundled one, one that is promoted in a home, or a checkpoint folder.

    "accel-kd-xs" and "accel-kd-transformer-xs" read acceleration, "ppg-teacher-xs" is their teacher; they need no
    home. Another string that is an identifier, such as "accel_student", is a name in `home` ($ACCELKD_HOME unless
    given, else `.accelkd` in the current folder). A path object, or a string with a separator, is the folder of a
    checkpoint.

    Raises FileNotFoundError, with a list of what there is, where there is no such encoder; DamagedFileError (a
    ValueError) where the SHA-256 of its configuration or weights is not the one that was written with them.

        >>> import accelkd
        >>> encoder = accelkd.load_encoder("accel_student")
        >>> encoder.name, encoder.modality, encoder.channels
        ('accel_student', 'accel', 3)
    """
    opened = Home.from_environment() if home is None else Home(Path(home).resolve())
    folder = checkpoint_folder(opened, source)
    module, info = checkpoint.load_encoder(folder)
    readouts = read_readouts(folder) if (folder / READOUTS).exists() else None
    return Encoder(
        info.encoder, info.model_id, info.modality, info.channels, info.width, info.teacher, module, readouts
    )


@overload
def embed(encoder: Encoder, signals: Tensor, *, device: str = "auto") -> Tensor: ...
@overload
def embed(encoder: Encoder, signals: npt.NDArray[Any], *, device: str = "auto") -> npt.NDArray[np.float32]: ...
def embed(
    encoder: Encoder, signals: npt.NDArray[Any] | Tensor, *, device: str = "auto"
) -> npt.NDArray[np.float32] | Tensor:
    """Embeddings `[segments, width]` float32 of z-scored segments `[segments, channels, 3840]` (60 s at 64 Hz).

    Segments come from `preprocess` or the segment store, as a NumPy array or a torch tensor of floats; one alone may be
    `[channels, 3840]`, and is a row of the result all the same. NumPy in gives NumPy; a tensor gives a tensor on its
    own device, without gradients (`encoder.module` has those). `device` is where to compute: "auto" is the device of a
    tensor, and for NumPy the GPU where there is one; the encoder's module moves there. Segments go through in batches
    of 256, as in the pipeline: the same segments in the same order on the same machine give the same bits as there.

    Raises TypeError for what is no array of floats: integers are raw counts. Raises ValueError that names the segment
    and the rule for another number of channels or samples, for values that are NaN or infinite (windows that are not
    usable are NaN) or masked, and for channels that are not z-scored: mean within ±0.5 and standard deviation from 0.5
    to 2, or all zeros, which a channel may be, but not every one of a segment.

        >>> import accelkd, numpy as np
        >>> noise = np.random.default_rng(0).standard_normal((3, 50 * 180))
        >>> accel = np.array([[0.1], [0.2], [0.97]]) + 0.002 * noise  # a wrist at rest: three minutes at 50 Hz

        >>> encoder = accelkd.load_encoder("accel_student")
        >>> windows = accelkd.preprocess(accel=accel, rate_hz=50)
        >>> embeddings = accelkd.embed(encoder, windows.signals[windows.usable])

        >>> embeddings.shape == (3, encoder.width), embeddings.dtype
        (True, dtype('float32'))
    """
    if not isinstance(encoder, Encoder):
        raise TypeError(f"encoder must be what load_encoder returns, found {type(encoder).__name__}")
    segments = _checked(encoder, signals)
    torch_device = segments.device if isinstance(segments, Tensor) and device == "auto" else pick_device(device)

    def load(start: int, stop: int) -> Tensor:
        if isinstance(segments, Tensor):
            return segments[start:stop].to(torch_device, torch.float32)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused
            return to_device(np.array(segments[start:stop], np.float32), torch_device)

    for start in range(0, len(segments), BATCH_SIZE):  # all of them, before the long work begins
        _check_z_scored(load(start, start + BATCH_SIZE), start)
    embeddings = torch.empty(0, encoder.width)
    training = encoder.module.training  # of somebody who fine-tunes it
    try:
        if len(segments):
            embeddings = embed_in_batches(
                encoder.module, len(segments), load, torch_device, f"embedding {encoder.modality}"
            )
    finally:
        encoder.module.train(training)
    return embeddings.to(segments.device) if isinstance(segments, Tensor) else embeddings.cpu().numpy()


def _checked(encoder: Encoder, signals: Any) -> npt.NDArray[Any] | Tensor:
    """The segments as `[segments, channels, 3840]` of floats."""
    if isinstance(signals, Tensor):
        is_float, signals = signals.dtype in _FLOATS, signals.detach()
    elif isinstance(signals, np.ndarray):
        is_float = signals.dtype.kind == "f" and signals.dtype.itemsize <= 8
        if np.ma.is_masked(signals):
            raise ValueError(
                "signals are masked: a segment has no missing samples, and preprocess takes raw ones that do"
            )
    else:
        raise TypeError(f"signals must be a NumPy array or a torch tensor, found {type(signals).__name__}")
    if not is_float:
        raise TypeError(f"signals must be z-scored floats, found {signals.dtype}: preprocess takes raw samples")
    shape = list(signals.shape)
    if len(shape) not in (2, 3) or shape[-2:] != [encoder.channels, SAMPLES]:
        raise ValueError(
            f"{encoder.name} takes {encoder.modality} segments [segments, {encoder.channels}, {SAMPLES}] "
            f"(channels, 60 s at 64 Hz), found {shape}: preprocess makes them of recordings of any rate and length"
        )
    segments: npt.NDArray[Any] | Tensor = signals if len(shape) == 3 else signals[None]
    return segments


def _check_z_scored(segments: Tensor, first: int) -> None:
    """Raises ValueError that names the first of some segments, numbered from `first`, that cannot be embedded."""
    mean, deviation = segments.mean(2), segments.std(2, correction=0)
    low, high = _STANDARD_DEVIATION
    zero = (segments == 0).all(2)
    z_scored = (mean.abs() <= _MAX_MEAN) & (deviation >= low) & (deviation <= high)
    rules = (
        (~segments.isfinite().flatten(1).all(1), "holds NaN or infinite values; windows that are not usable are NaN"),
        (zero.all(1), "is all zeros: no channel of it is good"),
        (
            ~(z_scored | zero).all(1),
            f"is not z-scored: a channel's mean is not within ±{_MAX_MEAN} or its standard deviation not from {low} to "
            f"{high}; preprocess takes raw samples",
        ),
    )
    for broken, rule in rules:
        if broken.any():
            raise ValueError(f"segment {first + int(broken.nonzero()[0])} of signals {rule}")
