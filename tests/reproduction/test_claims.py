"""Claims judged on results whose truth is planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelkd.recordings.survey import TARGETS
from accelkd.reproduction.claims import CLAIMS, Judgement, claims_table, judge, judge_claim
from accelkd.reproduction.comparison import Range, verdict_of
from accelkd.reproduction.paper import LOW_FRACTION, number
from accelkd.reproduction.results import read_results
from tests.support.planted import Planted, like_the_paper

BY_ID = {claim.claim_id: claim for claim in CLAIMS}
BEATEN = "distilled-beats-unimodal-mae"
GOOD, BAD = (2.0, 8.0, 9.0), (4.0, 12.0, 14.0)


def judged(planted: Planted, claim_id: str, folder: Path) -> Judgement:
    return judge_claim(BY_ID[claim_id], read_results(planted.write(folder)))


@pytest.fixture
def planted() -> Planted:
    planted = Planted()
    planted.constants()
    return planted


@pytest.fixture(scope="module")
def paper_like(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judgement]:
    """All claims on results that are the paper's own figures with a little noise."""
    folder = like_the_paper().write(tmp_path_factory.mktemp("planted"))
    return {judgement.claim.claim_id: judgement for judgement in judge(read_results(folder))}


def test_on_the_papers_own_figures_no_claim_fails_but_the_one_that_they_contradict(
    paper_like: dict[str, Judgement],
) -> None:
    verdicts = {claim_id: judgement.verdict for claim_id, judgement in paper_like.items()}
    assert [name for name, verdict in verdicts.items() if verdict == "does not hold"] == ["demographics-cl"]
    undecided = {name for name, verdict in verdicts.items() if verdict == "not decidable"}
    # Effects of one or two percent in models of one seed, and the one that is judged at its own size
    assert undecided <= {
        "improvement-size",
        "all-augmentations-best",
        "noise-and-cut-out-most",
        "time-warp-least",
        "lambda-high-best",
    }


def test_the_papers_figures_agree_with_its_claims_but_where_a_note_says_otherwise(
    paper_like: dict[str, Judgement],
) -> None:
    assert len({claim.claim_id for claim in CLAIMS}) == len(CLAIMS)
    contradicted = {
        claim_id
        for claim_id, judgement in paper_like.items()
        if any(f.paper_holds is False for f in judgement.findings)
    }
    assert contradicted == {"demographics-cl", "health-better-cl"}
    assert all(BY_ID[claim_id].note for claim_id in contradicted)
    without_figures = {
        claim_id
        for claim_id, judgement in paper_like.items()
        if not any(finding.paper_effect is not None for finding in judgement.findings)
    }
    assert without_figures == {"small-beats-unimodal", "compression-maintains", "segment-level-pairs-better-student"}


@pytest.mark.parametrize(
    ("distilled", "unimodal", "verdict"),
    [
        (GOOD, BAD, "holds"),
        (BAD, GOOD, "does not hold"),
        (GOOD, GOOD, "not decidable"),
        ((2.0, 8.0, 14.0), (4.0, 12.0, 9.0), "does not hold"),  # one target of three the other way round
        ((2.0, 8.0, 9.0), (4.0, 12.0, 9.0), "not decidable"),  # one target of three equal
    ],
)
def test_a_claim_follows_the_truth(
    planted: Planted, tmp_path: Path, distilled: tuple[float, ...], unimodal: tuple[float, ...], verdict: str
) -> None:
    planted.errors({"accel-kd-mae": distilled, "accel-mae": unimodal})
    judgement = judged(planted, BEATEN, tmp_path)
    assert judgement.verdict == verdict
    assert judgement.seeds == 1


def test_what_was_not_run_is_named_and_not_decidable(planted: Planted, tmp_path: Path) -> None:
    planted.errors({"accel-kd-mae": GOOD})
    judgement = judged(planted, BEATEN, tmp_path)
    assert judgement.verdict == "not decidable"
    assert {finding.why for finding in judgement.findings} == {"not run: accel-mae"}
    assert "not run: accel-mae" in judgement.ours


