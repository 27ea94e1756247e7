"""One comparison of two encoders: its effect with a 95 % interval, and whether that is what was claimed.

The effect is the relative difference of two errors, or the difference of two areas under the ROC curve. Its interval is
the hull of two, so that it covers both the variation between trainings and between participants:

- over the seeds: Welch's if both sides have several; else from the spread over seeds of the encoders that have several,
  pooled, as if it were this comparison's own
- over the test participants: 2,000 paired bootstraps of the absolute errors that each participant contributes; 200 of
  the areas, as in table 12

A comparison holds if the whole interval lies in the range that is claimed, does not hold if all of it lies outside, and
is not decidable otherwise, if something was not run, with fewer than 20 test participants, or if neither encoder is
better than a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from accelkd.evaluation.significance import BOOTSTRAPS as AUC_BOOTSTRAPS
from accelkd.evaluation.significance import bootstrap_aucs, interval, weighted_aucs
from accelkd.reproduction import paper
from accelkd.reproduction.results import Results, Scores

Verdict = Literal["holds", "does not hold", "not decidable"]
Floats = npt.NDArray[np.float64]

BOOTSTRAPS = 2_000
MIN_PARTICIPANTS = 20  # the bootstrap interval of fewer is too narrow


@dataclass(frozen=True)
class Range:
    """Where an effect must lie, bounds excluded."""

    low: float
    high: float
    words: str  # stands between the names of the two sides


@dataclass(frozen=True)
class Side:
    """Encoders whose numbers are averaged (`best`: only the best one's is taken), and the table that prints them."""

    experiments: tuple[str, ...]
    table: int | Mapping[str, int] | None  # a mapping if it depends on the target; None: the paper prints no number
    label_fraction: float = 1.0
    best: bool = False

    def __str__(self) -> str:
        names = ("the better of " if self.best else "") + ", ".join(self.experiments)
        return names + ("" if self.label_fraction == 1 else f" with {100 * self.label_fraction:g} % of the labels")


@dataclass(frozen=True)
class Comparison:
    """Side a against side b on one target; b is None for chance."""

    target: str
    a: Side
    b: Side | None
    range: Range
    metric: str = "mae"

    def effect(self, a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
        """Relative difference of two errors, absolute difference of two areas."""
        difference = np.asarray(np.subtract(a, b), np.float64)
        return difference if self.metric == "auc" else difference / np.asarray(b, np.float64)


@dataclass(frozen=True)
class Finding:
    """A comparison with its numbers, which are None if they were not printed or not measured."""

    what: str
    target: str
    metric: str
    paper_a: float | None
    paper_b: float | None
    paper_effect: float | None
    paper_holds: bool | None  # by the paper's own figures
    ours_a: float | None
    ours_b: float | None
    effect: float | None
    effect_low: float | None
    effect_high: float | None
    seeds: int
    verdict: Verdict
    why: str  # the reason if it is not decidable, else empty


def compare(results: Results, comparison: Comparison) -> Finding:
    """Measure one comparison and decide it; not decidable, with the reason, if results are missing."""
    sides = [comparison.a] if comparison.b is None else [comparison.a, comparison.b]
    values = {
        (side.label_fraction, name): results.values(name, comparison.target, comparison.metric, side.label_fraction)
        for side in sides
        for name in side.experiments
    }
    if absent := sorted({name for (_, name), by_seed in values.items() if not by_seed}):
        never = [name for name in absent if name not in results.experiments]
        return _finding(comparison, why=f"not run: {', '.join(never)}" if never else f"no result: {', '.join(absent)}")
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in values.values())))
    if not seeds:
        return _finding(comparison, why="no seed in common")
    chosen = [_chosen(side, values, seeds, comparison.metric) for side in sides]
    a, *rest = (np.mean([[values[key][seed] for seed in seeds] for key in keys], axis=0) for keys in chosen)
    b = rest[0] if rest else np.full(len(seeds), 0.5)
    effect = float(comparison.effect(a.mean(), b.mean()))
    intervals = []
    over_seeds = _over_seeds(comparison, a, b) if len(seeds) > 1 else _pooled_over_seeds(results, comparison, a, b)
    if over_seeds is not None:
        intervals.append(over_seeds)
    drawn = _draws(results, comparison, chosen, seeds)
    if drawn is not None:
        intervals.append(interval(drawn.values))
    if not intervals:
        return _finding(comparison, a, b, effect, why="one seed, and no values of single participants")
    hull = min(low for low, _ in intervals), max(high for _, high in intervals)
    if drawn is not None and drawn.participants < MIN_PARTICIPANTS:
        return _finding(comparison, a, b, effect, hull, why=f"only {drawn.participants} test participants")
    constant = results.constant(comparison.target, comparison.metric)
    if comparison.metric == "mae" and constant is not None and min(a.mean(), b.mean()) >= constant:
        return _finding(comparison, a, b, effect, hull, why=f"neither is better than a constant ({constant:.3g})")
    return _finding(comparison, a, b, effect, hull)


