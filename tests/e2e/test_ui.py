"""The Dagster UI in a real browser: what a data engineer reads and clicks, with webserver and daemon running."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.homes import copy_home
from tests.support.pipeline import Pipeline, materialize_batch, opened_instance
from tests.support.ui import CHROMIUM, browser, dagster_dev, land_damaged, land_restless

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="Chromium is not installed: `apt-get install chromium`"
)
GROUPS = ("recordings", "segments", "cohort", "encoders", "embeddings", "reports", "warehouse")


@pytest.fixture(scope="module")
def ui(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `make ui` on a copy of the home, in which a third batch moved too much, and a fourth is damaged."""
    home = copy_home(pipeline.home, tmp_path_factory.mktemp("ui") / "home")
    with opened_instance(home) as instance:
        land_damaged(home, "damaged", like="sim-a")
        assert not materialize_batch(home, instance, "damaged").success
        instance.delete_dynamic_partition("arrival_batch", "damaged")
        land_restless(home, "sim-restless", like="sim-a")
        assert materialize_batch(home, instance, "sim-restless").success
    with dagster_dev(home) as address:
        yield address


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def test_graph_shows_every_group(ui: str, page: Page) -> None:
    page.goto(f"{ui}/asset-groups")
    nodes = page.locator("svg foreignObject")
    for group in GROUPS:
        expect(nodes.get_by_text(group, exact=True).first).to_be_visible()
    nodes.get_by_text("cohort", exact=True).first.click()
    expect(nodes.get_by_text("participant_split").first).to_be_visible()


def test_asset_tells_who_owns_it_and_what_its_columns_are_made_from(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/participant_split")
    for text in ("data-engineering", "cadence: each-training", "DuckDB", "Extends the ledger by the participants"):
        expect(page.get_by_text(text).first).to_be_visible()
    page.locator("tr", has_text="columns").get_by_text("Show Table Schema").click()
    expect(page.get_by_text("← segment_tables.demographics.age_years").first).to_be_visible()


def test_figures_are_in_sight_and_every_image_of_the_report_is_drawn(ui: str, page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"{ui}/assets/accel_student_probes")
    entry = page.locator("tr", has_text="predicted_against_measured").get_by_text("Show Markdown").first
    expect(entry).to_be_in_viewport()  # without scrolling
    expect(page.locator("tr", has_text="hr_bpm_mae").first).to_be_in_viewport()
    entry.click()
    figure = page.locator("img[src^='data:image/png']").first
    expect(figure).to_be_visible()
    assert figure.evaluate("image => image.naturalWidth") > 300
    page.goto(f"{ui}/assets/written_report")
    page.locator("tr", has_text="report").get_by_text("Show Markdown").first.click()
    expect(page.locator("img")).to_have_count(7)
    expect(page.locator("img").last).to_be_visible()
    assert all(page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth > 300)"))


# What of each table that is wider than its place it begins with
_WIDE = """tables => tables.filter(table => table.scrollWidth > table.parentElement.clientWidth + 4)
    .map(table => [table.scrollWidth, table.parentElement.clientWidth, table.innerText.slice(0, 300)])"""


def test_no_page_of_an_asset_is_wider_than_its_column(ui: str, page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    for asset in ("ppg_teacher_probes", "promoted_encoders", "retrieval", "participant_split"):
        page.goto(f"{ui}/assets/{asset}")
        expect(page.get_by_text("Metadata", exact=True).first).to_be_visible()
        expect(page.locator("tr", has_text="Key").first).to_be_visible()
        wide = page.locator("table").evaluate_all(_WIDE)
        assert wide == [], asset


def test_a_failed_run_begins_with_what_to_do(ui: str, page: Page) -> None:
    page.goto(f"{ui}/runs?q[0]=tag%3Adagster%2Fpartition%3Ddamaged")
    page.get_by_role("link", name="View", exact=True).first.click()
    expect(page.get_by_text("Failed: batch damaged cannot be used: ").first).to_be_visible()


def test_failed_check_can_be_read_with_its_threshold(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/segments?view=checks&checkDetail=quarantine_rate")
    expect(page.get_by_text("Less than half of the windows are quarantined").first).to_be_visible()
    expect(page.get_by_text("sim-restless").first).to_be_visible()
    expect(page.get_by_text("Failed").first).to_be_visible()
    expect(page.locator("tr", has_text="quarantine_rate").get_by_text("0.75").first).to_be_visible()
    expect(page.locator("tr", has_text="threshold").get_by_text("0.5").first).to_be_visible()


def test_reason_of_a_quarantine_can_be_read(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/segments?view=partitions&partition=sim-restless")
    reasons = page.locator("tr", has_text="quarantined_by_reason").first
    expect(reasons.get_by_text("motion").first).to_be_visible()
    expect(reasons.get_by_text("6").first).to_be_visible()
    expect(page.get_by_text("quarantine/sim-restless.parquet").first).to_be_visible()


def test_materialization_started_by_a_click_finishes(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/written_report")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("View", exact=True).first.click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=120_000)


def test_backfill_can_be_started(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/raw_recordings")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog").or_(page.locator("[class*=Dialog]")).first
    dialog.get_by_role("button", name="All", exact=True).click()
    expect(dialog.get_by_text("3 partitions").first).to_be_visible()
    dialog.get_by_role("button", name="Launch backfill").click()
    page.goto(f"{ui}/runs?view=backfills")
    expect(page.get_by_text("raw_recordings").first).to_be_visible()
