"""The Dagster UI in a real browser, on the home that the pipeline ran on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.conftest import REPOSITORY, Home

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="Chromium is not installed: `apt-get install chromium`"
)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def ui(home: Home) -> Iterator[str]:
    """Address of a `dagster dev` that serves the home."""
    address = f"http://127.0.0.1:{(port := _free_port())}"
    environment = {**os.environ, "ACCELKD_HOME": str(home.lake.root), "DAGSTER_HOME": str(home.dagster_home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "--workspace", "workspace.yaml", "--port", str(port)],
        cwd=REPOSITORY,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
                break
            except (urllib.error.URLError, TimeoutError):
                assert process.poll() is None, "dagster dev ended by itself"
                assert time.monotonic() < deadline, "dagster dev did not answer within two minutes"
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1600, "height": 1000})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def test_graph_shows_every_group(ui: str, page: Page) -> None:
    page.goto(f"{ui}/asset-groups")
    for group in ("recordings", "segments", "cohort", "encoders", "embeddings", "reports", "warehouse"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()


def test_figure_of_a_report_is_drawn(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/accel_student_probes")
    page.get_by_text("predicted_against_measured").first.wait_for()
    page.get_by_text("Show Markdown").first.click()
    figure = page.locator("img[src^='data:image/png']").first
    expect(figure).to_be_visible()
    assert figure.evaluate("image => image.naturalWidth") > 300


def test_check_with_its_numbers_can_be_read(ui: str, page: Page) -> None:
    page.goto(f"{ui}/assets/participant_split?view=checks&checkDetail=split_is_disjoint")
    expect(page.get_by_text("on_both_sides").first).to_be_visible()
    expect(page.get_by_text("Passed").first).to_be_visible()
