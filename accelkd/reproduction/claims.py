"""Every comparative claim of the paper, and whether our results support it.

A claim is a list of comparisons, each decided by its interval (accelkd.reproduction.comparison). Ranges that the paper
gives in words only are bounded by its own figures: it calls differences up to 6 % not meaningful (table 13) and 13 % or
more a drop (table 15); errors that grow by up to 15 % robust, but not those that grow by 135 % or more (tables 9-11).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product

import numpy as np
import pyarrow as pa
from scipy.stats import ttest_1samp

from accelkd.recordings.labels import LABELS
from accelkd.recordings.survey import TARGETS
from accelkd.reproduction import paper
from accelkd.reproduction.comparison import (
    MIN_PARTICIPANTS,
    Comparison,
    Finding,
    Range,
    Side,
    Verdict,
    compare,
    compare_mean_auc,
    verdict_of,
)
from accelkd.reproduction.paper import LOW_FRACTION, SEGMENT_TARGETS
from accelkd.reproduction.results import Results, file_schema
from accelkd.reproduction.tables import health_comparison
from accelkd.warehouse.schema import REPRODUCTION_CLAIMS

SAME = 0.10  # relative differences below this count as none
ROBUST = 0.25  # growth of an error below this counts as performance kept
NEAR_PERFECT_PERCENT = 95.0
MARKED = 0.5  # Procrustes' top-1 accuracy is below this share of the distilled encoder's

SMALLER = Range(-math.inf, 0, "has a smaller error than")
LARGER_AUC = Range(0, math.inf, "has a larger AUC than")
AS_GOOD = Range(-SAME, SAME, f"differs by less than {100 * SAME:g} % from")
NO_BETTER = Range(-SAME, math.inf, f"is not {100 * SAME:g} % better than")
KEEPS = Range(-math.inf, ROBUST, f"has less than {100 * ROBUST:g} % more error than")
LOSES = Range(ROBUST, math.inf, f"has more than {100 * ROBUST:g} % more error than")

MAIN = dict(zip(SEGMENT_TARGETS, (9, 10, 11), strict=True))  # the tables of the main comparison
MAIN_FRACTIONS = (LOW_FRACTION, 1.0)  # figure 2 shows more, but prints no numbers
UNIMODAL, DISTILLED = ("accel-mae", "accel-cl"), ("accel-kd-mae", "accel-kd-cl")
SINGLE_AUGMENTATIONS = tuple(
    f"kd-augment-{name}" for name in ("gaussian-noise", "cut-out", "magnitude-warp", "channel-permute", "time-warp")
)
KD_BY_LAMBDA = {"0": "kd-lambda-0", "0.5": "kd-lambda-0.5", "1": "accel-kd-mae"}  # third row of table 19


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, in our own words."""

    claim_id: str
    sentence: str
    where: str  # sections and tables
    rule: str  # when it holds
    findings: Callable[[Results], Sequence[Finding]]
    every: bool = True  # every comparison must hold; else most of them
    note: str = ""
    remark: Callable[[Results], str] | None = None  # a measurement beside the verdict


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict and the numbers behind it."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: Verdict
    seeds: int  # the smallest number among the comparisons that were run
    paper: str
    ours: str


def judge(results: Results) -> tuple[Judgement, ...]:
    """The judgement of every claim, in the order of CLAIMS."""
    return tuple(judge_claim(claim, results) for claim in CLAIMS)


def judge_claim(claim: Claim, results: Results) -> Judgement:
    """Measure the comparisons of one claim and derive its verdict from theirs."""
    findings = tuple(claim.findings(results))
    remark = claim.remark(results) if claim.remark else ""
    printed = _numbers([(f, f.paper_a, f.paper_b, f.paper_effect) for f in findings]) or "no figures printed"
    contrary = sum(f.paper_holds is False for f in findings)
    ours = _numbers([(f, f.ours_a, f.ours_b, f.effect) for f in findings])
    return Judgement(
        claim,
        findings,
        _verdict(claim, findings),
        seeds=min((f.seeds for f in findings if f.seeds), default=0),
        paper=printed + (f" ({contrary} of {len(findings)} against the claim)" if contrary else ""),
        ours="; ".join(text for text in (ours, _counts(findings), remark) if text),
    )


