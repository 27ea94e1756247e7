from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "ACCEL_BAND_HZ",
    "FIR_HALF",
    "FLAT",
    "KAISER_BETA",
    "MAX_GAP_S",
    "MAX_MISSING",
    "MAX_STILL_G",
    "MIRROR",
    "PPG_BAND_HZ",
    "Labels",
    "Plan",
    "Preprocessed",
    "Segment",
    "Stream",
    "Variability",
    "Windows",
    "band_pass",
    "label",
    "motion",
    "norms_between",
    "parquet_pages",
    "read_pages",
    "recoil_rate",
    "recoil_rates",
    "to_half",
    "variability",
]

# The rules of preprocessing that are numbers (docs/signal-processing.md), for who carries them out elsewhere.
PPG_BAND_HZ: Final[tuple[float, float]]
ACCEL_BAND_HZ: Final[tuple[float, float]]
MAX_GAP_S: Final[float]  # longest run of invalid samples that is filled
MAX_MISSING: Final[float]  # largest share of invalid samples of a window
MAX_STILL_G: Final[float]  # motion below which the gate keeps a window
FIR_HALF: Final[int]  # half length of the resampling filter, in units of max(up, down)
KAISER_BETA: Final[float]  # of its window
MIRROR: Final[int]  # samples at each end that the band-pass mirrors
FLAT: Final[float]  # a row is flat up to this ratio of its AC level to its largest magnitude

# Raw samples: int16, int32, float32 or float64, every row contiguous; read in place.
_Raw: TypeAlias = npt.NDArray[np.int16] | npt.NDArray[np.int32] | npt.NDArray[np.float32] | npt.NDArray[np.float64]
# A batch of N recordings: one array [N, rows, samples], or N arrays [rows, samples] whose lengths may differ.
_Batch: TypeAlias = _Raw | Sequence[_Raw]
_Z: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16]

@final
class Plan:
    """Filters and schedules of one device: created once, immutable, shared by threads.

    Rates are in Hz, 20 to 2048 (`dark_rate_hz`: by default that of the PPG). Slot `k` of frame `n` is sampled at
    `n / rate + offset[k]` seconds; `led_offsets_s` has one entry per PPG channel (empty: any number, all at 0),
    `dark_offsets_s` one per dark slot (by default one at 0). A sample is valid if it is finite and strictly inside
    its range. `instruction_set` is "portable", "avx2" or "avx512"; None selects the widest of this processor.

    Raises ValueError for an invalid device or an instruction set that the processor lacks.
    """

    def __new__(
        cls,
        *,
        ppg_rate_hz: float | None = None,
        accel_rate_hz: float | None = None,
        dark_rate_hz: float | None = None,
        led_offsets_s: Sequence[float] = (),
        dark_offsets_s: Sequence[float] = ...,
        ppg_range: tuple[float, float] = ...,
        accel_range: tuple[float, float] = ...,
        instruction_set: Literal["portable", "avx2", "avx512"] | None = None,
    ) -> Plan: ...
    @property
    def instruction_set(self) -> Literal["portable", "avx2", "avx512"]:
        """The instruction set that the plan runs on."""

    def preprocess(
        self,
        ppg: _Batch | None,
        dark: _Batch | None = None,
        accel: _Batch | None = None,
        *,
        dtype: Literal["float32", "float16"] = "float32",
        threads: int = 0,
        ppg_out: _Z | None = None,
        accel_out: _Z | None = None,
    ) -> Preprocessed:
        """Z-score the first 60 s of N recordings: ppg [N, C, T], dark [N, D, Td], accel [N, 3, Ta] in g.

        Invalid samples and a missing end count as gaps: runs of up to 0.25 s, together up to 2 % of the
        window, are filled; otherwise the row is rejected. `threads` 0 means all cores; the result does not depend on
        it. `ppg_out` and `accel_out` are C-contiguous arrays [N, rows, 3840] of `dtype` to write to instead of new
        ones. The interpreter lock is released: no other thread may modify the arrays during the call.

        Raises ValueError or TypeError that names the recording and the stream whose shape or dtype is wrong.
        """

    def windows(
        self,
        ppg: _Raw | None,
        accel: _Raw | None = None,
        *,
        dark: _Raw | None = None,
        hop_s: float = 60.0,
        accel_start_s: float = 0.0,
        gate: Literal["strict", "loose", "off"] = "strict",
    ) -> Windows:
        """Cut one long recording, ppg [C, T] and accel [3, Ta] in g, into 60 s windows that are `hop_s` apart.

        A modality that the recording lacks is None. `accel_start_s` is the instant of the first accelerometer sample,
        in seconds after the start, which is the first PPG frame, or without PPG the first accelerometer sample. The
        first window starts when all streams have started; the last may lack up to 0.25 s of its end. A window is kept
        if the 95th percentile ("strict") or the median ("loose") of its motion is below 0.05 g; without acceleration
        all are.

        Raises ValueError for a bad shape, hop or gate, without any stream, or for a plan without the rate of one.
        """

