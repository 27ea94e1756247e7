"""What landed recordings need before they are cut: norms that are counted, and half precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rust_dsp

FLOATS = st.floats(width=32) | st.floats(-3, 3, width=32)
LIMITS = (0.5, 2.0)


@given(hnp.arrays(np.float32, st.tuples(st.just(3), st.integers(0, 40)), elements=FLOATS), st.integers(0, 5))
def test_norms_are_counted_as_numpy_counts_them(accel: npt.NDArray[np.float32], start: int) -> None:
    samples = np.concatenate([np.full(start, np.float32(7)), accel.ravel(), np.full(2, np.float32(7))])
    complete, between = rust_dsp.norms_between(samples, [start], [accel.shape[1]], LIMITS)
    with np.errstate(invalid="ignore"):
        norm = np.sqrt(np.square(accel, dtype=np.float64).sum(axis=0))
    assert complete[0] == np.isfinite(norm).sum()
    certain = (norm > LIMITS[0] * (1 + 1e-5)) & (norm < LIMITS[1] * (1 - 1e-5))
    possible = (norm > LIMITS[0] * (1 - 1e-5)) & (norm < LIMITS[1] * (1 + 1e-5))
    assert certain.sum() <= between[0] <= possible.sum()


def test_axes_that_leave_the_samples_are_refused() -> None:
    samples = np.zeros(10, np.float32)
    for start, length in (([2], [3]), ([0], [4]), ([2**62], [2**62]), ([0, 1], [1])):
        with pytest.raises(ValueError, match=r"beyond|lengths"):
            rust_dsp.norms_between(samples, start, length, LIMITS)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(width=32, allow_nan=False)))
def test_half_precision_is_that_of_numpy(z: npt.NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", under="ignore"):
        expected = z.astype(np.float16)
    half = rust_dsp.to_half(z)
    assert half.shape == z.shape
    assert half.tobytes() == expected.tobytes()
    out = np.empty_like(expected)
    assert rust_dsp.to_half(z, out=out) is out
    assert out.tobytes() == expected.tobytes()


def test_half_precision_goes_to_a_contiguous_array_of_the_same_shape() -> None:
    z = np.zeros((2, 4), np.float32)
    for out in (np.empty((4, 2), np.float16), np.empty((2, 8), np.float16)[:, ::2], np.empty((4, 2), np.float16).T):
        with pytest.raises(ValueError, match="out must be"):
            rust_dsp.to_half(z, out=out)