def compare_mean_auc(results: Results, comparisons: Sequence[Comparison], target: str) -> Finding:
    """Comparisons of the same two encoders on many binary targets as a single one, of their mean areas.

    The finding is named `target`. Participants are drawn once for all targets, because conditions are correlated.
    Targets without scores of both encoders, or with one class only, are left out.
    """
    sides = [[comparison.a, comparison.b] for comparison in comparisons]
    names = [side.experiments[0] for side in sides[0] if side is not None]
    printed = np.array([[_paper(c, side) for side in (c.a, c.b)] for c in comparisons], np.float64).mean(axis=0)
    first = comparisons[0]
    effect = float(first.effect(*printed))
    finding = replace(
        _finding(first, why=f"not run: {', '.join(names)}"),
        target=target,
        paper_a=float(printed[0]),
        paper_b=float(printed[1]),
        paper_effect=effect,
        paper_holds=first.range.low < effect < first.range.high,
    )
    scores = {c.target: [results.scores.get((name, c.target), {}) for name in names] for c in comparisons}
    seeds = sorted({seed for both in scores.values() for seed in set(both[0]) & set(both[1])})
    usable = {name: both for name, both in scores.items() if _usable(both, seeds)}
    if not usable:
        return finding
    values = np.array([[[results.values(n, t_, "auc")[seed] for seed in seeds] for n in names] for t_ in usable])
    a, b = values.mean(axis=0)
    people = np.unique(np.concatenate([both[0][seeds[0]].participants for both in usable.values()]))
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=AUC_BOOTSTRAPS)
    differences = []
    for both in usable.values():
        reference = both[0][seeds[0]]
        stacked = np.stack([side[seed].scores for side in both for seed in seeds])
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw without both classes has no area
            areas = weighted_aucs(reference.labels, stacked, counts[:, np.searchsorted(people, reference.participants)])
        differences.append(areas[: len(seeds)].mean(axis=0) - areas[len(seeds) :].mean(axis=0))
    drawn = np.array(differences)
    drawn = drawn[:, np.isfinite(drawn).any(axis=0)]
    if not drawn.size:
        return replace(finding, why=f"only {len(people)} test participants")
    intervals = [interval(np.nanmean(drawn, axis=0))]
    if len(seeds) > 1:
        intervals.append(_over_seeds(first, a, b))
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    verdict = verdict_of(low, high, first.range)
    why = "the interval crosses the bound" if verdict == "not decidable" else ""
    if len(people) < MIN_PARTICIPANTS:
        verdict, why = "not decidable", f"only {len(people)} test participants"
    return replace(
        finding,
        ours_a=float(a.mean()),
        ours_b=float(b.mean()),
        effect=float(a.mean() - b.mean()),
        effect_low=low,
        effect_high=high,
        seeds=len(seeds),
        verdict=verdict,
        why=why,
    )


