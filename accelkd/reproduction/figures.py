"""Figures of a reproduction: the paper's figures 2, 3 and 4, every loss curve, and the health targets.

matplotlib is imported only when a figure is drawn, so that a machine without it can still write the report.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accelkd.home.files import atomic_path
from accelkd.recordings.survey import TARGETS
from accelkd.reproduction import paper
from accelkd.reproduction.paper import NAMES, SEGMENT_TARGETS
from accelkd.reproduction.results import Results
from accelkd.reproduction.tables import UNITS, health_comparison, parameters_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {  # of the style's color cycle: the same for an encoder in every figure
    "accel-supervised": "#6c757d",
    "accel-mae": "#b58900",
    "accel-cl": "#4f8a3c",
    "accel-kd-mae": "#d1602f",
    "accel-kd-cl": "#a23b72",
    "ppg-mae": "#0b6e75",
    "ppg-cl": "#3f7cac",
}
_MARKERS = dict(zip(_COLORS, "DvsoP^X", strict=True))
_GREY = "#9aa1a8"
_SIZE_LABELS = dict(zip(paper.SIZES, ("XS", "S", "M", "L", "XL"), strict=True))
_MAP_TITLES = {"accel-mae": "Accel-MAE", "ppg-mae": "PPG-MAE (teacher)", "accel-kd-mae": "Accel-KD via PPG-MAE"}


def draw_figures(results: Results, folder: Path) -> dict[str, str] | None:
    """Write a PNG into `folder` for each figure that has results; returns the captions by file name.

    Returns None if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return None

    from accelkd.reports.figures import STYLE

    captions = {}
    for file, (draw, caption) in FIGURES.items():
        with mpl.rc_context({**STYLE, "figure.dpi": 110}):
            figure = draw(results)
            if figure is None:
                continue
            with atomic_path(folder / file) as part:
                _save(figure, part)
        captions[file] = caption
    return captions


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours: a third of the size. The same figure gives the same bytes."""
    from PIL import Image  # comes with matplotlib

    drawn = io.BytesIO()
    figure.savefig(drawn, format="rgba")
    width, height = (int(pixels) for pixels in figure.canvas.get_width_height())
    image = Image.frombytes("RGBA", (width, height), drawn.getvalue()).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, format="png", optimize=True)


def label_efficiency(results: Results) -> Figure | None:
    """Figure 2: error over the share of training labels; None without results."""
    measured = {
        (name, target): [
            (fraction, list(results.values(name, target, "mae", fraction).values()))
            for fraction in sorted({key[3] for key in results.rows if key[:3] == (name, target, "mae")})
        ]
        for name in NAMES
        for target in SEGMENT_TARGETS
    }
    if not any(measured.values()):
        return None
    figure, panels = _panels(1, 3, 12.5, 4.2)
    for ax, target in zip(panels, SEGMENT_TARGETS, strict=True):
        if not any(measured[name, target] for name in NAMES):
            _nothing(ax, UNITS[target])
            continue
        for name, label in NAMES.items():
            points = [(100 * fraction, values) for fraction, values in measured[name, target] if values]
            ax.errorbar(
                [fraction for fraction, _ in points],
                [_mean(values) for _, values in points],
                yerr=[_sd(values) for _, values in points],
                label=label,
                color=_COLORS[name],
                marker=_MARKERS[name],
                markersize=5,
                linestyle="--" if name.startswith("ppg") else "-",
                capsize=2,
            )
        _constant_line(ax, results, target)
        ax.set_xscale("log")
        _log_errors(ax)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set(xlabel="training labels (%)", ylabel="mean absolute error", title=UNITS[target])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize=8)
    return figure


def maps(results: Results) -> Figure | None:
    """Figure 3: t-SNE of the same segments in each encoder; None without results."""
    points: dict[str, list[tuple[int, float, float]]] = {}
    for row in results.map.to_pylist():
        points.setdefault(row["experiment"], []).append((row["participant"], row["x"], row["y"]))
    names = [name for name in _MAP_TITLES if name in points]
    if not names:
        return None
    from accelkd.reports.figures import CYCLE

    figure, panels = _panels(1, len(names), 4.2 * len(names), 4.2)
    for ax, name in zip(panels, names, strict=True):
        participants, x, y = (np.array(column) for column in zip(*points[name], strict=True))
        for number, participant in enumerate(np.unique(participants)):
            of = participants == participant
            ax.scatter(x[of], y[of], s=22, alpha=0.8, linewidths=0, color=CYCLE[number % len(CYCLE)])
        ax.set(title=_MAP_TITLES[name], xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[["left", "bottom"]].set_visible(False)
    return figure


def compression(results: Results) -> Figure | None:
    """Figure 4: error over the student's number of parameters, beside the uni-modal encoders.

    None with fewer than two sizes.
    """
    parameters = {row["experiment"]: row["parameters"] for row in results.models if row["parameters"]}
    names = [name for name in _SIZE_LABELS if name in parameters and results.values(name, "hr_bpm")]
    if len(names) < 2:
        return None
    figure, panels = _panels(1, 3, 12.5, 3.9)
    for ax, target in zip(panels, SEGMENT_TARGETS, strict=True):
        values = [list(results.values(name, target).values()) for name in names]
        if not any(values):
            _nothing(ax, UNITS[target])
            continue
        x, y = [parameters[name] for name in names], [_mean(of) for of in values]
        ax.errorbar(
            x,
            y,
            yerr=[_sd(of) for of in values],
            marker="o",
            color=_COLORS["accel-kd-mae"],
            capsize=2,
            label="distilled students",
        )
        for name, count, error in zip(names, x, y, strict=True):
            ax.annotate(
                _SIZE_LABELS[name], (count, error), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
            )
        for name in ("accel-mae", "accel-cl"):
            if baseline := list(results.values(name, target).values()):
                ax.axhline(float(np.mean(baseline)), color=_COLORS[name], linestyle="--", label=f"{NAMES[name]} (XL)")
        _constant_line(ax, results, target)
        ax.set_xscale("log")
        ax.set_xticks(x, [parameters_text(count) for count in x], fontsize=8)
        ax.set_xticks([], minor=True)
        ax.set(xlabel="parameters", ylabel="mean absolute error", title=UNITS[target])
        ax.margins(x=0.1, y=0.12)
        _log_errors(ax)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def loss_curves(results: Results) -> Figure | None:
    """The training loss of every run: a panel for each experiment, a line for each seed; None without results."""
    names = sorted(set(results.curves.column("experiment").to_pylist()))
    if not names:
        return None
    chance = {row["experiment"]: row["chance_loss"] for row in results.models if row["chance_loss"] is not None}
    columns = min(5, len(names))
    rows = math.ceil(len(names) / columns)
    figure, panels = _panels(rows, columns, 2.9 * columns, 1.9 * rows + 0.2)
    experiments = results.curves.column("experiment").to_numpy(zero_copy_only=False)
    seeds, steps, losses = (results.curves.column(name).to_numpy() for name in ("seed", "step", "loss"))
    for ax, name in zip(panels, names, strict=False):
        of = experiments == name
        for seed in np.unique(seeds[of]):
            part = np.flatnonzero(of & (seeds == seed))
            part = part[np.argsort(steps[part], kind="stable")]
            ax.plot(steps[part], losses[part], linewidth=0.9, marker="." if len(part) == 1 else "")
        if name in chance:
            ax.axhline(chance[name], color=_GREY, linestyle="--", linewidth=0.9)
        ax.set_title(name, fontsize=7.5)
        ax.tick_params(labelsize=7)
    for ax in panels[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("training loss", fontsize=9)
    return figure


def health_targets(results: Results) -> Figure | None:
    """Areas under the curve of four encoders, and the difference of two of them with its interval.

    None without scores of both.
    """
    compared = {
        target: comparison for target in TARGETS if (comparison := health_comparison(results, target)) is not None
    }
    if not compared:
        return None
    order = sorted(compared, key=lambda target: compared[target].difference)
    y = np.arange(len(order))
    figure, (left, right) = _panels(1, 2, 11.5, 1.3 + 0.2 * len(order))
    for name in paper.HEALTH_ENCODERS:
        values = [list(results.values(name, target, "auc").values()) for target in order]
        left.scatter(
            [_mean(of) for of in values],
            y,
            s=18,
            color=_COLORS[name],
            marker=_MARKERS[name],
            label=NAMES[name],
            zorder=3,
        )
    left.axvline(0.5, color=_GREY, linestyle="--", label="chance")
    left.set_yticks(y, [TARGETS[target].label for target in order], fontsize=8)
    left.set(xlabel="AUC", title="Area under the ROC curve")
    for height, target in zip(y, order, strict=True):
        comparison = compared[target]
        decided = comparison.difference_low > 0 or comparison.difference_high < 0
        color = _COLORS["accel-kd-mae"] if decided else _GREY
        bounds = [comparison.difference_low, comparison.difference_high]
        right.plot(bounds, [height, height], color=color, linewidth=1.6)
        right.plot(comparison.difference, height, "o", color=color, markersize=4)
        theirs = paper.number(12, "accel-kd-mae", target, "auc") - paper.number(12, "accel-cl", target, "auc")
        right.plot(theirs, height, "|", color="#24292e", markersize=8)
        right.annotate(
            f"{comparison.stars}",
            (1.0, height),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            va="center",
            ha="right",
        )
    right.plot([], [], "o-", color=_COLORS["accel-kd-mae"], markersize=4, label="ours, 95 % interval without zero")
    right.plot([], [], "o-", color=_GREY, markersize=4, label="ours, interval with zero")
    right.plot([], [], "|", color="#24292e", linestyle="", markersize=8, label="paper")
    right.axvline(0, color=_GREY, linestyle="--")
    right.set_yticks(y, [])
    right.margins(x=0.12)
    right.set(xlabel="AUC of Accel-KD via PPG-MAE − AUC of Accel-CL", title="Difference; stars of the paper's test")
    for ax in (left, right):
        ax.set_ylim(-0.8, len(order) - 0.2)
    legends = [ax.get_legend_handles_labels() for ax in (left, right)]
    figure.legend(
        [handle for handles, _ in legends for handle in handles],
        [label for _, labels in legends for label in labels],
        loc="outside lower center",
        ncols=4,
        fontsize=8,
    )
    return figure


FIGURES: Mapping[str, tuple[Callable[[Results], Figure | None], str]] = {
    "figure-2-label-efficiency.png": (
        label_efficiency,
        "Figure 2: error over the share of training labels; bars are standard deviations over seeds.",
    ),
    "figure-3-maps.png": (
        maps,
        "Figure 3: t-SNE of the same test segments in three encoders; a colour is a participant.",
    ),
    "figure-4-compression.png": (compression, "Figure 4: error of students of five sizes."),
    "health-targets.png": (
        health_targets,
        "Health targets of table 12: areas under the curve, and the difference between Accel-KD via PPG-MAE and "
        "Accel-CL with its paired 95 % interval beside the paper's difference.",
    ),
    "loss-curves.png": (
        loss_curves,
        "Training loss of every run; a line is a seed, the dashed line is the loss of chance where there is one.",
    ),
}


def _panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _nothing(ax: Axes, title: str) -> None:
    """A panel of a target without any result: a logarithmic axis cannot be empty."""
    ax.set(title=title, xticks=[], yticks=[])
    ax.text(0.5, 0.5, "no result", ha="center", va="center", transform=ax.transAxes, color=_GREY)


def _log_errors(ax: Axes) -> None:
    """A logarithmic axis of errors with readable tick labels, also if it spans less than a decade."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 6 * low else MaxNLocator(6))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _constant_line(ax: Axes, results: Results, target: str) -> None:
    constant = results.constant(target)
    if constant is not None:
        ax.axhline(constant, color=_GREY, linestyle=":", label="constant predictor")
