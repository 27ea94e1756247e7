"""Dagster's UI and daemon on a home, a browser that looks at it, and batches that give it something to show."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Page, expect, sync_playwright

from accelkd.home.layout import Home
from accelkd.recordings.batches import MANIFEST, writing_batch
from tests.support import REPOSITORY
from tests.support.processes import environment

TIMEOUT_MS = 60_000  # a busy machine draws slowly
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def dagster_dev(home: Home) -> Iterator[str]:
    """What `make ui` starts (webserver, daemon and code server) on a home and another port, until the block ends.

    Yields its address.
    """
    address = f"http://127.0.0.1:{(port := free_port())}"
    log = (home.root / "dagster" / "dagster-dev.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.ui", "--port", str(port), "--end-with-parent"],
        cwd=REPOSITORY,
        env=environment(home),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"{address}/server_info"):
            assert process.poll() is None, f"dagster dev ended by itself: {log.name}"
            assert time.monotonic() < deadline, f"dagster dev did not answer within five minutes: {log.name}"
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


@contextmanager
def browser(width: int = 1600, height: int = 1000, address: str | None = None) -> Iterator[Page]:
    """A page of Debian's Chromium that waits up to a minute for what it is asked for."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": height}, base_url=address)
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        yield page
        chromium.close()


def land_restless(home: Home, batch_id: str, like: str) -> None:
    """Land eight recordings of the batch `like` again, six of them of wearers who shook their wrists."""
    source = home.batch(like)
    recordings = pq.read_table(sorted((source / "recordings").iterdir())[0]).slice(0, 8)
    rng = np.random.default_rng(0)
    rows = recordings.select([name for name in recordings.column_names if name != "ppg" and name != "dark"]).to_pylist()
    for number, row in enumerate(rows):
        row["recording_id"] = f"{row['recording_id']}-{batch_id}"
        if number % 4:
            row["accel"] = [(np.asarray(axis) + 0.2 * rng.standard_normal(len(axis))).tolist() for axis in row["accel"]]
    changed = pa.Table.from_pylist(rows)
    for name in ("ppg", "dark"):
        changed = changed.append_column(recordings.schema.field(name), recordings.column(name))
    with writing_batch(home.landing, batch_id, source="simulation") as batch:
        batch.add("recordings", changed)
        batch.add("participants", pq.read_table(source / "participants.parquet"))


def land_damaged(home: Home, batch_id: str, like: str) -> None:
    """Land a copy of the batch `like` that lacks a file of its manifest."""
    with tempfile.TemporaryDirectory(prefix=".", dir=home.landing) as scratch:
        copy = Path(shutil.copytree(home.batch(like), Path(scratch) / batch_id))
        manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
        (copy / MANIFEST).write_text(json.dumps({**manifest, "batch_id": batch_id}), encoding="utf-8")
        (copy / "participants.parquet").unlink()
        copy.rename(home.landing / batch_id)


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
    return True
