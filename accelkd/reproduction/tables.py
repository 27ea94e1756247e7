"""The paper's result tables with our numbers beside its own, from the result files alone.

A cell of ours is the mean over the seeds ± their standard deviation, or the value alone of a single seed. Without a
value it says why: `not run` if the experiment has no result at all, `not reached` if the time ended before it,
`no result` if it has none of this kind (a target that nobody has, a label fraction that the preset leaves out), and
`undefined` if the measure does not exist (a correlation with a constant).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from accelkd.evaluation.significance import Comparison, compare_aucs
from accelkd.recordings.labels import LABELS
from accelkd.recordings.survey import TARGETS
from accelkd.reports import markdown
from accelkd.reproduction import paper
from accelkd.reproduction.experiments import SUPERVISED
from accelkd.reproduction.paper import LOW_FRACTION, NAMES, NUMBERS, SEGMENT_TARGETS, Key
from accelkd.reproduction.results import CLASSICAL, CONSTANT, UNTRAINED, Results, Row

NOT_RUN = "not run"
NOT_REACHED = "not reached"  # within the time budget
NO_RESULT = "no result"
ABSENT = "–"  # the paper prints no number
UNITS = {
    **{name: f"{label.abbreviation} ({label.unit})" for name, label in LABELS.items()},
    "age": "age (years)",
    "bmi": "BMI",
}
_SEGMENT_HEADER = (
    "encoder",
    *(text for target in SEGMENT_TARGETS for text in (f"{UNITS[target]} paper", "ours")),
    "N test",
    "seeds",
)
_METRICS = {"mae": "MAE", "rmse": "RMSE", "pearson_r": "Pearson's R"}


@dataclass(frozen=True)
class ResultTable:
    """A table of the paper as text, ours beside the paper's."""

    number: int
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def all_tables(results: Results) -> tuple[ResultTable, ...]:
    """Every result table in the paper's order."""
    return tuple(make(results) for _, make in sorted(TABLES.items()))


def cell(
    results: Results, experiment: str, target: str, metric: str = "mae", label_fraction: float = 1.0, digits: int = 2
) -> str:
    """Our number: mean ± standard deviation over the seeds, or the reason why there is none."""
    values = list(results.values(experiment, target, metric, label_fraction).values())
    if not values and experiment == CONSTANT and metric == "auc":
        return f"{0.5:.{digits}f}"
    if not values:
        if results.row(experiment, target, metric, label_fraction):
            return "undefined"
        return NO_RESULT if experiment in results.experiments else absence(results, experiment)
    return mean_sd(values, digits)


def absence(results: Results, experiment: str) -> str:
    """The text for an experiment without any result: NOT_REACHED if the time ended before it, else NOT_RUN."""
    runs: list[str] = results.cohort.get("runs_left") or []
    left = {SUPERVISED if run.startswith("supervised-") else run.rpartition("-")[0] for run in runs}
    return NOT_REACHED if experiment in left else NOT_RUN


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± sample standard deviation; the value alone where there is one."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def parameters_text(parameters: int) -> str:
    """Two or three digits and a unit: `6.34M`, `812k`."""
    return f"{parameters / 1e6:.3g}M" if parameters >= 1e6 else f"{parameters / 1e3:.3g}k"


def _printed(table: int, experiment: str, target: str, metric: str = "mae", label_fraction: float = 1.0) -> str:
    value = NUMBERS.get(Key(table, experiment, target, metric, label_fraction))
    return ABSENT if value is None else f"{value:.{3 if table == 12 else 2}f}"


def _name(experiment: str) -> str:
    if experiment == CONSTANT:
        return "constant predictor"
    if experiment == CLASSICAL:
        return "classical estimator"
    return _named(NAMES[experiment], experiment) if experiment in NAMES else markdown.code(experiment)


def _named(name: str, experiment: str) -> markdown.Markup:
    return markdown.Markup(f"{markdown.escape(name)} ({markdown.code(experiment)})")