@final
class Preprocessed:
    """Result of `Plan.preprocess`; a stream that was not given has no rows."""

    @property
    def ppg(self) -> npt.NDArray[Any]:
        """Z-scored PPG at 64 Hz, [N, C, 3840] of the requested `dtype`; zeros where the status is not 0."""

    @property
    def accel(self) -> npt.NDArray[Any]:
        """Z-scored acceleration at 64 Hz, [N, 3, 3840]; zeros where the status is not 0."""

    @property
    def ppg_status(self) -> npt.NDArray[np.uint8]:
        """[N, C]: 0 good, or bits: 2 a gap over 0.25 s, 4 over 2 % missing, 8 flat (1 is reserved)."""

    @property
    def ppg_level(self) -> npt.NDArray[np.float64]:
        """[N, C]: mean before detrending, in raw units; NaN if gaps reject the row."""

    @property
    def ppg_ac_level(self) -> npt.NDArray[np.float64]:
        """[N, C]: standard deviation after the band-pass, in raw units; NaN if gaps reject the row."""

    @property
    def ppg_missing(self) -> npt.NDArray[np.float64]:
        """[N, C]: fraction of invalid samples."""

    @property
    def accel_status(self) -> npt.NDArray[np.uint8]:
        """[N, 3]: as `ppg_status`."""

    @property
    def accel_level(self) -> npt.NDArray[np.float64]:
        """[N, 3]: as `ppg_level`, in g."""

    @property
    def accel_ac_level(self) -> npt.NDArray[np.float64]:
        """[N, 3]: as `ppg_ac_level`, in g."""

    @property
    def accel_missing(self) -> npt.NDArray[np.float64]:
        """[N, 3]: fraction of invalid samples."""