def test_two_encoders_behind_the_constant_decide_nothing(planted: Planted, tmp_path: Path) -> None:
    planted.errors({"accel-kd-mae": (10.0, 8.0, 9.0), "accel-mae": (14.0, 12.0, 14.0)})
    judgement = judged(planted, BEATEN, tmp_path)
    assert judgement.verdict == "not decidable"
    assert [finding.verdict for finding in judgement.findings] == ["not decidable", "holds", "holds"]
    assert "constant (9)" in judgement.findings[0].why


def test_one_seed_needs_values_of_single_participants(planted: Planted, tmp_path: Path) -> None:
    for name, errors in {"accel-kd-mae": GOOD, "accel-mae": BAD}.items():
        for target, mae in zip(("hr_bpm", "sdnn_ms", "rmssd_ms"), errors, strict=True):
            planted.error(name, target, mae, by_participant=False)
    judgement = judged(planted, BEATEN, tmp_path)
    assert judgement.verdict == "not decidable"
    assert judgement.findings[0].effect == pytest.approx(-0.5)


@pytest.mark.parametrize(("spread", "verdict"), [(0.01, "holds"), (0.6, "not decidable")])
def test_the_spread_over_seeds_decides(planted: Planted, tmp_path: Path, spread: float, verdict: str) -> None:
    planted.errors({"accel-kd-mae": GOOD, "accel-mae": tuple(1.15 * x for x in GOOD)}, seeds=range(3), spread=spread)
    judgement = judged(planted, BEATEN, tmp_path)
    assert judgement.verdict == verdict
    assert judgement.seeds == 3


def test_with_one_seed_the_spread_of_other_encoders_counts(planted: Planted, tmp_path: Path) -> None:
    little_worse = tuple(1.05 * x for x in GOOD)
    planted.errors({"accel-kd-mae": GOOD, "accel-mae": little_worse})
    assert judged(planted, BEATEN, tmp_path / "alone").verdict == "holds"
    planted.errors({"accel-cl": BAD}, seeds=range(3), spread=0.3)
    assert judged(planted, BEATEN, tmp_path / "with others").verdict == "not decidable"


def test_only_seeds_that_both_have_are_compared(planted: Planted, tmp_path: Path) -> None:
    planted.errors({"accel-kd-mae": GOOD}, seeds=[1])
    planted.errors({"accel-mae": BAD}, seeds=[0])
    assert judged(planted, BEATEN, tmp_path / "none").findings[0].why == "no seed in common"
    planted.errors({"accel-kd-mae": GOOD}, seeds=[0])
    judgement = judged(planted, BEATEN, tmp_path / "one")
    assert (judgement.verdict, judgement.seeds) == ("holds", 1)


def test_participants_are_paired(planted: Planted, tmp_path: Path) -> None:
    """A difference far below the spread between people counts if it is there in nearly every one of them."""
    planted.scatter, planted.own_scatter = 0.3, 0.01
    planted.errors({"accel-kd-mae": GOOD, "accel-mae": tuple(1.02 * x for x in GOOD)})
    assert judged(planted, BEATEN, tmp_path / "paired").verdict == "holds"
    unpaired = Planted(scatter=0.0, own_scatter=0.3)
    unpaired.constants()
    unpaired.errors({"accel-kd-mae": GOOD, "accel-mae": tuple(1.02 * x for x in GOOD)})
    assert judged(unpaired, BEATEN, tmp_path / "unpaired").verdict == "not decidable"


@pytest.mark.parametrize(("growth", "kept", "lost"), [(1.1, "holds", "does not hold"), (2.0, "does not hold", "holds")])
def test_few_labels(planted: Planted, tmp_path: Path, growth: float, kept: str, lost: str) -> None:
    for name in ("accel-kd-mae", "accel-kd-cl", "accel-supervised"):
        for target, mae in zip(("hr_bpm", "sdnn_ms", "rmssd_ms"), GOOD, strict=True):
            planted.error(name, target, mae)
            planted.error(name, target, growth * mae, label_fraction=LOW_FRACTION)
    assert judged(planted, "distilled-robust-to-few-labels", tmp_path).verdict == kept
    assert judged(planted, "supervised-needs-labels", tmp_path).verdict == lost