def _seeds(results: Results, experiment: str, target: str, metric: str = "mae") -> str:
    return str(len(results.values(experiment, target, metric)) or ABSENT)


def _test_n(results: Results, experiment: str, targets: Iterable[str], metric: str = "mae") -> str:
    """Test samples of each target, once where all are the same."""
    numbers = []
    for target in targets:
        row = results.row(experiment, target, metric) or results.row(experiment, target, "auc")
        numbers.append(f"{row['test_n']:,}" if row else ABSENT)
    return numbers[0] if len(set(numbers)) == 1 else " / ".join(numbers)


def ablation(
    number: int, title: str, experiments: Sequence[str], notes: tuple[str, ...], results: Results
) -> ResultTable:
    """MAE of HR, SDNN and RMSSD with all labels for each experiment."""
    rows = []
    for experiment in (*experiments, CONSTANT):
        row = [_name(experiment)]
        for target in SEGMENT_TARGETS:
            row += [_printed(number, experiment, target), cell(results, experiment, target)]
        rows.append((*row, _test_n(results, experiment, SEGMENT_TARGETS), _seeds(results, experiment, "hr_bpm")))
    return ResultTable(number, title, _SEGMENT_HEADER, tuple(rows), notes)


def probes(number: int, target: str, results: Results) -> ResultTable:
    """MAE, RMSE and Pearson's R of one target with all labels, and with 0.1 % of them in brackets."""
    header = ["encoder"]
    for name in _METRICS.values():
        header += [f"{name} paper", "ours"]
    rows = []
    for experiment in (*NAMES, *((CLASSICAL,) if target == "hr_bpm" else ()), CONSTANT):
        row = [_name(experiment)]
        for metric in _METRICS:
            row += _with_few_labels(number, results, experiment, target, metric)
        measured = [results.row(experiment, target, "mae", fraction) for fraction in (1.0, LOW_FRACTION)]
        labels = [f"{probe['train_n']:,}" if probe else ABSENT for probe in measured]
        row.append(labels[0] if experiment in UNTRAINED else f"{labels[0]} ({labels[1]})")
        rows.append((*row, _test_n(results, experiment, [target]), _seeds(results, experiment, target)))
    title = f"{UNITS[target]} from frozen embeddings: 100 % (0.1 %) of the labels"
    notes: tuple[str, ...] = ()
    if target == "hr_bpm":
        notes = (
            "The classical estimator reads the rate of the acceleration's envelope and is fitted on nobody; it is "
            "measured on the test segments in which it finds one.",
        )
    return ResultTable(number, title, (*header, "N labels", "N test", "seeds"), tuple(rows), notes)


def _with_few_labels(number: int, results: Results, experiment: str, target: str, metric: str = "mae") -> list[str]:
    """The paper's cell and ours with all labels, and with 0.1 % in brackets; of what trains nothing, ours with all."""
    if experiment in UNTRAINED:
        return [ABSENT, cell(results, experiment, target, metric)]
    theirs = [_printed(number, experiment, target, metric, fraction) for fraction in (1.0, LOW_FRACTION)]
    ours = [cell(results, experiment, target, metric, fraction) for fraction in (1.0, LOW_FRACTION)]
    return [f"{theirs[0]} ({theirs[1]})", f"{ours[0]} ({ours[1]})"]


def demographics(results: Results) -> ResultTable:
    """Table 2: errors of age and BMI, area under the curve of sex."""
    targets = {"age": "mae", "bmi": "mae", "sex": "auc"}
    rows = []
    for experiment in ("accel-kd-mae", "accel-kd-cl", "accel-mae", "accel-cl", "ppg-mae", "ppg-cl", CONSTANT):
        row = [_name(experiment)]
        for target, metric in targets.items():
            digits = 3 if metric == "auc" else 2
            row += [_printed(2, experiment, target, metric), cell(results, experiment, target, metric, digits=digits)]
        rows.append((*row, _test_n(results, experiment, targets), _seeds(results, experiment, "age")))
    header = ("encoder", "age MAE (years) paper", "ours", "BMI MAE (kg/m²) paper", "ours", "sex AUC paper", "ours")
    return ResultTable(
        2, "Age, BMI and biological sex from participants' mean embeddings", (*header, "N test", "seeds"), tuple(rows)
    )


