"""Take the pictures of docs/operations.md and README.md, on a copy of a home on which the whole pipeline has run.

    ACCELKD_HOME=some/home python -m tests.e2e.screenshots docs/images

More arguments name the pictures to take, instead of all. Lands two batches in the copy: one that moved too much, and
one that lacks a file.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from accelkd.home.layout import Home
from tests.support import REPOSITORY
from tests.support.homes import copy_home
from tests.support.pipeline import materialize_batch, opened_instance
from tests.support.ui import browser, dagster_dev, land_damaged, land_restless

COLOURS = 64  # of a palette: a quarter of the bytes, and nobody sees it

SHORTEN = """([home, repository]) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        text.data = text.data.replaceAll(home, ".accelkd").replaceAll(repository + "/", "");
    }
}"""


def graph(page: Page) -> None:
    page.goto("/asset-groups")
    nodes = page.locator("svg foreignObject")
    for group in ("recordings", "segments", "cohort", "encoders", "embeddings", "reports", "warehouse"):
        nodes.get_by_text(group, exact=True).first.click()
    nodes.get_by_text("publish").first.wait_for()
    page.get_by_text("Hide navigation").click()
    page.set_viewport_size({"width": 2200, "height": 1500})
    page.reload()  # which fits what is unfolded into the page
    nodes.get_by_text("publish").first.wait_for()
    page.wait_for_timeout(60_000)  # for the colours of what is materialized: on a busy machine they come one by one


def landing(page: Page) -> None:
    page.goto("/assets/raw_recordings?view=checks&checkDetail=landing_zone")
    page.get_by_text("Show Markdown").first.click()


def quarantine(page: Page) -> None:
    page.goto("/assets/segments?view=partitions&partition=restless")
    page.get_by_text("quarantined_by_reason").first.wait_for()


def failed_check(page: Page) -> None:
    page.goto("/assets/segments?view=checks&checkDetail=quarantine_rate")
    page.get_by_text("Failed").first.wait_for()


def columns(page: Page) -> None:
    page.goto("/assets/participant_split")
    page.locator("tr", has_text="columns").get_by_text("Show Table Schema").click()
    page.get_by_text("← segment_tables").first.wait_for()


def asset_page(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/assets/accel_student_probes")
    page.get_by_text("hr_bpm_mae").first.wait_for()
    page.get_by_text(" ago").first.wait_for()


def failed_run(page: Page) -> None:
    page.goto("/runs?q[0]=tag%3Adagster%2Fpartition%3Ddamaged")
    page.get_by_role("link", name="View", exact=True).first.click()
    page.get_by_text("Failed: batch").first.wait_for()


def backfill(page: Page) -> None:
    page.goto("/assets/segments")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_role("button", name="Launch backfill")).to_be_enabled()


def promotion(page: Page) -> None:
    page.goto("/assets/promoted_encoders?view=checks&checkDetail=probes")
    page.get_by_text("Show Markdown").first.click()


def probe_report(page: Page) -> None:
    page.set_viewport_size({"width": 1840, "height": 800})  # the figure is as wide as four fifths of it
    page.goto("/assets/accel_student_probes")
    page.locator("tr", has_text="predicted_against_measured").get_by_text("Show Markdown").first.click()
    page.locator("img[src^='data:image/png']").first.wait_for()


def automation(page: Page) -> None:
    page.goto("/automation")
    page.get_by_text("weekly_retraining").first.wait_for()
    page.get_by_text("Standard sensor").first.wait_for()


PICTURES: dict[str, Callable[[Page], None]] = {
    "asset-graph": graph,  # by itself, before anything fails
    "landing-zone": landing,
    "quarantine": quarantine,
    "failed-check": failed_check,
    "columns": columns,
    "asset-page": asset_page,
    "failed-run": failed_run,
    "backfill": backfill,
    "promotion": promotion,
    "probe-report": probe_report,
    "automation": automation,
}


def shoot(address: str, home: Path, folder: Path, names: Sequence[str]) -> None:
    """Write each picture as a small PNG; no path says where home and repository lie."""
    with browser(1280, 760, address) as page:
        for name in names:
            page.set_viewport_size({"width": 1280, "height": 760})
            PICTURES[name](page)
            page.wait_for_timeout(2_000)  # for icons and placeholders to settle; the page never stops asking
            page.evaluate(SHORTEN, [str(home), str(REPOSITORY)])
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS)
            picture.save(folder / f"{name}.png", optimize=True)


def main() -> None:
    source, folder = Home.from_environment(), Path(sys.argv[1])
    names = sys.argv[2:] or list(PICTURES)
    with tempfile.TemporaryDirectory() as scratch:
        home = copy_home(source, Path(scratch) / "home")
        if "asset-graph" in names:
            with dagster_dev(home) as address:
                shoot(address, home.root, folder, ["asset-graph"])
        like = min(path.name for path in home.landing.iterdir() if not path.name.startswith("."))
        land_restless(home, "restless", like)
        with opened_instance(home) as instance:
            assert materialize_batch(home, instance, "restless").success
        land_damaged(home, "damaged", like)
        with opened_instance(home) as instance:
            assert not materialize_batch(home, instance, "damaged").success
            instance.delete_dynamic_partition("arrival_batch", "damaged")
        with dagster_dev(home) as address:
            shoot(address, home.root, folder, [name for name in names if name != "asset-graph"])


if __name__ == "__main__":
    main()
