"""Windows of one recording: the plan of its device, raw samples of a window, z-scored signals, why one is unfit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

import rust_dsp
from accelkd.recordings.devices import Device
from accelkd.segments.schema import DURATION_S

Raw = npt.NDArray[np.float32]  # [channels, samples]
Status = npt.NDArray[np.uint8]  # of each channel of a window

CHUNK_SIZE = 256  # windows of a record batch, which are labelled together
PART_SIZE = 32  # raw windows that are preprocessed together: bounds memory, fills the threads
# Status bits of rust_dsp, in order of precedence: an earlier one explains the later ones
_SHORT, _GAP, _MISSING, _FLAT = 1, 2, 4, 8
_STATUS_NAMES = {_SHORT: "short", _GAP: "gap", _MISSING: "missing", _FLAT: "flat"}


@lru_cache(maxsize=64)
def device_plan(
    device: Device,
    ppg_rate_hz: float | None,
    accel_rate_hz: float | None,
    dark_rate_hz: float | None,
    dark_offsets_s: tuple[float, ...],
) -> rust_dsp.Plan:
    """The filters and schedules of one device at its rates. Raises ValueError for a rate that cannot be resampled."""
    return rust_dsp.Plan(
        ppg_rate_hz=ppg_rate_hz,
        accel_rate_hz=accel_rate_hz,
        dark_rate_hz=dark_rate_hz,
        led_offsets_s=device.led_offsets_s,
        dark_offsets_s=dark_offsets_s,
        ppg_range=device.ppg_full_scale,
        accel_range=device.accel_range_g,
    )


def window_samples(stream: Raw, start: int, rate_hz: float) -> Raw:
    """The samples of the window that starts at index `start`: a view, shorter where the recording ends before it."""
    return stream[:, start : start + int(np.floor(DURATION_S * rate_hz + 0.5))]


def motion_reason(kept: bool, motion_p95_g: float) -> str | None:
    """Why the motion gate stops a window, `None` where it does not: too much motion, or none that can be measured."""
    if kept:
        return None
    return "motion" if np.isfinite(motion_p95_g) else "accel_missing"


def preprocess_windows(
    plan: rust_dsp.Plan,
    ppg: Sequence[Raw] | None = None,
    dark: Sequence[Raw] | None = None,
    accel: Sequence[Raw] | None = None,
) -> tuple[rust_dsp.Preprocessed, list[str | None]]:
    """Z-score raw windows of one plan; and for each the reason why it is unfit for a segment, `None` where it is fit.

    A window is unfit if no PPG channel is good, or if an accelerometer axis is incomplete, or all of them are flat.
    The reason is the stream and the first of short, gap, missing, flat that any of its channels has: `ppg_gap`.
    """
    done = plan.preprocess(ppg, dark, accel)
    count = len(ppg if ppg is not None else accel or ())
    return done, [
        (None if ppg is None else _unfit_ppg(done.ppg_status[i]))
        or (None if accel is None else _unfit_accel(done.accel_status[i]))
        for i in range(count)
    ]


def _unfit_ppg(status: Status) -> str | None:
    return f"ppg_{_status_name(status)}" if status.all() else None


def _unfit_accel(status: Status) -> str | None:
    incomplete = (status & (_SHORT | _GAP | _MISSING)).any()
    return f"accel_{_status_name(status)}" if incomplete or status.all() else None


def _status_name(status: Status) -> str:
    """Name of the first status bit that any channel has."""
    combined = int(np.bitwise_or.reduce(status))
    return next(name for bit, name in _STATUS_NAMES.items() if combined & bit)
