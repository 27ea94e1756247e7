"""What preprocessed windows become: signals in half precision, their quality, labels and the rate from acceleration.

Windows come a part at a time, while their signals in single precision are in the processor's cache.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import rust_dsp
from accelkd.recordings.labels import LABELS
from accelkd.segments.schema import SEGMENT
from accelkd.segments.store import MODALITIES, Modality

# Autocorrelation of the recoil: from here on its rate is that of the heart sounds in 99 % of cases (docs/sensors.md)
MIN_PULSE_PEAK = 0.5
_LABEL_FACTS = ("label_channel", "label_agreement", "label_template_correlation", "label_coverage")
_QUALITY = ("status", "level", "ac_level", "missing")


def estimate(
    done: rust_dsp.Preprocessed, rows: npt.NDArray[np.intp], polarity: Literal[1, -1] | None
) -> pa.RecordBatch:
    """Columns of SEGMENT for `rows` of preprocessed windows: labels from PPG, the classical rate from acceleration."""
    columns = _label(_chosen(done.ppg, rows), done.ppg_status[rows], polarity)
    columns |= _recoil_rates(_chosen(done.accel, rows), done.accel_ac_level[rows])
    return pa.RecordBatch.from_arrays(
        [values.cast(SEGMENT[name].type) for name, values in columns.items()], names=list(columns)
    )


def has_pulse(estimated: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Of each window, whether PPG or acceleration show a pulse beyond doubt."""
    peak = estimated["accel_hr_peak"].to_numpy(zero_copy_only=False)  # NaN for null
    shows: npt.NDArray[np.bool_] = estimated["label_good"].to_numpy(zero_copy_only=False) | (peak >= MIN_PULSE_PEAK)
    return shows


class Chunk:
    """Signals, quality and estimates of up to `size` segments of one kind, collected a part at a time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows = 0
        self._signals: dict[Modality, npt.NDArray[np.float16]] = {}  # with room for all
        self._quality: dict[str, list[npt.NDArray[Any]]] = {}
        self._estimated: list[pa.RecordBatch] = []

    def add(self, done: rust_dsp.Preprocessed, rows: npt.NDArray[np.intp], estimated: pa.RecordBatch) -> None:
        """Add `rows` of preprocessed windows, with what was estimated from these."""
        for modality in MODALITIES:
            z = _chosen(getattr(done, modality), rows)
            if modality not in self._signals:
                self._signals[modality] = np.empty((self._size, *z.shape[1:]), np.float16)
            rust_dsp.to_half(z, out=self._signals[modality][self._rows : self._rows + len(z)])
            for fact in _QUALITY:
                name = f"{modality}_{fact}"
                self._quality.setdefault(name, []).append(getattr(done, name)[rows])
        self._estimated.append(estimated)
        self._rows += len(rows)

    def columns(self) -> dict[str, pa.Array]:
        """By name: the columns of SEGMENT that signals and their arithmetic give."""
        estimated = pa.concat_batches(self._estimated)
        columns = dict(zip(estimated.schema.names, estimated.columns, strict=True))
        for name, parts in self._quality.items():
            columns[name] = _lists(np.concatenate(parts))
        for modality, halves in self._signals.items():
            columns[modality] = _lists(halves[: self._rows])
        return columns


def _chosen(values: npt.NDArray[np.float32], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Rows of an array, in their order; not a copy where it is all of them."""
    return values if len(rows) == len(values) else values[rows]


def _lists(values: npt.NDArray[Any]) -> pa.ListArray:
    """Rows of an array as lists."""
    edges = np.arange(len(values) + 1, dtype=np.int32) * int(np.prod(values.shape[1:]))
    return pa.ListArray.from_arrays(pa.array(edges), pa.array(values.ravel()))


def _label(
    ppg: npt.NDArray[np.float32], status: npt.NDArray[np.uint8], polarity: Literal[1, -1] | None
) -> dict[str, pa.Array]:
    """Label columns of segments with `ppg` [segments, channels, 3840]: the best usable channel of each.

    That is the one with the highest template correlation among those that pass the quality gate, or among all. Without
    PPG there are none.
    """
    if not ppg.shape[1]:
        absent = {name: pa.nulls(len(ppg)) for name in (*LABELS, *_LABEL_FACTS)}
        return {**absent, "label_good": pa.array(np.zeros(len(ppg), np.bool_))}
    segment, channel = np.nonzero(status == 0)
    signals = ppg.reshape(-1, ppg.shape[2])
    labels = rust_dsp.label(_chosen(signals, segment * ppg.shape[1] + channel), polarity=polarity)
    order = np.lexsort((channel, -labels.template_correlation, ~labels.good, segment))
    best = order[np.unique(segment[order], return_index=True)[1]]
    good = labels.good[best]
    return {
        **{name: _finite(np.where(good, getattr(labels, name)[best], np.nan)) for name in LABELS},
        "label_channel": pa.array(channel[best]),
        "label_agreement": pa.array(labels.agreement[best]),
        "label_template_correlation": pa.array(labels.template_correlation[best]),
        "label_coverage": pa.array(labels.coverage[best]),
        "label_good": pa.array(good),
    }


def _recoil_rates(accel: npt.NDArray[np.float32], scale: npt.NDArray[np.float64]) -> dict[str, pa.Array]:
    """The classical estimate of the heart rate from `accel` [segments, axes, 3840]; null without acceleration."""
    names = ("accel_hr_bpm", "accel_hr_peak")
    if not accel.shape[1]:
        return {name: pa.nulls(len(accel)) for name in names}
    return dict(zip(names, map(_finite, rust_dsp.recoil_rates(accel, scale=scale)), strict=True))


def _finite(values: npt.NDArray[np.float64]) -> pa.Array:
    """Numbers, null (in memory 0) where they are not finite."""
    is_finite = np.isfinite(values)
    return pa.array(np.where(is_finite, values, 0.0), mask=~is_finite)