def verdict_on(judgement: Judgement, target: str) -> Verdict | None:
    """The verdict by the claim's rule over its comparisons on one target alone; None if it has none."""
    findings = [finding for finding in judgement.findings if finding.target == target]
    return _verdict(judgement.claim, findings) if findings else None


def claims_table(judgements: Sequence[Judgement]) -> pa.Table:
    """One row for each claim, with its comparisons as a list of records."""
    rows = [
        {
            "claim_id": j.claim.claim_id,
            "sentence": j.claim.sentence,
            "where_in_paper": j.claim.where,
            "rule": j.claim.rule,
            "paper": j.paper,
            "ours": j.ours,
            "verdict": j.verdict,
            "seeds": j.seeds,
            "note": j.claim.note,
            "comparisons": [asdict(finding) for finding in j.findings],
        }
        for j in judgements
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


_ARROW = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64(), "bool | None": pa.bool_()}
_SCHEMA = file_schema(REPRODUCTION_CLAIMS).append(
    pa.field(
        "comparisons",
        pa.list_(pa.struct([pa.field(f.name, _ARROW.get(str(f.type), pa.string())) for f in fields(Finding)])),
    )
)


def _verdict(claim: Claim, findings: Sequence[Finding]) -> Verdict:
    holds = sum(finding.verdict == "holds" for finding in findings)
    fails = sum(finding.verdict == "does not hold" for finding in findings)
    if claim.every:
        return "does not hold" if fails else "holds" if holds == len(findings) else "not decidable"
    if 2 * holds > len(findings) and 10 * fails <= holds:
        return "holds"
    # One in twenty may fail by chance
    return "does not hold" if fails > holds and 20 * fails > len(findings) else "not decidable"


