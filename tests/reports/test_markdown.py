"""Markdown tables: a row stays a row, numbers are written as asked."""

from __future__ import annotations

import numpy as np

from accelkd.reports import markdown


def test_a_table_has_a_line_for_its_header_and_for_each_row() -> None:
    rows = [("heart rate", 1234.567, 12_345), ("SDNN", None, True)]
    assert markdown.table(("target", "MAE", "segments"), rows).splitlines() == [
        "| target | MAE | segments |",
        "| --- | --- | --- |",
        "| heart rate | 1,234.57 | 12,345 |",
        "| SDNN |  | True |",
    ]


def test_numbers_are_formatted_as_asked() -> None:
    table = markdown.table(("a", "b"), [(np.float64(0.000123456), 12_345)], floats=".4g", integers="")
    assert table.splitlines()[-1] == "| 0.0001235 | 12345 |"


def test_pipes_and_line_breaks_do_not_break_a_row() -> None:
    assert markdown.table(("a|b",), [("x | y\nz",)]).splitlines() == ["| a\\|b |", "| --- |", "| x \\| y z |"]


def test_a_table_without_rows_is_its_header() -> None:
    assert markdown.table(("a", "b"), []) == "| a | b |\n| --- | --- |"