def test_beating_the_supervised_encoder_is_asked_at_every_fraction_that_was_run(
    planted: Planted, tmp_path: Path
) -> None:
    for fraction, supervised in ((LOW_FRACTION, 1.5), (0.1, 0.7), (1.0, 1.5)):
        for target, mae in zip(("hr_bpm", "sdnn_ms", "rmssd_ms"), GOOD, strict=True):
            planted.error("accel-kd-mae", target, mae, label_fraction=fraction)
            planted.error("accel-kd-cl", target, mae, label_fraction=fraction)
            planted.error("accel-supervised", target, supervised * mae, label_fraction=fraction)
    judgement = judged(planted, "distilled-beats-supervised", tmp_path)
    assert judgement.verdict == "does not hold"
    failing = [finding.what for finding in judgement.findings if finding.verdict == "does not hold"]
    assert len(failing) == 6
    assert all("10 % of the labels" in what for what in failing)


@pytest.mark.parametrize(("factor", "verdict"), [(1.02, "holds"), (1.4, "holds"), (0.7, "does not hold")])
def test_a_larger_teacher_may_be_as_good_or_worse_but_not_better(
    planted: Planted, tmp_path: Path, factor: float, verdict: str
) -> None:
    planted.errors({"ppg-mae": GOOD, "ppg-mae-16-layers": tuple(factor * x for x in GOOD)})
    assert judged(planted, "sixteen-layers-no-better", tmp_path).verdict == verdict


@pytest.mark.parametrize(("factor", "verdict"), [(1.03, "holds"), (1.3, "does not hold"), (0.7, "does not hold")])
def test_no_meaningful_difference_has_two_sides(planted: Planted, tmp_path: Path, factor: float, verdict: str) -> None:
    for name in ("accel-cl", "ppg-cl", "accel-kd-cl"):
        planted.errors({name: GOOD, f"{name}-transformer": tuple(factor * x for x in GOOD)})
    assert judged(planted, "transformer-cl-same", tmp_path).verdict == verdict


def test_groups_are_compared_by_their_means(planted: Planted, tmp_path: Path) -> None:
    """High λ wins on average although the best single λ is a low one."""
    factors = {"0": 1.4, "0.25": 1.4, "0.5": 0.9, "0.75": 1.0}
    planted.errors({f"kd-lambda-{weight}": tuple(f * x for x in GOOD) for weight, f in factors.items()})
    planted.errors({"accel-kd-mae": GOOD})
    finding = judged(planted, "lambda-high-best", tmp_path).findings[0]
    assert finding.verdict == "holds"
    assert finding.ours_b == pytest.approx(2.0 * (1.4 + 1.4 + 0.9) / 3)


def test_the_better_of_two_is_taken_on_our_own_data(planted: Planted, tmp_path: Path) -> None:
    planted.errors({"accel-kd-mae": BAD, "accel-kd-cl": (1.0, 4.0, 5.0), "accel-mae": GOOD, "accel-cl": BAD})
    finding = judged(planted, "improvement-size", tmp_path).findings[0]
    assert [finding.ours_a, finding.ours_b] == pytest.approx([1.0, 2.0])
    assert finding.verdict == "holds"


@pytest.mark.parametrize(("top1", "verdict"), [(99.0, "holds"), (95.2, "not decidable"), (60.0, "does not hold")])
def test_near_perfect_retrieval(planted: Planted, tmp_path: Path, top1: float, verdict: str) -> None:
    planted.retrieval("accel-kd-mae", "projected", top1)
    assert judged(planted, "retrieval-near-perfect", tmp_path).verdict == verdict
    assert judged(planted, "retrieval-near-perfect-raw", tmp_path).verdict == "not decidable"