def retrieval(number: int, direction: str, title: str, results: Results) -> ResultTable:
    """Table 1 or 8: a row for each space, the paper's number beside the space that it measures."""
    printed = {row.experiment: row for row in paper.RETRIEVAL if row.table == number}
    kinds = [("accel-kd-mae", "raw"), ("accel-kd-mae", "projected"), ("accel-mae", "procrustes")]
    kinds += sorted({(row["experiment"], row["space"]) for row in results.retrieval} - set(kinds))
    rows, ours = [], []
    for experiment, space in kinds:
        theirs = printed.get(experiment) if space in ("raw", "procrustes") else None
        by_seed = results.retrieval_rows(experiment, space, direction)
        ours += by_seed
        rows.append(
            (
                _name(experiment),
                {"raw": "encoder's own", "projected": "projection heads", "procrustes": "Procrustes"}.get(space, space),
                f"{theirs.top1_percent:.2f} ({theirs.top1_percent_sd:.2f})" if theirs else ABSENT,
                _over_pools(by_seed, "top1_percent") or absence(results, experiment),
                f"{theirs.mean_rank:.2f} ({theirs.mean_rank_sd:.2f})" if theirs else ABSENT,
                _over_pools(by_seed, "mean_rank") or absence(results, experiment),
                f"{np.mean([row['segments'] for row in by_seed]):,.0f}" if by_seed else ABSENT,
                str(len(by_seed) or ABSENT),
            )
        )
    nothing = absence(results, "accel-kd-mae")
    chance = [f"{np.mean([row[f'chance_{name}'] for row in ours]):.2f}" if ours else nothing for name in _RANKS]
    theirs_chance = [f"{value:.2f}" for value in paper.RETRIEVAL_CHANCE]
    rows.append(("chance", ABSENT, theirs_chance[0], chance[0], theirs_chance[1], chance[1], ABSENT, ABSENT))
    header = ("embedding", "space", "top-1 (%) paper", "ours", "mean rank paper", "ours", "candidates", "seeds")
    notes = (
        "Mean (standard deviation) over candidate pools; of several seeds, the mean of both. The paper's pools hold "
        "about 19,000 candidates: compare with chance, not across cohorts.",
    )
    return ResultTable(number, title, header, tuple(rows), notes)


_RANKS = ("top1_percent", "mean_rank")


def _over_pools(rows: Sequence[Row], name: str) -> str:
    if not rows:
        return ""
    return f"{np.mean([row[name] for row in rows]):.2f} ({np.mean([row[f'{name}_sd'] for row in rows]):.2f})"


def cohort(results: Results) -> ResultTable:
    """Table 6: sizes of the cohort."""
    known = results.cohort
    sides = [known.get(side) or {} for side in ("train", "test")]

    def total(name: str) -> float | None:
        return sum(side[name] for side in sides) if all(name in side for side in sides) else None

    participants = total("participants")
    ours = {
        "participants": participants,
        "segments": total("segments"),
        "calendar_days_per_participant": known.get("calendar_days_per_participant"),
        "time_span_days": known.get("time_span_days"),
        "train_percent": 100 * sides[0]["participants"] / participants if participants else None,
    }
    rows = tuple(
        (name.replace("_", " "), f"{theirs:,}", "not recorded" if ours[name] is None else f"{ours[name]:,.5g}")
        for name, theirs in paper.COHORT.items()
    )
    return ResultTable(6, "The cohort", ("", "paper", "ours"), rows, ("Ours is simulated.",))


