"""What the UI shows of a result: in which order, how round, how wide, and that it is text where it is text."""

from __future__ import annotations

import math
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from accelkd.operations.checks import Verdict
from assets.checks import check_result
from assets.metadata import MAX_EMBEDDED_BYTES, document, figure, markdown_table, presented, transposed
from tests.support.pipeline import Pipeline, opened_instance

PNG = b"\x89PNG\r\n\x1a\n"
KEY_CHARACTERS = 32  # more run into the next column of the UI at 1440 px
COLUMNS = 5  # of a table


def test_figures_and_numbers_come_first() -> None:
    metadata = presented(
        {
            "dagster/uri": "/home/x",
            "file": dg.MetadataValue.path("/home/x"),
            "model_id": "abc",
            "table": markdown_table([{"a": 1}]),
            "mae": 1.0,
            "rows": 3,
            "figure": figure(PNG, "it"),
        }
    )
    assert list(metadata) == ["figure", "mae", "rows", "table", "model_id", "dagster/uri", "file"]


def test_numbers_are_rounded_and_stay_numbers() -> None:
    metadata = presented(
        {"a": 0.1 + 0.2, "b": np.float64(12345.678), "c": 2 / 3, "d": 7, "e": True, "none": None, "empty": ""}
    )
    assert metadata == {"a": 0.3, "b": 12346.0, "c": 0.6667, "d": 7, "e": True}
    assert {type(value) for value in metadata.values()} == {float, int, bool}


def test_what_is_no_number_is_text() -> None:
    assert presented({"a": math.nan, "b": math.inf}) == {"a": "nan", "b": "inf"}


def test_a_few_wide_rows_become_many_narrow_ones() -> None:
    rows = [{"target": "HR", "MAE": 1, "R": 2}, {"target": "SDNN", "MAE": 3, "R": 4}]
    assert transposed(rows, "target") == [
        {"target": "MAE", "HR": 1, "SDNN": 3},
        {"target": "R", "HR": 2, "SDNN": 4},
    ]
    assert transposed([], "target") == []


def test_a_check_s_table_shows_reasons_as_they_are() -> None:
    verdict = Verdict(
        False, {"bad": 1}, table=[{"batch": "b", "reason": "<script>alert(1)</script> | [x](javascript:y)"}]
    )
    details = check_result(verdict).metadata["details"].value
    assert str(details).splitlines()[-1] == r"| b | &lt;script>alert(1)&lt;/script> \| \[x\](javascript:y) |"


def test_a_figure_that_is_too_large_is_left_out() -> None:
    text = str(figure(PNG + bytes(MAX_EMBEDDED_BYTES), "it").value)
    assert text == "*it: too large to be shown here*"


def test_a_document_carries_its_figures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "report.md").write_text("# Report\n\n![a](a.png)\n")
    assert "![a](data:image/png;base64," in str(document(tmp_path / "report.md").value)


@pytest.fixture(scope="module")
def events(pipeline: Pipeline) -> dict[str, dict[str, dg.MetadataValue]]:
    """The metadata of the last materialization of each asset."""
    shown = {}
    with opened_instance(pipeline.home) as instance:
        for key in instance.all_asset_keys():
            if materialization := instance.get_latest_materialization_event(key):
                assert materialization.asset_materialization
                shown[key.to_user_string()] = dict(materialization.asset_materialization.metadata)
    return shown


def test_every_page_fits_its_width(events: dict[str, dict[str, dg.MetadataValue]]) -> None:
    """Names of entries do not run into the next column, tables are not cut off."""
    assert {"segments", "participant_split", "ppg_teacher", "retrieval", "written_report"} <= events.keys()
    for asset, metadata in events.items():
        for name, value in metadata.items():
            assert len(name) <= KEY_CHARACTERS, (asset, name)
            if isinstance(value, dg.MarkdownMetadataValue) and str(value.value).startswith("|"):
                header = str(value.value).splitlines()[0]
                assert header.count("|") - 1 <= COLUMNS, (asset, name, header)


def test_every_figure_is_first_and_the_report_s_are_embedded(
    events: dict[str, dict[str, dg.MetadataValue]],
) -> None:
    for asset in ("segments", "participant_split", "ppg_teacher", "ppg_teacher_probes", "retrieval", "embedding_map"):
        assert str(next(iter(events[asset].values())).value).startswith("!["), asset
    report = str(events["written_report"]["report"].value)
    assert report.count("](data:image/png;base64,") == 7
    assert ".png)" not in report
    assert len(report) < 2 * MAX_EMBEDDED_BYTES


def test_numbers_of_every_asset_are_numbers(events: dict[str, dict[str, dg.MetadataValue]]) -> None:
    """What the UI plots over time is a number; a number in a text is not."""
    for asset, metadata in events.items():
        for name, value in metadata.items():
            text = value.value if isinstance(value, dg.TextMetadataValue) else ""
            assert not str(text).replace(".", "", 1).isdecimal(), (asset, name, text)
        if asset != "written_report":
            assert any(isinstance(value, dg.FloatMetadataValue | dg.IntMetadataValue) for value in metadata.values())
