"""Faults of a device on a wrist, in a small share of recordings, so that quarantine is exercised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from accelkd.recordings.simulator.circle import SECONDS
from accelkd.recordings.simulator.optics import CHANNELS, FULL_SCALE
from accelkd.recordings.simulator.streams import F32, F64, white_noise

Fault = Literal["saturated", "dropped", "cut_short", "restless"]
FAULTS: tuple[Fault, ...] = ("saturated", "dropped", "cut_short", "restless")


def draw_faults(rng: np.random.Generator, recordings: int, share: float) -> list[Fault | None]:
    """The fault of each recording, or None."""
    faulty = rng.random(recordings) < share
    kinds = rng.integers(len(FAULTS), size=recordings)
    return [FAULTS[kind] if bad else None for bad, kind in zip(faulty, kinds, strict=True)]


def draw_duration(rng: np.random.Generator, faults: Sequence[Fault | None]) -> F64:
    """Seconds that each recording lasts: 60, or 15 to 50 where it was cut short."""
    cut_s = 15.0 + 35.0 * rng.random(len(faults))
    return np.where([fault == "cut_short" for fault in faults], cut_s, float(SECONDS))


def damage(rng: np.random.Generator, fault: Fault | None, light: F32, accel: F32, rate_hz: int) -> None:
    """Apply a fault to one recording's `light` `[CHANNELS + 1, samples]` and `accel` `[3, samples]`, in place."""
    if fault == "saturated":  # the strap loosens and light floods some of the photodiodes
        for _ in range(rng.integers(1, 4)):
            stretch = _stretch(rng, 2.0, 8.0, rate_hz)
            light[: rng.integers(1, CHANNELS + 1), stretch] += np.float32(FULL_SCALE)
    elif fault == "dropped":  # packets lost on the air carry all streams
        for _ in range(rng.integers(1, 4)):
            stretch = _stretch(rng, 0.5, 3.0, rate_hz)
            light[:, stretch] = np.nan
            accel[:, stretch] = np.nan
    elif fault == "restless":  # not at rest: above the motion gate of 0.05 g
        stretch = _stretch(rng, 12.0, 40.0, rate_hz)
        steps = -(-light.shape[1] * 5 // rate_hz)
        at = np.arange(light.shape[1]) * (5.0 / rate_hz)
        swing = [np.interp(at, np.arange(steps + 1), white_noise(rng, (steps + 1,))) for _ in range(3)]
        for axis in range(3):
            accel[axis, stretch] += (0.2 * swing[axis][stretch]).astype(np.float32)
        light[:CHANNELS, stretch] += (3_000.0 * swing[0][stretch]).astype(np.float32)


def _stretch(rng: np.random.Generator, min_s: float, max_s: float, rate_hz: int) -> slice:
    length_s = min_s + (max_s - min_s) * rng.random()
    start_s = (SECONDS - length_s) * rng.random()
    return slice(int(start_s * rate_hz), int((start_s + length_s) * rate_hz))