@final
class Windows:
    """Result of `Plan.windows`: one entry per window, in order of time."""

    @property
    def offset_s(self) -> npt.NDArray[np.float64]:
        """Start, in seconds after the start of the recording."""

    @property
    def ppg_start(self) -> npt.NDArray[np.int64]:
        """Index of the window's first PPG frame: the one nearest to `offset_s`."""

    @property
    def dark_start(self) -> npt.NDArray[np.int64]:
        """Index of the window's first dark frame."""

    @property
    def accel_start(self) -> npt.NDArray[np.int64]:
        """Index of the window's first accelerometer sample."""

    @property
    def motion_median_g(self) -> npt.NDArray[np.float64]:
        """Median, over whole seconds, of the spread of acceleration (see `motion`); NaN without acceleration."""

    @property
    def motion_p95_g(self) -> npt.NDArray[np.float64]:
        """95th percentile, over whole seconds, of the spread of acceleration; NaN without acceleration."""

    @property
    def lies_still(self) -> npt.NDArray[np.bool_]:
        """Whether the means of whole seconds move no more than the noise of a sensor that nobody wears.

        Every axis stays within 3 mg, or within six standard errors of a noisy sensor's second means. After the non-wear
        rule of van Hees et al., PLoS ONE 6(7):e22922, 2011, for one minute. False without acceleration.
        """

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Whether the window passes the motion gate."""

@final
class Stream:
    """Samples of one device to 60 s segments, as they come: equal to `Plan.windows` and `Plan.preprocess`, bit for bit.

    A stream has acceleration (three axes, in g), PPG or both: those that the plan has a rate for. `ppg_channels` is the
    number of PPG rows (None: one per LED offset of the plan, or one); `dark` says that dark slots come beside them.
    Segments start `hop_s` apart; `gate` and `accel_start_s` are those of `Plan.windows`. One signal may be ahead of
    another by `slack_s`, 1 to 3600. Memory is reserved here and does not grow.

    Raises ValueError for settings that do not fit the plan.
    """

    def __new__(
        cls,
        plan: Plan,
        *,
        hop_s: float = 60.0,
        gate: Literal["strict", "loose", "off"] = "strict",
        ppg_channels: int | None = None,
        dark: bool = False,
        accel_start_s: float = 0.0,
        slack_s: float = 5.0,
    ) -> Stream: ...
    @property
    def memory_bytes(self) -> int:
        """Memory of the stream: raw samples of a window and of the slack, and what the arithmetic needs."""

    def push(
        self,
        *,
        accel: npt.NDArray[np.float32] | None = None,
        ppg: npt.NDArray[np.float32] | None = None,
        dark: npt.NDArray[np.float32] | None = None,
    ) -> list[Segment]:
        """Push the next samples of each signal, [rows, samples] of any length, and return the segments they finish.

        NaN marks a lost sample. The interpreter lock is released while segments are computed.

        Raises ValueError or TypeError for a wrong shape or dtype, a signal that the stream does not have or that would
        be further ahead of another one than `slack_s`, and after `end`. Nothing is taken then.
        """

    def gap(self, *, accel: int = 0, ppg: int = 0, dark: int = 0) -> list[Segment]:
        """Push so many lost samples of each signal: `push` of NaN, without the arrays."""

    def end(self) -> list[Segment]:
        """Say that no sample follows, and return the last segments, which may lack up to 0.25 s of their end."""

@final
class Segment:
    """One finished segment of a `Stream`. A signal that the stream does not have has no rows, and its start is 0."""

    @property
    def number(self) -> int:
        """0 for the first segment of the stream."""

    @property
    def offset_s(self) -> float:
        """Start, in seconds after the first PPG frame, or without PPG after the first accelerometer sample."""

    @property
    def accel_start(self) -> int:
        """Index of the first accelerometer sample, counted from the start of the stream."""

    @property
    def ppg_start(self) -> int:
        """Index of the first PPG frame."""

    @property
    def dark_start(self) -> int:
        """Index of the first dark frame; without dark slots that of the PPG."""

    @property
    def motion_median_g(self) -> float:
        """As `Windows.motion_median_g`."""

    @property
    def motion_p95_g(self) -> float:
        """As `Windows.motion_p95_g`."""

    @property
    def lies_still(self) -> bool:
        """As `Windows.lies_still`."""

    @property
    def kept(self) -> bool:
        """Whether the segment passes the motion gate."""

    @property
    def reason(self) -> str | None:
        """Why the segment should not be given to a model, such as "motion" or "accel_gap"; None where it may."""

    @property
    def hr_bpm(self) -> float:
        """Heart rate from the acceleration: `recoil_rates` of `accel`, scaled by `accel_ac_level`; NaN: none."""

    @property
    def hr_peak(self) -> float:
        """How sure that is, from 0 to 1."""

    @property
    def accel(self) -> npt.NDArray[np.float32]:
        """Z-scored acceleration at 64 Hz, [3, 3840]; zeros where the status is not 0."""

    @property
    def accel_status(self) -> npt.NDArray[np.uint8]:
        """[3]: as `Preprocessed.accel_status`."""

    @property
    def accel_level(self) -> npt.NDArray[np.float64]:
        """[3]: as `Preprocessed.accel_level`."""

    @property
    def accel_ac_level(self) -> npt.NDArray[np.float64]:
        """[3]: as `Preprocessed.accel_ac_level`."""

    @property
    def accel_missing(self) -> npt.NDArray[np.float64]:
        """[3]: as `Preprocessed.accel_missing`."""

    @property
    def ppg(self) -> npt.NDArray[np.float32]:
        """Z-scored PPG at 64 Hz, [C, 3840]; zeros where the status is not 0."""

    @property
    def ppg_status(self) -> npt.NDArray[np.uint8]:
        """[C]: as `Preprocessed.ppg_status`."""

    @property
    def ppg_level(self) -> npt.NDArray[np.float64]:
        """[C]: as `Preprocessed.ppg_level`."""

    @property
    def ppg_ac_level(self) -> npt.NDArray[np.float64]:
        """[C]: as `Preprocessed.ppg_ac_level`."""

    @property
    def ppg_missing(self) -> npt.NDArray[np.float64]:
        """[C]: as `Preprocessed.ppg_missing`."""

@final
class Labels:
    """Result of `label`: one entry per segment."""

    @property
    def polarity(self) -> npt.NDArray[np.int8]:
        """[N]: +1 if pulses rise steeply, -1 if they fall steeply; as given or as estimated."""

    @property
    def hr_bpm(self) -> npt.NDArray[np.float64]:
        """[N]: heart rate; NaN with fewer than 5 intervals."""

    @property
    def sdnn_ms(self) -> npt.NDArray[np.float64]:
        """[N]: standard deviation of the intervals; NaN with fewer than 20 intervals, 15 pairs or 70 % coverage."""

    @property
    def rmssd_ms(self) -> npt.NDArray[np.float64]:
        """[N]: root mean square of successive differences; NaN as `sdnn_ms`."""

    @property
    def agreement(self) -> npt.NDArray[np.float64]:
        """[N]: share of the beats on which two detectors agree within 0.1 s."""

    @property
    def template_correlation(self) -> npt.NDArray[np.float64]:
        """[N]: mean correlation of the beats with their mean."""

    @property
    def coverage(self) -> npt.NDArray[np.float64]:
        """[N]: share of the segment inside kept intervals."""

    @property
    def intervals(self) -> npt.NDArray[np.int64]:
        """[N]: number of kept intervals."""

    @property
    def pairs(self) -> npt.NDArray[np.int64]:
        """[N]: number of kept intervals whose successor is kept."""

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """[N]: whether agreement, template correlation and coverage are at least 0.9, 0.8 and 0.8."""

    @property
    def beat_s(self) -> list[npt.NDArray[np.float64]]:
        """N arrays: steepest upslope of each beat, in seconds from the segment's start; NaN if undefined."""

    @property
    def beat_index(self) -> list[npt.NDArray[np.int64]]:
        """N arrays: sample index of each beat's systolic peak."""

