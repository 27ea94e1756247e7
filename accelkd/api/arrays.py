"""Raw samples of any array type, in the form that recordings have: float32, one row for each channel."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

_MAX_EXACT = 2**24  # integers up to here are exact in float32


def raw_stream(name: str, samples: Any) -> npt.NDArray[np.float32]:
    """Raw samples as `[channels, samples]` float32, contiguous; masked samples and those beyond float32 are NaN or inf.

    Takes one array `[channels, samples]` (or `[samples]`, for one channel), or a list or tuple of columns `[samples]`,
    of NumPy, torch or anything that NumPy makes an array of numbers from. `name` stands in the errors. Raises
    TypeError for what is not made of numbers, ValueError for a shape that is ambiguous or for integers that float32
    would round.
    """
    if isinstance(samples, (list, tuple)):
        columns = [_numbers(f"{name}[{number}]", column) for number, column in enumerate(samples)]
        shapes = [column.shape for column in columns]
        if not columns or any(len(shape) != 1 for shape in shapes) or len(set(shapes)) > 1:
            raise ValueError(
                f"{name}: a list holds one column [samples] for each channel, found shapes {sorted(set(shapes))}"
            )
        return np.stack(columns)
    stream = _numbers(name, samples)
    if stream.ndim not in (1, 2) or 0 in stream.shape:
        raise ValueError(f"{name} must be [channels, samples], found shape {list(stream.shape)}")
    stream = np.atleast_2d(stream)
    channels, length = stream.shape
    if channels > length:
        raise ValueError(
            f"{name} must be [channels, samples], found {channels} channels of {length} samples: "
            f"if it is [samples, channels], give `{name}.T`"
        )
    return stream


def _numbers(name: str, samples: Any) -> npt.NDArray[np.float32]:
    """One array as contiguous float32."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.dtype == torch.bfloat16 else samples).numpy()
    array = np.asarray(samples)  # of a masked array: its data, with whatever stands under the mask
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, found dtype {array.dtype}")
    valid = ~np.ma.getmaskarray(samples) if np.ma.isMaskedArray(samples) else True
    if array.dtype.kind in "iu" and array.size:
        low, high = (int(extreme(array, initial=0, where=valid)) for extreme in (np.min, np.max))
        if max(-low, high) > _MAX_EXACT:
            raise ValueError(
                f"{name} holds integers beyond 2^24, which float32, the type of recordings, would round: "
                "subtract a constant, or divide by one"
            )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which counts as a missing sample
        raw = np.asarray(array, np.float32, order="C")
    return raw if valid is True else np.where(valid, raw, np.float32(np.nan))