@pytest.mark.parametrize(
    ("aligned", "distilled", "verdict"),
    [(3.0, 99.0, "holds"), (80.0, 99.0, "does not hold"), (0.5, 0.5, "not decidable")],
)
def test_procrustes(planted: Planted, tmp_path: Path, aligned: float, distilled: float, verdict: str) -> None:
    planted.retrieval("accel-kd-mae", "projected", distilled)
    planted.retrieval("accel-mae", "procrustes", aligned)
    assert judged(planted, "procrustes-fails", tmp_path).verdict == verdict


@pytest.mark.parametrize(("separation", "verdict"), [(1.5, "holds"), (0.8, "not decidable"), (0.1, "does not hold")])
def test_health_targets_need_most_of_them(planted: Planted, tmp_path: Path, separation: float, verdict: str) -> None:
    planted.health({"accel-kd-mae": separation, "accel-cl": 0.8})
    judgement = judged(planted, "health-better", tmp_path)
    assert judgement.verdict == verdict
    assert len(judgement.findings) == len(TARGETS)
    assert "by the paper's test (paper: 46 and 44 of 46)" in judgement.ours


@pytest.mark.parametrize(("separation", "verdict"), [(0.95, "holds"), (0.8, "not decidable"), (0.6, "does not hold")])
def test_health_targets_together(planted: Planted, tmp_path: Path, separation: float, verdict: str) -> None:
    planted.health({"accel-kd-mae": separation, "accel-cl": 0.8, "accel-mae": 0.8})
    judgement = judged(planted, "health-better-on-average", tmp_path)
    assert judgement.verdict == verdict
    finding = judgement.findings[0]
    printed = [number(12, "accel-kd-mae", name, "auc") - number(12, "accel-mae", name, "auc") for name in TARGETS]
    assert finding.paper_effect == pytest.approx(sum(printed) / 46)
    auc = [row["value"] for row in planted.rows["results"] if (row["experiment"], row["metric"]) == ("accel-cl", "auc")]
    assert judgement.findings[1].ours_b == pytest.approx(sum(auc) / len(TARGETS))


def test_few_participants_decide_nothing(tmp_path: Path) -> None:
    few = Planted(participants=19)
    few.constants()
    few.errors({"accel-kd-mae": GOOD, "accel-mae": BAD})
    few.health({"accel-kd-mae": 9.0, "accel-cl": 0.1, "accel-mae": 0.1})
    few.retrieval("accel-kd-mae", "projected", 100.0)
    why = {
        claim: {finding.why for finding in judged(few, claim, tmp_path).findings}
        for claim in (BEATEN, "health-better", "health-better-on-average", "retrieval-near-perfect")
    }
    assert why[BEATEN] == why["health-better"] == why["health-better-on-average"] == {"only 19 test participants"}
    assert why["retrieval-near-perfect"] == {"only 12 test participants in a pool"}


def test_a_health_target_of_one_class_is_left_undecided(planted: Planted, tmp_path: Path) -> None:
    planted.health({"accel-kd-mae": 1.5, "accel-cl": 0.5})
    for row in planted.rows["scores"]:
        row["label"] = row["label"] and row["target"] != "afib"
    judgement = judged(planted, "health-better", tmp_path)
    by_target = {finding.target: finding.verdict for finding in judgement.findings}
    assert by_target["afib"] == "not decidable"
    assert by_target["asthma"] == "holds"


def test_a_verdict_is_where_the_whole_interval_lies() -> None:
    claimed = Range(-0.1, 0.1, "")
    assert verdict_of(-0.05, 0.09, claimed) == "holds"
    assert verdict_of(0.11, 0.2, claimed) == "does not hold"
    assert verdict_of(-0.4, -0.11, claimed) == "does not hold"
    assert verdict_of(0.05, 0.15, claimed) == "not decidable"
    assert verdict_of(-1.0, 1.0, claimed) == "not decidable"


def test_claims_as_a_table(paper_like: dict[str, Judgement]) -> None:
    rows = claims_table(list(paper_like.values())).to_pylist()
    assert [row["claim_id"] for row in rows] == list(BY_ID)
    first = rows[0]["comparisons"][0]
    assert (first["target"], first["verdict"], first["seeds"]) == ("hr_bpm", "holds", 3)
    assert first["effect_low"] < first["effect"] < first["effect_high"] < 0