@final
class Variability:
    """Result of `variability`: heart rate and its variability in one 60 s window."""

    @property
    def hr_bpm(self) -> float:
        """Heart rate; NaN with fewer than 5 intervals."""

    @property
    def sdnn_ms(self) -> float:
        """Standard deviation of the intervals; NaN with fewer than 20 intervals, 15 pairs or 70 % coverage."""

    @property
    def rmssd_ms(self) -> float:
        """Root mean square of successive differences; NaN as `sdnn_ms`."""

    @property
    def intervals(self) -> int:
        """Number of kept intervals."""

    @property
    def pairs(self) -> int:
        """Number of kept intervals whose neighbour, the next interval, is kept."""

    @property
    def coverage(self) -> float:
        """Share of the window inside kept intervals."""

def label(
    z: npt.NDArray[np.float16] | npt.NDArray[np.float32] | npt.NDArray[np.float64],
    *,
    polarity: Literal[1, -1] | None = None,
    threads: int = 0,
) -> Labels:
    """Beats, heart rate, variability and quality of N band-passed segments `[N, 3840]` at 64 Hz, on any scale.

    `polarity` is the sign of the device's pulses, +1 or -1; None estimates it per segment, which fails on noisy ones.
    A segment with a value that is not finite has no beats.

    Raises ValueError or TypeError for a wrong shape, dtype or polarity.
    """

