"""Figures in one style, each returned as the bytes of a small PNG; drawn without a display and without global state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from accelkd.cohort.split import AGE_BANDS, strata_table
from accelkd.evaluation.drift import Drift
from accelkd.evaluation.probes import ProbeResult
from accelkd.models.specs import ENCODERS
from accelkd.recordings.labels import LABELS
from accelkd.reports.example_segments import Example

Floats = npt.NDArray[np.floating]
P = ParamSpec("P")

PPG, ACCEL, NEUTRAL, INK = "#0b6e75", "#d1602f", "#9aa1a8", "#24292e"
TRAIN, TEST = "#b9c4cc", "#0b6e75"
CYCLE = ("#0b6e75", "#d1602f", "#5b5ea6", "#b58900", "#4f8a3c", "#a23b72", "#3f7cac", "#8a6f5c", "#c2a83e", "#6c757d")
STYLE: dict[Any, Any] = {  # matplotlib's rcParams, whose keys are a long Literal
    "figure.dpi": 80,  # a wide figure fits the dialog of the Dagster UI
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": NEUTRAL,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=CYCLE),
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
}
COLOURS = 128  # of a figure: a quarter of the bytes, and nobody sees it
_SHOWN_S = 10.0  # of a segment, so that single beats can be seen


def encoder_name(encoder: str) -> str:
    """The encoder's title; of one that is no longer declared, its name."""
    return next((spec.title for spec in ENCODERS if spec.name == encoder), encoder.replace("_", " "))


def _png(draw: Callable[P, Figure]) -> Callable[P, bytes]:
    """Run a drawing function in STYLE and return its figure as a PNG."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context(STYLE):
            canvas: Any = FigureCanvasAgg(draw(*args, **kwargs))  # untyped
            canvas.draw()  # `savefig` would draw twice, to lay it out
            small = BytesIO()
            image = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
            image.convert("RGB").quantize(COLOURS).save(small, format="png", optimize=True)
            return small.getvalue()

    return drawn


@_png
def segments_figure(examples: Sequence[Example]) -> Figure:
    """A row for each segment: raw and processed PPG, raw and processed acceleration; its first 10 s."""
    figure = _figure(12.5, 0.8 + 1.75 * len(examples), left=0.85)
    axes = figure.subplots(len(examples), 4, squeeze=False, sharex=True)
    for row, example in zip(axes, examples, strict=True):
        for ax, signal, rate_hz in zip(
            row,
            (example.raw_ppg, example.ppg, example.raw_accel, example.accel),
            (example.ppg_rate_hz, 64.0, example.accel_rate_hz, 64.0),
            strict=True,
        ):
            if not len(signal) or rate_hz is None:
                ax.text(0.5, 0.5, "absent", ha="center", va="center", transform=ax.transAxes)
                continue
            shown = signal[:, : round(_SHOWN_S * rate_hz)]
            if ax in row[[0, 2]]:  # raw channels differ in level: show the changes
                shown = _centred(shown)
            ax.plot(np.arange(shown.shape[1]) / rate_hz, shown.T, linewidth=0.8)
        row[0].set_ylabel("no label" if example.hr_bpm is None else f"{example.hr_bpm:.0f} bpm", fontsize=8)
    titles = ("PPG, raw, centred", "PPG, processed", "acceleration, raw, centred (g)", "acceleration, processed")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xlabel("seconds")
    return figure


@_png
def labels_figure(labels: pa.Table) -> Figure:
    """Distributions of the labels and of motion over the segments in `labels` (columns of SEGMENT)."""
    figure = _figure(12.5, 2.7)
    names = {
        **{name: label.axis for name, label in LABELS.items()},
        "motion_p95_g": "motion, 95th percentile (g)",
    }
    for ax, (column, name) in zip(figure.subplots(1, 4), names.items(), strict=True):
        values = labels.column(column).drop_null().to_numpy()
        ax.stairs(*np.histogram(values, bins=40), fill=True, color=PPG)  # `hist` draws each bar by itself
        if len(values):
            middle = float(np.median(values))
            ax.axvline(middle, color=ACCEL, linewidth=1.5)
            ax.set_title(f"median {middle:.3g}   n = {len(values):,}", fontsize=9)
        ax.set_xlabel(name)
        ax.grid(axis="x", visible=False)
    figure.get_axes()[0].set_ylabel("segments")
    return figure


@_png
def split_figure(ledger: pa.Table) -> Figure:
    """Participants in training and test by sex, age band and device; the number on a bar is its share in test."""
    figure = Figure(figsize=(12.5, 2.9), layout="constrained")
    for ax, column in zip(figure.subplots(1, 3, sharey=True), ("sex", "age_band", "device_id"), strict=True):
        strata = strata_table(ledger, [column]).to_pylist()
        counts = {(row[column], row["split"]): row["participants"] for row in strata}
        levels = sorted({row[column] for row in strata}, key=lambda level: (_AGE_ORDER.get(level, 99), level))
        train, test = (np.array([counts.get((level, side), 0) for level in levels]) for side in ("train", "test"))
        ax.bar(levels, train, color=TRAIN, label="training")
        ax.bar(levels, test, bottom=train, color=TEST, label="test")
        for position, (a, b) in enumerate(zip(train, test, strict=True)):
            ax.text(position, a + b, f"{100 * b / (a + b):.0f} %", ha="center", va="bottom", fontsize=8)
        ax.set_title(column.replace("_id", "").replace("_", " "))
        ax.tick_params(axis="x", rotation=20 if len(levels) > 4 else 0)
        ax.grid(axis="x", visible=False)
        ax.margins(y=0.12)
    figure.get_axes()[0].set_ylabel("participants")
    figure.legend(*figure.get_axes()[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@_png
def loss_figure(curve: pa.Table, encoder: str) -> Figure:
    """Training loss over the steps of a checkpoint's `training.parquet`, with the loss of chance if it has one."""
    figure = Figure(figsize=(6.5, 3.0), layout="constrained")
    ax = figure.subplots()
    ax.plot(curve.column("step").to_numpy(), curve.column("loss").to_numpy(), color=_color(encoder))
    if "chance_loss" in curve.column_names:
        ax.axhline(
            curve.column("chance_loss")[0].as_py(), color=NEUTRAL, linestyle="--", label="chance: ln(batch size)"
        )
        ax.legend()
    ax.set(xlabel="step", ylabel="training loss", title=encoder_name(encoder))
    return figure


