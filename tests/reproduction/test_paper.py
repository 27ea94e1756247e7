"""The paper's numbers against what its own text derives from them, and against its print."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from accelkd.recordings.survey import TARGETS
from accelkd.reproduction import paper
from accelkd.reproduction.paper import LOW_FRACTION, NUMBERS, SEGMENT_TARGETS, number


@pytest.fixture(scope="module")
def text(shared: Path) -> str:
    """The paper as it was printed."""
    files = sorted((shared / "paper").glob("001_*.txt"))
    if not files:
        pytest.skip("the paper's text is not at hand")
    return files[0].read_text(encoding="utf-8")


def test_the_46_health_targets_are_those_of_the_survey() -> None:
    assert set(paper.HEALTH_STARS) == set(paper.HEALTH_PARTICIPANTS) == set(TARGETS)
    assert {key.target for key in NUMBERS if key.table == 12} == set(TARGETS)
    assert len(TARGETS) == 46
    assert Counter(paper.HEALTH_STARS.values()) == {"***": 41, "*": 3, "n.s.": 2}


@pytest.mark.parametrize(("table", "target", "percent"), [(9, "hr_bpm", 49), (10, "sdnn_ms", 34), (11, "rmssd_ms", 23)])
def test_best_distilled_over_best_unimodal_improves_as_figure_2_says(table: int, target: str, percent: int) -> None:
    distilled = min(number(table, name, target) for name in ("accel-kd-mae", "accel-kd-cl"))
    unimodal = min(number(table, name, target) for name in ("accel-mae", "accel-cl"))
    assert round(100 * (1 - distilled / unimodal)) == percent


def test_ablations_differ_by_what_section_5_5_says() -> None:
    more = [number(3, "simultaneous-random-lambda-1", t) / number(3, "accel-kd-mae", t) for t in SEGMENT_TARGETS]
    assert [round(100 * (ratio - 1)) for ratio in more] == [95, 47, 35]
    without = number(17, "kd-augment-none", "hr_bpm") / number(17, "accel-kd-mae", "hr_bpm")
    assert round(100 * (without - 1)) == 45


def test_a_number_that_no_table_prints_is_an_error() -> None:
    with pytest.raises(KeyError):
        number(9, "accel-kd-mae", "hr_bpm", "mae", 0.01)
    with pytest.raises(KeyError):
        number(15, "accel-cl", "hr_bpm")


@pytest.mark.parametrize(("table", "target"), [(9, "hr_bpm"), (10, "sdnn_ms"), (11, "rmssd_ms")])
def test_main_tables_are_as_printed(text: str, table: int, target: str) -> None:
    for name, printed in paper.NAMES.items():
        cells = [
            f"{number(table, name, target, metric):.2f} ({number(table, name, target, metric, LOW_FRACTION):.2f})"
            for metric in ("mae", "rmse", "pearson_r")
        ]
        assert "\t".join([printed, *cells]) in text


def test_health_table_is_as_printed(text: str) -> None:
    for target, about in TARGETS.items():
        best, *others = (f"{number(12, name, target, 'auc'):.3f}" for name in paper.HEALTH_ENCODERS)
        assert "\t".join([about.label, f"{best} ({paper.HEALTH_STARS[target]})", *others]) in text


@pytest.mark.parametrize("table", [14, 15, 16, 17, 18])
def test_ablation_tables_are_as_printed(text: str, table: int) -> None:
    experiments = list(dict.fromkeys(key.experiment for key in NUMBERS if key.table == table))
    rows = zip(("Heart rate (BPM)", "SDNN (ms)", "RMSSD (ms)"), SEGMENT_TARGETS, strict=True)
    for label, target in rows:
        assert "\t".join([label, *(f"{number(table, name, target):.2f}" for name in experiments)]) in text