def _usable(both: Sequence[Mapping[int, Scores]], seeds: Sequence[int]) -> bool:
    """Whether both encoders have scores of all seeds for the same participants, with both classes among them."""
    if not seeds or any(seed not in side for side in both for seed in seeds):
        return False
    first = both[0][seeds[0]]
    same = all(np.array_equal(side[seed].participants, first.participants) for side in both for seed in seeds)
    return same and bool(first.labels.any()) and not bool(first.labels.all())


def verdict_of(low: float, high: float, claimed: Range) -> Verdict:
    """Whether an interval lies inside, outside or across the claimed range."""
    if claimed.low < low and high < claimed.high:
        return "holds"
    return "does not hold" if high < claimed.low or claimed.high < low else "not decidable"


def _finding(
    comparison: Comparison,
    a: Floats | None = None,
    b: Floats | None = None,
    effect: float | None = None,
    hull: tuple[float, float] | None = None,
    why: str = "",
) -> Finding:
    paper_a, paper_b = _paper(comparison, comparison.a), _paper(comparison, comparison.b)
    paper_effect = None if paper_a is None or paper_b is None else float(comparison.effect(paper_a, paper_b))
    verdict: Verdict = "not decidable"
    if hull and not why:
        verdict = verdict_of(*hull, comparison.range)
        why = "" if verdict != "not decidable" else "the interval crosses the bound"
    return Finding(
        what=f"{comparison.a} {comparison.range.words} {comparison.b or 'chance'}",
        target=comparison.target,
        metric=comparison.metric,
        paper_a=paper_a,
        paper_b=paper_b,
        paper_effect=paper_effect,
        paper_holds=None if paper_effect is None else comparison.range.low < paper_effect < comparison.range.high,
        ours_a=None if a is None else float(a.mean()),
        ours_b=None if b is None else float(b.mean()),
        effect=effect,
        effect_low=hull[0] if hull else None,
        effect_high=hull[1] if hull else None,
        seeds=0 if a is None else len(a),
        verdict=verdict,
        why=why,
    )


def _paper(comparison: Comparison, side: Side | None) -> float | None:
    if side is None:
        return 0.5
    if side.table is None:
        return None
    table = side.table if isinstance(side.table, int) else side.table[comparison.target]
    values = [
        paper.number(table, name, comparison.target, comparison.metric, side.label_fraction)
        for name in side.experiments
    ]
    if side.best:
        return max(values) if comparison.metric == "auc" else min(values)
    return float(np.mean(values))


_Keys = list[tuple[float, str]]  # label fraction and experiment


def _chosen(
    side: Side, values: Mapping[tuple[float, str], Mapping[int, float]], seeds: Sequence[int], metric: str
) -> _Keys:
    """The experiments of a side that count: all, or only the best over the seeds."""
    keys = [(side.label_fraction, name) for name in side.experiments]
    if not side.best:
        return keys
    sign = -1 if metric == "auc" else 1
    return [min(keys, key=lambda key: sign * sum(values[key][seed] for seed in seeds))]


def _over_seeds(comparison: Comparison, a: Floats, b: Floats) -> tuple[float, float]:
    """Welch's 95 % interval of the difference of the means, on the scale of the effect."""
    scale = 1.0 if comparison.metric == "auc" else float(b.mean())
    middle, half = float(a.mean() - b.mean()), 0.0
    squares = [float(values.var(ddof=1)) / len(values) for values in (a, b)]
    if sum(squares) > 0:
        freedom = sum(squares) ** 2 / sum(square**2 / (len(a) - 1) for square in squares)
        half = float(t.ppf(0.975, freedom)) * math.sqrt(sum(squares))
    return (middle - half) / scale, (middle + half) / scale