@_png
def probe_figure(
    encoder: str, probes: Sequence[tuple[ProbeResult, npt.NDArray[np.float64], npt.NDArray[np.float64]]]
) -> Figure:
    """A panel for each (result, measured, predicted): the test segments around the line of perfect prediction."""
    figure = Figure(figsize=(12.5, 4.8), layout="constrained")
    for ax, (result, measured, predicted) in zip(
        figure.subplots(1, len(probes), squeeze=False)[0], probes, strict=True
    ):
        low, high = np.percentile(measured, [0.5, 99.5])
        margin = 0.05 * (high - low) + 1e-9
        limits = low - margin, high + margin
        ax.plot(limits, limits, color=NEUTRAL, linewidth=1, zorder=1)
        ax.scatter(measured, predicted, s=7, alpha=0.45, linewidths=0, color=_color(encoder), rasterized=True)
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        name = LABELS[result.target].title
        ax.set(xlabel=f"{name} from the beats ({result.unit})", ylabel=f"{name} predicted ({result.unit})")
        correlation = "" if result.pearson_r is None else f"   R {result.pearson_r:.2f}"
        ax.set_title(
            f"{name}: MAE {result.mae:.2f} {result.unit}{correlation}\n"
            f"constant {result.constant_mae:.2f}   n = {result.test_segments:,} of {result.test_participants:,} people",
            fontsize=9,
        )
    figure.suptitle(f"Ridge probes on the {encoder_name(encoder)}: test participants", x=0.01, ha="left", weight="bold")
    return figure


@_png
def retrieval_figure(ranks: Mapping[str, npt.NDArray[np.float64]], candidates: int) -> Figure:
    """Share of queries whose own pair is among the first k of all candidates, for each named list of ranks."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    ax = figure.subplots()
    k = np.unique(np.geomspace(1, candidates, 400).astype(int))
    for name, rank in ranks.items():
        ax.plot(k, 100 * np.searchsorted(np.sort(rank), k, side="right") / len(rank), label=name)
    ax.plot(k, 100 * k / candidates, color=NEUTRAL, linestyle="--", label="chance")
    ax.set_xscale("log")
    ax.set(
        xlabel=f"k, of {candidates:,} candidates",
        ylabel="own pair in the first k (%)",
        ylim=(0, 102),
        title="Retrieval",
    )
    ax.set_xlim(1, candidates)
    ax.legend(loc="upper left", fontsize=8)
    return figure


@_png
def map_figure(maps: Mapping[str, Floats], participants: Sequence[str]) -> Figure:
    """A t-SNE panel for each named map `[segments, 2]`; a colour is a participant, the same in every panel."""
    figure = Figure(figsize=(5.2 * len(maps), 4.8), layout="constrained")
    names, code = np.unique(np.asarray(participants), return_inverse=True)
    for ax, (name, xy) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        ax.scatter(*xy.T, s=22, alpha=0.8, linewidths=0, color=[CYCLE[number % len(CYCLE)] for number in code])
        ax.set_title(name)
        _bare(ax)
    figure.supxlabel(
        f"t-SNE of {len(participants):,} test segments; a colour is one of {len(names)} participants", fontsize=9
    )
    return figure


@_png
def drift_figure(drifts: Sequence[Drift]) -> Figure:
    """A bar for each quantity: the batch's difference from the training cohort, and the threshold as a mark."""
    figure = _figure(8.0, 0.9 + 0.27 * len(drifts), left=1.9)
    ax = figure.subplots()
    places = np.arange(len(drifts))[::-1]
    colors = [ACCEL if drift.drifted else PPG for drift in drifts]
    ax.barh(places, [drift.difference for drift in drifts], color=colors, height=0.7)
    thresholds = [drift.threshold for drift in drifts]
    ax.scatter(thresholds, places, marker="|", s=120, color=INK, label="threshold", zorder=3)
    ax.set_yticks(places, [drift.quantity for drift in drifts])
    ax.set(xlabel="difference from the training cohort", xlim=(0, None))
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")
    return figure


def _figure(width: float, height: float, *, left: float = 0.6) -> Figure:
    """A figure with margins in inches. Looking for margins that fit takes longer than drawing, for every batch."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=left / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.3 / height, wspace=0.25, hspace=0.15
    )
    return figure


_AGE_ORDER = {band: number for number, band in enumerate(AGE_BANDS)}


def _color(encoder: str) -> str:
    """The colour of the encoder's modality; a second encoder of the same has another one."""
    names = [spec.name for spec in ENCODERS]
    if encoder not in names:
        return INK
    spec = ENCODERS[names.index(encoder)]
    first = next(other.name for other in ENCODERS if other.modality == spec.modality)
    return {"ppg": PPG, "accel": ACCEL}[spec.modality] if encoder == first else CYCLE[names.index(encoder)]


def _centred(signal: Floats) -> Floats:
    """Each channel minus the median of its finite samples."""
    finite = [channel[np.isfinite(channel)] for channel in signal]
    level: Floats = np.array([[np.median(channel) if len(channel) else 0.0] for channel in finite])
    return np.subtract(signal, level)


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