def sizes(results: Results) -> ResultTable:
    """Table 7 with the errors of figure 4, of which the paper prints none."""
    parameters = {row["experiment"]: row["parameters"] for row in results.models}
    rows = []
    labels = dict(zip(paper.SIZES, ("XS", "S", "M", "L", "XL"), strict=True))
    for experiment in (*paper.SIZES, "accel-mae", "accel-cl", CONSTANT):
        size = paper.SIZES.get(experiment)
        count = parameters.get(experiment)
        rows.append(
            (
                _named(labels[experiment], experiment) if experiment in labels else _name(experiment),
                parameters_text(size.parameters) if size else ABSENT,
                parameters_text(count) if count else ABSENT if experiment == CONSTANT else absence(results, experiment),
                *(cell(results, experiment, target) for target in SEGMENT_TARGETS),
                _test_n(results, experiment, SEGMENT_TARGETS),
                _seeds(results, experiment, "hr_bpm"),
            )
        )
    header = ("size", "parameters paper", "ours", *(f"{UNITS[target]} ours" for target in SEGMENT_TARGETS))
    notes = ("Figure 4 prints no numbers.",)
    return ResultTable(7, "Student sizes (table 7, figure 4)", (*header, "N test", "seeds"), tuple(rows), notes)


def health(results: Results) -> ResultTable:
    """Table 12, with the numbers of participants of tables 20 to 23."""
    header = ["target"]
    for experiment in paper.HEALTH_ENCODERS:
        header += [f"{NAMES[experiment]} paper", "ours"]
    rows = []
    for target, about in TARGETS.items():
        compared = health_comparison(results, target)
        row = [about.label]
        for experiment in paper.HEALTH_ENCODERS:
            theirs, ours = (
                _printed(12, experiment, target, "auc"),
                cell(results, experiment, target, "auc", digits=3),
            )
            if experiment == "accel-kd-mae":
                theirs += f" ({paper.HEALTH_STARS[target]})"
                ours += f" ({compared.stars})" if compared else ""
            row += [theirs, ours]
        difference = (
            f"{compared.difference:+.3f} ({compared.difference_low:+.3f} to {compared.difference_high:+.3f})"
            if compared
            else ABSENT
        )
        participants = paper.HEALTH_PARTICIPANTS[target]
        rows.append(
            (
                *row,
                difference.replace("-", "−"),
                ABSENT if participants is None else f"{participants:,}",
                _test_n(results, "accel-kd-mae", [target], "auc"),
                _yes(results, target),
            )
        )
    notes = (
        "AUC; chance is 0.5. Stars: the paper's one-sided rank-sum test of 200 bootstrapped AUCs of Accel-KD via "
        "PPG-MAE against Accel-CL, of the first seed that both have: `***` P < 5e-4, `**` P < 5e-3, `*` P < 5e-2. It "
        "is anti-conservative, because bootstraps are not independent samples; the 95 % interval of the paired "
        "difference beside it is not.",
    )
    header += ["difference to Accel-CL", "N test paper", "N test ours", "of these yes"]
    return ResultTable(12, "Health targets from participants' mean embeddings", tuple(header), tuple(rows), notes)


def health_comparison(results: Results, target: str) -> Comparison | None:
    """The paper's test of Accel-KD via PPG-MAE against Accel-CL with the first seed of both, None where impossible."""
    a, b = (results.scores.get((name, target), {}) for name in ("accel-kd-mae", "accel-cl"))
    for seed in sorted(set(a) & set(b)):
        labels = a[seed].labels
        if np.array_equal(a[seed].participants, b[seed].participants) and labels.any() and not labels.all():
            return compare_aucs(labels, a[seed].scores, b[seed].scores)
    return None


def _yes(results: Results, target: str) -> str:
    by_seed = results.scores.get(("accel-kd-mae", target))
    return f"{int(next(iter(by_seed.values())).labels.sum()):,}" if by_seed else ABSENT