def band_pass(accel: _Raw, rate_hz: float, band_hz: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Rows of `accel` [axes, samples] between the edges of `band_hz`, in its unit: a Butterworth of four poles.

    Forward and backward, so that nothing is delayed; ends are mirrored. `rate_hz` is 20 to 2048, the band from 0.05 Hz
    to below half of it. An axis with a sample that is not finite is NaN.

    Raises ValueError for a shape, rate or band that does not fit, TypeError for another dtype.
    """

def motion(accel: _Raw, rate_hz: float) -> tuple[float, float]:
    """Median and 95th percentile, over whole seconds, of the spread of acceleration [axes, samples], in its unit.

    The spread of a second is the square root of the summed variances of the axes; samples that are not finite are
    ignored. NaN without a whole second.
    """

def recoil_rate(accel: _Raw, rate_hz: float, *, band_hz: tuple[float, float] = ...) -> tuple[float, float]:
    """Heart rate in bpm from acceleration [axes, samples] without a model, and how sure it is, from 0 to 1.

    The autocorrelation of the envelope of the heart's recoil in `band_hz` (by default 4 to 11 Hz), 30 to 220 bpm, and
    the height of its peak; neither depends on the unit. The heart sounds are in (18, 44), which needs a rate of more
    than 88 Hz. Both are NaN for less than 10 s, a sample that is not finite, what is flat in the band, and no peak.

    Raises ValueError and TypeError as `band_pass`.
    """

def recoil_rates(
    z: npt.NDArray[np.float16] | npt.NDArray[np.float32] | npt.NDArray[np.float64],
    *,
    scale: npt.NDArray[np.float64] | None = None,
    band_hz: tuple[float, float] = ...,
    threads: int = 0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`recoil_rate` of N segments `[N, axes, 3840]` at 64 Hz: rates [N] in bpm and peaks [N].

    `scale` [N, axes] is what each axis is multiplied by, such as the standard deviation that z-scoring has divided by:
    without it an axis that hardly moves counts as much as the others. `threads` 0 means all cores; the result does not
    depend on it.

    Raises ValueError or TypeError for a wrong shape, dtype or band.
    """

def variability(start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64]) -> Variability:
    """Heart rate, SDNN and RMSSD of the inter-beat intervals of one 60 s window: the rule of `label`.

    Interval `i` lasts from `start_s[i]` to `end_s[i]`, in seconds; both arrays are [intervals], in order of time. An
    interval is kept if it lasts 0.3 to 2 s and is within 20 % of the median of the plausible ones among the five around
    it. Nothing is interpolated: RMSSD takes differences only between kept neighbours, where one interval ends within
    0.02 s of the start of the next.

    Raises TypeError for another dtype, ValueError for another shape, unequal lengths or values that are not finite.
    """

def norms_between(
    samples: npt.NDArray[np.float32], start: Sequence[int], length: Sequence[int], limits: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of N accelerations among flat `samples`: complete samples [N], and those with a norm between `limits` [N].

    The three axes of recording `i` are `length[i]` samples each, one after the other from `start[i]` on. A sample is
    complete if it is finite on all of them. In single precision: a norm within 1e-5 of a limit may be on either side.

    Raises ValueError for starts and lengths that differ in number or leave the samples, TypeError for another dtype.
    """

def parquet_pages(chunk: npt.NDArray[np.uint8]) -> list[tuple[int, int, int, int, bool]] | None:
    """The data pages of version 1 in a Parquet column chunk; None for anything else, whatever the bytes are.

    Of each the start of its body, its compressed and uncompressed size in bytes, its number of samples, and whether
    their bytes are split (BYTE_STREAM_SPLIT) or not (PLAIN).
    """

def read_pages(
    bodies: Sequence[tuple[npt.NDArray[np.uint8], int, bool]], complete: int, out: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]] | None:
    """Read the pages of a column of lists of lists of float32 into `out`, as many samples as all of them have.

    `bodies` are uncompressed, with number of samples and whether these are split; `complete` is the definition level of
    a sample that is not null. Returned are the edges of the inner lists among the samples and those of the outer lists
    among the inner ones; None where a list is empty, a value is null, or the bytes are not such pages.
    """

def to_half(z: npt.NDArray[np.float32], *, out: npt.NDArray[np.float16] | None = None) -> npt.NDArray[np.float16]:
    """A contiguous array in half precision, rounded to nearest: `z.astype(numpy.float16)`, several times as fast.

    `out`, of the same shape, is written to and returned instead of a new array. Raises TypeError for another dtype,
    ValueError for an array that is not contiguous and for an `out` of another shape.
    """
