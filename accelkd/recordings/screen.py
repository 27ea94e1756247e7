"""A first look at many recordings by whole columns: which of them break no rule for certain.

Nearly all recordings are sound, and need nothing more. The others are checked one by one by the rules themselves
(`accelkd.recordings.validate.recording_errors`, `accelkd.recordings.references.clean_references`), which alone say what
is wrong; so a sound recording that is not recognised here costs time and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

import rust_dsp
from accelkd.home.identifiers import IDENTIFIER
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.labels import LABELS
from accelkd.recordings.limits import ACCEL_NORM_G, RATES_HZ, STARTED_AT_US
from accelkd.recordings.references import INSTANTS_AND_VALUES, REFERENCE_SOURCES

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MARGIN = 2e-5  # of a norm in single precision


@dataclass(frozen=True)
class Screened:
    """What a first look says of each of some recordings."""

    sound: Bools
    end_s: Floats  # from the start of a sound recording to the end of its last stream


def screen(rows: pa.RecordBatch) -> Screened:
    """Look at recordings, `rows` of RECORDING."""
    names = zip(*(rows[name].to_pylist() for name in ("recording_id", "participant_id", "device_id")), strict=True)
    devices = [DEVICES.get(three[-1]) if all(map(IDENTIFIER.fullmatch, three)) else None for three in names]
    sound = np.array([device is not None for device in devices], np.bool_)
    started_us = _numbers(rows["started_at"].cast(pa.int64()))
    sound &= _is_null(rows["started_at"]) | (started_us >= STARTED_AT_US[0]) & (started_us < STARTED_AT_US[1])
    polarity = _numbers(rows["ppg_polarity"])
    sound &= _is_null(rows["ppg_polarity"]) | (polarity == 1) | (polarity == -1)

    ppg, dark, accel = (_Stream(rows, name) for name in ("ppg", "dark", "accel"))
    ppg_channels = _expected([device.ppg_channels if device else None for device in devices], ppg.channels)
    dark_slots = _expected([device.dark_slots if device else None for device in devices], dark.channels)
    sound &= ppg.is_sound & accel.is_sound & (ppg.is_there | accel.is_there)
    sound &= ~ppg.is_there | (ppg.channels == ppg_channels)
    sound &= ~accel.is_there | (accel.channels == 3)
    sound &= dark.is_sound & (dark.channels == np.where(ppg.is_there, dark_slots, 0)) & _has_sound_slots(rows, dark)

    start_s = _numbers(rows["accel_start_s"])
    both = ppg.is_there & accel.is_there
    sound &= np.where(both, (-accel.duration_s < start_s) & (start_s < ppg.duration_s), start_s == 0)
    sound &= _is_in_g(accel, sound)
    sound &= _has_sound_references(rows)
    ends_s = ppg.duration_s, np.where(accel.is_there, start_s + accel.duration_s, 0.0)
    return Screened(sound, np.maximum(*ends_s))


class _Stream:
    """The shapes of a stream of some recordings; one without channels is absent."""

    def __init__(self, rows: pa.RecordBatch, name: str) -> None:
        stream = rows[name]
        channels = stream.values
        first = stream.offsets.to_numpy().astype(np.int64)
        edges = channels.offsets.to_numpy().astype(np.int64)
        lengths = np.append(np.diff(edges), 0)  # an end that no recording reaches
        self.channels: Ints = np.diff(first)
        self.is_there: Bools = self.channels > 0
        inside = np.minimum(first[:-1], len(lengths) - 1)
        self.samples: Ints = np.where(self.is_there, lengths[inside], 0)
        self.first_sample: Ints = edges[np.minimum(inside, len(edges) - 1)]
        self.values = channels.values
        differs = np.append(lengths[1:] != lengths[:-1], False)  # from the next channel
        rate_hz = _numbers(rows[f"{name}_rate_hz"])
        whole = _count(first, differs) - np.where(self.is_there, differs[np.maximum(first[1:] - 1, 0)], 0) == 0
        present = (self.samples > 0) & whole & (rate_hz >= RATES_HZ[0]) & (rate_hz <= RATES_HZ[1])
        absent = ~self.is_there & _is_null(rows[f"{name}_rate_hz"]) & (_is_null(stream) if name == "dark" else True)
        has_nulls = bool(channels.null_count or channels.values.null_count)
        self.is_sound: Bools = (present & self.is_there & ~_is_null(stream) | absent) & (not has_nulls)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.duration_s: Floats = np.where(self.is_there, self.samples / rate_hz, 0.0)


def _has_sound_slots(rows: pa.RecordBatch, dark: _Stream) -> Bools:
    """Whether the instants of dark slots are as many as these, and all within a frame."""
    slots = rows["dark_offsets_s"]
    first, offset_s = _series(slots)
    frame_s = 1 / np.maximum(_numbers(rows["dark_rate_hz"]), RATES_HZ[0])  # of a rate that is sound
    frames_s = np.repeat(frame_s, np.diff(first))
    inside = (offset_s[first[0] : first[-1]] >= 0) & (offset_s[first[0] : first[-1]] < frames_s)
    sound: Bools = (np.diff(first) == dark.channels) & (_is_null(slots) == ~dark.is_there)
    sound &= _count(first - first[0], ~inside) == 0
    return sound


def _is_in_g(accel: _Stream, sound: Bools) -> Bools:
    """Whether more than half of the complete samples of sound accelerations, thus their median too, have such norms."""
    chosen = np.flatnonzero(sound & accel.is_there)
    limits = ACCEL_NORM_G[0] * (1 + _MARGIN), ACCEL_NORM_G[1] * (1 - _MARGIN)
    samples = accel.values.to_numpy(zero_copy_only=False)
    complete, between = rust_dsp.norms_between(
        samples, accel.first_sample[chosen].tolist(), accel.samples[chosen].tolist(), limits
    )
    in_g = np.ones(len(sound), np.bool_)
    in_g[chosen] = (2 * between > complete) | (complete == 0)
    return in_g


def _has_sound_references(rows: pa.RecordBatch) -> Bools:
    sound = np.ones(len(rows), np.bool_)
    any_label = np.zeros(len(rows), np.bool_)
    for name in LABELS:
        value, is_null = _numbers(rows[name]), _is_null(rows[name])
        sound &= is_null | (value >= 0) & (value < np.inf)
        any_label |= ~is_null
    for instants, values in INSTANTS_AND_VALUES:
        first, time_s = _series(rows[instants])
        is_null = _is_null(rows[instants])
        later = np.append(time_s[1:] > time_s[:-1], True)
        later[first[1:] - 1] = True  # the last of each has no next one
        wrong = ~(np.isfinite(time_s) & later)
        sound &= is_null | (_count(first, wrong) == 0)
        any_label |= ~is_null
        if values is not None:
            of_value, value = _series(rows[values])
            sound &= (np.diff(of_value) == np.diff(first)) & (_is_null(rows[values]) == is_null)
            sound &= _count(of_value, ~(np.isfinite(value) & (value > 0))) == 0
    first, event_s = _series(rows["event_s"])
    sound &= _count(first, ~np.isfinite(event_s)) == 0
    sources = rows["reference_source"]
    known = pc.is_in(sources, value_set=pa.array(REFERENCE_SOURCES)).to_numpy(zero_copy_only=False)
    sound &= known | (_is_null(sources) & ~any_label)
    return sound


def _expected(numbers: list[int | None], channels: Ints) -> Ints:
    """Expected numbers of channels; those that there are where any is expected."""
    return np.array(
        [own if number is None else number for number, own in zip(numbers, channels, strict=True)], np.int64
    )


def _series(column: pa.ListArray) -> tuple[Ints, Floats]:
    """Edges of the series of each recording among all their values, and these; NaN for null."""
    return column.offsets.to_numpy().astype(np.int64), _numbers(column.values)


def _count(edges: Ints, marks: Bools) -> Ints:
    """Number of marks between each two edges."""
    return np.diff(np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])[edges])


def _numbers(column: pa.Array) -> Floats:
    """Numbers, NaN for null."""
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _is_null(column: pa.Array) -> Bools:
    nulls: Bools = column.is_null().to_numpy(zero_copy_only=False)
    return nulls
