"""Tables: the paper's number beside ours, and nothing left out silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accelkd.reproduction.paper import NUMBERS
from accelkd.reproduction.results import read_results
from accelkd.reproduction.tables import NO_RESULT, NOT_REACHED, NOT_RUN, TABLES, ResultTable, all_tables, cell
from tests.support.planted import Planted


def tables(planted: Planted, folder: Path) -> dict[int, ResultTable]:
    return {table.number: table for table in all_tables(read_results(planted.write(folder)))}


def row_of(table: ResultTable, experiment: str) -> tuple[str, ...]:
    return next(row for row in table.rows if f"`{experiment}`" in row[0])


def test_every_number_of_the_paper_is_in_its_table(tmp_path: Path) -> None:
    shown = tables(Planted(), tmp_path)
    for key, value in NUMBERS.items():
        rows = shown[key.table].rows
        if key.table != 12:  # there the rows are targets
            rows = (row_of(shown[key.table], key.experiment),)
        printed = f"{value:.3f}" if key.table == 12 else f"{value:.2f}"
        assert any(printed in text for row in rows for text in row), key


def test_what_was_not_run_is_shown_as_such(tmp_path: Path) -> None:
    planted = Planted()
    planted.constants()
    planted.errors({"accel-kd-mae": (2.0, 8.0, 9.0)})
    shown = tables(planted, tmp_path)
    assert set(shown) == set(TABLES)
    assert row_of(shown[18], "kd-lambda-0") == (
        "`kd-lambda-0`", "1.25", NOT_RUN, "6.80", NOT_RUN, "8.78", NOT_RUN, "–", "–",
    )  # fmt: skip
    assert row_of(shown[18], "accel-kd-mae")[1:] == ("1.21", "2.00", "6.58", "8.00", "8.40", "9.00", "300", "1")
    assert shown[18].rows[-1][:3] == ("constant predictor", "–", "9.00")
    assert [row[0] for row in shown[9].rows[-2:]] == ["classical estimator", "constant predictor"]
    assert "classical estimator" not in {row[0] for row in shown[10].rows}
    assert [row[3] for row in shown[1].rows] == [NOT_RUN] * 4
    assert all(row[4] == NOT_RUN for row in shown[12].rows)
    assert all(row[2] == NO_RESULT for row in shown[12].rows)
    assert shown[6].rows[0] == ("participants", "172,318", "300")


def test_what_was_left_when_the_time_was_over_was_not_reached(tmp_path: Path) -> None:
    planted = Planted()
    planted.errors({"accel-kd-mae": (2.0, 8.0, 9.0)})
    planted.write(tmp_path)
    facts = json.loads((tmp_path / "cohort.json").read_text(encoding="utf-8"))
    facts["runs_left"] = ["kd-lambda-0.5-0", "accel-mae-0", "supervised-hr_bpm-1-0", "accel-kd-mae-1"]
    (tmp_path / "cohort.json").write_text(json.dumps(facts), encoding="utf-8")
    results = read_results(tmp_path)
    expected = {
        **{"kd-lambda-0.5": NOT_REACHED, "accel-mae": NOT_REACHED, "accel-supervised": NOT_REACHED},
        **{"kd-lambda-0": NOT_RUN, "accel-kd-mae": "2.00"},
    }
    assert {name: cell(results, name, "hr_bpm") for name in expected} == expected
    shown = {table.number: table for table in all_tables(results)}
    assert row_of(shown[1], "accel-mae")[3] == NOT_REACHED


def test_several_seeds_show_their_mean_and_standard_deviation(tmp_path: Path) -> None:
    planted = Planted()
    for seed, value in enumerate((1.0, 2.0, 3.0)):
        planted.metric("ppg-mae", "hr_bpm", "mae", value, seed)
        planted.metric("ppg-mae", "hr_bpm", "mae", value + 1, seed, 0.001)
    planted.metric("ppg-mae", "hr_bpm", "pearson_r", None)
    row = row_of(tables(planted, tmp_path)[9], "ppg-mae")
    assert row[1:3] == ("0.34 (0.36)", "2.00 ± 1.00 (3.00 ± 1.00)")
    assert row[6] == f"undefined ({NO_RESULT})"
    assert row[-3:] == ("4,000 (4)", "300", "3")


def test_experiments_of_a_target_come_sorted_so_that_sums_over_them_are_the_same_each_time(tmp_path: Path) -> None:
    planted = Planted()
    planted.constants()
    names = [f"kd-lambda-{number}" for number in range(20)]
    planted.errors(dict.fromkeys(reversed(names), (1.0, 2.0, 3.0)))
    results = read_results(planted.write(tmp_path))
    assert results.experiments_by_target["hr_bpm"] == tuple(sorted(names))
    assert results.experiments_by_target["age"] == ()


def test_a_missing_file_reads_as_nothing_run(tmp_path: Path) -> None:
    assert cell(read_results(tmp_path), "ppg-mae", "hr_bpm") == NOT_RUN


def test_a_file_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    planted = Planted()
    planted.constants()
    folder = planted.write(tmp_path)
    (folder / "results.parquet").rename(folder / "retrieval.parquet")
    with pytest.raises(ValueError, match=r"retrieval\.parquet: no column .*mean_rank"):
        read_results(folder)


def test_each_space_of_the_retrieval_has_its_row(tmp_path: Path) -> None:
    planted = Planted()
    planted.retrieval("accel-kd-mae", "projected", 99.0)
    planted.retrieval("accel-kd-mae", "raw", 40.0)
    planted.retrieval("accel-kd-cl", "projected", 90.0)
    table = tables(planted, tmp_path)[8]
    ours = {(row[0].split("`")[1], row[1]): row[3] for row in table.rows[:-1]}
    assert ours == {
        ("accel-kd-mae", "encoder's own"): "40.00 (0.40)",
        ("accel-kd-mae", "projection heads"): "99.00 (0.40)",
        ("accel-mae", "Procrustes"): NOT_RUN,
        ("accel-kd-cl", "projection heads"): "90.00 (0.40)",
    }
    assert table.rows[-1][:6] == ("chance", "–", "0.01", "0.53", "9551.64", "95.50")


def test_health_targets_carry_stars_interval_and_numbers(tmp_path: Path) -> None:
    planted = Planted()
    planted.score("accel-kd-mae", "afib", 2.0)
    planted.score("accel-cl", "afib", 0.5)
    rows = {row[0]: row for row in tables(planted, tmp_path)[12].rows}
    assert rows["Afib"][1] == "0.816 (***)"
    assert rows["Afib"][2].endswith(" (***)")
    difference, low = rows["Afib"][9].split(" (")
    assert float(difference) > float(low.split(" to ")[0]) > 0
    assert rows["Afib"][10:12] == ("26,342", "60")
    yes = sum(row["label"] for row in planted.rows["scores"] if row["experiment"] == "accel-cl")
    assert rows["Afib"][12] == str(yes)
    assert rows["Asthma"][2] == NO_RESULT