def _pooled_over_seeds(results: Results, comparison: Comparison, a: Floats, b: Floats) -> tuple[float, float] | None:
    """Interval of the effect of one seed from the spread of other encoders on the same target; None without any."""
    variance, degrees = 0.0, math.inf
    for side, mean in ((comparison.a, a.mean()), (comparison.b, b.mean())):
        if side is None:
            continue
        pooled = _seed_spread(results, comparison, side.label_fraction)
        if pooled is None:
            return None
        spread, freedom = pooled
        scale = 1.0 if comparison.metric == "auc" else mean / b.mean()
        variance += (scale * spread) ** 2 / (1 if side.best else len(side.experiments))
        degrees = min(degrees, freedom)
    effect = float(comparison.effect(a.mean(), b.mean()))
    half = float(t.ppf(0.975, degrees)) * math.sqrt(variance)
    return effect - half, effect + half


def _seed_spread(results: Results, comparison: Comparison, label_fraction: float) -> tuple[float, int] | None:
    """Pooled standard deviation over seeds (of errors relative to their mean), and its degrees of freedom.

    None if no encoder has several seeds.
    """
    squares, degrees = 0.0, 0
    for experiment in results.experiments_by_target.get(comparison.target, ()):
        values = np.array(
            list(results.values(experiment, comparison.target, comparison.metric, label_fraction).values())
        )
        if len(values) > 1:
            scale = 1.0 if comparison.metric == "auc" else values.mean()
            squares += float(np.square((values - values.mean()) / scale).sum())
            degrees += len(values) - 1
    return (math.sqrt(squares / degrees), degrees) if degrees else None


@dataclass(frozen=True)
class _Draws:
    """Bootstrapped values, and the number of participants that were drawn from."""

    values: Floats  # [draws], or [encoders, draws]
    participants: int


def _draws(results: Results, comparison: Comparison, chosen: Sequence[_Keys], seeds: Sequence[int]) -> _Draws | None:
    """The effect over participants drawn with replacement, paired; None without values of single participants."""
    wanted = [(key, seed) for keys in chosen for key in keys for seed in seeds]
    split = len(chosen[0]) * len(seeds)  # side a's come first
    drawn = (_auc_draws if comparison.metric == "auc" else _error_draws)(results, comparison.target, wanted)
    if drawn is None:
        return None
    a = drawn.values[:split].mean(axis=0)
    b = drawn.values[split:].mean(axis=0) if len(chosen) > 1 else 0.5
    return _Draws(comparison.effect(a, b), drawn.participants)


def _error_draws(results: Results, target: str, wanted: Sequence[tuple[tuple[float, str], int]]) -> _Draws | None:
    """Mean absolute errors `[wanted, draws]` over the participants that all of `wanted` have in common."""
    errors = [results.errors.get((name, target, fraction), {}).get(seed) for (fraction, name), seed in wanted]
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    common = known[0].participants
    for error in known[1:]:
        common = np.intersect1d(common, error.participants)
    if not len(common):
        return None
    rows = [np.searchsorted(error.participants, common) for error in known]
    counts = _participant_draws(len(common))
    total = np.stack([error.absolute_error_sum[row] for error, row in zip(known, rows, strict=True)], axis=1)
    n = np.stack([error.n[row] for error, row in zip(known, rows, strict=True)], axis=1)
    return _Draws(np.asarray(((counts @ total) / (counts @ n)).T, np.float64), len(common))


def _auc_draws(results: Results, target: str, wanted: Sequence[tuple[tuple[float, str], int]]) -> _Draws | None:
    """Areas `[wanted, draws]`; None if the participants differ or all have the same label."""
    scores = [results.scores.get((name, target), {}).get(seed) for (_, name), seed in wanted]
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    first = known[0]
    same = all(np.array_equal(score.participants, first.participants) for score in known)
    if not same or first.labels.all() or not first.labels.any():
        return None
    areas = bootstrap_aucs(first.labels, np.stack([score.scores for score in known]))
    return _Draws(areas, len(first.labels))


@lru_cache(maxsize=4)
def _participant_draws(participants: int) -> Floats:
    """How often each participant is in each draw of as many with replacement: `[draws, participants]`."""
    rng = np.random.default_rng(0)
    return rng.multinomial(participants, np.full(participants, 1 / participants), size=BOOTSTRAPS).astype(np.float64)