def _counts(findings: Sequence[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    text = f"{verdicts.count('holds')} of {len(findings)} hold, {verdicts.count('does not hold')} fail"
    absent = sorted({f.why.removeprefix("not run: ") for f in findings if f.why.startswith("not run: ")})
    missing = sorted({name for names in absent for name in names.split(", ")})
    if missing:
        text += f" (not run: {', '.join(missing[:4])}{', …' if len(missing) > 4 else ''})"
    return text


def _numbers(numbers: Sequence[tuple[Finding, float | None, float | None, float | None]]) -> str:
    """Both numbers of up to three comparisons; of more, the range of their effects."""
    known = [(f, a, b, e) for f, a, b, e in numbers if a is not None and b is not None and e is not None]
    if len(numbers) <= 3:
        return ", ".join(
            f"{target_name(f.target)} {value_text(a, f.metric)} against {value_text(b, f.metric)}"
            for f, a, b, _ in known
        )
    spans = []
    for metric in dict.fromkeys(f.metric for f, *_ in known):
        effects = [effect for f, *_, effect in known if f.metric == metric]
        span = f"{effect_text(min(effects), metric)} to {effect_text(max(effects), metric)}"
        spans.append({"mae": "error ", "auc": "AUC "}.get(metric, "") + span)
    return ", ".join(spans) + (f" in {len(known)} of {len(numbers)}" if 0 < len(known) < len(numbers) else "")


def value_text(value: float, metric: str) -> str:
    """A number as tables show it."""
    return {"auc": f"{value:.3f}", "top1_percent": f"{value:.2f} %"}.get(metric, f"{value:.2f}")


def effect_text(effect: float, metric: str) -> str:
    """A relative difference in percent, a difference of areas with its sign, a retrieval score as it is."""
    return {"mae": f"{100 * effect:+.1f} %", "auc": f"{effect:+.3f}"}.get(metric, f"{effect:.4g}").replace("-", "−")


def target_name(target: str) -> str:
    """A target as tables name it."""
    return _TARGET_NAMES.get(target) or TARGETS[target].label


_TARGET_NAMES = {
    **{name: label.abbreviation for name, label in LABELS.items()},
    "age": "age",
    "bmi": "BMI",
    "sex": "sex",
    "health": "46 targets",
    "ppg_from_accel": "PPG from accel",
    "accel_from_ppg": "accel from PPG",
}


def _all(comparisons: Iterable[Comparison]) -> Callable[[Results], list[Finding]]:
    listed = list(comparisons)
    return lambda results: [compare(results, comparison) for comparison in listed]


_Table = int | Mapping[str, int] | None


def _pairs(
    a: Iterable[str],
    b: Iterable[str],
    claimed: Range = SMALLER,
    table: _Table = None,
    other_table: _Table = None,
) -> Callable[[Results], list[Finding]]:
    """Each of `a` against each of `b` on heart rate, SDNN and RMSSD; `other_table` prints b where it is not `table`."""
    return _all(
        Comparison(target, Side((first,), table), Side((second,), other_table or table), claimed)
        for first, second, target in product(a, b, SEGMENT_TARGETS)
    )


def _groups(a: tuple[str, ...], b: tuple[str, ...], table: int) -> Callable[[Results], list[Finding]]:
    """The mean of `a` against the mean of `b` on heart rate, SDNN and RMSSD."""
    return _all(Comparison(target, Side(a, table), Side(b, table), SMALLER) for target in SEGMENT_TARGETS)


def _few_labels(experiments: Iterable[str], claimed: Range) -> Callable[[Results], list[Finding]]:
    """Each encoder with 0.1 % of the labels against itself with all."""
    return _all(
        Comparison(target, Side((name,), MAIN, LOW_FRACTION), Side((name,), MAIN), claimed)
        for name, target in product(experiments, SEGMENT_TARGETS)
    )


def _beats_supervised(results: Results) -> list[Finding]:
    measured = {key[3] for key in results.rows if key[0] == "accel-supervised"}
    return [
        compare(
            results,
            Comparison(
                target,
                Side((name,), MAIN if fraction in MAIN_FRACTIONS else None, fraction),
                Side(("accel-supervised",), MAIN if fraction in MAIN_FRACTIONS else None, fraction),
                SMALLER,
            ),
        )
        for name, fraction, target in product(DISTILLED, sorted(measured | set(MAIN_FRACTIONS)), SEGMENT_TARGETS)
    ]


def _simultaneous(start: str) -> Callable[[Results], list[Finding]]:
    return _all(
        Comparison(target, Side((kd,), 19), Side((f"simultaneous-{start}-lambda-{weight}",), 19), SMALLER)
        for (weight, kd), target in product(KD_BY_LAMBDA.items(), SEGMENT_TARGETS)
    )


def _demographics(a: str, others: Iterable[str]) -> Callable[[Results], list[Finding]]:
    return _all(
        Comparison(target, Side((a,), 2), Side((b,), 2), LARGER_AUC if target == "sex" else SMALLER, _metric(target))
        for b, target in product(others, ("age", "bmi", "sex"))
    )


def _metric(target: str) -> str:
    return "auc" if target == "sex" else "mae"


def _health_comparisons(a: str, b: str | None) -> list[Comparison]:
    return [Comparison(target, Side((a,), 12), Side((b,), 12) if b else None, LARGER_AUC, "auc") for target in TARGETS]


def _health(a: str, b: str | None) -> Callable[[Results], list[Finding]]:
    return _all(_health_comparisons(a, b))


def _health_mean(a: str, others: Iterable[str]) -> Callable[[Results], list[Finding]]:
    """All health targets at once, against each of the others."""
    return lambda results: [compare_mean_auc(results, _health_comparisons(a, b), "health") for b in others]


def _stars(results: Results) -> str:
    """On how many targets the distilled encoder is better than Accel-CL by the paper's own test; '' without scores."""
    compared = [comparison for target in TARGETS if (comparison := health_comparison(results, target))]
    if not compared:
        return ""
    larger = sum(comparison.difference > 0 for comparison in compared)
    significant = sum(comparison.stars != "n.s." for comparison in compared)
    paper_significant = sum(stars != "n.s." for stars in paper.HEALTH_STARS.values())
    return (
        f"{larger} of {len(compared)} larger, {significant} with P < 0.05 by the paper's test "
        f"(paper: 46 and {paper_significant} of 46)"
    )


@dataclass(frozen=True)
class _Top1:
    """Top-1 accuracy in percent over the seeds, with a 95 % interval over candidate pools and seeds."""

    mean: float
    low: float
    high: float
    chance: float
    seeds: int
    participants: float  # of a pool


def _top1(results: Results, experiment: str, space: str, direction: str) -> _Top1 | None:
    rows = results.retrieval_rows(experiment, space, direction)
    if not rows:
        return None
    values = np.array([row["top1_percent"] for row in rows])
    mean, half = float(values.mean()), 1.96 * float(np.mean([row["top1_percent_sd"] for row in rows]))
    low, high = mean - half, mean + half
    if np.ptp(values) > 0:
        over_seeds = ttest_1samp(values, 0.0).confidence_interval(0.95)
        low, high = min(low, float(over_seeds.low)), max(high, float(over_seeds.high))
    chance = float(np.mean([row["chance_top1_percent"] for row in rows]))
    people = float(np.mean([row["participants"] for row in rows]))
    return _Top1(mean, max(0.0, low), min(100.0, high), chance, len(rows), people)


def _near_perfect(space: str) -> Callable[[Results], list[Finding]]:
    claimed = Range(NEAR_PERFECT_PERCENT, math.inf, f"is above {NEAR_PERFECT_PERCENT:g} %")

    def measure(results: Results) -> list[Finding]:
        findings = []
        for row in (row for row in paper.RETRIEVAL if row.experiment == "accel-kd-mae"):
            what = f"top-1 accuracy of {row.experiment} {claimed.words}"
            theirs = row.top1_percent, paper.RETRIEVAL_CHANCE[0], row.top1_percent
            ours = _top1(results, row.experiment, space, row.direction)
            finding = _unmeasured(what, row.direction, theirs, claimed, f"not run: retrieval with {row.experiment}")
            if ours:
                effect = ours.mean, ours.low, ours.high
                finding = _measured(finding, ours.mean, ours.chance, effect, ours, claimed)
            findings.append(finding)
        return findings

    return measure


def _procrustes(results: Results) -> list[Finding]:
    claimed = Range(-math.inf, MARKED, f"is below {100 * MARKED:g} % of that of")
    printed = {(row.experiment, row.direction): row.top1_percent for row in paper.RETRIEVAL}
    findings = []
    for direction in ("ppg_from_accel", "accel_from_ppg"):
        what = f"top-1 accuracy of accel-mae after Procrustes alignment {claimed.words} accel-kd-mae"
        first, second = printed["accel-mae", direction], printed["accel-kd-mae", direction]
        a = _top1(results, "accel-mae", "procrustes", direction)
        b = _top1(results, "accel-kd-mae", "projected", direction)
        why = "not run: retrieval with accel-mae and accel-kd-mae"
        if a and b and b.low <= b.chance:
            why = "the distilled encoder is at chance"
        finding = _unmeasured(what, direction, (first, second, first / second), claimed, why)
        if a and b and b.low > b.chance:
            effect = a.mean / b.mean, a.low / b.high, a.high / b.low  # the widest that both intervals allow
            finding = _measured(finding, a.mean, b.mean, effect, min(a, b, key=lambda side: side.seeds), claimed)
        findings.append(finding)
    return findings


def _unmeasured(what: str, target: str, theirs: tuple[float, float, float], claimed: Range, why: str) -> Finding:
    return Finding(
        what=what,
        target=target,
        metric="top1_percent",
        paper_a=theirs[0],
        paper_b=theirs[1],
        paper_effect=theirs[2],
        paper_holds=claimed.low < theirs[2] < claimed.high,
        ours_a=None,
        ours_b=None,
        effect=None,
        effect_low=None,
        effect_high=None,
        seeds=0,
        verdict="not decidable",
        why=why,
    )


def _measured(
    finding: Finding, a: float, b: float, effect: tuple[float, float, float], measured: _Top1, claimed: Range
) -> Finding:
    middle, low, high = effect
    verdict = verdict_of(low, high, claimed)
    why = "the interval crosses the bound" if verdict == "not decidable" else ""
    if measured.participants < MIN_PARTICIPANTS:
        verdict, why = "not decidable", f"only {measured.participants:.0f} test participants in a pool"
    return replace(
        finding,
        ours_a=a,
        ours_b=b,
        effect=middle,
        effect_low=low,
        effect_high=high,
        seeds=measured.seeds,
        verdict=verdict,
        why=why,
    )


def _retrieval_size(results: Results) -> str:
    """The mean number of candidates in a pool; '' without retrieval."""
    sizes = [row["segments"] for row in results.retrieval if row["experiment"] == "accel-kd-mae"]
    return f"among {np.mean(sizes):,.0f} candidates (paper: 19K)" if sizes else ""


_EACH = "Every comparison holds: "
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "distilled-beats-unimodal-mae",
        "Distilling from PPG-MAE gives better accelerometer embeddings than masked autoencoding of the accelerometer.",
        "5.2, figure 2, tables 9-11",
        _EACH + "accel-kd-mae has a smaller error than accel-mae on HR, SDNN and RMSSD.",
        _pairs(["accel-kd-mae"], ["accel-mae"], table=MAIN),
    ),
    Claim(
        "distilled-beats-unimodal-cl",
        "Distilling from PPG-CL gives better accelerometer embeddings than contrastive learning on the accelerometer.",
        "5.2, figure 2, tables 9-11",
        _EACH + "accel-kd-cl has a smaller error than accel-cl on HR, SDNN and RMSSD.",
        _pairs(["accel-kd-cl"], ["accel-cl"], table=MAIN),
    ),
    Claim(
        "distilled-beats-every-unimodal",
        "Both distilled encoders are better than both uni-modal ones, whatever framework and architecture each has.",
        "5.2, figure 2, tables 9-11",
        _EACH + "each of the two has a smaller error than each of accel-mae and accel-cl on HR, SDNN and RMSSD.",
        _pairs(DISTILLED, UNIMODAL, table=MAIN),
    ),
    Claim(
        "improvement-size",
        "The best distilled encoder improves on the best uni-modal one by 49 % for HR, 34 % for SDNN, 23 % for RMSSD.",
        "abstract, figure 2, tables 9-11",
        _EACH + "the error of the better distilled encoder is more than 22 % below that of the better uni-modal one on "
        "HR, SDNN and RMSSD (the abstract's least improvement, which is 23 % rounded).",
        _all(
            Comparison(
                target,
                Side(DISTILLED, MAIN, best=True),
                Side(UNIMODAL, MAIN, best=True),
                Range(-math.inf, -0.22, "has at least 22 % less error than"),
            )
            for target in SEGMENT_TARGETS
        ),
        note="The size of an improvement depends on the cohort; its sign is the claim before this one.",
    ),
    Claim(
        "distilled-beats-supervised",
        "The distilled encoders are better than supervised ones for every target at every share of labels.",
        "5.2, figure 2, tables 9-11",
        _EACH + "accel-kd-mae and accel-kd-cl have a smaller error than accel-supervised on HR, SDNN and RMSSD at "
        "every label fraction that was run, 0.1 % and 100 % among them.",
        _beats_supervised,
        note="The paper prints figures for 0.1 % and 100 % only.",
    ),
    Claim(
        "distilled-robust-to-few-labels",
        "The distilled encoders keep their performance with 1000 times fewer labels.",
        "5.2, figure 2, tables 9-11",
        _EACH + f"with 0.1 % of the labels each error is less than {100 * ROBUST:g} % larger than with all.",
        _few_labels(DISTILLED, KEEPS),
        note="0.1 % are about 16,000 labels in the paper; tables 9 to 11 say how many they are here.",
    ),
    Claim(
        "unimodal-robust-to-few-labels",
        "Uni-modal pre-trained accelerometer encoders keep their performance with 1000 times fewer labels too.",
        "figure 2, tables 9-11",
        _EACH + f"with 0.1 % of the labels each error is less than {100 * ROBUST:g} % larger than with all.",
        _few_labels(UNIMODAL, KEEPS),
        note="0.1 % are about 16,000 labels in the paper; tables 9 to 11 say how many they are here.",
    ),
    Claim(
        "supervised-needs-labels",
        "A supervised encoder does not keep its performance with 1000 times fewer labels.",
        "5.2, figure 2, tables 9-11",
        _EACH + f"with 0.1 % of the labels each error is more than {100 * ROBUST:g} % larger than with all.",
        _few_labels(["accel-supervised"], LOSES),
    ),
    Claim(
        "ppg-mae-beats-ppg-cl",
        "For PPG, masked autoencoding is better than contrastive learning.",
        "5.2, A.4, tables 9-11",
        _EACH + "ppg-mae has a smaller error than ppg-cl on HR, SDNN and RMSSD.",
        _pairs(["ppg-mae"], ["ppg-cl"], table=MAIN),
    ),
    Claim(
        "accel-cl-beats-accel-mae",
        "For the accelerometer, contrastive learning is better than masked autoencoding.",
        "5.2, A.4, tables 9-11",
        _EACH + "accel-cl has a smaller error than accel-mae on HR, SDNN and RMSSD.",
        _pairs(["accel-cl"], ["accel-mae"], table=MAIN),
    ),
    Claim(
        "teacher-beats-student",
        "The PPG teacher stays better than the accelerometer student that it teaches.",
        "figure 2, tables 9-11",
        _EACH + "ppg-mae has a smaller error than accel-kd-mae on HR, SDNN and RMSSD.",
        _pairs(["ppg-mae"], ["accel-kd-mae"], table=MAIN),
        note="Of the contrastive pair the paper's own figures do not show it for SDNN (7.17 against 7.16).",
    ),
    Claim(
        "transformer-cl-same",
        "Contrastive learning with Transformers makes no meaningful difference to EfficientNets.",
        "3.1, 5.2, table 13",
        _EACH + f"the errors of accel-cl, ppg-cl and accel-kd-cl differ by less than {100 * SAME:g} % from those of "
        "their Transformer twins on HR, SDNN and RMSSD.",
        _all(
            Comparison(target, Side((f"{name}-transformer",), 13), Side((name,), 13), AS_GOOD)
            for name, target in product(("accel-cl", "ppg-cl", "accel-kd-cl"), SEGMENT_TARGETS)
        ),
    ),
    Claim(
        "transformer-cl-same-conclusion",
        "With Transformers too, distilling from PPG-CL is better than contrastive learning on the accelerometer.",
        "5.2, table 13",
        _EACH + "accel-kd-cl-transformer has a smaller error than accel-cl-transformer on HR, SDNN and RMSSD.",
        _pairs(["accel-kd-cl-transformer"], ["accel-cl-transformer"], table=13),
    ),
    Claim(
        "augmentations-matter",
        "Augmentations are critical for distillation.",
        "5.5, table 17",
        _EACH + "accel-kd-mae has a smaller error than kd-augment-none on HR, SDNN and RMSSD.",
        _pairs(["accel-kd-mae"], ["kd-augment-none"], table=17),
    ),
    Claim(
        "all-augmentations-best",
        "The whole stochastic augmentation module is better than any single augmentation.",
        "A.3, table 17",
        _EACH + "accel-kd-mae has a smaller error than each single augmentation on HR, SDNN and RMSSD.",
        _pairs(["accel-kd-mae"], SINGLE_AUGMENTATIONS, table=17),
    ),
    Claim(
        "noise-and-cut-out-most",
        "Of the single augmentations Gaussian noise and cut out matter most.",
        "A.3, table 17",
        _EACH + "the mean error of Gaussian noise and cut out is below that of magnitude warp and channel permute on "
        "HR, SDNN and RMSSD (time warp is the next claim's, and would decide this one alone).",
        _groups(SINGLE_AUGMENTATIONS[:2], SINGLE_AUGMENTATIONS[2:4], 17),
        note="By target the paper's order differs: for SDNN channel permute is before cut out, for RMSSD before "
        "Gaussian noise.",
    ),
    Claim(
        "time-warp-least",
        "Of the single augmentations time warp matters least.",
        "A.3, table 17",
        _EACH + "each other single augmentation has a smaller error than time warp on HR, SDNN and RMSSD.",
        _pairs(SINGLE_AUGMENTATIONS[:4], SINGLE_AUGMENTATIONS[4:], table=17),
    ),
    Claim(
        "lambda-high-best",
        "A high weight of the teacher's embeddings as anchors (λ of 0.75 and 1) is best.",
        "A.3, table 18",
        _EACH + "the mean error of λ = 0.75 and 1 is below that of λ = 0, 0.25 and 0.5 on HR, SDNN and RMSSD.",
        _groups(("kd-lambda-0.75", "accel-kd-mae"), ("kd-lambda-0", "kd-lambda-0.25", "kd-lambda-0.5"), 18),
    ),
    Claim(
        "lambda-robust",
        "Distillation improves the accelerometer's embeddings whatever λ is.",
        "A.3, table 18",
        _EACH + "each λ has a smaller error than accel-mae and than accel-cl on HR, SDNN and RMSSD.",
        _pairs(
            [*(f"kd-lambda-{weight}" for weight in ("0", "0.25", "0.5", "0.75")), "accel-kd-mae"],
            UNIMODAL,
            table=18,
            other_table=MAIN,
        ),
    ),
    Claim(
        "simultaneous-worse",
        "Training both encoders together from scratch is worse than distilling from a frozen teacher.",
        "5.5, tables 3 and 19",
        _EACH + "distillation has a smaller error at the same λ (0, 0.5, 1) on HR, SDNN and RMSSD.",
        _simultaneous("random"),
    ),
    Claim(
        "simultaneous-pretrained-worse",
        "Training both together is worse even if the PPG encoder starts from the pre-trained teacher.",
        "5.5, A.3, table 19",
        _EACH + "distillation has a smaller error at the same λ (0, 0.5, 1) on HR, SDNN and RMSSD.",
        _simultaneous("pretrained"),
    ),
    Claim(
        "segment-level-pairs-better",
        "In contrastive pre-training of the teacher, positive pairs of one segment are better than of one participant.",
        "A.3, table 14",
        _EACH + "ppg-cl has a smaller error than ppg-cl-participant on HR, SDNN and RMSSD.",
        _pairs(["ppg-cl"], ["ppg-cl-participant"], table=14),
        note="Read as captioned. The table's right column is the student Accel-KD via PPG-MAE's.",
    ),
    Claim(
        "segment-level-pairs-better-student",
        "The same for the student that the contrastive teacher teaches (the other reading of table 14).",
        "A.3, table 14",
        _EACH + "accel-kd-cl has a smaller error than accel-kd-cl-participant on HR, SDNN and RMSSD.",
        _pairs(["accel-kd-cl"], ["accel-kd-cl-participant"]),
    ),
    Claim(
        "four-channels-better",
        "Four PPG channels make a better teacher than one.",
        "A.3, table 15",
        _EACH + "ppg-mae has a smaller error than ppg-mae-1-channel on HR, SDNN and RMSSD.",
        _pairs(["ppg-mae"], ["ppg-mae-1-channel"], table=15),
    ),
    Claim(
        "sixteen-layers-no-better",
        "Twice the layers make no better teacher.",
        "A.3, table 16",
        _EACH + f"ppg-mae-16-layers is not {100 * SAME:g} % or more better than ppg-mae on HR, SDNN and RMSSD.",
        _pairs(["ppg-mae-16-layers"], ["ppg-mae"], NO_BETTER, table=16),
    ),
    Claim(
        "small-beats-unimodal",
        "The small student (S) is still better than the uni-modal encoders of full size.",
        "5.4, figure 4",
        _EACH + "kd-size-s has a smaller error than accel-mae and than accel-cl on HR, SDNN and RMSSD.",
        _pairs(["kd-size-s"], UNIMODAL),
    ),
    Claim(
        "compression-maintains",
        "Distilling into the small student maintains the information.",
        "5.4, figure 4",
        _EACH + f"the error of kd-size-s is less than {100 * ROBUST:g} % above that of accel-kd-mae (XL) on HR, SDNN "
        "and RMSSD.",
        _pairs(["kd-size-s"], ["accel-kd-mae"], KEEPS),
    ),
    Claim(
        "retrieval-near-perfect",
        "The student's embedding finds the teacher's of the same segment nearly always, and the other way round.",
        "5.1, tables 1 and 8",
        _EACH + f"top-1 accuracy is above {NEAR_PERFECT_PERCENT:g} % in both directions, in the 128-D space of the "
        "projection heads that training aligns.",
        _near_perfect("projected"),
        remark=_retrieval_size,
    ),
    Claim(
        "retrieval-near-perfect-raw",
        "The same with the encoders' own 256-D embeddings, as section 4.2 has it.",
        "4.2, 5.1, tables 1 and 8",
        _EACH + f"top-1 accuracy is above {NEAR_PERFECT_PERCENT:g} % in both directions, in the encoders' own space.",
        _near_perfect("raw"),
        note="Training aligns only the projected embeddings; nothing ties the two encoders' own axes together.",
        remark=_retrieval_size,
    ),
    Claim(
        "procrustes-fails",
        "Uni-modal accelerometer embeddings cannot be brought to the teacher's by translation, rotation and scaling.",
        "5.1, tables 1 and 8",
        _EACH + f"in both directions their top-1 accuracy is below {100 * MARKED:g} % of the distilled encoder's in "
        "the projected space.",
        _procrustes,
    ),
    Claim(
        "demographics",
        "The distilled encoder predicts age, BMI and sex better than the uni-modal ones.",
        "5.3, table 2",
        _EACH + "accel-kd-mae has a smaller error (age, BMI) or a larger AUC (sex) than accel-mae and than accel-cl.",
        _demographics("accel-kd-mae", UNIMODAL),
    ),
    Claim(
        "demographics-cl",
        "So does the encoder that is distilled from PPG-CL.",
        "5.3, table 2",
        _EACH + "accel-kd-cl has a smaller error (age, BMI) or a larger AUC (sex) than accel-mae and than accel-cl.",
        _demographics("accel-kd-cl", UNIMODAL),
        note="The paper's own table 2 has it behind Accel-CL for BMI and sex.",
    ),
    Claim(
        "health-better-on-average",
        "The distilled encoder predicts health targets better than the uni-modal ones, all targets together.",
        "5.3, table 12",
        _EACH + "the mean AUC of accel-kd-mae over all targets is larger than that of accel-mae and of accel-cl, with "
        "participants drawn once for all targets.",
        _health_mean("accel-kd-mae", UNIMODAL),
    ),
    Claim(
        "health-better",
        "The distilled encoder predicts the 46 health targets better than the best uni-modal one, nearly all "
        "significantly.",
        "5.3, table 12",
        "Most comparisons hold: on more than half of the targets the AUC of accel-kd-mae is larger than that of "
        "accel-cl by the paired interval, and for ten of them at most one is smaller.",
        _health("accel-kd-mae", "accel-cl"),
        every=False,
        note="The paper's rank-sum test of bootstraps finds nearly any difference significant; the verdict is by the "
        "paired interval.",
        remark=_stars,
    ),
    Claim(
        "health-better-mae",
        "The distilled encoder predicts the 46 health targets better than masked autoencoding of the accelerometer.",
        "5.3, table 12",
        "Most comparisons hold: as for the claim before, with accel-mae.",
        _health("accel-kd-mae", "accel-mae"),
        every=False,
    ),
    Claim(
        "health-better-cl",
        "So does the encoder that is distilled from PPG-CL, against contrastive learning on the accelerometer.",
        "5.3, table 12",
        "Most comparisons hold: as for the claims before, accel-kd-cl against accel-cl.",
        _health("accel-kd-cl", "accel-cl"),
        every=False,
        note="In the paper's own table 12 it is behind Accel-CL on eight targets.",
    ),
    Claim(
        "health-predictive",
        "One accelerometer encoder is predictive of a wide array of health targets.",
        "5.3, table 12",
        "Most comparisons hold: on more than half of the 46 targets the AUC of accel-kd-mae is above chance by its "
        "interval, and for ten of them at most one is below.",
        _health("accel-kd-mae", None),
        every=False,
    ),
)