def transformer_cl(results: Results) -> ResultTable:
    """Table 13: contrastive learning with both architectures."""
    names = ("accel-cl", "ppg-cl", "accel-kd-cl")
    rows = []
    twins = (f"{name}-transformer" for name in names)
    for experiment in (*names, *twins, "accel-kd-mae-efficientnet", "accel-kd-mae-stem", "accel-kd-mae", CONSTANT):
        row = [_name(experiment)]
        for target in SEGMENT_TARGETS:
            row += _with_few_labels(13, results, experiment, target)
        rows.append((*row, _test_n(results, experiment, SEGMENT_TARGETS), _seeds(results, experiment, "hr_bpm")))
    title = "Contrastive learning with EfficientNets and with Transformers: MAE with 100 % (0.1 %) of the labels"
    note = (
        "The paper's table ends with the Transformer twins. The student of PPG-MAE is ours to add, in both "
        "architectures: `accel-kd-mae-efficientnet` has that of `accel-cl` and `accel-kd-cl`. `accel-kd-mae-stem` is "
        "our own too: the Transformer behind three convolutions."
    )
    return ResultTable(13, title, _SEGMENT_HEADER, tuple(rows), (note,))


_SIMULTANEOUS = tuple(
    f"simultaneous-{start}-lambda-{w}" for start in ("random", "pretrained") for w in ("0", "0.5", "1")
)
_KD_LAMBDAS = tuple(f"kd-lambda-{weight}" for weight in ("0", "0.25", "0.5", "0.75"))

TABLES: Mapping[int, Callable[[Results], ResultTable]] = {
    1: partial(retrieval, 1, "ppg_from_accel", "Retrieval of PPG embeddings from accelerometer embeddings"),
    2: demographics,
    3: partial(
        ablation,
        3,
        "Simultaneous multi-modal pre-training against distillation: MAE",
        ("simultaneous-random-lambda-1", "accel-kd-mae"),
        (),
    ),
    6: cohort,
    7: sizes,
    8: partial(retrieval, 8, "accel_from_ppg", "Retrieval of accelerometer embeddings from PPG embeddings"),
    9: partial(probes, 9, "hr_bpm"),
    10: partial(probes, 10, "sdnn_ms"),
    11: partial(probes, 11, "rmssd_ms"),
    12: health,
    13: transformer_cl,
    14: partial(
        ablation,
        14,
        "Positive pairs in contrastive pre-training of the teacher: MAE",
        ("ppg-cl-participant", "ppg-cl", "accel-kd-cl-participant", "accel-kd-cl", "accel-kd-mae"),
        (
            "The paper's figures stand beside `ppg-cl`, as captioned; its right column is the student Accel-KD via "
            "PPG-MAE's. The students of both teachers are ours to add.",
        ),
    ),
    15: partial(ablation, 15, "PPG channels of the teacher: MAE", ("ppg-mae-1-channel", "ppg-mae"), ()),
    16: partial(
        ablation,
        16,
        "A larger teacher: MAE",
        ("ppg-mae-16-layers", "ppg-mae"),
        ("The larger teacher has twice the layers of ours, as the paper's has of its own (12.7 M against 6.3 M).",),
    ),
    17: partial(
        ablation,
        17,
        "Augmentations during distillation: MAE",
        (
            "kd-augment-none",
            "accel-kd-mae",
            *(
                f"kd-augment-{name}"
                for name in ("cut-out", "gaussian-noise", "magnitude-warp", "channel-permute", "time-warp")
            ),
        ),
        ("Single augmentations are applied in every pass; `accel-kd-mae` is the whole stochastic module.",),
    ),
    18: partial(
        ablation,
        18,
        "λ of the distillation's objective: MAE",
        (*_KD_LAMBDAS, "accel-kd-mae"),
        ("`accel-kd-mae` is λ = 1.",),
    ),
    19: partial(
        ablation,
        19,
        "λ and the trainable PPG encoder: MAE",
        (*_SIMULTANEOUS, "kd-lambda-0", "kd-lambda-0.5", "accel-kd-mae"),
        ("`accel-kd-mae` is distillation with λ = 1.",),
    ),
}
