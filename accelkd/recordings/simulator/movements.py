"""Small movements: events that both the accelerometer and the optical channels see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelkd.recordings.simulator.circle import SECONDS
from accelkd.recordings.simulator.streams import F32, F64


@dataclass(frozen=True)
class Course:
    """One event as samples: its three axes `[3, samples]`, of unit size."""

    recording: int
    samples: slice
    axes: F32


@dataclass(frozen=True)
class Movements:
    """Events: arrays `[events]`, `knots` a list of `[3, knots]`."""

    recording: npt.NDArray[np.intp]
    start_s: F64
    duration_s: F64
    size_mg: F64
    knots: list[F32]  # course of the three axes before its envelope, at equal steps

    def courses(self, rate_hz: int) -> list[Course]:
        """Every event's samples."""
        courses = []
        for event, recording in enumerate(self.recording):
            start = self.start_s[event] * rate_hz
            length = self.duration_s[event] * rate_hz
            first = int(np.ceil(start))
            part = (np.arange(first, min(int(start + length), SECONDS * rate_hz)) - start) / length
            knots = self.knots[event]
            at = np.linspace(0.0, 1.0, knots.shape[1])
            course = np.square(np.sin(np.pi * part)) * np.stack([np.interp(part, at, axis) for axis in knots])
            courses.append(Course(int(recording), slice(first, first + len(part)), course.astype(np.float32)))
        return courses


def draw_movements(rng: np.random.Generator, recordings: int, per_min: float, size_mg: float) -> Movements:
    """Movements of 0.3 to 2.3 s at random times of each recording."""
    recording = np.repeat(np.arange(recordings), rng.poisson(per_min * SECONDS / 60.0, recordings))
    events = len(recording)
    duration_s = 0.3 + 2.0 * rng.random(events)
    return Movements(
        recording=recording,
        start_s=SECONDS * rng.random(events),
        duration_s=duration_s,
        size_mg=size_mg * np.exp(0.8 * rng.standard_normal(events)),
        knots=[rng.standard_normal((3, max(3, int(5 * s)) + 1)).astype(np.float32) for s in duration_s],
    )
