"""Raw samples of one sensor to z-scored 60 s windows, by the same steps as the segments of an arrival batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelkd.api.arrays import raw_stream
from accelkd.home.settings import MotionGate
from accelkd.recordings.devices import DEVICES, Device
from accelkd.recordings.limits import RATES_HZ
from accelkd.recordings.validate import accel_unit_error
from accelkd.segments.schema import ACCEL_AXES, DURATION_S, SAMPLES
from accelkd.segments.store import Modality
from accelkd.segments.windows import (
    CHUNK_SIZE,
    Raw,
    device_plan,
    motion_reason,
    preprocess_windows,
    window_samples,
)


@dataclass(frozen=True, eq=False)
class Windows:
    """The 60 s windows of one recording, z-scored: one row for each window, usable or not.

    - `modality`: "accel" or "ppg".
    - `signals` `[windows, channels, 3840]` float32, at 64 Hz: in a usable window each good channel has mean 0 and
      standard deviation 1, and a bad one is zeros; a window that is not usable is NaN. The numbers are those of the
      segment store, rounded to float16 as it holds them.
    - `offset_s` `[windows]` float64: start of each window, in seconds after the first sample.
    - `status` `[windows, channels]` uint8: 0 for a good channel, else bits: 2 a gap over 0.25 s, 4 more than 2 % of the
      samples missing, 8 flat.
    - `reasons`: of each window, why it is not usable, or None: `motion` or `accel_missing` (the motion gate), or
      `accel_gap`, `accel_missing`, `accel_flat`, `ppg_gap`, `ppg_missing`, `ppg_flat`.
    """

    modality: Modality
    signals: npt.NDArray[np.float32]
    offset_s: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint8]
    reasons: tuple[str | None, ...]

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """`[windows]`: True where the window may be embedded."""
        return np.array([reason is None for reason in self.reasons], np.bool_)

    def __len__(self) -> int:
        return len(self.reasons)

    def __repr__(self) -> str:
        bad = Counter(reason for reason in self.reasons if reason is not None)
        why = "".join(f", {count} {reason}" for reason, count in bad.most_common())
        return f"Windows({self.modality}: {len(self)} of {DURATION_S} s, {len(self) - bad.total()} usable{why})"


def preprocess(
    *,
    accel: npt.ArrayLike | None = None,
    ppg: npt.ArrayLike | None = None,
    rate_hz: float,
    hop_s: float = 60.0,
    start_s: float = 0.0,
    motion_gate: MotionGate | None = None,
    device: str | None = None,
    valid_range: tuple[float, float] | None = None,
    led_offsets_s: Sequence[float] = (),
    dark: npt.ArrayLike | None = None,
    dark_rate_hz: float | None = None,
    dark_offsets_s: Sequence[float] | None = None,
) -> Windows:
    """Cut one recording of acceleration or of PPG into 60 s windows and z-score them, as the pipeline does.

    Samples are `[channels, samples]`, of NumPy or torch, of any dtype that holds real numbers, for at least 60 s.
    `accel` has the rows x, y and z in g; `ppg` has one row for each optical channel, in counts or the device's unit (of
    one channel also `[samples]`). A list or tuple of columns, one for each channel, is taken too: columns of pandas,
    Polars or PyArrow. Missing samples are NaN or masked (`numpy.ma`); up to 0.25 s in one piece and 2 % of a window are
    filled.

    - `rate_hz`: sampling rate, 20 to 2048 Hz.
    - `hop_s`: from one window to the next; below 60 they overlap.
    - `start_s`: where the first window starts, in seconds after the first sample. For windows of PPG and acceleration
      that cover the same minutes, give the later stream 0 and the other one how much later that starts.
    - `motion_gate`: for acceleration. A window is usable if the 95th percentile ("strict", the default) or the median
      ("loose") of the spread of acceleration within a second is below 0.05 g; "off" lets all pass. PPG tells nothing of
      motion: use `usable` of the same minutes' acceleration beside its own.
    - `device`: a name in the device table (docs/devices.md), for its range and the instants of its LEDs. For others
      `valid_range`: samples at or beyond (low, high) count as missing; `led_offsets_s`: the instant of each PPG channel
      inside its frame.
    - `dark`: dark or ambient slots of the PPG, `[slots, samples]` or `[samples]`, which are subtracted; `dark_rate_hz`
      is `rate_hz` unless given; `dark_offsets_s`: the instant of each slot inside its frame, one at 0 unless given.

    Whether the sensor was worn is not judged here, as it is for the segments of a batch: that takes PPG as well.

    Every whole window has a row in the result; `usable` and `reasons` say which can be embedded, and why others cannot.
    The steps, in Rust, are those of docs/signal-processing.md: dark subtraction, resampling, band-pass, z-score.

    Raises ValueError or TypeError that names the argument and the rule that it breaks: an ambiguous shape, a rate that
    cannot be resampled, acceleration that is not in g, less than one window.

        >>> import accelkd, numpy as np
        >>> noise = np.random.default_rng(0).standard_normal((3, 50 * 180))
        >>> accel = np.array([[0.1], [0.2], [0.97]]) + 0.002 * noise  # a wrist at rest: three minutes at 50 Hz
        >>> accel[1, 3500:3600] = np.nan  # two seconds lost
        >>> windows = accelkd.preprocess(accel=accel, rate_hz=50)
        >>> windows
        Windows(accel: 3 of 60 s, 2 usable, 1 accel_gap)
        >>> windows.signals[windows.usable].shape
        (2, 3, 3840)
        >>> windows.offset_s, windows.reasons
        (array([  0.,  60., 120.]), (None, 'accel_gap', None))
    """
    if (accel is None) == (ppg is None):
        raise ValueError("give either accel or ppg: a call takes one of the two")
    if not 0 <= start_s < np.inf:
        raise ValueError(f"start_s must be 0 or more seconds after the first sample, found {start_s}")
    if dark is None and not (dark_rate_hz is None and dark_offsets_s is None):
        raise ValueError("dark_rate_hz and dark_offsets_s describe dark, which is not given")
    rate_hz = _rate("rate_hz", rate_hz)
    slot_offsets_s = (0.0,) if dark_offsets_s is None else tuple(map(float, dark_offsets_s))
    if accel is not None:
        if dark is not None or len(led_offsets_s):
            raise ValueError("dark and led_offsets_s belong to ppg, and accel is given")
        streams = {"accel": _Stream(_acceleration(accel), rate_hz)}
    else:
        if motion_gate is not None:
            raise ValueError("motion_gate is for accel: PPG tells nothing of motion")
        streams = {"ppg": _Stream(raw_stream("ppg", ppg), rate_hz)}
        _check_inside_frame("led_offsets_s", led_offsets_s, rate_hz)
    if dark is not None:
        slots = _Stream(
            raw_stream("dark", dark), rate_hz if dark_rate_hz is None else _rate("dark_rate_hz", dark_rate_hz)
        )
        _check_inside_frame("dark_offsets_s", slot_offsets_s, slots.rate_hz)
        if len(slot_offsets_s) != len(slots.samples):
            raise ValueError(f"dark_offsets_s has {len(slot_offsets_s)} instants, dark has {len(slots.samples)} slots")
        streams["dark"] = slots
    sensor = _sensor(device, streams, valid_range, led_offsets_s)
    return _windows(streams, sensor, slot_offsets_s, hop_s, float(start_s), motion_gate or "strict")


@dataclass(frozen=True)
class _Stream:
    """Raw samples `[rows, samples]`, and how often they come."""

    samples: Raw
    rate_hz: float

    def windows(self, starts: npt.NDArray[np.int64]) -> list[Raw]:
        return [window_samples(self.samples, start, self.rate_hz) for start in starts.tolist()]

    def __str__(self) -> str:
        return f"{self.samples.shape[1] / self.rate_hz:.3f} s"


def _windows(
    streams: Mapping[str, _Stream],
    sensor: Device,
    dark_offsets_s: tuple[float, ...],
    hop_s: float,
    start_s: float,
    gate: MotionGate,
) -> Windows:
    """The windows of "accel", or of "ppg" and "dark" where there is one."""
    modality: Modality = "ppg" if "ppg" in streams else "accel"
    samples, rate_hz = streams[modality].samples, streams[modality].rate_hz
    dark = streams.get("dark")
    timing = (None, dark_offsets_s) if dark is None else (dark.rate_hz, dark_offsets_s)
    plan = device_plan(
        sensor, rate_hz if modality == "ppg" else None, rate_hz if modality == "accel" else None, *timing
    )
    # A window lies where both modalities have samples: the one that is given stands for the other too
    cut = device_plan(sensor, rate_hz, rate_hz, *timing).windows(
        samples,
        samples,
        dark=None if dark is None else dark.samples,
        hop_s=float(hop_s),
        accel_start_s=start_s if modality == "ppg" else -start_s,
        gate="off" if modality == "ppg" else gate,
    )
    count = len(cut.offset_s)
    if not count:
        lasts = " and ".join(f"{name} lasts {stream}" for name, stream in streams.items())
        raise ValueError(
            f"no whole window of {DURATION_S} s, of whose end 0.25 s may be missing, from {start_s:g} s on: {lasts}"
        )
    starts = {name: getattr(cut, f"{name}_start") for name in streams}
    signals = np.empty((count, len(samples), SAMPLES), np.float32)
    status = np.empty(signals.shape[:2], np.uint8)
    reasons = [motion_reason(*motion) for motion in zip(cut.kept.tolist(), cut.motion_p95_g.tolist(), strict=True)]
    for first in range(0, count, CHUNK_SIZE):
        rows = slice(first, first + CHUNK_SIZE)
        raw = {name: stream.windows(starts[name][rows]) for name, stream in streams.items()}
        done, unfit = preprocess_windows(plan, **raw)
        signals[rows] = getattr(done, modality).astype(np.float16)
        status[rows] = getattr(done, f"{modality}_status")
        reasons[rows] = [motion or signal for motion, signal in zip(reasons[rows], unfit, strict=True)]
    signals[[reason is not None for reason in reasons]] = np.nan
    offset_s = cut.offset_s + (start_s if modality == "accel" else 0.0)
    return Windows(modality, signals, offset_s, status, tuple(reasons))


def _rate(name: str, rate_hz: float) -> float:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise ValueError(f"{name} must be {RATES_HZ[0]:g} to {RATES_HZ[1]:g} Hz, found {rate_hz}")
    return float(rate_hz)


def _acceleration(samples: npt.ArrayLike) -> Raw:
    stream = raw_stream("accel", samples)
    if len(stream) != ACCEL_AXES:
        raise ValueError(f"accel must be [{ACCEL_AXES}, samples], the axes x, y and z, found {list(stream.shape)}")
    if not np.isfinite(stream).any():
        raise ValueError("accel holds not a single sample")
    if error := accel_unit_error(stream):
        raise ValueError(f"accel must be in g, with gravity: {error}")
    return stream


def _sensor(
    device: str | None,
    streams: Mapping[str, _Stream],
    valid_range: tuple[float, float] | None,
    led_offsets_s: Sequence[float],
) -> Device:
    """The row of the device table, or a device of what the caller says. Raises ValueError where the two do not fit."""
    rows = {name: len(stream.samples) for name, stream in streams.items()}
    channels = rows.get("ppg", 0)
    if device is None:
        low, high = (-np.inf, np.inf) if valid_range is None else map(float, valid_range)
        if not low < high:
            raise ValueError(f"valid_range must be (low, high) with low < high, found ({low}, {high})")
        if len(led_offsets_s) not in (0, channels):
            raise ValueError(f"led_offsets_s has {len(led_offsets_s)} instants, ppg has {channels} channels")
        return Device("", "", channels, "", tuple(map(float, led_offsets_s)), (low, high), (low, high))
    if device not in DEVICES:
        raise ValueError(f"device {device!r} is not in the device table: {', '.join(sorted(DEVICES))}")
    if valid_range is not None or len(led_offsets_s):
        raise ValueError("the device table has valid_range and led_offsets_s of a device: give them, or the device")
    known = DEVICES[device]
    given_rows = (channels, rows.get("dark", 0))
    wanted_rows = (known.ppg_channels, known.dark_slots)
    if "ppg" in streams and any(
        wanted not in (None, given) for wanted, given in zip(wanted_rows, given_rows, strict=True)
    ):
        raise ValueError(
            f"{device} has {known.ppg_channels} PPG channels and {known.dark_slots} dark slots, "
            f"found {channels} and {rows.get('dark', 0)}"
        )
    return known


def _check_inside_frame(name: str, offsets_s: Sequence[float], rate_hz: float) -> None:
    if not all(0 <= offset < 1 / rate_hz for offset in offsets_s):
        raise ValueError(f"{name} {list(offsets_s)} are not all inside a frame of {1 / rate_hz:.6f} s")
